"""The torchtitan view against TorchTitan's own adapters, and hf against the one that reads hf.

Each row has random checkpoints with and without quantization. Where an adapter does not dequantize,
the reference's dequantize_from_fp8 is applied to every weight and scale first. The adapters give
all tensors the dtype that they find. The view gives that of --dtype to experts that it groups.
"""

import ast
import dataclasses
import functools
import importlib
import pathlib
import sys
import tempfile
import types
import typing

import numpy as np

import adapters
import families
import oracle
import reference
from checks import check, expect
from container import write_checkpoint
from families import BF16, F16, F32
from mounts import mount

SEEDS = reference.SEEDS


class Maker(families.Maker):
    """Random tensors for TorchTitan's models. Those that are not quantized have one dtype."""

    def __init__(self, seed, quantized):
        super().__init__(seed, quantized=quantized)
        self.stored = self.pick(BF16, BF16, F16, F32)

    def both(self, name, rows, cols):
        """A weight and its bias, not quantized."""
        self.plain(name + ".weight", rows, cols)
        self.plain(name + ".bias", rows)

    def norm(self, name, size):
        self.plain(name + ".weight", size)
        self.plain(name + ".bias", size)

    def tied_ends(self, prefix):
        """The ends of a model. If its head shares the embedding's weights, it mostly lacks them."""
        self.ends(prefix)
        tied = self.pick(True, False)
        if tied and self.pick(True, True, False):
            del self.tensors["lm_head.weight"]
        return tied


def whole(inner, model_type, architecture, **more):
    """The configuration of a model around a language model."""
    outer = {k: inner.pop(k) for k in ("quantization_config", "torch_dtype") if k in inner}
    del inner["architectures"]
    return {"architectures": [architecture], "model_type": model_type, "text_config": inner, **outer, **more}


# --- makers: a Maker becomes a configuration, with tensors in the Maker ------------------------


def mla(m, rank, p):
    """Multi-head latent attention; rank says whether q has a low one."""
    families.mla(m, p)
    if not rank:
        for k in [k for k in m.tensors if k.startswith((p + ".q_a_", p + ".q_b_"))]:
            del m.tensors[k]
        m.linear(p + ".q_proj", 72, m.hidden)


def deepseek(m, prefix="model."):
    rank = m.pick(0, 8)
    families.deepseek_layers(m, prefix, lambda m, p: mla(m, rank, p))
    return families.deepseek_config(m, "deepseek_v3", q_lora_rank=rank or None)


def deepseek_v3(m):
    config = deepseek(m)
    m.ends()
    return config


def moonlight(m):
    """A language model that the adapter of Kimi reads without a vision tower."""
    m.mtp = 0
    config = deepseek_v3(m)
    m.plain("model.layers.0.self_attn.rotary_emb.inv_freq", 4, dtype=F32)
    return config


def moon_vision(m, projector, names):
    n, patch = m.pick(16, 24, 32), m.pick(2, 4)
    m.plain("vision_tower.patch_embed.proj.weight", n, 3, patch, patch)
    m.plain("vision_tower.patch_embed.proj.bias", n)
    m.plain("vision_tower.patch_embed.pos_emb.weight", 4, 4, n)
    for block in range(m.pick(1, 2, 11)):
        p = f"vision_tower.encoder.blocks.{block}."
        m.both(p + "wqkv", 3 * n, n)
        m.both(p + "wo", n, n)
        m.both(p + "mlp.fc0", 2 * n, n)
        m.both(p + "mlp.fc1", n, 2 * n)
        m.norm(p + "norm0", n)
        m.norm(p + "norm1", n)
    m.norm("vision_tower.encoder.final_layernorm", n)
    m.norm(projector + "pre_norm", n)
    m.both(projector + names[0], 4 * n, 4 * n)
    m.both(projector + names[1], m.hidden, 4 * n)
    if m.pick(True, False):
        m.plain("vision_tower.encoder.rotary_emb.inv_freq", 8, dtype=F32)
    return {"patch_size": patch, "num_heads": 2}


def kimi(m, model_type, architecture, projector, names):
    m.mtp = 0
    inner = deepseek(m, "language_model.model.")
    m.ends("language_model.model.", "language_model.lm_head.weight")
    return whole(inner, model_type, architecture, vision_config=moon_vision(m, projector, names))


def kimi_k25(m):
    return kimi(m, "kimi_k25", "KimiK25ForConditionalGeneration", "mm_projector.", ("proj.0", "proj.2"))


