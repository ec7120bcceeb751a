"""Seeded small checkpoints of every family, with real key names and config fields.

Each function of FAMILIES takes a Maker and returns a Case: what to write, and which
adapter of the reference reads it.
"""

import dataclasses
import random

import ml_dtypes
import numpy as np

BF16, FP8 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)
F16, F32 = np.dtype(np.float16), np.dtype(np.float32)
E8M0 = np.dtype(ml_dtypes.float8_e8m0fnu)
SCALES = {"F32": F32, "BF16": BF16, "E8M0": E8M0}


@dataclasses.dataclass
class Case:
    """A checkpoint to write, and how the reference reads it."""

    config: dict
    tensors: dict
    adapter: str = ""  # module:class of the reference; empty: it has none for the family
    experts: int = 0
    # The reference does not dequantize this source (or not all of it): its own
    # dequantize_from_fp8 is applied to every pair first.
    dequantize_first: bool = False
    metadata: dict | None = None  # of the index
    dtypes: tuple = ("bf16", "f32", "f16")  # that the reference computes in
    # The reference takes grouped experts whole. Its loader gives each rank its part before.
    whole: bool = False
    name: str = "model"  # of the files


class Maker:
    """Random tensors and sizes from one seed."""

    def __init__(self, seed, scale=None, quantized=True, stored=(BF16,)):
        self.rng = np.random.default_rng(list(str(seed).encode()))
        self.random = random.Random(seed)
        self.scale = SCALES[scale or self.random.choice(["F32", "F32", "BF16", "E8M0"])]
        self.quantized = quantized
        self.stored = BF16 if quantized else self.random.choice(stored)  # of what is not quantized
        self.tensors = {}
        self.hidden = self.pick(64, 96, 128, 192, 200, 256, 300)
        self.inner = self.pick(16, 64, 100, 128, 136, 160)
        self.experts = self.pick(2, 3, 4, 5, 8, 11, 12)
        self.layers = self.pick(1, 2, 3)
        self.dense = self.random.randrange(self.layers)
        self.mtp = self.pick(0, 1)
        self.heads, self.kv_heads, self.head_dim = self.pick(2, 4), self.pick(1, 2), self.pick(16, 32, 50)
        self.vocab = self.pick(100, 256)

    def pick(self, *choices):
        return self.random.choice(choices)

    def plain(self, name, *shape, dtype=None):
        a = self.rng.normal(scale=0.05, size=shape).astype(np.float32)
        self.tensors[name] = a.astype(self.stored if dtype is None else dtype)

    def linear(self, name, rows, cols, grid=None, quantized=True):
        """A weight, quantized in blocks of 128 where the checkpoint is."""
        self.matrix(name + ".weight", rows, cols, grid=grid, quantized=quantized)

    def matrix(self, name, *shape, grid=None, quantized=True):
        """As linear, under its whole name. A third axis in front counts matrices."""
        if not (self.quantized and quantized):
            self.plain(name, *shape)
            return
        self.codes(name, *shape)
        grid = grid or (*shape[:-2], -(-shape[-2] // 128), -(-shape[-1] // 128))
        self.tensors[name + "_scale_inv"] = self.scales(grid)

    def codes(self, name, *shape):
        """Codes of E4M3, without NaN."""
        codes = self.rng.integers(0, 127, shape, np.uint8) | self.rng.integers(0, 2, shape, np.uint8) << 7
        self.tensors[name] = codes.astype(np.uint8).view(FP8)

    def bytes(self, *shape):
        return self.rng.integers(0, 256, shape, np.uint8)

    def exponents(self, *shape):
        """Bytes of E8M0, clear of both ends, where the references differ from the format."""
        return self.rng.integers(112, 126, shape, np.uint8)

    def scales(self, shape):
        """Small positive scales, and sometimes an unusual but finite one."""
        a = np.exp2(self.rng.uniform(-10, -1, shape)).astype(np.float32)
        strange = np.float32([-0.01, 0.0, 1e-41, 3e5, 1e-20, 1.0])
        a = np.where(self.rng.random(shape) < 0.06, self.rng.choice(strange, shape), a)
        if self.scale == SCALES["E8M0"]:
            a = np.exp2(np.floor(np.log2(np.maximum(np.abs(a), np.float32(1e-38)))))
        return a.astype(self.scale)

    def gated(self, name, inner, quantized=True, names=("gate_proj", "up_proj", "down_proj")):
        """gate, up and down of one MLP; names in that order."""
        self.linear(f"{name}.{names[0]}", inner, self.hidden, quantized=quantized)
        self.linear(f"{name}.{names[1]}", inner, self.hidden, quantized=quantized)
        self.linear(f"{name}.{names[2]}", self.hidden, inner, quantized=quantized)

    def split_experts(self, name, quantized=True, names=("gate_proj", "up_proj", "down_proj")):
        numbers = list(range(self.experts))
        self.random.shuffle(numbers)  # the order of keys must not matter
        for e in numbers:
            self.gated(f"{name}.{e}", self.inner, quantized, names)

    def mxfp4_experts(self, name, codes, scales, names=("gate_proj", "up_proj", "down_proj")):
        """Experts in MXFP4; codes and scales end the names of its two tensors."""
        for e in self.random.sample(range(self.experts), self.experts):
            for x in names:
                rows, columns = (self.hidden, self.inner) if x == names[2] else (self.inner, self.hidden)
                self.tensors[f"{name}.{e}.{x}{codes}"] = self.bytes(rows, columns // 2)
                self.tensors[f"{name}.{e}.{x}{scales}"] = self.exponents(rows, columns // 32)

    def int4_experts(self, name):
        """Experts in INT4 as compressed-tensors packs them."""
        for e in self.random.sample(range(self.experts), self.experts):
            for x in ("gate_proj", "up_proj", "down_proj"):
                rows, columns = (self.hidden, self.inner) if x == "down_proj" else (self.inner, self.hidden)
                p = f"{name}.{e}.{x}.weight_"
                self.tensors[p + "packed"] = self.bytes(rows, columns // 2).view(np.int32)
                self.plain(p + "scale", rows, columns // 32, dtype=BF16)
                self.tensors[p + "shape"] = np.array([rows, columns], np.int32)

    def attention(self, p, norms=True, quantized=True, bias=False):
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.linear(p + ".q_proj", q, self.hidden, quantized=quantized)
        self.linear(p + ".k_proj", kv, self.hidden, quantized=quantized)
        self.linear(p + ".v_proj", kv, self.hidden, quantized=quantized)
        self.linear(p + ".o_proj", self.hidden, q, quantized=quantized)
        if norms:
            self.plain(p + ".q_norm.weight", self.head_dim)
            self.plain(p + ".k_norm.weight", self.head_dim)
        if bias:
            self.plain(p + ".q_proj.bias", q)

    def norms(self, p):
        self.plain(p + ".input_layernorm.weight", self.hidden)
        self.plain(p + ".post_attention_layernorm.weight", self.hidden)

    def ends(self, prefix="model.", head="lm_head.weight"):
        self.plain(prefix + "embed_tokens.weight", self.vocab, self.hidden)
        self.plain(prefix + "norm.weight", self.hidden)
        self.plain(head, self.vocab, self.hidden)

    def vision(self, p, biases=True):
        """One block of a vision tower."""
        n = self.pick(16, 24, 40)
        self.plain(p + ".patch_embed.proj.weight", n, 3, 2, 2)
        for name, rows, cols in (("attn.qkv", 3 * n, n), ("attn.proj", n, n), ("mlp.linear_fc1", 2 * n, n)):
            self.plain(f"{p}.blocks.0.{name}.weight", rows, cols)
            if biases:
                self.plain(f"{p}.blocks.0.{name}.bias", rows)
        self.plain(p + ".blocks.0.norm1.weight", n)

    def config(self, model_type, architecture, **more):
        c = {
            "architectures": [architecture],
            "model_type": model_type,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab,
            "torch_dtype": "bfloat16",
            **more,
        }
        if self.quantized:
            c["quantization_config"] = {
                "quant_method": "fp8",
                "fmt": "e4m3",
                "activation_scheme": "dynamic",
                "weight_block_size": [128, 128],
            }
        return c


# --- DeepSeek -------------------------------------------------------------------------


def mla(m, p):
    """Multi-head latent attention."""
    q_rank, kv_rank, nope, rope, v = m.pick(32, 136), m.pick(32, 64), 16, 8, 24
    m.linear(p + ".q_a_proj", q_rank, m.hidden)
    m.plain(p + ".q_a_layernorm.weight", q_rank)
    m.linear(p + ".q_b_proj", m.heads * (nope + rope), q_rank)
    m.linear(p + ".kv_a_proj_with_mqa", kv_rank + rope, m.hidden)
    m.plain(p + ".kv_a_layernorm.weight", kv_rank)
    m.linear(p + ".kv_b_proj", m.heads * (nope + v), kv_rank)
    m.linear(p + ".o_proj", m.hidden, m.heads * v)


def mtp_ends(m, p):
    m.plain(p + ".enorm.weight", m.hidden)
    m.plain(p + ".hnorm.weight", m.hidden)
    m.plain(p + ".eh_proj.weight", m.hidden, 2 * m.hidden)
    m.plain(p + ".embed_tokens.weight", m.vocab, m.hidden)
    m.plain(p + ".shared_head.norm.weight", m.hidden)
    m.plain(p + ".shared_head.head.weight", m.vocab, m.hidden)


def deepseek_layers(m, prefix, attention=mla, bias=True, mtp=True):
    experts_quantized = m.pick(True, True, True, False)
    for layer in range(m.layers + (m.mtp if mtp else 0)):
        p = f"{prefix}layers.{layer}"
        attention(m, p + ".self_attn")
        m.norms(p)
        if layer >= m.layers:
            mtp_ends(m, p)
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
            continue
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
        if bias:
            m.plain(p + ".mlp.gate.e_score_correction_bias", m.experts, dtype=np.float32)
        m.gated(p + ".mlp.shared_experts", m.inner)
        m.split_experts(p + ".mlp.experts", experts_quantized)


def deepseek_config(m, model_type="deepseek_v3", architecture="DeepseekV3ForCausalLM", **more):
    return m.config(
        model_type,
        architecture,
        n_routed_experts=m.experts,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        first_k_dense_replace=m.dense,
        num_nextn_predict_layers=m.mtp,
        **more,
    )


def deepseek_v3(m):
    prefix = m.pick("model.", "model.", "", "language_model.", "model.language_model.")
    deepseek_layers(m, prefix)
    m.ends(prefix)
    model_type = m.pick("deepseek_v3", "deepseek_v3", "kimi_k2")
    return Case(
        deepseek_config(m, model_type),
        m.tensors,
        "deepseek_v3.state_dict_adapter:DeepSeekV3StateDictAdapter",
        m.experts,
    )


def kimi_vl(m):
    """The language model inside a vision model, with its config nested."""
    deepseek_layers(m, "language_model.model.")
    m.ends("language_model.model.", "language_model.lm_head.weight")
    m.plain("vision_tower.encoder.blocks.0.wqkv.weight", 48, 16)
    m.plain("multi_modal_projector.linear_1.weight", m.hidden, 48)
    text = deepseek_config(m)
    config = {
        "architectures": ["KimiVLForConditionalGeneration"],
        "model_type": "kimi_vl",
        "text_config": text,
        "torch_dtype": "bfloat16",
        "quantization_config": text.pop("quantization_config"),
    }
    return Case(config, m.tensors, "kimivl.model:KimiVLStateDictAdapter", m.experts)


def deepseek_v32(m):
    def attention(m, p):
        mla(m, p)
        m.linear(p + ".indexer.wq_b", 64, 40)
        m.linear(p + ".indexer.wk", 32, m.hidden)
        m.plain(p + ".indexer.k_norm.weight", 32)
        m.plain(p + ".indexer.k_norm.bias", 32)
        m.plain(p + ".indexer.weights_proj.weight", 2, m.hidden)

    deepseek_layers(m, "model.", attention)
    m.ends()
    config = deepseek_config(m, "deepseek_v32", "DeepseekV32ForCausalLM", index_n_heads=2, index_head_dim=32)
    return Case(config, m.tensors, "deepseek_v32.state_dict_adapter:DeepSeekV32StateDictAdapter", m.experts)


def glm4_moe(m):
    deepseek_layers(m, "model.", lambda m, p: m.attention(p, bias=True))
    m.ends()
    config = deepseek_config(m, "glm4_moe", "Glm4MoeForCausalLM")
    adapter = "glm4_moe.state_dict_adapter:Glm4MoeStateDictAdapter"
    return Case(config, m.tensors, adapter, m.experts, m.quantized)


def glm4_moe_lite(m):
    deepseek_layers(m, "model.")
    m.ends()
    config = deepseek_config(m, "glm4_moe_lite", "Glm4MoeLiteForCausalLM")
    adapter = "glm4_moe.state_dict_adapter:Glm4MoeStateDictAdapter"
    return Case(config, m.tensors, adapter, m.experts, m.quantized)


# --- MiniMax, MiMo --------------------------------------------------------------------


def minimax_m2(m):
    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        m.attention(p + ".self_attn")
        m.norms(p)
        m.plain(p + ".block_sparse_moe.gate.weight", m.experts, m.hidden, dtype=np.float32)
        m.plain(p + ".block_sparse_moe.e_score_correction_bias", m.experts, dtype=np.float32)
        m.split_experts(p + ".block_sparse_moe.experts", names=("w1", "w3", "w2"))
    m.ends()
    config = m.config(
        "minimax_m2",
        "MiniMaxM2ForCausalLM",
        num_local_experts=m.experts,
        num_experts_per_tok=2,
        intermediate_size=m.inner,
        use_routing_bias=True,
    )
    return Case(config, m.tensors, "minimax_m2.state_dict_adapter:MiniMaxM2StateDictAdapter", m.experts)


def mimo_v2_flash(m):
    def attention(p):
        q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
        m.linear(p + ".q_proj", q, m.hidden)
        # Published checkpoints have a taller grid here than the weight needs.
        m.linear(p + ".k_proj", kv, m.hidden, grid=(8, -(-m.hidden // 128)))
        m.linear(p + ".v_proj", kv, m.hidden)
        m.linear(p + ".o_proj", m.hidden, q, quantized=False)
        m.plain(p + ".attention_sink_bias", m.heads)

    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        attention(p + ".self_attn")
        m.norms(p)
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
            continue
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
        m.plain(p + ".mlp.gate.e_score_correction_bias", m.experts, dtype=np.float32)
        m.split_experts(p + ".mlp.experts")
    for layer in range(m.mtp):
        p = f"model.mtp.layers.{layer}"
        attention(p + ".self_attn")
        m.plain(p + ".enorm.weight", m.hidden)
        m.plain(p + ".eh_proj.weight", m.hidden, 2 * m.hidden)
        m.gated(p + ".mlp", 2 * m.inner)
    m.ends()
    config = m.config(
        "mimo_v2_flash",
        "MiMoV2FlashForCausalLM",
        n_routed_experts=m.experts,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        v_head_dim=m.head_dim,
        hybrid_layer_pattern=[0] * m.layers,
        moe_layer_freq=[int(i >= m.dense) for i in range(m.layers)],
    )
    return Case(config, m.tensors, "mimo_v2_flash.state_dict_adapter:MiMoV2FlashStateDictAdapter", m.experts)


# --- Qwen -----------------------------------------------------------------------------


def qwen3_moe(m):
    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        m.attention(p + ".self_attn")
        m.norms(p)
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
        m.split_experts(p + ".mlp.experts")
    m.ends()
    config = m.config(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        num_experts=m.experts,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    )
    adapter = "qwen3_moe.state_dict_adapter:Qwen3MoeStateDictAdapter"
    return Case(config, m.tensors, adapter, m.experts, m.quantized)


def linear_attention(m, p, quantized):
    """Gated delta net; A_log and dt_bias become float32 in the native layout."""
    m.linear(p + ".in_proj_qkv", 96, m.hidden, quantized=quantized)
    m.linear(p + ".in_proj_z", 64, m.hidden, quantized=quantized)
    m.plain(p + ".in_proj_a.weight", 4, m.hidden)
    m.plain(p + ".in_proj_b.weight", 4, m.hidden)
    m.plain(p + ".conv1d.weight", 96, 1, 4)
    m.plain(p + ".A_log", 4, dtype=m.pick(BF16, np.dtype(np.float32)))
    m.plain(p + ".dt_bias", 4)
    m.plain(p + ".norm.weight", 16)
    m.linear(p + ".out_proj", m.hidden, 64, quantized=quantized)


def qwen3_next(m):
    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        if layer % 2:
            m.attention(p + ".self_attn")
        else:
            linear_attention(m, p + ".linear_attn", m.quantized)
        m.norms(p)
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
        m.plain(p + ".mlp.shared_expert_gate.weight", 1, m.hidden)
        m.gated(p + ".mlp.shared_expert", m.inner)
        m.split_experts(p + ".mlp.experts")
    for layer in range(m.mtp):
        p = f"mtp.layers.{layer}"
        m.attention(p + ".self_attn")
        m.norms(p)
        m.plain("mtp.fc.weight", m.hidden, 2 * m.hidden)
        m.gated(p + ".mlp.shared_expert", m.inner)
        m.split_experts(p + ".mlp.experts")
    m.ends()
    config = m.config(
        "qwen3_next",
        "Qwen3NextForCausalLM",
        num_experts=m.experts,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        shared_expert_intermediate_size=m.inner,
    )
    adapter = "qwen3_next.state_dict_adapter:Qwen3NextStateDictAdapter"
    return Case(config, m.tensors, adapter, m.experts, m.quantized)


def qwen3_5(m):
    """The dense one of the family."""
    for layer in range(m.layers):
        p = f"model.language_model.layers.{layer}"
        linear_attention(m, p + ".linear_attn", m.quantized)
        m.norms(p)
        m.gated(p + ".mlp", 2 * m.inner)
    m.plain("mtp.fc.weight", m.hidden, 2 * m.hidden)
    m.plain("mtp.norm.weight", m.hidden)
    m.plain("mtp.pre_fc_norm_embedding.weight", m.hidden)
    m.gated("mtp.layers.0.mlp", 2 * m.inner)
    m.ends("model.language_model.")
    inside = m.config("qwen3_5_text", "", intermediate_size=2 * m.inner)
    del inside["architectures"]
    quant = inside.pop("quantization_config", None)
    config = {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        "text_config": inside,
        "torch_dtype": "bfloat16",
    }
    if quant:
        config["quantization_config"] = quant
    adapter = "qwen3_5.state_dict_adapter:Qwen3_5DenseStateDictAdapter"
    return Case(config, m.tensors, adapter, dequantize_first=m.quantized)


def qwen3_5_moe(m):
    """Grouped BF16 experts, or split FP8 ones; MTP experts either way."""
    m.scale = SCALES["BF16"]
    prefix = "model.language_model."

    def grouped(p):
        m.plain(p + ".gate_up_proj", m.experts, 2 * m.inner, m.hidden)
        m.plain(p + ".down_proj", m.experts, m.hidden, m.inner)

    for layer in range(m.layers):
        p = f"{prefix}layers.{layer}"
        if layer % 2:
            m.attention(p + ".self_attn")
        else:
            linear_attention(m, p + ".linear_attn", m.quantized)
        m.norms(p)
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
        m.plain(p + ".mlp.shared_expert_gate.weight", 1, m.hidden)
        m.gated(p + ".mlp.shared_expert", m.inner)
        if m.quantized:
            m.split_experts(p + ".mlp.experts")
        else:
            grouped(p + ".mlp.experts")
    if m.mtp:
        p = "mtp.layers.0"
        m.attention(p + ".self_attn")
        m.plain("mtp.fc.weight", m.hidden, 2 * m.hidden)
        m.plain("mtp.norm.weight", m.hidden)
        m.plain("mtp.pre_fc_norm_embedding.weight", m.hidden)
        m.plain("mtp.pre_fc_norm_hidden.weight", m.hidden)
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
        m.gated(p + ".mlp.shared_expert", m.inner)
        if m.pick(True, False):
            m.split_experts(p + ".mlp.experts", m.pick(True, False))
        else:
            grouped(p + ".mlp.experts")
    m.plain("model.visual.blocks.0.attn.qkv.weight", 48, 16)
    m.ends(prefix, m.pick("lm_head.weight", "model.lm_head.weight"))
    inside = m.config(
        "qwen3_5_moe_text",
        "",
        num_experts=m.experts,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        shared_expert_intermediate_size=m.inner,
        mtp_num_hidden_layers=m.mtp,
    )
    del inside["architectures"]
    config = {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "text_config": inside,
        "torch_dtype": "bfloat16",
    }
    if m.quantized:
        config["quantization_config"] = inside.pop("quantization_config")
    adapter = "qwen3_5_moe.state_dict_adapter:Qwen3_5MoeStateDictAdapter"
    return Case(config, m.tensors, adapter, m.experts, m.quantized)


# --- ERNIE, Hunyuan, Ling --------------------------------------------------------------


def ernie4_5_moe(m):
    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        m.attention(p + ".self_attn", norms=False)
        m.norms(p)
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
            continue
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden, dtype=np.float32)
        m.plain(p + ".mlp.moe_statics.e_score_correction_bias", 1, m.experts, dtype=np.float32)
        m.gated(p + ".mlp.shared_experts", m.inner)
        m.split_experts(p + ".mlp.experts")
    if m.mtp:
        m.plain("model.mtp_emb_norm.0.weight", m.hidden)
        m.plain("model.mtp_hidden_norm.0.weight", m.hidden)
        m.plain("model.mtp_linear_proj.0.weight", m.hidden, 2 * m.hidden)
        m.attention("model.mtp_block.0.self_attn", norms=False)
    m.ends()
    config = m.config(
        "ernie4_5_moe",
        "Ernie4_5_MoeForCausalLM",
        moe_num_experts=m.experts,
        moe_k=2,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        moe_num_shared_experts=1,
        moe_layer_start_index=m.dense,
        num_nextn_predict_layers=m.mtp,
    )
    adapter = "ernie4_5.state_dict_adapter:Ernie4_5_MoeStateDictAdapter"
    return Case(config, m.tensors, adapter, m.experts, m.quantized)


def hy_v3(m):
    for layer in range(m.layers + m.mtp):
        p = f"model.layers.{layer}"
        m.attention(p + ".self_attn")
        m.norms(p)
        if layer >= m.layers:
            m.plain(p + ".eh_proj.weight", m.hidden, 2 * m.hidden)
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
            continue
        m.plain(p + ".mlp.router.gate.weight", m.experts, m.hidden)
        m.plain(p + ".mlp.expert_bias", m.experts, dtype=np.float32)
        m.gated(p + ".mlp.shared_mlp", m.inner)
        m.split_experts(p + ".mlp.experts")
    m.ends()
    config = m.config(
        "hy_v3",
        "HYV3ForCausalLM",
        num_experts=m.experts,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        first_k_dense_replace=m.dense,
        num_nextn_predict_layers=m.mtp,
    )
    return Case(config, m.tensors, "hy_v3.state_dict_adapter:HYV3StateDictAdapter", m.experts, m.quantized)


def ling_v2(m):
    rows = (m.heads + 2 * m.kv_heads) * m.head_dim
    for layer in range(m.layers + m.mtp):
        p = f"model.layers.{layer}"
        m.linear(p + ".attention.query_key_value", rows, m.hidden)
        m.linear(p + ".attention.dense", m.hidden, m.heads * m.head_dim)
        m.plain(p + ".attention.query_layernorm.weight", m.head_dim)
        m.plain(p + ".attention.key_layernorm.weight", m.head_dim)
        m.norms(p)
        if layer >= m.layers:
            m.plain(p + ".eh_proj.weight", m.hidden, 2 * m.hidden)
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
            continue
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
        m.plain(p + ".mlp.gate.expert_bias", m.experts, dtype=np.float32)
        m.gated(p + ".mlp.shared_experts", m.inner)
        m.split_experts(p + ".mlp.experts")
    m.plain("model.word_embeddings.weight", m.vocab, m.hidden)
    m.plain("model.norm.weight", m.hidden)
    m.plain("lm_head.weight", m.vocab, m.hidden)
    config = m.config(
        m.pick("bailing_moe", "bailing_moe_v2"),
        "BailingMoeV2ForCausalLM",
        num_experts=m.experts,
        num_experts_per_tok=2,
        num_shared_experts=1,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        first_k_dense_replace=m.dense,
        num_nextn_predict_layers=m.mtp,
    )
    adapter = "ling_v2.state_dict_adapter:BailingMoeV2StateDictAdapter"
    return Case(config, m.tensors, adapter, m.experts, m.quantized)


# --- dense ----------------------------------------------------------------------------


def dense(m, model_type, architecture, norms, bias):
    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        m.attention(p + ".self_attn", norms=norms, bias=bias)
        m.norms(p)
        m.gated(p + ".mlp", 2 * m.inner)
    m.ends()
    config = m.config(model_type, architecture, intermediate_size=2 * m.inner)
    return Case(config, m.tensors, dequantize_first=m.quantized)


def llama(m):
    return dense(m, "llama", "LlamaForCausalLM", norms=False, bias=False)


def qwen2(m):
    return dense(m, "qwen2", "Qwen2ForCausalLM", norms=False, bias=True)


def qwen3(m):
    return dense(m, "qwen3", "Qwen3ForCausalLM", norms=True, bias=False)


def mistral3(m):
    """One scale for a whole tensor, BF16 without dimensions, and activation scales to drop."""
    m.quantized = False
    prefix, head = "language_model.model.", "language_model.lm_head.weight"
    dense_case = dense(m, "ministral3", "", norms=False, bias=False)
    tensors = {}
    for key, a in dense_case.tensors.items():
        key = head if key == "lm_head.weight" else key.replace("model.", prefix, 1)
        if "_proj" not in key:
            tensors[key] = a
            continue
        codes = m.rng.integers(0, 127, a.shape, np.uint8) | m.rng.integers(0, 2, a.shape, np.uint8) << 7
        tensors[key] = codes.astype(np.uint8).view(FP8)
        tensors[key + "_scale_inv"] = np.asarray(m.rng.uniform(0.001, 0.1), np.float32).astype(BF16)
        tensors[key.removesuffix("weight") + "activation_scale"] = np.asarray(0.5, np.float32).astype(BF16)
    m.tensors = tensors
    m.plain("vision_tower.transformer.layers.0.attention.q_proj.weight", 32, 48)
    m.plain("multi_modal_projector.linear_1.weight", m.hidden, 48)
    text = dense_case.config
    del text["architectures"]
    config = {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "text_config": text,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "quantization_config": {
            "quant_method": "fp8",
            "activation_scheme": "static",
            "weight_block_size": None,
            "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"],
        },
    }
    return Case(config, tensors, "mistral3.state_dict_adapter:Mistral3FP8StateDictAdapter")


# Families whose raw reference reads FP8 sources. The others get BF16 sources in every second
# configuration, and dequantize_first in the rest.
FAMILIES = {
    "deepseek_v3": deepseek_v3,
    "deepseek_v32": deepseek_v32,
    "kimi_vl": kimi_vl,
    "minimax_m2": minimax_m2,
    "mimo_v2_flash": mimo_v2_flash,
    "qwen3_moe": qwen3_moe,
    "qwen3_5": qwen3_5,
    "qwen3_5_moe": qwen3_5_moe,
    "qwen3_next": qwen3_next,
    "glm4_moe": glm4_moe,
    "glm4_moe_lite": glm4_moe_lite,
    "ernie4_5_moe": ernie4_5_moe,
    "hy_v3": hy_v3,
    "ling_v2": ling_v2,
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "mistral3": mistral3,
}
DEQUANTIZES = {"deepseek_v3", "deepseek_v32", "kimi_vl", "minimax_m2", "mimo_v2_flash", "mistral3"}


def make(family, seed, makers=FAMILIES, dequantizes=DEQUANTIZES, stored=(BF16,)):
    """The checkpoint of a family for this seed, in one of the dtypes stored if not quantized."""
    quantized = family in dequantizes or seed % 2 == 0
    scale = "F32" if family in ("minimax_m2", "mimo_v25", "mimo_v26") else None
    return makers[family](Maker(f"{family} {seed}", scale, quantized, stored))
