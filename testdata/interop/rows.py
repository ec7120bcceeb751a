"""The ways in which FP8 weights are stored: one row each, and a small checkpoint of every row.

A checkpoint has the names and shapes of a tiny model of transformers. Its quantized weights are
random codes with random scales, so a scale that is read for another element changes the values.
What a view must hold is computed while the checkpoint is made: bf16(f32(code) × f32(scale)).
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import re
import tempfile
import typing

import ml_dtypes
import numpy as np

import container
import models

E4M3, E5M2 = np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2)
BF16, F32, U8 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32), np.dtype(np.uint8)
E8M0 = np.dtype(ml_dtypes.float8_e8m0fnu)
# Weights that publishers do not quantize.
PLAIN = re.compile(
    r".*(norm|\.gate|router|shared_expert_gate|embed\w*|head|eh_proj|weights_proj|in_proj_ba)\.weight$"
    r"|.*\.(compressor\.w|index_|visual\.)|(vision_tower|multi_modal_projector|patch_merge_mlp)\."
)


# --- partitions: for each axis of a weight, the index of the scale of each element --------------


def blocks(*sizes):
    """Blocks of these sizes over the last axes. None: a whole axis. Earlier axes: blocks of 1."""

    def lie(shape):
        each = (1,) * (len(shape) - len(sizes)) + sizes
        return [np.arange(n) // (b or n) for n, b in zip(shape, each, strict=True)]

    return lie


def whole(shape):
    return [np.zeros(n, int) for n in shape]


by_row, by_column, by_expert = blocks(1, None), blocks(None, 1), blocks(None, None)


def parts(*lengths, size=None):
    """A fused matrix of parts with these rows. Each has one scale, or blocks of size × size."""

    def lie(shape):
        row, first = [], 0
        for n in lengths:
            row.append(first + np.arange(n) // (size or n))
            first = row[-1][-1] + 1
        return [np.concatenate(row), np.arange(shape[1]) // (size or shape[1])]

    return lie


# --- rows ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Scales:
    """How a weight is quantized: the partition, and how codes and scales are stored."""

    partition: typing.Callable | None  # None: the weight has no scale
    dtype: np.dtype = F32
    name: str = "weight_scale"
    stack: str = ""  # name beside a stack of experts, without .weight; empty: as name
    store: typing.Callable = lambda grid: grid  # gives the grid its stored shape
    codes: np.dtype = E4M3

    def key(self, weight):
        if weight.endswith(".weight"):
            return weight.removesuffix("weight") + self.name
        return f"{weight}_{self.stack or self.name}"


@dataclasses.dataclass
class Row:
    """A format. Where scales is a dict, the first pattern that matches a key decides."""

    model: str
    scales: Scales | dict
    config: dict | None = None  # of the quantization
    # Tensors that no view may show: beside each quantized weight, in each attention module, once.
    beside: dict = dataclasses.field(default_factory=dict)
    attention: dict = dataclasses.field(default_factory=dict)
    also: dict = dataclasses.field(default_factory=dict)
    files: dict = dataclasses.field(default_factory=dict)  # JSON beside config.json
    where: str = "quantization_config"  # its field in config.json
    flags: tuple = ()  # of the mount

    def scales_of(self, key, a):
        """How a weight is quantized, or None."""
        if isinstance(self.scales, dict):
            return next((s for p, s in self.scales.items() if re.match(p, key)), None)
        linear = (a.ndim == 2 and key.endswith(".weight")) or ".experts." in key
        return self.scales if linear and not PLAIN.match(key) else None


def one(*shape, dtype=F32):
    return np.full(shape, 0.375, dtype)


def fp8(**more):
    return {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", **more}


BLOCKS = fp8(weight_block_size=[128, 128])
STATIC = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}


def grid(dtype=F32, *sizes):
    """Blocks under DeepSeek's name."""
    return Scales(blocks(*(sizes or (128, 128))), dtype, "weight_scale_inv", "scale_inv")


def group(strategy, targets=("Linear",), **weights):
    """A config group of compressed-tensors."""
    same = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False, "strategy": strategy}
    return {"targets": list(targets), "weights": same | weights, "input_activations": None, "output_activations": None}