def kimi_vl(m):
    names = ("linear_1", "linear_2")
    return kimi(m, "kimi_vl", "KimiVLForConditionalGeneration", "multi_modal_projector.", names)


def qwen3_moe(m):
    config = families.qwen3_moe(m).config
    for k in [k for k in m.tensors if "layers" not in k]:
        del m.tensors[k]
    return config | {"tie_word_embeddings": m.tied_ends("model.")}


def dense(m, model_type, architecture, norms):
    m.head_dim = m.pick(16, 32, 50)
    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        m.attention(p + ".self_attn", norms=norms)
        m.norms(p)
        m.gated(p + ".mlp", 2 * m.inner)
    tied = m.tied_ends("model.")
    return m.config(model_type, architecture, intermediate_size=2 * m.inner, tie_word_embeddings=tied)


def qwen3(m):
    return dense(m, "qwen3", "Qwen3ForCausalLM", norms=True)


def llama(m):
    m.kv_heads = m.pick(1, 2, m.heads)
    config = dense(m, "llama", "LlamaForCausalLM", norms=False)
    if m.pick(True, False):
        m.plain("model.layers.0.self_attn.rotary_emb.inv_freq", m.head_dim // 2, dtype=F32)
    if m.kv_heads == m.heads:
        del config["num_key_value_heads"]
    return config


def gpt_oss(m):
    """Experts in MXFP4. Its adapter has no names for others."""
    m.hidden, m.inner = m.pick(32, 64, 96), m.pick(32, 64, 96)
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    for layer in range(m.layers):
        p = f"model.layers.{layer}."
        for name, rows, cols in (("q", q, m.hidden), ("k", kv, m.hidden), ("v", kv, m.hidden), ("o", m.hidden, q)):
            m.both(f"{p}self_attn.{name}_proj", rows, cols)
        m.plain(p + "self_attn.sinks", m.heads)
        m.norms(p[:-1])
        m.both(p + "mlp.router", m.experts, m.hidden)
        for name, rows, cols in (("gate_up_proj", 2 * m.inner, m.hidden), ("down_proj", m.hidden, m.inner)):
            experts = f"{p}mlp.experts.{name}_"
            m.tensors[experts + "blocks"] = m.rng.integers(0, 256, (m.experts, rows, cols // 32, 16), np.uint8)
            m.tensors[experts + "scales"] = m.rng.integers(60, 190, (m.experts, rows, cols // 32), np.uint8)
            m.plain(experts + "bias", m.experts, rows)
    m.ends()
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    more = {"num_local_experts": m.experts, "intermediate_size": m.inner, "quantization_config": quantization}
    return m.config("gpt_oss", "GptOssForCausalLM", **more)


def gated_delta_net(m, p, keys, values):
    m.linear(p + ".in_proj_qkv", 2 * keys + values, m.hidden)
    m.linear(p + ".in_proj_z", values, m.hidden)
    m.plain(p + ".in_proj_a.weight", 4, m.hidden)
    m.plain(p + ".in_proj_b.weight", 4, m.hidden)
    m.plain(p + ".conv1d.weight", 2 * keys + values, 1, 4)
    m.plain(p + ".A_log", 4, dtype=m.pick(F32, m.stored))
    m.plain(p + ".dt_bias", 4)
    m.plain(p + ".norm.weight", 16)
    m.linear(p + ".out_proj", m.hidden, values)


def qwen3_5(m):
    """Without experts. The prediction head has no names in the adapter."""
    sizes = {f"linear_num_{x}_heads": m.pick(1, 2, 4) for x in ("key", "value")}
    sizes |= {f"linear_{x}_head_dim": m.pick(16, 24, 32) for x in ("key", "value")}
    keys, values = (sizes[f"linear_num_{x}_heads"] * sizes[f"linear_{x}_head_dim"] for x in ("key", "value"))
    for layer in range(m.layers):
        p = f"model.language_model.layers.{layer}"
        if layer % 2:
            m.attention(p + ".self_attn")
        else:
            gated_delta_net(m, p + ".linear_attn", keys, values)
        m.norms(p)
        m.gated(p + ".mlp", 2 * m.inner)
    if m.mtp:
        m.plain("mtp.fc.weight", m.hidden, 2 * m.hidden)
        m.plain("mtp.norm.weight", m.hidden)
        m.gated("mtp.layers.0.mlp", 2 * m.inner)
    n, visual = m.pick(16, 24), "model.visual."
    m.plain(visual + "patch_embed.proj.weight", n, 3, 2, 4, 4)
    m.plain(visual + "patch_embed.proj.bias", n)
    m.plain(visual + "pos_embed.weight", 9, n)
    for block in range(m.pick(1, 2, 11)):
        p = f"{visual}blocks.{block}."
        m.both(p + "attn.qkv", 3 * n, n)
        m.both(p + "attn.proj", n, n)
        m.both(p + "mlp.linear_fc1", 2 * n, n)
        m.both(p + "mlp.linear_fc2", n, 2 * n)
        m.norm(p + "norm1", n)
        m.norm(p + "norm2", n)
    m.norm(visual + "merger.norm", n)
    m.both(visual + "merger.linear_fc1", 4 * n, 4 * n)
    m.both(visual + "merger.linear_fc2", m.hidden, 4 * n)
    tied = m.tied_ends("model.language_model.")
    inner = m.config("qwen3_5_text", "", intermediate_size=2 * m.inner, tie_word_embeddings=tied, **sizes)
    return whole(inner, "qwen3_5", "Qwen3_5ForConditionalGeneration", tie_word_embeddings=tied)


def muse_glimmer(m):
    text, vision = "model.language_model.", "model.vision_tower."
    for layer in range(m.layers):
        p = f"{text}layers.{layer}"
        m.attention(p + ".self_attn", norms=False)
        m.linear(p + ".self_attn.gate_proj", m.heads * m.head_dim, m.hidden)
        m.gated(p + ".mlp", 2 * m.inner)
        m.norms(p)
        m.plain(p + ".pre_feedforward_layernorm.weight", m.hidden)
        m.plain(p + ".post_feedforward_layernorm.weight", m.hidden)
    m.ends(text)
    heads = m.pick(1, 2, 4)
    n = heads * m.pick(6, 8, 16)
    m.plain(vision + "patch_embedder.patch_embedding.weight", n, 24)
    m.plain(vision + "patch_embedder.position_embedding_table.weight", 16, n)
    for block in range(m.pick(1, 2, 11)):
        p = f"{vision}layers.{block}."
        for x in ("q_proj", "k_proj", "v_proj", "proj"):
            m.both(p + "attn." + x, n, n)
        m.both(p + "mlp.fc1", 2 * n, n)
        m.both(p + "mlp.fc2", n, 2 * n)
        m.norm(p + "norm1", n)
        m.norm(p + "norm2", n)
    m.norm(vision + "ln_pre", n)
    m.norm(vision + "ln_post", n)
    m.plain("model.vision_adapter.fc1.weight", 32, 4 * n)
    m.plain("model.vision_adapter.fc2.weight", 32, 32)
    m.plain("model.vision_projection.weight", m.hidden, 32)
    inner = m.config("muse_glimmer_text", "")
    more = {"vision_config": {"model_type": "muse_glimmer_vision", "num_attention_heads": heads, "hidden_size": n}}
    return whole(inner, "muse_glimmer", "MuseGlimmerForConditionalGeneration", **more)


# --- TorchTitan ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Row:
    """An adapter, and checkpoints that it reads."""

    adapter: str  # module below torchtitan, and class
    make: typing.Callable  # of a Maker
    rope: str = ""  # that the adapter asks for
    experts: str = ""  # the field with the number of experts
    fp8: bool = True  # FP8 releases exist, or may


DEEPSEEK = {"rope": "ComplexRoPE", "experts": "n_routed_experts"}
KIMI = "models.kimi_k2_7:KimiK25StateDictAdapter"
ROWS = {
    "deepseek_v3": Row("models.deepseek_v3:DeepSeekV3StateDictAdapter", deepseek_v3, **DEEPSEEK),
    "moonlight": Row(KIMI, moonlight, **DEEPSEEK),
    "kimi_k25": Row(KIMI, kimi_k25, **DEEPSEEK),
    "kimi_vl": Row(KIMI, kimi_vl, **DEEPSEEK),
    "qwen3": Row("models.qwen3:Qwen3StateDictAdapter", qwen3, "CosSinRoPE"),
    "qwen3_moe": Row("models.qwen3:Qwen3StateDictAdapter", qwen3_moe, "CosSinRoPE", "num_experts"),
    "qwen3_5": Row("models.qwen3_5:Qwen35StateDictAdapter", qwen3_5),
    "llama": Row("models.llama3:Llama3StateDictAdapter", llama, "ComplexRoPE"),
    "gpt_oss": Row("models.gpt_oss:GptOssStateDictAdapter", gpt_oss, "CosSinRoPE", "num_local_experts", fp8=False),
    "muse_glimmer": Row("models.muse_glimmer:MuseGlimmerStateDictAdapter", muse_glimmer, "ComplexRoPE", fp8=False),
}
BACKEND = "experiments.transformers_modeling_backend:HFTransformerStateDictAdapter"
LEFT_OUT = {
    "FluxStateDictAdapter": "FLUX is not a language model: it makes images",
    "PlainToDTensorStateDictAdapter": "it wraps another adapter, and changes neither names nor values",
}


def classes():
    """Every class of the library that has a from_hf of its own, which is not abstract."""
    import torchtitan

    for path in pathlib.Path(torchtitan.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                functions = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "from_hf"]
                if functions and not functions[0].decorator_list:
                    yield node.name


def every_class():
    with check("torchtitan: every adapter of the library has a row, or a reason for none"):
        named = {r.adapter.split(":")[1] for r in ROWS.values()} | {BACKEND.split(":")[1]} | LEFT_OUT.keys()
        found = set(classes())
        expect(found == named, f"the library has {found - named}, and lacks {named - found}")
        print(f"{len(found)} adapters, {len(LEFT_OUT)} left out: {LEFT_OUT}")


@functools.cache
def without_model(module):
    """Lets an adapter be imported whose model needs kernels of a GPU."""
    package = types.ModuleType(f"torchtitan.{module}")
    package.__path__ = [str(pathlib.Path(importlib.import_module("torchtitan.models").__path__[0]) / "qwen3_5")]
    model = types.SimpleNamespace(Qwen35Model=types.SimpleNamespace(Config=object))
    sys.modules |= {package.__name__: package, package.__name__ + ".model": model}


def adapter(row, config):
    """TorchTitan's adapter, with the fields of a model's config that it needs."""
    from torchtitan.models.common import rope as ropes

    module, name = row.adapter.split(":")
    if name == "Qwen35StateDictAdapter":
        without_model(module)
    module = importlib.import_module(f"torchtitan.{module}.state_dict_adapter")
    text, vision = config.get("text_config", config), config.get("vision_config")
    namespace = types.SimpleNamespace
    sizes = [text.get(f"linear_num_{x}_heads", 0) * text.get(f"linear_{x}_head_dim", 0) for x in ("key", "value")]
    q, v = (namespace(out_features=n) for n in sizes)
    attention = namespace(
        q_lora_rank=text.get("q_lora_rank") or 0,
        rope=row.rope and object.__new__(getattr(ropes, row.rope).Config),
        n_heads=text["num_attention_heads"],
        n_kv_heads=text.get("num_key_value_heads"),
        head_dim=text.get("head_dim"),
    )
    moe = row.experts and namespace(num_experts=text[row.experts])
    layer = namespace(attention=attention, moe=moe or None, delta_net=namespace(in_proj_q=q, in_proj_v=v))
    encoder = {"patch_size": 0, "in_channels": 3, "num_heads": 0}
    encoder |= {"num_heads": (vision or {}).get("num_attention_heads", 0)}
    model = namespace(
        layers=[layer] * text["num_hidden_layers"],
        mtp_layers=[layer] * text.get("num_nextn_predict_layers", 0),
        dim=text["hidden_size"],
        enable_weight_tying=config.get("tie_word_embeddings", False),
        tie_word_embeddings=config.get("tie_word_embeddings", False),
        vision_encoder=namespace(**encoder) if vision else None,
    )
    return getattr(module, name)(model, None)


def blocks(reader, source, dtype):
    """The tensors of a checkpoint in MXFP4 as TorchTitan's reader of quantized ones loads them."""
    import torch
    from torch.distributed import checkpoint

    state, read_metadata = {}, reader.read_metadata

    def whole_chunks():
        """torch 2.15 takes the shape of the codes for that of the values, and reads a part."""
        metadata = read_metadata()
        for key, x in metadata.state_dict_metadata.items():
            if key.endswith("_blocks"):
                expect(x.chunks[0].sizes != x.size, f"{key}: the reader plans whole tensors now, so use it as it is")
                x.chunks[0].sizes = x.size
        return metadata

    reader.read_metadata = whole_chunks
    for key, t in reference.load(source).items():
        if key.endswith("_blocks"):
            state[key] = torch.empty(*t.shape[:2], t.shape[2] * 32, dtype=dtype)
        elif not key.endswith("_scales"):
            state[key] = torch.empty_like(t)
    checkpoint.load(state, storage_reader=reader, no_dist=True)
    return state


def wanted(row, config, source, dtype):
    """The result of TorchTitan's adapter."""
    titan = adapter(row, config)
    if row.make is gpt_oss:
        return titan.from_hf(blocks(titan.get_hf_storage_reader(source, from_quantized=True), source, dtype))
    return named(titan, reference.dequantize_pairs(reference.load(source), dtype), dtype)


def named(titan, tensors, dtype):
    """The adapter's result for dequantized tensors, with grouped experts in a dtype."""
    # Its prediction layers share the model's embedding and head. Its map has no names for copies.
    out = titan.from_hf({k: v for k, v in tensors.items() if not copied(k)})
    return {k: v.to(dtype) if ".inner_experts." in k else v for k, v in out.items()}


def copied(key):
    return "shared_head.head" in key or (".layers." in key and ".embed_tokens." in key)


def source_of(name, seed, directory):
    """Writes the checkpoint of a row for a seed, and gives its configuration."""
    row = ROWS[name]
    m = Maker(f"titan {name} {seed}", row.fp8 and seed % 2 == 0)
    config = row.make(m)
    shards = 1 + seed % 3
    write_checkpoint(directory, config, m.tensors, shards, shards > 1 and seed % 2 and row.fp8)
    return config


def one(name, seed):
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as source:
        config = source_of(name, seed, source)
        for flag, dtype in reference.dtypes().items():
            with mount(source, "--layout", "torchtitan", "--dtype", flag) as point:
                want = wanted(row, config, source, dtype)
                reference.compare(want, reference.load(point))
        if row.experts:
            ranks(want, config.get("text_config", config)[row.experts], source, flag, 2 + seed % 5)


def ranks(want, experts, source, flag, size):
    """The views of all ranks have the experts of their share."""
    with mount(source, "--layout", "torchtitan", "--dtype", flag, "--ep", f"all/{size}") as point:
        for rank in range(size):
            mine = oracle.share(experts, rank, size)
            part = {k: v[mine.start : mine.stop] if ".inner_experts." in k else v for k, v in want.items()}
            part = {k: v for k, v in part.items() if len(v)}
            reference.compare(part, reference.load(point / f"rank-{rank}-of-{size}"))


def row(name):
    for seed in SEEDS:
        with check(f"torchtitan {name} {seed}: the view equals from_hf"):
            one(name, seed)


# Goldens in other formats, which TorchTitan does not read, and the rows of their models.
FORMATS = {"kimi_k25_int4": "kimi_k25", "kimi_k2_int4": "deepseek_v3"}
FORMATS |= {name: "qwen3_moe" for name, case in adapters.CASES.items() if case[0] == adapters.QWEN}


def formats():
    """Over the tensors of the view hf, whose values libraries.py checks."""
    kinds = list(reference.dtypes().items())
    for name, of in FORMATS.items():
        for seed in SEEDS:
            with check(f"torchtitan {name} {seed}: the view equals from_hf"), tempfile.TemporaryDirectory() as source:
                config = adapters.case(name, seed, source).config
                flag, dtype = kinds[seed % 3]
                with mount(source, "--layout", "hf,torchtitan", "--dtype", flag) as point:
                    want = named(adapter(ROWS[of], config), reference.load(point / "hf"), dtype)
                    reference.compare(want, reference.load(point / "torchtitan"))


def transformers_backend():
    """Its adapter only puts a prefix before the published names, so it reads the layout hf."""
    import torch

    for seed in SEEDS:
        name = ("llama", "qwen3", "qwen3_moe")[seed % 3]
        with (
            check(f"torchtitan with modules of transformers {seed}: the view hf is what it reads"),
            tempfile.TemporaryDirectory() as source,
        ):
            config = source_of(name, seed, source)
            titan = adapter(Row(BACKEND, ROWS[name].make), config)
            tensors = reference.dequantize_pairs(reference.load(source), torch.bfloat16)
            # What a model in memory asks the reader for. A tied head is not part of that.
            asked = titan.to_hf(titan.from_hf(dict(tensors)))
            with mount(source, "--layout", "hf", "--dtype", "bf16") as point:
                got = reference.load(point)
            if config.get("tie_word_embeddings"):
                got.pop("lm_head.weight", None)
            elif "lm_head.weight" not in got:
                asked.pop("lm_head.weight", None)
            reference.compare(asked, got)


# `titan.view_llama()` and so on, one child process for each row.
for _name in ROWS:
    setattr(sys.modules[__name__], "view_" + _name, functools.partial(row, _name))
CHILDREN = ("every_class", "formats", "transformers_backend", *("view_" + name for name in ROWS))
