"""The contents of the views, computed in NumPy and ml_dtypes from the arrays of the source.

Shares nothing with the program or with torch. Scales may be grids over blocks, one
value per row, or one value.
"""

import re

import ml_dtypes
import numpy as np

OUT = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32}
EXPERT = re.compile(r"(.*layers\.\d+\.mlp\.experts\.)(\d+)\.(gate_proj|up_proj|down_proj)\.weight$")
SUFFIXES = ("_scale_inv", "_scale")


def dequantize(codes, scale, out, block=(128, 128)):
    """round(float32(code) × scale): the product is float32, then one rounding to out."""
    scale = np.asarray(scale).astype(np.float32)
    if scale.ndim == 2 and codes.ndim == 2 and scale.shape[1] != 1:
        rows = np.arange(codes.shape[0]) // block[0]
        cols = np.arange(codes.shape[1]) // block[1]
        scale = scale[np.ix_(rows, cols)]
    elif scale.ndim >= 1 and scale.size > 1:
        grid = scale.shape[0] != codes.shape[0]
        scale = scale.reshape(-1)[np.arange(codes.shape[0]) // (block[0] if grid else 1)][:, None]
    else:
        scale = scale.reshape(())
    with np.errstate(over="ignore", invalid="ignore"):
        return (codes.astype(np.float32) * scale).astype(out)


def scale_of(key, tensors):
    return next((key + s for s in SUFFIXES if key + s in tensors), None)


def hf(tensors, dtype="bf16", block=(128, 128)):
    """The same keys, dequantized, without scales."""
    scales = {scale_of(k, tensors) for k in tensors} - {None}
    dropped = ("input_scale", "activation_scale", "k_scale", "v_scale")
    out = {}
    for key, a in tensors.items():
        if key in scales or key.endswith(dropped):
            continue
        scale = scale_of(key, tensors)
        out[key] = dequantize(a, tensors[scale], OUT[dtype], block) if scale else a
    return out


def share(n, rank, size):
    """The experts of an expert-parallel rank."""
    q, rem = divmod(n, size)
    lo = rank * q + min(rank, rem)
    return range(lo, lo + q + (rank < rem))


def grouped(tensors, dtype="bf16", layout="native", rank=0, size=1, block=(128, 128)):
    """Experts merged as the native or the transformers layout has them."""
    out, experts = {}, {}
    for key, a in hf(tensors, dtype, block).items():
        m = EXPERT.match(key)
        if m is None:
            out[key] = a
        else:
            experts.setdefault(m[1], {}).setdefault(m[3], {})[int(m[2])] = a.astype(OUT[dtype])
    for prefix, p in experts.items():
        mine = share(len(p["up_proj"]), rank, size)
        if not mine:
            continue
        if layout == "native":
            both = [np.concatenate([p["gate_proj"][e].T, p["up_proj"][e].T], 1) for e in mine]
            out[prefix + "gate_and_up_projs"] = np.stack(both)
            out[prefix + "down_projs"] = np.stack([p["down_proj"][e].T for e in mine])
        else:
            both = [np.concatenate([p["gate_proj"][e], p["up_proj"][e]], 0) for e in mine]
            out[prefix + "gate_up_proj"] = np.stack(both)
            out[prefix + "down_proj"] = np.stack([p["down_proj"][e] for e in mine])
    return out