def compressed(*groups, form="float-quantized"):
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "ignore": ["lm_head", "re:.*gate$"],
        "config_groups": {f"group_{i}": g for i, g in enumerate(groups)},
    }


def modelopt(algorithm, **more):
    return {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"], **more}


def hf_quant_config(algorithm, **more):
    """The file that ModelOpt writes beside config.json."""
    inner = {"quant_algo": algorithm, "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"], **more}
    return {"hf_quant_config.json": {"producer": {"name": "modelopt", "version": "0.41.0"}, "quantization": inner}}


CACHE = {"k_proj.k_scale": one(), "v_proj.v_scale": one()}
MX = compressed(group("group", group_size=32, scale_dtype="torch.uint8"), form="mxfp8-quantized")
BLOCKWISE = {
    "blocks of 128, F32, with a prediction layer": Row("deepseek_v3", grid(), BLOCKS),
    "blocks of 128, BF16": Row("qwen3_moe", grid(BF16), BLOCKS),
    "blocks of 128, F8_E8M0": Row("deepseek_v32", grid(E8M0), BLOCKS | {"scale_fmt": "ue8m0"}),
    "blocks of 128, U8": Row("qwen3_moe", grid(U8), BLOCKS | {"scale_fmt": "ue8m0"}),
    "blocks of 128 in w1, w2, w3": Row("minimax_m2", grid(), BLOCKS),
    "blocks of 128, GLM-5": Row("glm_moe_dsa", grid(), BLOCKS | {"scale_fmt": "ue8m0"}),
    "blocks of 128 in stacks of experts": Row("qwen3_vl_moe", grid(BF16), BLOCKS),
    "blocks of 64": Row("qwen3", grid(F32, 64, 64), fp8(weight_block_size=[64, 64])),
    "blocks of 1 × 128": Row("llama", grid(F32, 1, 128), fp8(weight_block_size=[1, 128])),
    "blocks of 32, F8_E8M0": Row("qwen3", grid(E8M0, 32, 32), fp8(weight_block_size=[32, 32], scale_fmt="ue8m0")),
    "rows of lm_head beside blocks": Row(
        "qwen3", {r"lm_head\.": Scales(by_row, BF16), r".*_proj\.": grid()}, BLOCKS | {"modules_to_not_convert": None}
    ),
    "blocks for each fused part": Row(
        "phi3",
        {
            r".*qkv_proj\.": Scales(parts(192, 96, 96, size=128), F32, "weight_scale_inv"),
            r".*gate_up_proj\.": Scales(parts(320, 320, size=128), F32, "weight_scale_inv"),
            r".*_proj\.": grid(),
        },
        BLOCKS,
    ),
    "one scale for each fused part": Row(
        "phi3",
        {
            r".*qkv_proj\.": Scales(parts(192, 96, 96), store=np.ravel),
            r".*gate_up_proj\.": Scales(parts(320, 320), store=np.ravel),
            r".*_proj\.": Scales(whole, store=np.ravel),
        },
        STATIC,
    ),
    "V4's .scale, F8_E8M0": Row(
        "deepseek_v4", Scales(blocks(128, 128), E8M0, "scale"), BLOCKS | {"scale_fmt": "ue8m0"}
    ),
    "V4's .scale, F32": Row("deepseek_v4", Scales(blocks(128, 128), F32, "scale"), BLOCKS),
    "MXFP8 of MiniMax-M3": Row(
        "minimax_m3", grid(U8, 1, 32), fp8(weight_block_size=[1, 32], scale_fmt="ue8m0") | {"quant_method": "mxfp8"}
    ),
    "MiMo-V2-Flash, K and V of a head on one grid": Row("mimo_v2_flash", grid(), BLOCKS),
}

