"""The reference adapters' from_hf against the native view, tensor for tensor, byte for byte.

For each family seeded checkpoints, the dtypes that the adapter computes in, and all ranks of an
expert-parallel group. Where the reference does not dequantize a source, or only a part of it, its
own dequantize_from_fp8 is applied to every weight and scale first. classes.py says which classes
of the reference that covers.
"""

import functools
import importlib
import itertools
import pathlib
import sys
import tempfile
import types

import families
import oracle
import packed_families
import size
import text_families
import vision_families
from checks import check, expect
from container import write_checkpoint
from mounts import mount

SEEDS = size.seeds()
MODELS = "nemo_automodel.components.models."
TABLES = (families, text_families, vision_families, packed_families)
FAMILIES = {name: table for table in TABLES for name in table.FAMILIES}


def make(name, seed):
    table = FAMILIES[name]
    stored = (families.BF16, families.BF16, families.F16, families.F32)
    return families.make(name, seed, table.FAMILIES, table.DEQUANTIZES, stored)


def dtypes():
    import torch

    return {"bf16": torch.bfloat16, "f32": torch.float32, "f16": torch.float16}


def adapter(case, dtype):
    """The reference's adapter for a case."""
    module, name = case.adapter.split(":")
    cls = getattr(importlib.import_module(MODELS + module), name)
    config = namespace(case.config)
    if name in MAKE:
        return MAKE[name](cls, case, config, dtype)
    return cls(config, moe_config(case), backend(), dtype=dtype)


def mistral3(cls, case, config, dtype):
    """It knows only bfloat16, so the rounding of its own function is replaced."""
    module = sys.modules[cls.__module__]
    plain = getattr(module, "_plain_dequantize", module._dequantize_from_fp8)
    module._plain_dequantize = plain
    module._dequantize_from_fp8 = lambda w, s, target_dtype: plain(w, s, dtype)
    return cls.for_vlm_full(case.config) if "text_config" in case.config else cls.for_causal_lm(case.config)


def qwen3_5_moe(cls, case, config, dtype):
    text_only = "text_config" not in case.config
    return cls(config, moe_config(case), backend(), dtype=dtype, text_only=text_only)


def nemotron(cls, case, config, dtype):
    return cls(config, moe_config(case) if case.experts else None, backend(), dtype=dtype)


def nemotron_omni(cls, case, config, dtype):
    """The tower of transformers has other names than the one of the release."""
    native = config.architectures == ["NemotronH_Omni_Reasoning_V3"]
    return cls(config, config.llm_config, moe_config(case), backend(), dtype=dtype, vision_uses_native_radio=native)


def reranker(cls, case, config, dtype):
    """The model that scores texts is inside an encoder, whose adapter calls its own."""
    from nemo_automodel.components.models.common.bidirectional import EncoderStateDictAdapter

    return EncoderStateDictAdapter(cls())


def flash_next(cls, case, config, dtype):
    """Its table of n-grams has six rows in each shard."""
    rows = 6 * config.text_config.split_ngram_parts
    table = types.SimpleNamespace(num_embeddings=rows, global_row_start=0, global_row_end=rows)
    return cls(config.text_config, moe_config(case), backend(), table, dtype=dtype)


# Adapters that are not made of a configuration, one of the experts, and a backend.
MAKE = {
    "Mistral3FP8StateDictAdapter": mistral3,
    "Qwen3_5MoeStateDictAdapter": qwen3_5_moe,
    "NemotronV3StateDictAdapter": nemotron,
    "NemotronOmniStateDictAdapter": nemotron_omni,
    "Qwen3_8_FlashNextStateDictAdapter": flash_next,
    "Mistral3RerankerStateDictAdapter": reranker,
    "Qwen2_5OmniStateDictAdapter": lambda cls, case, config, dtype: cls(config, backend(), dtype=dtype),
    **dict.fromkeys(
        (
            "Qwen3_5DenseStateDictAdapter",
            "Gemma4UnifiedStateDictAdapter",
            "EncoderStateDictAdapter",
        ),
        lambda cls, case, config, dtype: cls(),
    ),
    **dict.fromkeys(
        ("Ernie4_5StateDictAdapter", "LlavaOneVisionStateDictAdapter", "MuseGlimmerStateDictAdapter"),
        lambda cls, case, config, dtype: cls(config),
    ),
}


