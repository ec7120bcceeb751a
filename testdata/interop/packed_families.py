"""Seeded checkpoints of models that are published in formats other than FP8 in blocks of 128."""

import numpy as np

from families import BF16, E8M0, F32, Case, mla
from text_families import adapter, kimi_linear_config, kimi_linear_layers
from vision_families import nested

U8, I8 = np.dtype(np.uint8), np.dtype(np.int8)


def blocks(m):
    """Sizes that 32 divides."""
    m.hidden, m.inner = m.pick(32, 64, 96, 160), m.pick(32, 64, 96)


# --- gpt-oss --------------------------------------------------------------------------


def gpt_oss(m):
    """Groups in MXFP4 with biases, or the BF16 copy, whose groups lie the other way."""
    blocks(m)
    m.stored = BF16

    def group(name, rows, columns):
        if not m.quantized:
            m.plain(name, m.experts, columns, rows)
            return
        m.tensors[name + "_blocks"] = m.bytes(m.experts, rows, columns // 32, 16)
        m.tensors[name + "_scales"] = m.exponents(m.experts, rows, columns // 32)

    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        m.attention(p + ".self_attn", norms=False, bias=True, quantized=False)
        m.plain(p + ".self_attn.sinks", m.heads)
        m.norms(p)
        m.plain(p + ".mlp.router.weight", m.experts, m.hidden)
        m.plain(p + ".mlp.router.bias", m.experts)
        group(p + ".mlp.experts.gate_up_proj", 2 * m.inner, m.hidden)
        group(p + ".mlp.experts.down_proj", m.hidden, m.inner)
        m.plain(p + ".mlp.experts.gate_up_proj_bias", m.experts, 2 * m.inner)
        m.plain(p + ".mlp.experts.down_proj_bias", m.experts, m.hidden)
    m.ends()
    config = m.config(
        "gpt_oss", "GptOssForCausalLM", num_local_experts=m.experts, num_experts_per_tok=2, intermediate_size=m.inner
    )
    if m.quantized:
        plain = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
        config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": plain}
    # The adapter decodes MXFP4 to BF16 whatever its dtype.
    return Case(config, m.tensors, adapter("gpt_oss", "GPTOSS"), m.experts, dtypes=("bf16",), whole=True)


# --- Kimi -----------------------------------------------------------------------------


def compressed(form, weights, ignore):
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"format": form, "targets": ["Linear"], "weights": weights}},
        "ignore": ignore,
    }


def kimi_vision(m):
    n, p = m.pick(8, 16), "vision_tower."
    m.plain(p + "patch_embed.proj.weight", n, 3, 14, 14)
    m.plain(p + "patch_embed.pos_emb.weight", 4, 4, n)
    m.plain(p + "encoder.blocks.0.wqkv.weight", 3 * n, n)
    m.plain(p + "encoder.blocks.0.wqkv.bias", 3 * n)
    m.plain(p + "encoder.blocks.0.mlp.fc0.weight", 2 * n, n, dtype=F32)
    m.plain("mm_projector.pre_norm.weight", n)
    for k in (0, 2):
        m.plain(f"mm_projector.proj.{k}.weight", m.hidden, m.hidden)
        m.plain(f"mm_projector.proj.{k}.bias", m.hidden, dtype=F32)