COMPRESSED = {
    "compressed-tensors tensor, [1], leftovers of activations and cache": Row(
        "mixtral",
        Scales(whole, BF16, store=np.ravel),
        compressed(group("tensor")),
        {k: one(1, dtype=BF16) for k in ("input_scale", "output_scale", "input_global_scale")}
        | {"input_zero_point": np.zeros(1, np.int8)},
        CACHE | {"q_scale": one(1), "k_scale": one(1), "v_scale": one(1)},
    ),
    "compressed-tensors tensor, no dimensions": Row(
        "llama", Scales(whole, store=np.squeeze), compressed(group("tensor")), {"input_scale": one()}
    ),
    "compressed-tensors naive-quantized under compression_config": Row(
        "llama",
        Scales(whole, BF16, store=np.ravel),
        compressed(group("tensor"), form="naive-quantized"),
        {"input_scale": one(1, dtype=BF16)},
        where="compression_config",
    ),
    "compressed-tensors channel, BF16": Row("glm4_moe", Scales(by_row, BF16), compressed(group("channel"))),
    "compressed-tensors channel, F32": Row("qwen3_moe", Scales(by_row), compressed(group("channel"))),
    "compressed-tensors block": Row(
        "qwen3", Scales(blocks(128, 128), BF16), compressed(group("block", block_structure=[128, 128]))
    ),
    "compressed-tensors group of 128": Row(
        "llama", Scales(blocks(1, 128), BF16), compressed(group("group", group_size=128))
    ),
    "compressed-tensors group of 64": Row(
        "qwen3_moe", Scales(blocks(1, 64), BF16), compressed(group("group", group_size=64))
    ),
    "compressed-tensors, two sizes of blocks by target": Row(
        "llama",
        {r".*\.mlp\.": Scales(blocks(128, 128)), r".*\.self_attn\.": Scales(blocks(64, 64))},
        compressed(
            group("block", ["re:.*mlp.*"], block_structure=[128, 128]),
            group("block", ["re:.*self_attn.*"], block_structure=[64, 64]),
        ),
    ),
    "compressed-tensors, lm_head by channel beside blocks": Row(
        "qwen3",
        {r"lm_head\.": Scales(by_row, BF16), r".*_proj\.": Scales(blocks(128, 128))},
        compressed(group("block", block_structure=[128, 128]), group("channel", ["re:.*lm_head"])) | {"ignore": []},
    ),
    "compressed-tensors mxfp8, U8": Row("qwen3_moe", Scales(blocks(1, 32), U8), MX),
    "compressed-tensors mxfp8, F8_E8M0": Row("llama_ragged", Scales(blocks(1, 32), E8M0), MX),
    "fbgemm": Row(
        "llama",
        Scales(by_row),
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]},
    ),
    "fbgemm, stacks by column": Row(
        "llama4_text",
        {r".*\.experts\.": Scales(by_column, F32, stack="scale"), r".*feed_forward.*_proj\.": Scales(by_row)},
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]},
    ),
}

