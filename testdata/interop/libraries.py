"""The libraries that read quantized checkpoints, against NumPy and against the views.

Each reader takes the tensors of one stored weight and gives the library's own result in a dtype.
Where a library is known to differ, `known` says its exact values, computed in NumPy: another
difference fails. A child runs in the virtual environment that its suite names.
"""

import contextlib
import functools
import importlib.util
import os
import pathlib
import re
import sys
import tempfile
import types

import numpy as np

import quantized
from checks import check, expect
from container import bits, differences, read_all
from mounts import mount

SEEDS = int(os.environ.get("DEQUANTFS_CONFIGURATIONS", "20"))
SOURCES = os.environ.get("DEQUANTFS_SOURCES", "")  # unpacked source packages


def torch_of(a):
    """A torch tensor with the bytes of an array."""
    import torch

    kinds = {"bfloat16": "bfloat16", "float8_e4m3fn": "float8_e4m3fn", "float8_e8m0fnu": "float8_e8m0fnu"}
    dtype = getattr(torch, kinds.get(a.dtype.name, a.dtype.name))
    if not a.size:
        return torch.empty(a.shape, dtype=dtype)
    return torch.frombuffer(bytearray(np.ascontiguousarray(a).tobytes()), dtype=dtype).reshape(a.shape)


def array_of(tensor, dtype):
    """The array with the bytes of a torch tensor, which must have that dtype."""
    import torch

    expect(tensor.dtype == torch_dtype(dtype), f"the library gives {tensor.dtype}, not {dtype}")
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return raw.view(quantized.DTYPES[dtype]).reshape(tuple(tensor.shape))


