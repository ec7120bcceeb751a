"""hf-fp8 of every golden format: codes and scales from float32 values, whatever --dtype says."""

import json
import pathlib

import ml_dtypes
import numpy as np

from checks import check, expect
from container import read, read_all, same
from mounts import mount

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "formats"
FP8 = np.dtype(ml_dtypes.float8_e4m3fn)
OUT = {"bf16": ml_dtypes.bfloat16, "f16": np.float16}


def goldens():
    """The view in three dtypes, from the values of the hf view in float32."""
    folders = [p.parent for p in sorted(GOLDEN.glob("*/expected.json")) if (p.parent / "config.json").exists()]
    expect(len(folders) > 50, f"only {len(folders)} goldens")
    for folder in folders:
        with check(f"hf-fp8 of {folder.name}"):
            expected = json.loads((folder / "expected.json").read_text())["hf"]
            stored = {}
            for path in folder.glob("*.safetensors"):
                stored |= read(path, aligned=False)
            with mount(folder, "--layout", "hf,hf-fp8", "--dtype", "f32") as point:
                values, exact = read_all(point / "hf"), read_all(point / "hf-fp8")
            values = dict(apart(values, exact))
            quantized_from(values, exact, stored, expected, np.float32)
            for dtype, out in OUT.items():
                with mount(folder, "--layout", "hf-fp8", "--dtype", dtype) as point:
                    quantized_from(values, read_all(point), stored, expected, out)


def apart(values, got):
    """The projections of each expert, of tensors that the view does not show whole."""
    for key, a in values.items():
        path, _, name = key.rpartition(".")
        if key in got or a.ndim != 3:
            yield key, a
            continue
        for e, expert in enumerate(a):
            parts = {name: expert}
            if name == "gate_up_proj":
                parts = dict(zip(("gate_proj", "up_proj"), np.split(expert, 2)))
            for part, matrix in parts.items():
                yield f"{path}.{e}.{part}.weight", matrix


def passes(key, got, stored):
    """Whether the source has the same codes, in blocks of 128 x 128: then its scales pass too."""
    source = stored.get(key)
    if source is None or source.dtype != FP8 or not same(got[key], source):
        return False
    names = (key + "_scale_inv", key + "_scale", key.removesuffix("weight") + "scale")
    scale = next(stored[n] for n in names if n in stored)
    return np.array_equal(scale.astype(np.float32).ravel(), got[key + "_scale_inv"].astype(np.float32).ravel())


def quantized_from(values, got, stored, expected, out):
    """Each tensor is quantized, or passes, or is decoded to the dtype of the view."""
    scales = {k + "_scale_inv" for k in values if k + "_scale_inv" in got}
    expect(got.keys() - scales == values.keys(), f"names differ: {sorted(got.keys() ^ values.keys() ^ scales)[:3]}")
    for key, a in values.items():
        if key + "_scale_inv" in scales and passes(key, got, stored):
            continue
        if key + "_scale_inv" in scales:
            codes, scale = quantize(a)
            expect(same(got[key + "_scale_inv"], scale), f"{key}: scales differ")
            expect(same(got[key], codes), f"{key}: codes differ")
            continue
        with np.errstate(over="ignore"):
            want = a if "sha256" in expected[key] else a.astype(out)
        expect(got[key].dtype == want.dtype and same(got[key], want), f"{key} differs")


def quantize(a, block=128):
    """Codes and scales: the largest finite magnitude of a block is 448. Infinities saturate."""
    a = a.astype(np.float32)
    rows, cols = (-(-n // block) for n in a.shape)
    codes, scales = np.empty(a.shape, FP8), np.empty((rows, cols), np.float32)
    for i in range(rows):
        for j in range(cols):
            part = np.s_[i * block : (i + 1) * block, j * block : (j + 1) * block]
            finite = np.abs(a[part])[np.isfinite(a[part])]
            amax = finite.max(initial=np.float32(0))
            scales[i, j] = max(amax / np.float32(448), np.float32(2.0**-126))
            codes[part] = np.clip(a[part] / scales[i, j], -448, 448).astype(FP8)
    return codes, scales