MODELOPT = {
    "ModelOpt FP8": Row(
        "llama",
        Scales(whole, store=np.squeeze),
        modelopt("FP8"),
        {"input_scale": one()},
        CACHE | {"k_proj.k_bias": one(192, dtype=BF16), "v_proj.v_bias": one(192, dtype=BF16)},
    ),
    "ModelOpt FP8 in hf_quant_config.json alone": Row(
        "qwen3_moe",
        Scales(whole, store=np.squeeze),
        None,
        {"input_scale": one()},
        CACHE,
        files=hf_quant_config("FP8"),
    ),
    "ModelOpt FP8 over a convolution and a vector": Row(
        "qwen3_next",
        {
            r".*(_proj|conv1d|in_proj_qkvz)\.weight$": Scales(whole, store=np.squeeze),
            r".*linear_attn\.norm\.": Scales(whole, store=np.squeeze),
        },
        modelopt("FP8"),
    ),
    "ModelOpt FP8, one scale for a stack": Row(
        "llama4_text", Scales(whole, store=np.squeeze), modelopt("FP8"), {"input_scale": one()}
    ),
    "ModelOpt FP8, a scale for each expert": Row(
        "llama4_text",
        {r".*\.experts\.": Scales(by_expert, store=np.ravel), r".*_proj\.": Scales(whole, store=np.squeeze)},
        modelopt("FP8"),
        {"input_scale": one()},
    ),
    "ModelOpt stacks, [E, out]": Row(
        "llama4_text",
        {r".*\.experts\.": Scales(by_column, store=lambda s: s[:, 0]), r".*_proj\.": Scales(by_row, store=np.ravel)},
        modelopt("FP8_PER_CHANNEL_PER_TOKEN"),
    ),
    "ModelOpt FP8_PER_CHANNEL_PER_TOKEN": Row(
        "qwen3", Scales(by_row, store=np.ravel), modelopt("FP8_PER_CHANNEL_PER_TOKEN")
    ),
    "ModelOpt FP8_PB_WO": Row("qwen3_moe", Scales(blocks(128, 128)), modelopt("FP8_PB_WO")),
    "ModelOpt FP8_PB_WO with four axes": Row(
        "llama", Scales(blocks(128, 128), store=lambda s: s[:, None, :, None]), modelopt("FP8_PB_WO")
    ),
    "ModelOpt MXFP8, U8": Row("llama_ragged", Scales(blocks(1, 32), U8), modelopt("MXFP8")),
    "ModelOpt MXFP8, F8_E8M0": Row("qwen3_moe", Scales(blocks(1, 32), E8M0), modelopt("MXFP8")),
    "ModelOpt MXFP8 in hf_quant_config.json alone": Row(
        "llama", Scales(blocks(1, 32), U8), attention=CACHE, files=hf_quant_config("MXFP8", group_size=32)
    ),
    "ModelOpt MIXED_PRECISION, FP8 beside MXFP8": Row(
        "llama",
        {r".*self_attn\..*_proj\.": Scales(whole, store=np.squeeze), r".*mlp\..*_proj\.": Scales(blocks(1, 32), U8)},
        files=hf_quant_config(
            "MIXED_PRECISION",
            quantized_layers={f"model.layers.{i}.self_attn": {"quant_algo": "FP8"} for i in range(3)}
            | {f"model.layers.{i}.mlp": {"quant_algo": "MXFP8", "group_size": 32} for i in range(3)},
        ),
    ),
}

OTHERS = {
    "static, no dimensions, leftovers of the cache": Row(
        "llama",
        Scales(whole, store=np.squeeze),
        STATIC | {"kv_cache_scheme": "static"},
        {"input_scale": one()},
        {"kv_scale": one()},
    ),
    "static, [1], act_scale": Row("mixtral", Scales(whole, BF16, store=np.ravel), STATIC, {"act_scale": one(1)}),
    "static, [1,1]": Row("qwen3", Scales(whole), STATIC, {"input_scale": one(1)}),
    "rows, [M]": Row("qwen3", Scales(by_row, store=np.ravel), STATIC | {"activation_scheme": "dynamic"}),
    "E5M2": Row("llama", Scales(whole, store=np.squeeze, codes=E5M2), STATIC | {"fmt": "e5m2"}),
    "Quark": Row(
        "llama",
        Scales(whole, store=np.squeeze),
        {
            "quant_method": "quark",
            "quant_mode": "eager_mode",
            "exclude": ["lm_head"],
            "global_quant_config": {
                "weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False},
                "input_tensors": {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False},
            },
        },
        {"input_scale": one()},
        {"k_proj.output_scale": one(), "v_proj.output_scale": one()},
    ),
    "Mistral": Row(
        "ministral3",
        Scales(whole, BF16, "weight_scale_inv", store=np.squeeze),
        STATIC | {"weight_block_size": None},
        {"activation_scale": one(dtype=BF16)},
        {f"{x}_fake_quantizer.qscale_act": one(dtype=BF16) for x in ("q", "k", "v", "kv")},
    ),
    "Mistral-Small-4": Row(
        "mistral4",
        {
            r".*\.experts\.": Scales(by_expert, BF16, stack="scale_inv"),
            r".*(self_attn|shared_experts).*_proj\w*\.": Scales(whole, BF16, "weight_scale_inv", store=np.squeeze),
        },
        STATIC | {"weight_block_size": None},
        {"activation_scale": one(dtype=BF16)},
    ),
    "ComfyUI's scale_weight": Row(
        "llama",
        Scales(whole, F32, "scale_weight", store=np.ravel),
        None,
        {"scale_input": one(1)},
        also={"scaled_fp8": np.zeros(2, E4M3)},
    ),
    "ComfyUI's comfy_quant": Row(
        "llama",
        Scales(whole, store=np.squeeze),
        None,
        {"comfy_quant": np.frombuffer(b'{"format": "float8_e4m3fn"}', np.uint8), "input_scale": one()},
    ),
    "no configuration": Row("llama", Scales(whole, store=np.squeeze), None, {"input_scale": one()}, CACHE),
    "plain cast": Row("llama", Scales(None), flags=("--unscaled",)),
}