def torch_dtype(dtype):
    import torch

    return {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[dtype]


def local(module):
    """The tensors of a stored weight by the last part of their name."""
    return {k.lstrip("._"): torch_of(a) for k, a in module.tensors.items()}


# --- readers: reader(case, module, dtype) gives a tensor -------------------------------


def transformers_mxfp4(case, module, dtype):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    t = local(module)
    return convert_moe_packed_tensors(t["blocks"], t["scales"], dtype=torch_dtype(dtype))


def scheme(case):
    from compressed_tensors.quantization import QuantizationScheme

    return QuantizationScheme(**{k: v for k, v in case.config["config_groups"]["group_0"].items() if k != "format"})


def compressed_tensors(case, module, dtype):
    from compressed_tensors.compressors import BaseCompressor

    compressor = BaseCompressor.get_value_from_registry(case.config["format"])
    return compressor.decompress(local(module), scheme(case))["weight"]


def compressed_13(case, module, dtype):
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs

    args = QuantizationArgs(**case.config["config_groups"]["group_0"]["weights"])
    return BaseCompressor.load_from_registry(case.config["format"]).decompress_weight(local(module), args)


@functools.cache
def source(package, *modules):
    """The last of these modules of a source package, without what its __init__ imports."""
    (root,) = pathlib.Path(SOURCES).glob(f"{package}-*")
    out = []
    for name in modules:
        parts = name.split(".")
        for n in range(1, len(parts)):
            parent = ".".join(parts[:n])
            if parent not in sys.modules:
                sys.modules[parent] = types.ModuleType(parent)
                sys.modules[parent].__path__ = [str(root.joinpath(*parts[:n]))]
        spec = importlib.util.spec_from_file_location(name, root.joinpath(*parts).with_suffix(".py"))
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        out.append(module)
    return out[-1]


def autoawq(case, module, dtype):
    t = local(module)
    size = case.config["group_size"] if case.config["group_size"] > 0 else t["qweight"].shape[0]
    unpack = source("autoawq", "awq.utils.packing_utils").dequantize_gemm
    return unpack(t["qweight"], t["qzeros"], t["scales"], 4, size).T


def gptqmodel(case, module, dtype):
    import logging

    import safetensors.torch

    # Two of its modules import packages that dequantizing does not need.
    sys.modules["gptqmodel.utils.logger"] = types.SimpleNamespace(setup_logger=logging.getLogger)
    sys.modules["gptqmodel.utils.torch"] = types.SimpleNamespace(HAS_NPU=False)
    parts = "gptqmodel.utils.planar_packing", "gptqmodel.quantization.dtype", "gptqmodel.utils.model_dequant"
    convert = source("gptqmodel", *parts).convert_gptq_file
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "model.safetensors"
        safetensors.torch.save_file({"x." + k: v for k, v in local(module).items()}, path)
        config = module.more["config"] | {"bits": module.more["bits"]}
        return convert(path, torch_dtype(dtype), config, "cpu")["x.weight"]


def bitsandbytes_4bit(case, module, dtype):
    """The path in torch. The compiled one is wrong for some shapes, and has the map in its code."""
    import torch
    from bitsandbytes.backends.default import ops
    from bitsandbytes.functional import QuantState

    t = {k: v for k, v in local(module).items() if k != "weight"}
    state = QuantState.from_dict({k.removeprefix("weight."): v for k, v in t.items()}, torch.device("cpu"))
    most = state.absmax
    if state.nested:
        inner = state.state2
        most = ops._dequantize_blockwise_compute(most, inner.absmax, inner.code, inner.blocksize, inner.dtype)
        most += state.offset
    codes = local(module)["weight"].view(torch.uint8).reshape(-1)
    return ops._dequantize_4bit_compute(codes, most, state.code, state.blocksize, state.shape, state.dtype)


def bitsandbytes_8bit(case, module, dtype):
    from bitsandbytes.functional import int8_vectorwise_dequant

    t = local(module)
    return int8_vectorwise_dequant(t["weight"], t["SCB"])


def modelopt_nvfp4(case, module, dtype):
    import torch
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    t = local(module)
    q = NVFP4QTensor(torch.Size(module.more["shape"]), torch_dtype(dtype), t["weight"])
    scales = {"scale": t["weight_scale"], "double_scale": t["weight_scale_2"], "block_sizes": {-1: 16}}
    return q.dequantize(torch_dtype(dtype), **scales)


def modelopt_fp8(case, module, dtype):
    from modelopt.torch.quantization.qtensor import FP8QTensor

    t = local(module)
    q = FP8QTensor(t["weight"].shape, torch_dtype(dtype), t["weight"])
    return q.dequantize(torch_dtype(dtype), scale=t["weight_scale"])


def modelopt_mxfp8(case, module, dtype):
    from modelopt.torch.quantization.qtensor import MXFP8QTensor

    t = local(module)
    q = MXFP8QTensor(t["weight"].shape, torch_dtype(dtype), t["weight"])
    return q.dequantize(torch_dtype(dtype), scale=t["weight_scale"])


AUTOMODEL = "nemo_automodel.components.models."


def deepseek_v4_fp8(case, module, dtype):
    adapter = importlib.import_module(AUTOMODEL + "deepseek_v3.state_dict_adapter")
    t = local(module)
    return adapter.dequantize_from_fp8(t["weight"], t["scale"], dtype=torch_dtype(dtype))


def deepseek_v4_fp4(case, module, dtype):
    adapter = importlib.import_module(AUTOMODEL + "deepseek_v4.state_dict_adapter")
    t = local(module)
    return adapter.DeepSeekV4StateDictAdapter._dequantize_expert_fp4(t["weight"], t["scale"], torch_dtype(dtype))


def deepseek_v41(case, module, dtype):
    adapter = importlib.import_module(AUTOMODEL + "deepseek_v41.state_dict_adapter")
    t = local(module)
    return adapter.dequantize_checkpoint_weight(t["weight"], t["scale"], dtype=torch_dtype(dtype))


def minimax_m3(case, module, dtype):
    adapter = importlib.import_module(AUTOMODEL + "minimax_m3_vl.state_dict_adapter")
    t = local(module)
    return adapter.dequantize_mxfp8(t["weight"], t["weight_scale_inv"], dtype=torch_dtype(dtype))


# --- what libraries are known to give instead ------------------------------------------


def infinite(module):
    """Exponent 255 is 2^128, so infinity: 0 times it is NaN."""
    e = module.more["element"]
    return np.where(module.more["exponent"] == 255, quantized.times(e, np.inf), module.values)


def known(case, module, dtype):
    """The values of the library in the dtype."""
    values = module.values
    if case.library == "transformers_mxfp4":
        # ldexp shifts the exponent, so only codes from 1 up overflow.
        big = np.ldexp(module.more["element"].astype(np.float64), 128)
        with np.errstate(all="ignore"):
            values = np.where(module.more["exponent"] == 255, big.astype(np.float32), values)
    elif case.library == "compressed_tensors" and "exponent" in module.more:
        values = infinite(module)
    elif case.library in ("modelopt_mxfp8", "minimax_m3"):
        values = infinite(module)
    elif case.library == "deepseek_v4_fp4":
        e = module.more["element"]
        values = np.where(module.more["exponent"] == 0, quantized.times(e, 0), infinite(module))
    elif case.library == "modelopt_fp8":
        # The scale is rounded to the dtype before it multiplies.
        values = quantized.times(module.more["element"], quantized.view(module.more["scale"], dtype))
    values = module.more.get("library", values)
    if case.computes:
        values = quantized.view(values, case.computes).astype(np.float32)
    return quantized.view(values, dtype)


# --- checks ----------------------------------------------------------------------------


def compare(made, key, dtype, view):
    """One weight of a view against its library. Gives how many elements differ as is known."""
    module = made.modules[key]
    want = known(made.case, module, dtype)
    if unreadable(made.case, module):
        with contextlib.suppress(RuntimeError):
            READERS[made.case.library](made.case, module, dtype)
            expect(False, f"{key}: the library can read one row of packed zero points now")
        return 0
    got = READERS[made.case.library](made.case, module, dtype)
    if made.case.computes:
        array_of(got, made.case.computes)
        got = got.to(torch_dtype(dtype))
    got = array_of(got, dtype)
    expect(got.shape == want.shape, f"{key}: the library gives {got.shape}, the rule {want.shape}")
    wrong = unequal(want, got)
    expect(not wrong.any(), f"{key}, {dtype}: the library is not as known: {describe(wrong, want, got)}")
    rule = quantized.view(module.values, dtype)
    wrong = unequal(rule, view)
    expect(not wrong.any(), f"{key}, {dtype}: the view: {describe(wrong, rule, view)}")
    return int(unequal(got, view).sum())


def unreadable(case, module):
    """compressed-tensors 0.20.1 fails where INT4 zero points of groups are one row of words."""
    zero, bits = module.tensors.get(".weight_zero_point"), module.more.get("bits")
    return case.library == "compressed_tensors" and bits == 4 and zero is not None and zero.shape[0] == 1 < zero.shape[1]


# Formats whose library is known to give other values.
DIFFERENT = (
    "gpt_oss",
    "ct_mxfp4",
    "ct_mxfp8",
    "modelopt_fp8",
    "modelopt_mxfp8",
    "deepseek_v4_fp4",
    "minimax_m3",
    "gptq4_sym_stores_8",
    # The library computes in the F16 of the scales. Its values, cast to BF16, are rounded twice.
    "awq",
    "ct_fp8",
    "ct_int4",
    "ct_int4_asym",
    "ct_int4_channel",
    "ct_int4_g_idx",
    "ct_int8",
    "ct_int8_asym",
    "ct_int8_pack",
    "kimi_k2",
)


def unequal(a, b):
    """Where two arrays have other bits. NaN equals NaN."""
    return (bits(a) != bits(b)) & ~(np.isnan(a.astype(np.float32)) & np.isnan(b.astype(np.float32)))


def describe(wrong, a, b):
    where = tuple(int(i[0]) for i in np.nonzero(wrong)) if wrong.any() else ()
    return f"{wrong.sum()} of {a.size} differ, at {where} {a[where] if where else ''} and {b[where] if where else ''}"


def views(made, directory):
    """The views of a written checkpoint, which are what NumPy computes.

    The dtypes are those of the library, and one that changes with the seed.
    """
    out = {}
    for dtype in {*made.dtypes, list(quantized.DTYPES)[made.seed % 3]}:
        with mount(directory, "--layout", "hf", "--dtype", dtype) as point:
            got = {k: np.array(a) for k, a in read_all(point).items()}
        lines = differences(made.view(dtype), got)
        expect(not lines, f"{dtype}: {len(lines)} differences: " + "; ".join(lines[:4]))
        out[dtype] = got
    return out


def computed(made, directory):
    """In place of views, the values of NumPy: for libraries and NumPy alone."""
    return {dtype: made.view(dtype) for dtype in quantized.DTYPES}


def run(name, made_views=views):
    """All seeds of one format."""
    apart, compared = 0, 0
    for seed in range(SEEDS):
        with check(f"{name} {seed}"), tempfile.TemporaryDirectory() as directory:
            made = quantized.make(name, seed)
            made.write(directory, 1 + seed % 2)
            got = made_views(made, directory)
            for dtype in made.dtypes if made.case.library else ():
                for key, module in made.modules.items():
                    apart += compare(made, key, dtype, got[dtype][key + module.suffix])
                    compared += module.values.size
    if compared:
        with check(f"{name}: {apart} of {compared} values differ from the library, as is known"):
            expect(apart == 0 or name in DIFFERENT, "the library is not known to differ")
            expect(apart > 0 or name not in DIFFERENT or SEEDS < 20, "the library no longer differs")


READERS = {
    reader.__name__: reader
    for reader in (
        transformers_mxfp4,
        compressed_tensors,
        compressed_13,
        autoawq,
        gptqmodel,
        bitsandbytes_4bit,
        bitsandbytes_8bit,
        modelopt_nvfp4,
        modelopt_fp8,
        modelopt_mxfp8,
        deepseek_v4_fp8,
        deepseek_v4_fp4,
        deepseek_v41,
        minimax_m3,
    )
}
# The formats of one child process each: `libraries.awq()` and so on. A library is imported once.
GROUPS = {
    "transformers": ("gpt_oss",),
    "compressed": tuple(f for f in quantized.FORMATS if f.startswith("ct_") and f != "ct_int4_g_idx") + ("kimi_k2",),
    "awq": ("awq",),
    "gptq4": tuple(f for f in quantized.FORMATS if f.startswith("gptq4")),
    "gptq": tuple(f for f in quantized.FORMATS if f.startswith("gptq") and f[4] != "4") + ("auto_round",),
    "bitsandbytes": tuple(f for f in quantized.FORMATS if f.startswith("bnb")),
    "modelopt": tuple(f for f in quantized.FORMATS if f.startswith("modelopt")),
    "automodel": tuple(f for f in quantized.FORMATS if f.startswith("deepseek")) + ("minimax_m3", "quark_mxfp4"),
}


def group(names):
    for name in names:
        run(name)
        teeth(name)


STORED = re.compile(r".*(weight|packed|qweight|blocks)$")


def teeth(name):
    """The checks of a format fail for a wrong bit in a view, in a source, and for a library."""
    made = quantized.make(name, 0)
    key, module = next((k, m) for k, m in made.modules.items() if np.isfinite(m.values).any())
    if made.case.library:
        with check(f"{name}: one wrong bit is seen"):
            dtype = made.case.dtypes[0]
            right = quantized.view(module.values, dtype)
            compare(made, key, dtype, right)
            wrong = bits(right).copy()
            wrong.reshape(-1)[np.flatnonzero(np.isfinite(right.astype(np.float32)))[0]] ^= 1
            refused(compare, made, key, dtype, wrong.view(right.dtype))
            stored = next(k for k in module.tensors if STORED.match(k))
            module.tensors[stored] = flipped(module.tensors[stored])
            refused(compare, made, key, dtype, right)
    with check(f"{name}: one wrong bit in a source is seen"), tempfile.TemporaryDirectory() as directory:
        made = quantized.make(name, 0)
        stored = next(k for k in made.tensors if STORED.match(k) and k not in made.plain)
        made.tensors[stored] = flipped(made.tensors[stored])
        made.write(directory)
        refused(views, made, directory)


def flipped(a):
    """An array with one other bit in each byte: some codes may be multiplied by zero."""
    return (np.frombuffer(a.tobytes(), np.uint8) ^ 1).view(a.dtype).reshape(a.shape)


def refused(checking, *args):
    try:
        checking(*args)
    except AssertionError:
        return
    raise AssertionError("the check passed")


for _name, _formats in GROUPS.items():
    setattr(sys.modules[__name__], _name, functools.partial(group, _formats))
g_idx = functools.partial(group, ("ct_int4_g_idx",))