class Namespace(types.SimpleNamespace):
    """A part of a configuration, which adapters read by attribute or by key."""

    __getitem__ = types.SimpleNamespace.__getattribute__


def namespace(config):
    inner = {k: namespace(v) if isinstance(v, dict) else v for k, v in config.items()}
    return Namespace(_name_or_path="", **inner)


def backend():
    return types.SimpleNamespace(attn="sdpa", experts="torch", dispatcher="torch")


def text_config(config):
    """The configuration of the language model, which has the experts."""
    config = config.get("thinker_config", config)
    return next((config[k] for k in ("text_config", "llm_config") if k in config), config)


def moe_config(case):
    from nemo_automodel.components.moe.config import MoEConfig

    inner = text_config(case.config)
    size = inner.get("moe_intermediate_size", inner.get("intermediate_size"))
    return MoEConfig(
        n_routed_experts=case.experts,
        n_shared_experts=1,
        n_activated_experts=2,
        n_expert_groups=1,
        n_limited_groups=1,
        train_gate=False,
        gate_bias_update_factor=0.0,
        aux_loss_coeff=0.0,
        score_func="sigmoid",
        route_scale=1.0,
        dim=inner["hidden_size"],
        inter_dim=inner.get("intermediate_size", 1),
        moe_inter_dim=size[0] if isinstance(size, list) else size,
        norm_topk_prob=True,
        # Nemotron's experts have no gate. The language model inside MiniMax-M3 names no type.
        expert_activation="relu2" if inner.get("model_type") == "nemotron_h" else "swiglu",
    )


def load(directory):
    """All tensors of a folder as the safetensors library gives them."""
    from safetensors.torch import load_file

    out = {}
    for path in sorted(pathlib.Path(directory).glob("*.safetensors")):
        out |= load_file(path)
    return out


def dequantize_pairs(tensors, dtype, but=lambda key: False):
    """The reference's dequantize_from_fp8 on every pair, one matrix at a time."""
    import torch
    from nemo_automodel.components.models.deepseek_v3.state_dict_adapter import dequantize_from_fp8

    for key in [k for k in tensors if k + "_scale_inv" in tensors and not but(k)]:
        codes, scales = tensors[key], tensors.pop(key + "_scale_inv")
        if codes.ndim == 3:
            tensors[key] = torch.stack([dequantize_from_fp8(*pair, dtype=dtype) for pair in zip(codes, scales)])
        else:
            tensors[key] = dequantize_from_fp8(codes, scales, dtype=dtype)
    return tensors


SPLIT_FP8 = ("qwen3_5_moe", "qwen3_5_moe_text", "qwen3_8_flash_next", "qwen4_exp")


def from_hf(case, source, dtype, mesh=None):
    """The result of the reference for a source."""
    tensors = load(source)
    if case.dequantize_first:
        # These read split experts only in FP8, and dequantize them themselves.
        keep = case.config["model_type"] in SPLIT_FP8
        tensors = dequantize_pairs(tensors, dtype, lambda k: keep and ".mlp.experts." in k)
    if not case.adapter:
        return tensors
    made = adapter(case, dtype)
    if hasattr(made, "config") and hasattr(made.config, "_name_or_path"):
        made.config._name_or_path = str(source)  # MiMo-V2.6's adapter reads the index there
    out = made.from_hf(tensors, device_mesh=mesh)
    out = {k: v.to_local() if hasattr(v, "to_local") else v for k, v in out.items()}
    return {k: v for k, v in out.items() if k not in COMPUTED}


# Muse-Glimmer's adapter computes these tables by torch's pow, whose last bit is not the same
# everywhere. No checkpoint has them, so the view leaves them out.
COMPUTED = ("model.rotary_emb.freqs", "model.vision_encoder.rotary_emb.inv_freq")


def compare(want, got):
    """Equal names, dtypes, shapes and bytes, or an error that says which are not."""
    import torch

    lines = [f"missing {k}" for k in sorted(want.keys() - got.keys())]
    lines += [f"unexpected {k}" for k in sorted(got.keys() - want.keys())]
    for k in sorted(want.keys() & got.keys()):
        a, b = want[k].contiguous(), got[k].contiguous()
        if a.dtype != b.dtype or a.shape != b.shape:
            lines.append(f"{k}: {b.dtype} {list(b.shape)}, want {a.dtype} {list(a.shape)}")
        elif not torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)):
            lines.append(f"{k}: bytes differ")
    expect(not lines, f"{len(lines)} differences: " + "; ".join(lines[:6]))