def kimi_k25(m):
    """Experts in INT4, or all in BF16. The view casts every tensor."""
    blocks(m)
    packed, m.quantized = m.quantized, False
    for layer in range(m.layers):
        p = f"language_model.model.layers.{layer}"
        mla(m, p + ".self_attn")
        m.norms(p)
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
            continue
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
        m.plain(p + ".mlp.gate.e_score_correction_bias", m.experts, dtype=F32)
        m.gated(p + ".mlp.shared_experts", m.inner)
        if packed:
            m.int4_experts(p + ".mlp.experts")
        else:
            m.split_experts(p + ".mlp.experts")
    m.ends("language_model.model.", "language_model.lm_head.weight")
    kimi_vision(m)
    text = m.config(
        m.pick("kimi_k2", "deepseek_v3"),
        "DeepseekV3ForCausalLM",
        n_routed_experts=m.experts,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        first_k_dense_replace=m.dense,
    )
    config = nested(m, "kimi_k25", "KimiK25ForConditionalGeneration", text)
    if packed:
        weights = {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group", "symmetric": True}
        ignore = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"]
        config["text_config"]["quantization_config"] = compressed("pack-quantized", weights, ignore)
    # The adapter decodes INT4 to BF16 whatever its dtype, and takes F32 for BF16.
    dtypes = ("bf16",) if packed else ("bf16", "f16")
    return Case(config, m.tensors, adapter("kimi_k25_vl", "KimiK25VL"), m.experts, dtypes=dtypes)


def kimi_k3(m):
    """Experts in MXFP4, on vectors of another size; A_log is longer than it has heads."""
    blocks(m)
    m.quantized = False
    prefix = "language_model.model."

    def experts(p):
        hidden, m.hidden = m.hidden, 32
        m.mxfp4_experts(p, ".weight_packed", ".weight_scale", ("w1", "w3", "w2"))
        m.hidden = hidden

    kimi_linear_layers(m, prefix, (-(-m.heads // 128) * 128,), experts)
    m.ends(prefix, "language_model.lm_head.weight")
    text = kimi_linear_config(m, "kimi_linear", "KimiLinearForCausalLM")
    config = nested(m, "kimi_k3", "KimiK3ForConditionalGeneration", text)
    weights = {"num_bits": 4, "type": "float", "group_size": 32, "strategy": "group", "symmetric": True}
    weights |= {"dynamic": False, "scale_dtype": "torch.uint8", "zp_dtype": "torch.uint8"}
    ignore = ["re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "re:.*lm_head.*"]
    ignore += ["re:.*routed_expert_(down|up)_proj.*", "re:.*vision_tower.*", "re:.*mm_projector.*"]
    config["text_config"]["quantization_config"] = compressed("mxfp4-pack-quantized", weights, ignore)
    return Case(config, m.tensors, adapter("kimi_k3", "KimiK3"), m.experts)


# --- DeepSeek-V4, V4.1 ----------------------------------------------------------------


def deepseek4_matrix(m, name, rows, columns, block, fp4=False):
    """FP8 in square blocks, or FP4 with a scale for 32 elements of a row. Exponents are E8M0."""
    if fp4:
        m.tensors[name + ".weight"] = m.bytes(rows, columns // 2).view(I8)
        grid = (rows, columns // 32)
    else:
        m.codes(name + ".weight", rows, columns)
        grid = (-(-rows // block), -(-columns // block))
    m.tensors[name + ".scale"] = m.exponents(*grid).view(E8M0)


def deepseek4_layer(m, p, hashed, block, fp4, v41):
    def matrix(name, rows, columns, fp4=False):
        deepseek4_matrix(m, f"{p}.{name}", rows, columns, block, fp4)

    q, rank = m.heads * m.head_dim, m.pick(32, 64)
    matrix("attn.wq_a", rank, m.hidden)
    matrix("attn.wq_b", q, rank)
    matrix("attn.wkv", m.head_dim, m.hidden)
    matrix("attn.wo_a", 64, q)
    matrix("attn.wo_b", m.hidden, 64)
    m.plain(p + ".attn.q_norm.weight", rank)
    m.plain(p + ".attn.kv_norm.weight", m.head_dim)
    m.plain(p + ".attn.attn_sink", m.heads, dtype=F32)
    for c in m.pick((), ("attn.compressor",), ("attn.compressor", "attn.indexer.compressor")):
        m.plain(f"{p}.{c}.wkv.weight", m.head_dim, m.hidden)
        m.plain(f"{p}.{c}.wgate.weight", m.head_dim, m.hidden)
        m.plain(f"{p}.{c}.norm.weight", m.head_dim)
        m.plain(f"{p}.{c}.ape", 4, m.head_dim, dtype=F32)
        if "indexer" in c:
            matrix("attn.indexer.wq_b", 64, rank)
            m.plain(p + ".attn.indexer.weights_proj.weight", 2, m.hidden)
    for part in ("attn", "ffn"):
        m.plain(f"{p}.{part}_norm.weight", m.hidden)
        for name, shape in (("fn", (8, 2 * m.hidden)), ("base", (8,)), ("scale", (3,))):
            m.plain(f"{p}.hc_{part}_{name}", *shape, dtype=F32)
    m.plain(p + ".ffn.gate.weight", m.experts, m.hidden)
    if hashed:
        m.tensors[p + ".ffn.gate.tid2eid"] = m.rng.integers(0, m.experts, (m.vocab, 2))
    else:
        m.plain(p + ".ffn.gate.bias", m.experts, dtype=F32)
    names = ["shared_experts", *(f"experts.{e}" for e in range(m.experts))]
    m.random.shuffle(names)
    for name in names:
        packed = fp4 and name != "shared_experts"
        for w in ("w1", "w3"):
            matrix(f"ffn.{name}.{w}", m.inner, m.hidden, packed)
        matrix(f"ffn.{name}.w2", m.hidden, m.inner, packed)
    if v41 and not hashed:
        rows = m.pick(50, 64)
        m.codes(p + ".engram.embed.weight", rows, 64)
        m.tensors[p + ".engram.embed.scale"] = m.exponents(rows, 2).view(E8M0)
        matrix("engram.wkv", 64, 64)
        m.plain(p + ".engram.norm.weight", m.hidden)
        return rows
    return 0


def deepseek4_config(m, model_type, fp4):
    return m.config(
        model_type,
        "DeepseekV4ForCausalLM",
        n_routed_experts=m.experts,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        num_hash_layers=1,
        num_nextn_predict_layers=m.mtp,
        hc_mult=2,
        expert_dtype="fp4" if fp4 else "fp8",
    )


def deepseek4(m, fp4):
    """MTP layers are named `mtp.0.` or as a layer behind the last."""
    if fp4:
        blocks(m)
    mtp = m.pick("mtp.0", f"layers.{m.layers}")
    for layer in range(m.layers + m.mtp):
        p = f"layers.{layer}" if layer < m.layers else mtp
        deepseek4_layer(m, p, layer == 0, 128, fp4, False)
        if layer >= m.layers:
            m.plain(p + ".enorm.weight", m.hidden)
            m.plain(p + ".hc_head_base", 2, dtype=F32)
    m.plain("embed.weight", m.vocab, m.hidden)
    m.plain("norm.weight", m.hidden)
    m.plain("head.weight", m.vocab, m.hidden)
    for name, shape in (("fn", (2, 2 * m.hidden)), ("base", (2,)), ("scale", (1,))):
        m.plain(f"hc_head_{name}", *shape, dtype=F32)
    config = deepseek4_config(m, "deepseek_v4", fp4)
    config["quantization_config"]["scale_fmt"] = "ue8m0"
    return Case(config, m.tensors, adapter("deepseek_v4", "DeepSeekV4"), m.experts)


def deepseek_v41(m):
    """Blocks of 32, and tables of n-grams whose scales are for 32 elements of a row."""
    blocks(m)
    engrams = {}
    for layer in range(m.layers + m.mtp):
        p = f"layers.{layer}" if layer < m.layers else "mtp.0"
        rows = deepseek4_layer(m, p, layer == 0, 32, True, layer < m.layers)
        if rows:
            engrams[layer] = rows
    m.plain("embed.weight", m.vocab, m.hidden)
    m.plain("norm.weight", m.hidden)
    m.plain("head.weight", m.vocab, m.hidden)
    text = deepseek4_config(m, "deepseek_v41_text", True)
    text |= {"engram_layer_ids": list(engrams), "engram_num_embeddings": list(engrams.values())}
    config = nested(m, "deepseek_v41", "DeepseekV41ForCausalLM", text)
    config["quantization_config"] |= {"scale_fmt": "ue8m0", "weight_block_size": [32, 32], "expert_dtype": "fp4"}
    return Case(config, m.tensors, adapter("deepseek_v41", "DeepseekV41"), m.experts)


# --- MiniMax-M3 -----------------------------------------------------------------------


def minimax_layer(m, p, sparse):
    def linear(name, rows, columns):
        m.codes(name + ".weight", rows, columns)
        m.tensors[name + ".weight_scale_inv"] = m.exponents(rows, -(-columns // 32))

    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    for name, rows in (("q_proj", q), ("k_proj", kv), ("v_proj", kv)):
        linear(f"{p}.self_attn.{name}", rows, m.hidden)
    linear(p + ".self_attn.o_proj", m.hidden, q)
    m.norms(p)
    for name, rows in (("index_q_proj", 32), ("index_k_proj", 16)):
        m.plain(f"{p}.self_attn.{name}.weight", rows, m.hidden)
    m.plain(p + ".self_attn.index_q_norm.weight", 16)
    names = ["mlp"]
    if sparse:
        m.plain(p + ".block_sparse_moe.gate.weight", m.experts, m.hidden, dtype=F32)
        m.plain(p + ".block_sparse_moe.e_score_correction_bias", m.experts, dtype=F32)
        names = ["block_sparse_moe.shared_experts", *(f"block_sparse_moe.experts.{e}" for e in range(m.experts))]
        m.random.shuffle(names)
    for name in names:
        gate, up, down = ("w1", "w3", "w2") if ".experts." in name else ("gate_proj", "up_proj", "down_proj")
        linear(f"{p}.{name}.{gate}", m.inner, m.hidden)
        linear(f"{p}.{name}.{up}", m.inner, m.hidden)
        linear(f"{p}.{name}.{down}", m.hidden, m.inner)


def minimax_text(m, prefix):
    for layer in range(m.layers):
        minimax_layer(m, f"{prefix}model.layers.{layer}", layer >= m.dense)
    predictions = m.pick(0, m.mtp)  # layers that the configuration does not count are dropped
    for k in range(m.mtp):
        p = f"{prefix}model.mtp.layers.{k}"
        minimax_layer(m, p + ".transformer_layer", True)
        m.plain(p + ".eh_proj.weight", m.hidden, 2 * m.hidden)
        m.plain(p + ".enorm.weight", m.hidden)
    m.ends(prefix + "model.", prefix + "lm_head.weight")
    return m.config(
        "minimax_m3",
        "MiniMaxM3SparseForCausalLM",
        num_local_experts=m.experts,
        num_experts_per_tok=2,
        n_shared_experts=1,
        intermediate_size=m.inner,
        num_mtp_modules=predictions,
        moe_layer_freq=[int(i >= m.dense) for i in range(m.layers)],
    )


MXFP8 = {
    "quant_method": "mxfp8",
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "scale_fmt": "ue8m0",
    "weight_block_size": [1, 32],
    "ignored_layers": ["lm_head", "embed_tokens", "block_sparse_moe.gate", "index_q_proj", "index_k_proj"],
}


def minimax_m3(m):
    text = minimax_text(m, "language_model.")
    m.plain("vision_tower.vision_model.embeddings.patch_embedding.weight", 16, 3, 4, 4)
    m.plain("multi_modal_projector.linear_1.weight", m.hidden, 16)
    m.plain("patch_merge_mlp.linear_1.weight", m.hidden, m.hidden)
    config = nested(m, "minimax_m3_vl", "MiniMaxM3SparseForConditionalGeneration", text)
    config["quantization_config"] = dict(MXFP8)
    return Case(config, m.tensors, adapter("minimax_m3_vl", "MiniMaxM3VL"), m.experts)


def minimax_m3_alone(m):
    """The language model without the vision tower."""
    config = minimax_text(m, "")
    config["quantization_config"] = dict(MXFP8)
    return Case(config, m.tensors, adapter("minimax_m3_vl", "MiniMaxM3"), m.experts)


FAMILIES = {
    "gpt_oss": gpt_oss,
    "kimi_k25": kimi_k25,
    "kimi_k3": kimi_k3,
    "deepseek_v4_fp8": lambda m: deepseek4(m, False),
    "deepseek_v4_fp4": lambda m: deepseek4(m, True),
    "deepseek_v41": deepseek_v41,
    "minimax_m3": minimax_m3,
    "minimax_m3_alone": minimax_m3_alone,
}
# gpt-oss and Kimi-K2.5 have BF16 copies.
DEQUANTIZES = set(FAMILIES) - {"gpt_oss", "kimi_k25"}
