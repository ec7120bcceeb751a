"""Seeded checkpoints of quantized formats with edge codes and scales, and their values in NumPy.

Each function of FORMATS takes a Draw and returns a Case. The values are computed element by element
in float32: each operation rounds once, in the order of the format's rule. `view` rounds them once
more, to the dtype of the view. Nothing is shared with the program or with a library.
"""

import dataclasses
import json
import pathlib
import typing

import ml_dtypes
import numpy as np

import container

BF16, E4M3 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)
E8M0 = np.dtype(ml_dtypes.float8_e8m0fnu)
F16, F32, U8, I8, I32 = (np.dtype(x) for x in ("f2", "f4", "u1", "i1", "i4"))
NAMES = {BF16: "bf16", F16: "f16", F32: "f32"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
E2M1 = np.float32([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
E2M1_PLUS = np.where(np.arange(16) == 8, np.float32(0), E2M1)  # ModelOpt and DeepSeek: code 8 is +0
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


@dataclasses.dataclass
class Module:
    """One stored weight: its tensors by the end of their key, and its values in float32."""

    tensors: dict
    values: np.ndarray
    suffix: str = ".weight"  # of its key in the view
    more: dict = dataclasses.field(default_factory=dict)  # what its library must be told, or makes of it


@dataclasses.dataclass
class Case:
    """How the weights of a checkpoint are stored, and which library reads them."""

    config: dict | None  # of the quantization
    module: typing.Callable  # module(draw, shape) gives a Module
    shape: typing.Callable  # shape(draw) gives rows and columns
    library: str = ""  # the function of libraries.py; empty: NumPy is the only oracle
    dtypes: tuple = ("bf16",)  # in which the library is compared
    computes: str = ""  # the dtype of the library, which is then cast; empty: it can give each
    plain: np.dtype = BF16
    files: dict = dataclasses.field(default_factory=dict)  # JSON beside config.json
    names: tuple = ()  # of the modules
    model: dict = dataclasses.field(default_factory=dict)  # further fields of config.json


class Draw:
    """Random codes and scales of one seed. With edges, they hold the values where rules differ."""

    def __init__(self, seed, edges=True):
        self.rng = np.random.default_rng(list(str(seed).encode()))
        self.edges = edges
        self.special = edges and self.rng.random() < 0.2  # infinities and NaN too

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def size(self, multiple, most=160):
        """A number of rows or columns."""
        return int(multiple * self.rng.integers(1, max(1, most // multiple) + 1))

    def codes(self, shape, bits):
        """Unsigned codes. Every code is there if there is room."""
        a = self.rng.integers(0, 1 << bits, shape)
        if a.size >= 1 << bits:
            a.reshape(-1)[self.rng.choice(a.size, 1 << bits, replace=False)] = np.arange(1 << bits)
        return a

    def fp8(self, shape):
        """Codes of E4M3, the two of NaN only where specials are."""
        a = self.codes(shape, 8).astype(U8)
        return np.where((a & 0x7F == 0x7F) & (not self.special), U8.type(0x81), a).view(E4M3)

    def scales(self, shape, dtype=F32):
        """Small positive scales. With edges also zeros, negative, subnormal and large ones."""
        info = ml_dtypes.finfo(dtype)
        low = max(-12, int(np.log2(float(info.smallest_normal))))
        a = np.exp2(self.rng.uniform(low, -2, shape)).astype(np.float32).astype(dtype)
        if not self.edges:
            return a
        tiny, big, one = info.smallest_subnormal, info.max, dtype.type(1)
        strange = [0.0, -0.0, tiny, -tiny, info.smallest_normal, big, -big, one, dtype.type(-0.0117)]
        if self.special:
            strange += [np.nan] if dtype == E4M3 else [np.nan, np.inf, -np.inf]
        strange = np.array([dtype.type(x) for x in strange], dtype)
        drawn = strange[self.rng.integers(0, len(strange), shape)]
        return np.where(self.rng.random(shape) < 0.25, drawn, a).astype(dtype).reshape(shape)

    def exponents(self, shape, ends=True):
        """Bytes of E8M0. The ends are 2^-127, the largest power, and NaN."""
        a = self.rng.integers(112, 126, shape)
        if self.edges:
            edges = [0, 1, 2, 253, 254, 255] if ends else [1, 2, 253, 254]
            drawn = np.array(edges)[self.rng.integers(0, len(edges), shape)]
            a = np.where(self.rng.random(shape) < 0.25, drawn, a)
        return a.astype(U8)


# --- arithmetic: exact float32 inputs, one rounding for each operation -----------------


def f32(a):
    return np.asarray(a).astype(np.float32)


def power(exponents):
    """2^(s-127) in float32; 255 is NaN."""
    s = np.asarray(exponents).view(U8).astype(np.int32)
    return np.where(s == 255, np.float32(np.nan), np.ldexp(np.float32(1), np.minimum(s, 254) - 127))


def times(a, b):
    with np.errstate(all="ignore"):
        return f32(a) * f32(b)


def scaled(element, exponents, **more):
    """The product of elements and powers of two, and the factors for libraries that differ."""
    return times(element, power(exponents)), more | {"element": f32(element), "exponent": exponents}


def over(a, b):
    with np.errstate(all="ignore"):
        return f32(a) / f32(b)


def groups(scales, columns, size):
    """The scale of each column."""
    return scales[..., np.arange(columns) // size]


def view(values, dtype):
    """The values in the dtype of the view: one rounding."""
    with np.errstate(all="ignore"):
        return values.astype(DTYPES[dtype])


# --- packing ---------------------------------------------------------------------------


def words(fields, bits):
    """Fields of the last axis as little-endian words of 32 bits: one stream, lowest bit first."""
    stream = (fields[..., None] >> np.arange(bits)) & 1
    stream = stream.reshape(*fields.shape[:-1], -1).astype(U8)
    pad = [(0, 0)] * (stream.ndim - 1) + [(0, -stream.shape[-1] % 32)]
    return np.packbits(np.pad(stream, pad), axis=-1, bitorder="little").view("<i4")


def words_down(fields, bits):
    """Fields of the first axis as words."""
    return np.ascontiguousarray(words(np.ascontiguousarray(fields.T), bits).T)


def nibbles(codes):
    """Two codes in a byte, the even column low."""
    return (codes[..., 0::2] | codes[..., 1::2] << 4).astype(U8)


# --- compressed-tensors ----------------------------------------------------------------


def compressed(form, weights, activations=None, **more):
    """The configuration that llm-compressor writes."""
    args = {
        "actorder": None,
        "block_structure": None,
        "dynamic": False,
        "group_size": None,
        "num_bits": 8,
        "observer": "minmax",
        "observer_kwargs": {},
        "scale_dtype": None,
        "strategy": "group",
        "symmetric": True,
        "type": "int",
        "zp_dtype": None,
    } | weights
    group = {
        "format": form,
        "input_activations": activations,
        "output_activations": None,
        "targets": ["Linear"],
        "weights": args,
    }
    return {
        "config_groups": {"group_0": group},
        "format": form,
        "global_compression_ratio": None,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": "0.13.0",
        **more,
    }


def ct_pack(d, bits=4, symmetric=True, channel=False, act_order=False, dtype=None):
    """INT4 and INT8 in words."""
    dtype = dtype or d.pick(BF16, BF16, F32, F16)
    size = None if channel else d.pick(16, 32, 64, 128) if d.edges else 32

    def module(d, shape):
        rows, columns = shape
        count = 1 if channel else columns // size
        scale, code = d.scales((rows, count), dtype), d.codes(shape, bits)
        group = np.zeros(columns, int) if channel else np.arange(columns) // size
        tensors = {
            ".weight_packed": words(code, bits),
            ".weight_scale": scale,
            ".weight_shape": np.array(shape, d.pick("i8", "i4")),
        }
        zero = np.full((rows, count), 1 << bits - 1)
        if not symmetric:
            zero = d.codes((rows, count), bits)
            tensors[".weight_zero_point"] = words_down(zero, bits)
        if act_order:
            group = d.rng.permutation(group)
            tensors[".weight_g_idx"] = group.astype(I32)
        return Module(tensors, times(code - zero[:, group], scale[:, group]), more={"bits": bits})

    weights = {"num_bits": bits, "group_size": size, "symmetric": symmetric}
    weights |= {"strategy": "channel" if channel else "group", "actorder": "group" if act_order else None}
    return Case(
        compressed("pack-quantized", weights),
        module,
        lambda d: (d.size(1), d.size(1) if channel else d.size(size, 256)),
        "compressed_13" if act_order else "compressed_tensors",
        then_bf16(dtype),
        NAMES[dtype],
    )


def then_bf16(dtype):
    """The dtype of the scales, in which a library computes, and BF16 where it is cast to that."""
    return ("f16", "bf16") if dtype == F16 else (NAMES[dtype],)


def ct_int8(d, symmetric=True):
    dtype = d.pick(BF16, F32, F16)
    tensor = d.edges and d.pick(True, False, False)

    def module(d, shape):
        count = 1 if tensor else shape[0]
        scale, code = d.scales((count, 1), dtype), d.codes(shape, 8) - 128
        stored = scale.reshape(1) if tensor else scale
        tensors = {".weight": code.astype(I8), ".weight_scale": stored}
        zero = np.zeros((count, 1), int)
        if not symmetric:
            zero = d.codes((count, 1), 8) - 128
            tensors[".weight_zero_point"] = zero.astype(I8).reshape(stored.shape)
        return Module(tensors, times(code - zero, scale))

    weights = {"strategy": "tensor" if tensor else "channel", "symmetric": symmetric}
    activations = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}
    config = compressed("int-quantized", weights, activations)
    shape = lambda d: (d.size(1), d.size(1))  # noqa: E731
    return Case(config, module, shape, "compressed_tensors", then_bf16(dtype), NAMES[dtype])


def ct_fp8(d):
    dtype = d.pick(BF16, F32, F16)
    kind = d.pick("tensor", "channel", "block")

    def module(d, shape):
        count = {"tensor": (1, 1), "channel": (shape[0], 1), "block": tuple(-(-n // 128) for n in shape)}[kind]
        scale, code = d.scales(count, dtype), d.fp8(shape)
        size = 128 if kind == "block" else shape[0] if kind == "tensor" else 1
        spread = scale[np.arange(shape[0]) // size][:, np.arange(shape[1]) // (128 if kind == "block" else shape[1])]
        stored = scale.reshape(d.pick((1,), ())) if kind == "tensor" else scale
        return Module({".weight": code, ".weight_scale": stored}, times(code, spread))

    weights = {"type": "float", "strategy": kind, "block_structure": [128, 128] if kind == "block" else None}
    form = d.pick("float-quantized", "naive-quantized")
    activations = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
    config = compressed(form, weights, activations)
    shape = lambda d: (d.size(1, 300), d.size(1, 300))  # noqa: E731
    return Case(config, module, shape, "compressed_tensors", then_bf16(dtype), NAMES[dtype])


def ct_nvfp4(d):
    def module(d, shape):
        code, scale = d.codes(shape, 4), d.scales((shape[0], shape[1] // 16), E4M3)
        whole = d.scales((1,)) if d.special else np.float32([d.pick(448.0, 3.75e4, 1.1e-3, 0.3)])
        tensors = {".weight_packed": nibbles(code), ".weight_scale": scale, ".weight_global_scale": whole}
        if d.pick(True, False):
            tensors[".input_global_scale"] = np.float32([0.5])
        return Module(tensors, times(E2M1[code], groups(over(scale, whole), shape[1], 16)))

    weights = {"num_bits": 4, "type": "float", "group_size": 16, "strategy": "tensor_group"}
    weights["scale_dtype"] = "torch.float8_e4m3fn"
    activations = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "dynamic": "local"}
    config = compressed("nvfp4-pack-quantized", weights, d.pick(activations, None))
    return Case(config, module, lambda d: (d.size(1), d.size(16)), "compressed_tensors")


MX = {"type": "float", "group_size": 32, "scale_dtype": "torch.uint8", "zp_dtype": "torch.uint8"}


def ct_mxfp4(d):
    def module(d, shape):
        code, scale = d.codes(shape, 4), d.exponents((shape[0], shape[1] // 32))
        values, more = scaled(E2M1[code], groups(scale, shape[1], 32))
        return Module({".weight_packed": nibbles(code), ".weight_scale": scale}, values, more=more)

    config = compressed("mxfp4-pack-quantized", MX | {"num_bits": 4})
    return Case(config, module, lambda d: (d.size(1), d.size(32)), "compressed_tensors")


def mxfp8(d, name="weight_scale", dtype=U8, multiple=32):
    """E4M3 with a power of two for 32 columns."""

    def module(d, shape):
        code, scale = d.fp8(shape), d.exponents((shape[0], -(-shape[1] // 32)))
        values, more = scaled(code, groups(scale, shape[1], 32))
        return Module({".weight": code, "." + name: scale.view(dtype)}, values, more=more)

    return module, lambda d: (d.size(1), d.size(multiple))


def ct_mxfp8(d):
    activations = {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32, "dynamic": True}
    config = compressed("mxfp8-quantized", MX, activations)
    return Case(config, *mxfp8(d), "compressed_tensors")


def kimi_k2(d):
    """Kimi-K2-Thinking: only experts are packed, and the shape is I32."""
    case = ct_pack(d, dtype=d.pick(BF16, F16))
    case.names = tuple(f"model.layers.1.mlp.experts.{e}.{p}_proj" for e in range(2) for p in ("gate", "down"))
    case.config["ignore"] += [f"re:.*{x}.*" for x in ("self_attn", "shared_experts")]
    return case


# --- transformers' MXFP4 ---------------------------------------------------------------


def gpt_oss(d):
    """Experts of gpt-oss: [E, rows, columns] stored, and transposed in the view."""
    count = d.pick(1, 2, 3, 11)

    def module(d, shape):
        experts, rows, columns = shape
        code, scale = d.codes(shape, 4), d.exponents((experts, rows, columns // 32))
        blocks = nibbles(code).reshape(experts, rows, columns // 32, 16)
        values, more = scaled(E2M1[code].transpose(0, 2, 1), groups(scale, columns, 32).transpose(0, 2, 1))
        return Module({"_blocks": blocks, "_scales": scale}, values, "", more)

    names = tuple(f"model.layers.{i}.mlp.experts.{p}" for i in range(2) for p in ("gate_up_proj", "down_proj"))
    config = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    shape = lambda d: (count, d.size(2, 96), d.size(32))  # noqa: E731
    model = {"model_type": "gpt_oss", "num_local_experts": count}
    return Case(config, module, shape, "transformers_mxfp4", names=names, model=model)


# --- AWQ, GPTQ -------------------------------------------------------------------------


def awq(d):
    size = d.pick(32, 64, 128, -1) if d.edges else 32

    def module(d, shape):
        rows, columns = shape
        each = columns if size == -1 else size
        count = columns // each
        code, zero, scale = d.codes((columns, rows), 4), d.codes((count, rows), 4), d.scales((count, rows), F16)
        group = np.arange(columns) // each
        tensors = {".qweight": words(awq_order(code), 4), ".qzeros": words(awq_order(zero), 4), ".scales": scale}
        return Module(tensors, times(code - zero[group], scale[group]).T)

    config = {
        "bits": 4,
        "group_size": size,
        "modules_to_not_convert": None,
        "quant_method": "awq",
        "version": d.pick("gemm", "GEMM"),
        "zero_point": True,
    }
    shape = lambda d: (d.size(8), d.size(32 if size == -1 else size, 256))  # noqa: E731
    return Case(config, module, shape, "autoawq", ("f16", "bf16"), "f16", F16)


def awq_order(codes):
    """Columns in the order of AWQ's nibbles: nibble j of word w holds column 8w + AWQ_ORDER[j]."""
    return codes.reshape(codes.shape[0], -1, 8)[..., AWQ_ORDER].reshape(codes.shape)


def gptq(d, bits=4, version=1, sym=True, desc_act=False, index=True, stored=None, short=False, method="gptq"):
    size = d.pick(32, 64, 128, -1) if d.edges else 32
    half = 1 << bits - 1

    def module(d, shape):
        rows, columns = shape
        each = columns if size == -1 else size
        count = -(-columns // each)
        code, scale = d.codes((columns, rows), bits), d.scales((count, rows), F16)
        zero = np.full((count, rows), half if version == 2 else half - 1) if sym else d.codes((count, rows), bits)
        zero = zero if stored is None else np.full((count, rows), stored)
        group = np.arange(columns) // each
        if desc_act:
            group = d.rng.permutation(group)
        tensors = {".qweight": words_down(code, bits), ".qzeros": words(zero, bits), ".scales": scale}
        if index:
            tensors[".g_idx"] = group.astype(I32)
        read = zero if version == 2 else (zero + 1) & (1 << bits) - 1
        real = np.full_like(zero, half) if sym else read
        # The library takes what is stored, also where the weight is symmetric.
        more = {"config": config, "bits": bits, "library": times(code - read[group], scale[group]).T}
        return Module(tensors, times(code - real[group], scale[group]).T, more=more)

    config = {
        "bits": bits,
        "damp_percent": 0.01,
        "desc_act": desc_act,
        "group_size": size,
        "quant_method": method,
        "static_groups": False,
        "sym": sym,
        "true_sequential": True,
    }
    form = d.pick("gptq", None) if version == 1 else "gptq_v2"
    config |= {"checkpoint_format": form} if form else {}
    across = 32 // bits if bits != 3 else 32
    down = 32 if short or size == -1 else size
    shape = lambda d: (d.size(across), d.size(down, 256))  # noqa: E731
    library = "gptqmodel" if index else ""
    return Case(config, module, shape, library, ("bf16", "f16", "f32"), plain=F16)


def gptq_alone(d):
    """An older folder: the configuration only in quantize_config.json."""
    case = gptq(d, version=1)
    case.files, case.config = {"quantize_config.json": case.config}, None
    return case


def gptq_bits(d):
    """Each module has its own number of bits, as `dynamic` allows."""
    desc_act = d.pick(True, False)
    kinds = [gptq(d, bits, desc_act=desc_act) for bits in (4, 8, 2)]
    case = kinds[0]
    size = case.config["group_size"]
    bits = d.rng.integers(3, size=len(MODULES))  # of each module, as `dynamic` says
    names = {key: {"bits": (4, 8, 2)[b]} for key, b in zip(MODULES, bits)}
    makers = iter([kinds[b].module for b in bits])

    def module(d, shape):
        return next(makers)(d, shape)

    case.config["dynamic"] = {"+:" + key.replace(".", "\\."): value for key, value in names.items()}
    for kind in kinds:  # one group size for all
        if kind.config["group_size"] != size:
            return gptq_bits(d)
    case.module, case.shape = module, lambda d: (d.size(16), d.size(32 if size == -1 else size, 256))
    return case


def auto_round(d):
    case = gptq(d, index=False, sym=d.pick(True, False), method="auto-round")
    case.config |= {
        "packing_format": "auto_round:auto_gptq",
        "autoround_version": "0.5.1",
        "data_type": "int",
        "iters": 200,
    }
    case.config.pop("checkpoint_format", None)
    return case


# --- bitsandbytes ----------------------------------------------------------------------

# The tables of bitsandbytes 0.50.2, which it writes into every file.
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334]
NF4 += [-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
NF4 += [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
FP4 = [x / 12 for x in (0, 0.0625, 8, 12, 4, 6, 2, 3)]
MAPS = {"nf4": np.float32(NF4), "fp4": np.float32(FP4 + [-x for x in FP4])}


def bnb4(d, kind="nf4", nested=True, storage=U8, foreign=False):
    """4 bit: a map, and a maximum for each block of the flattened weight."""
    out, size = d.pick(BF16, F16, F32), d.pick(32, 64, 64, 128) if d.edges else 64

    def module(d, shape):
        n = shape[0] * shape[1]
        count = -(-n // size)
        code = np.concatenate([d.codes((n,), 4), np.zeros(-n % (2 * storage.itemsize), int)])
        packed = (code[0::2] << 4 | code[1::2]).astype(U8).view(storage)[:, None]
        table = d.scales((16,)) if foreign else MAPS[kind]
        state = {"quant_type": kind, "blocksize": size, "dtype": container_name(out), "shape": list(shape)}
        tensors = {".weight": packed, ".weight.quant_map": table}
        if nested:
            most = nested_maxima(d, tensors, state, count)
        else:
            most = tensors[".weight.absmax"] = d.scales((count,))
        text = json.dumps(state).encode()
        tensors[f".weight.quant_state.bitsandbytes__{kind}"] = np.frombuffer(text, U8)
        values = times(table[code[:n]], most[np.arange(n) // size])
        return Module(tensors, values.reshape(shape))

    config = bnb_config(load_in_4bit=True) | {
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": container_name(storage),
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": nested,
    }
    each = 1 if storage == U8 else 2 * storage.itemsize
    shape = lambda d: (d.size(1, 90), d.size(each, 90))  # noqa: E731
    return Case(config, module, shape, "bitsandbytes_4bit", (NAMES[out],))


def nested_maxima(d, tensors, state, count):
    """Maxima in 8 bits, with their own map, maxima and offset: two roundings."""
    table = np.sort(d.rng.uniform(-1, 1, 256)).astype(np.float32)
    code, most = d.codes((count,), 8).astype(U8), d.scales((-(-count // 256),))
    offset = float(d.rng.uniform(0.001, 0.1)) if d.pick(True, False) else float(np.float32(d.rng.uniform(0.001, 0.1)))
    tensors[".weight.absmax"] = code
    tensors[".weight.nested_absmax"] = most
    tensors[".weight.nested_quant_map"] = table
    state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
    with np.errstate(all="ignore"):
        return times(table[code], most[np.arange(count) // 256]) + np.float32(offset)


def container_name(dtype):
    return {BF16: "bfloat16", F16: "float16", F32: "float32", U8: "uint8"}[dtype]


def bnb_config(**loads):
    loads = {"load_in_4bit": False, "load_in_8bit": False} | loads
    return loads | {"quant_method": "bitsandbytes", "llm_int8_skip_modules": ["lm_head"], "llm_int8_threshold": 6.0}


def bnb8(d):
    def module(d, shape):
        code, scale = d.codes(shape, 8) - 128, d.scales((shape[0],))
        tensors = {".weight": code.astype(I8), ".SCB": scale, ".weight_format": np.zeros((), U8)}
        return Module(tensors, times(times(code, scale[:, None]), np.float32(7.874015718698502e-3)))

    shape = lambda d: (d.size(1), d.size(1))  # noqa: E731
    return Case(bnb_config(load_in_8bit=True), module, shape, "bitsandbytes_8bit", ("f32",), plain=F16)


# --- ModelOpt --------------------------------------------------------------------------


def modelopt(d, algorithm, **more):
    """The fields of a configuration: in config.json, in a file beside it, or in both."""
    where = d.pick("config", "file", "both")
    inner = {"quant_algo": algorithm, "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"], **more}
    files = {"hf_quant_config.json": {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": inner}}
    config = {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"], **more}
    return (None if where == "file" else config), ({} if where == "config" else files)


def modelopt_nvfp4(d):
    def module(d, shape):
        code, scale = d.codes(shape, 4), d.scales((shape[0], shape[1] // 16), E4M3)
        whole = d.scales(()) if d.special else np.array(d.pick(1e-3, 7.7e-5, 0.3, -2.5), F32)
        tensors = {".weight": nibbles(code), ".weight_scale": scale, ".weight_scale_2": whole}
        tensors[".input_scale"] = np.array(0.5, F32)
        return Module(tensors, times(E2M1_PLUS[code], groups(times(scale, whole), shape[1], 16)), more={"shape": shape})

    config, files = modelopt(d, "NVFP4", group_size=16)
    shape = lambda d: (d.size(1), d.size(16))  # noqa: E731
    return Case(config, module, shape, "modelopt_nvfp4", ("bf16", "f16", "f32"), files=files)


def modelopt_fp8(d):
    def module(d, shape):
        code, scale = d.fp8(shape), d.scales(())
        tensors = {".weight": code, ".weight_scale": scale, ".input_scale": np.array(0.5, F32)}
        return Module(tensors, times(code, scale), more={"element": code, "scale": scale})

    config, files = modelopt(d, "FP8")
    shape = lambda d: (d.size(1), d.size(1))  # noqa: E731
    return Case(config, module, shape, "modelopt_fp8", ("bf16", "f16", "f32"), files=files)


def modelopt_mxfp8(d):
    config, files = modelopt(d, "MXFP8", group_size=32)
    return Case(config, *mxfp8(d, multiple=1), "modelopt_mxfp8", ("bf16", "f16", "f32"), files=files)


# --- DeepSeek-V4 and V4.1, MiniMax-M3, Quark -------------------------------------------


def deepseek(d, fp4, size, library):
    def module(d, shape):
        rows, columns = shape
        if fp4:
            code, scale = d.codes(shape, 4), d.exponents((rows, columns // 32))
            values, more = scaled(E2M1_PLUS[code], groups(scale, columns, 32))
            return Module({".weight": nibbles(code).view(I8), ".scale": scale.view(E8M0)}, values, more=more)
        code, scale = d.fp8(shape), d.exponents((-(-rows // size), -(-columns // size)))
        values, more = scaled(code, scale[np.arange(rows) // size][:, np.arange(columns) // size])
        return Module({".weight": code, ".scale": scale.view(E8M0)}, values, more=more)

    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "scale_fmt": "ue8m0"}
    config["weight_block_size"] = [size, size]
    if fp4:
        names = tuple(f"layers.0.ffn.experts.{e}.w{i}" for e in range(2) for i in (1, 2, 3))
    else:
        names = tuple(f"layers.{i}.attn.{p}" for i in range(2) for p in ("wq_a", "wo_b"))
    model = {"model_type": "deepseek_v4" if size == 128 else "deepseek_v41", "expert_dtype": "fp4"}
    model |= {"n_routed_experts": 2, "num_hidden_layers": 1 if fp4 else 2}
    shape = lambda d: (d.size(1, 300), d.size(32 if fp4 else 1, 300))  # noqa: E731
    return Case(config, module, shape, library, ("bf16", "f16", "f32"), names=names, model=model)


def minimax_m3(d):
    config = {"quant_method": "mxfp8", "activation_scheme": "dynamic", "fmt": "e4m3", "scale_fmt": "ue8m0"}
    config |= {"weight_block_size": [1, 32], "ignored_layers": ["lm_head", "embed_tokens"]}
    dtypes = ("bf16", "f16", "f32")
    return Case(config, *mxfp8(d, "weight_scale_inv", multiple=1), "minimax_m3", dtypes)


def quark_mxfp4(d):
    def module(d, shape):
        code, scale = d.codes(shape, 4), d.exponents((shape[0], shape[1] // 32))
        values, _ = scaled(E2M1[code], groups(scale, shape[1], 32))
        return Module({".weight": nibbles(code), ".weight_scale": scale}, values)

    kind = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "ch_axis": -1, "scale_format": "e8m0"}
    config = {
        "quant_method": "quark",
        "exclude": ["lm_head"],
        "export": {"pack_method": "reorder", "weight_format": "real_quantized"},
        "global_quant_config": {"weight": kind, "input_tensors": kind | {"is_dynamic": True}, "bias": None},
        "layer_quant_config": {},
        "quant_mode": "eager_mode",
    }
    return Case(config, module, lambda d: (d.size(1), d.size(32)))


FORMATS = {
    "gpt_oss": gpt_oss,
    "ct_int4": ct_pack,
    "ct_int4_asym": lambda d: ct_pack(d, symmetric=False),
    "ct_int4_channel": lambda d: ct_pack(d, channel=True, symmetric=d.pick(True, False)),
    "ct_int4_g_idx": lambda d: ct_pack(d, act_order=True, symmetric=d.pick(True, False)),
    "ct_int8_pack": lambda d: ct_pack(d, 8, symmetric=d.pick(True, False), channel=d.pick(True, False)),
    "ct_int8": ct_int8,
    "ct_int8_asym": lambda d: ct_int8(d, symmetric=False),
    "ct_fp8": ct_fp8,
    "ct_nvfp4": ct_nvfp4,
    "ct_mxfp4": ct_mxfp4,
    "ct_mxfp8": ct_mxfp8,
    "kimi_k2": kimi_k2,
    "awq": awq,
    "gptq4": gptq,
    "gptq4_asym": lambda d: gptq(d, sym=False),
    "gptq4_v2": lambda d: gptq(d, version=2, sym=d.pick(True, False)),
    "gptq4_desc_act": lambda d: gptq(d, desc_act=True, sym=d.pick(True, False)),
    "gptq4_short": lambda d: gptq(d, short=True, sym=False),
    "gptq4_no_index": lambda d: gptq(d, index=False),
    "gptq4_sym_stores_8": lambda d: gptq(d, stored=8),
    "gptq2": lambda d: gptq(d, 2, version=2, sym=d.pick(True, False)),
    "gptq3": lambda d: gptq(d, 3, sym=d.pick(True, False), version=d.pick(1, 2)),
    "gptq8": lambda d: gptq(d, 8, sym=d.pick(True, False), version=d.pick(1, 2)),
    "gptq_bits": gptq_bits,
    "gptq_alone": gptq_alone,
    "auto_round": auto_round,
    "bnb_nf4": bnb4,
    "bnb_nf4_plain": lambda d: bnb4(d, nested=False),
    "bnb_fp4": lambda d: bnb4(d, "fp4", nested=d.pick(True, False)),
    "bnb_storage": lambda d: bnb4(d, d.pick("nf4", "fp4"), storage=d.pick(BF16, F16, F32)),
    "bnb_map": lambda d: bnb4(d, nested=d.pick(True, False), foreign=True),
    "bnb_int8": bnb8,
    "modelopt_nvfp4": modelopt_nvfp4,
    "modelopt_fp8": modelopt_fp8,
    "modelopt_mxfp8": modelopt_mxfp8,
    "deepseek_v4_fp8": lambda d: deepseek(d, False, 128, "deepseek_v4_fp8"),
    "deepseek_v4_fp4": lambda d: deepseek(d, True, 128, "deepseek_v4_fp4"),
    "deepseek_v41_fp8": lambda d: deepseek(d, False, 32, "deepseek_v41"),
    "deepseek_v41_fp4": lambda d: deepseek(d, True, 32, "deepseek_v41"),
    "minimax_m3": minimax_m3,
    "quark_mxfp4": quark_mxfp4,
}
MODULES = tuple(f"model.layers.{i}.{p}_proj" for i in range(2) for p in ("self_attn.q", "mlp.down"))


@dataclasses.dataclass
class Checkpoint:
    """What is written, and what a view of it holds."""

    case: Case
    config: dict
    tensors: dict
    modules: dict  # by name
    plain: dict
    seed: int

    @property
    def dtypes(self):
        """The dtypes of the library. Where it can give all, one in turn."""
        all_of_them = self.case.dtypes == tuple(DTYPES)
        return self.case.dtypes[self.seed % 3 :][:1] if all_of_them else self.case.dtypes

    def view(self, dtype):
        return self.plain | {k + m.suffix: view(m.values, dtype) for k, m in self.modules.items()}

    def write(self, directory, shards=2):
        container.write_checkpoint(directory, self.config, self.tensors, shards, apart=shards > 1)
        for name, content in self.case.files.items():
            (pathlib.Path(directory) / name).write_text(json.dumps(content, indent=2) + "\n")


def make(name, seed, edges=True):
    """The checkpoint of a format and a seed."""
    d = Draw(f"{name} {seed}", edges)
    case = FORMATS[name](d)
    modules = {key: case.module(d, case.shape(d)) for key in case.names or MODULES}
    names = ("model.norm.weight", "lm_head.weight")
    plain = {k: d.rng.normal(0, 0.05, (8, 4)).astype(np.float32).astype(case.plain) for k in names}
    tensors = dict(plain)
    for key, m in modules.items():
        tensors |= {key + suffix: a for suffix, a in m.tensors.items()}
    dtype = container_name(case.plain)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2}
    config |= {"torch_dtype": dtype} | case.model | ({"quantization_config": case.config} if case.config else {})
    return Checkpoint(case, config, tensors, modules, plain, seed)