# --- checkpoints --------------------------------------------------------------------------------


@functools.cache
def model(name):
    """The arrays and the config of a tiny model."""
    with tempfile.TemporaryDirectory() as directory:
        return models.saved(name, directory)


def draw(rng, shape, scales):
    """Random finite codes, the grid of their scales as stored, and the values."""
    codes = rng.integers(0, 256, shape, np.uint8).view(scales.codes)
    codes = np.where(np.isfinite(codes.astype(np.float32)), codes, scales.codes.type(1.5))
    if scales.partition is None:
        return codes, None, codes.astype(np.float32).astype(BF16)
    numbers = scales.partition(shape)
    exponents = rng.uniform(-12, -3, [n[-1] + 1 for n in numbers])
    dtype = E8M0 if scales.dtype == U8 else scales.dtype  # a byte is an exponent
    grid = np.exp2(np.floor(exponents) if dtype == E8M0 else exponents).astype(np.float32).astype(dtype)
    values = codes.astype(np.float32) * grid.astype(np.float32)[np.ix_(*numbers)]
    return codes, scales.store(grid if dtype == scales.dtype else grid.view(U8)), values.astype(BF16)


def quantized(row, tensors):
    """The tensors of a row's checkpoint, and those of its view."""
    rng = np.random.default_rng(11)
    stored, want = {}, {}
    for key, a in tensors.items():
        stored[key] = want[key] = a
        scales = row.scales_of(key, a)
        if scales is None:
            continue
        stored[key], drawn, want[key] = draw(rng, a.shape, scales)
        if drawn is not None:
            stored[scales.key(key)] = drawn
        module = key.removesuffix("weight") if key.endswith(".weight") else key + "_"
        stored |= {module + k: v for k, v in row.beside.items()}
    attention = {key.split("k_proj")[0] for key in tensors if ".self_attn.k_proj" in key}
    stored |= {p + k: v for p in attention for k, v in row.attention.items()}
    return stored | row.also, want


def shared_heads(stored, want, layers=(0, 2), heads=4, k=192, v=128):
    """Quantizes full attention as MiMo-V2-Flash: K and V of a head are one matrix in blocks of 128.

    K keeps the scales of the blocks that begin in it, so the first rows of V use a scale of K.
    """
    blocks, kept = -(-(k + v) // 128), -(-k // 128)
    for layer in layers:
        p = f"model.layers.{layer}.self_attn."
        grids = np.exp2(np.random.default_rng(layer).uniform(-12, -3, (heads, blocks, 2))).astype(np.float32)
        row = np.arange(k + v) // 128
        for name, rows, scales in (("k", row[:k], grids[:, :kept]), ("v", row[k:], grids[:, kept:])):
            key = f"{p}{name}_proj.weight"
            spread = grids[:, rows].reshape(-1, 2)[:, np.arange(stored[key].shape[1]) // 128]
            want[key] = (stored[key].astype(np.float32) * spread).astype(BF16)
            stored[key + "_scale_inv"] = scales.reshape(-1, 2)


@contextlib.contextmanager
def checkpoint(row):
    """A directory with the checkpoint of a row, and the arrays that its view must hold."""
    tensors, config = model(row.model)
    if models.MODELS[row.model].get("num_nextn_predict_layers"):
        tensors = models.with_mtp(dict(tensors), models.SIZES["num_hidden_layers"])
    stored, want = quantized(row, tensors)
    if row.model == "mimo_v2_flash":
        shared_heads(stored, want)
    with tempfile.TemporaryDirectory() as directory:
        config = config | ({row.where: row.config} if row.config else {})
        container.write_checkpoint(directory, config, stored, 2, apart=True)
        for name, content in row.files.items():
            (pathlib.Path(directory) / name).write_text(json.dumps(content, indent=2) + "\n")
        yield directory, want