def ranks(size):
    """A device mesh for each rank of a group; one process acts for all."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    for rank in range(size):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
        try:
            yield rank, init_device_mesh("cpu", (size,), mesh_dim_names=("ep",))
        finally:
            dist.destroy_process_group()


def family(name):
    """All checks of one family."""
    for seed in SEEDS:
        with check(f"{name} {seed}: native view equals from_hf"), tempfile.TemporaryDirectory() as source:
            one(name, seed, source)


def one(name, seed, source):
    case = make(name, seed)
    shards = max(1 + seed % 3, 2 if case.metadata else 1)
    single = seed % 7 == 6 and not case.metadata
    write_checkpoint(source, case.config, case.tensors, shards, shards > 1 and seed % 2, case.metadata, single)
    for flag in case.dtypes:
        with mount(source, "--layout", "native", "--dtype", flag) as point:
            compare(from_hf(case, source, dtypes()[flag]), load(point))
    if case.experts:
        # Sometimes there are more ranks than experts. All ranks are checked.
        size = 2 + seed % (case.experts + 1)
        flag = case.dtypes[seed % len(case.dtypes)]
        with mount(source, "--layout", "native", "--dtype", flag, "--ep", f"all/{size}") as point:
            for rank, mesh in ranks(size):
                want = share(case, from_hf(case, source, dtypes()[flag], mesh), rank, size)
                compare(want, load(point / f"rank-{rank}-of-{size}"))


def share(case, want, rank, size):
    """The result for one rank, where the reference leaves the cut to its loader."""
    if not case.whole:
        return want
    mine = oracle.share(case.experts, rank, size)
    want = {k: v[mine.start : mine.stop] if ".mlp.experts." in k else v for k, v in want.items()}
    return {k: v for k, v in want.items() if len(v)}


def differs():
    """Where the view differs from the raw reference, which reads FP8 codes as values."""
    import torch

    silent = ("qwen3_moe", "glm4_moe", "qwen3_next", "hy_v3", "ernie4_5_moe")
    for name in silent:
        with check(f"{name}: the raw reference merges FP8 codes undecoded, the view does not"):
            with tempfile.TemporaryDirectory() as source:
                case = next(c for c in (families.make(name, s) for s in itertools.count(0, 2)) if any_expert(c))
                write_checkpoint(source, case.config, case.tensors)
                case.dequantize_first = False
                raw = from_hf(case, source, torch.bfloat16)
                left = [k for k, v in raw.items() if v.dtype == torch.float8_e4m3fn]
                key = next(k for k in raw if k.endswith(".mlp.experts.down_projs"))
                codes = load(source)[experts_of(key) + ".0.down_proj.weight"]
                expect(torch.equal(raw[key][0], codes.T.to(torch.bfloat16)), "the raw reference no longer merges codes")
                expect(left, "the raw reference no longer leaves weights in FP8")
                with mount(source, "--layout", "native") as point:
                    ours = load(point)
                expect(not torch.equal(ours[key], raw[key]), "the view shows codes")
                expect(all(v.dtype != torch.float8_e4m3fn for v in ours.values()), "the view shows FP8")
    with check("qwen3_5_moe: the raw reference hands dense FP8 weights on, the view does not"):
        with tempfile.TemporaryDirectory() as source:
            case = families.make("qwen3_5_moe", 0)
            write_checkpoint(source, case.config, case.tensors)
            case.dequantize_first = False
            raw = from_hf(case, source, torch.bfloat16)
            expect(any(v.dtype == torch.float8_e4m3fn for v in raw.values()), "the raw reference dequantizes now")
            with mount(source, "--layout", "native") as point:
                expect(all(v.dtype != torch.float8_e4m3fn for v in load(point).values()), "the view shows FP8")


def any_expert(case):
    return any(".mlp.experts.0." in k for k in case.tensors)


def experts_of(key):
    return key.removesuffix(".down_projs")


# `reference.deepseek_v3()` and so on.
for _name in FAMILIES:
    setattr(sys.modules[__name__], _name, functools.partial(family, _name))


def group(names):
    for name in names:
        family(name)


# The suite runs several families in one child process, since the reference takes long to import.
_names = sorted(FAMILIES)
GROUPS = {f"families_{i}": _names[i::6] for i in range(6)}
for _name, _members in GROUPS.items():
    setattr(sys.modules[__name__], _name, functools.partial(group, _members))
