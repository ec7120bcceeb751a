"""Seeded checkpoints of further language models. families.py has the first ones, and the Maker."""

import dataclasses

from families import (
    BF16,
    F32,
    Case,
    deepseek_config,
    deepseek_layers,
    hy_v3,
    mistral3,
    mla,
    qwen3_5,
    qwen3_5_moe,
)


def adapter(module, name):
    return f"{module}.state_dict_adapter:{name}StateDictAdapter"


def moe(m, p, experts=None, quantized=True, bias="gate.e_score_correction_bias", shared="shared_experts"):
    """Router, shared and routed experts of one layer."""
    m.plain(p + ".gate.weight", m.experts, m.hidden)
    if bias:
        m.plain(f"{p}.{bias}", m.experts, dtype=m.pick(F32, F32, BF16))
    if shared:
        m.gated(f"{p}.{shared}", m.inner, quantized)
    m.split_experts(experts or p + ".experts", quantized)


def hy_mt2(m):
    case = hy_v3(m)
    case.config["model_type"] = "hy_mt2"
    case.adapter = adapter("hy_mt2", "HyMT2")
    return case


def laguna(m):
    """The bias of the router has a name among the experts."""
    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        m.attention(p + ".self_attn")
        m.plain(p + ".self_attn.g_proj.weight", m.heads, m.hidden)
        m.norms(p)
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
        else:
            moe(m, p + ".mlp", bias="experts.e_score_correction_bias", shared="shared_expert")
    m.ends()
    config = m.config(
        "laguna",
        "LagunaForCausalLM",
        num_experts=m.experts,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        shared_expert_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        mlp_layer_types=["dense" if i < m.dense else "sparse" for i in range(m.layers)],
    )
    return Case(config, m.tensors, adapter("laguna", "Laguna"), m.experts, m.quantized)


def delta_attention(m, p, log_shape=None):
    """Kimi's linear attention."""
    width, n = m.heads * m.head_dim, m.heads
    for x in "qkv":
        m.plain(f"{p}.{x}_proj.weight", width, m.hidden)
        m.plain(f"{p}.{x}_conv1d.weight", width, 1, 4)
    for x in "fg":
        m.plain(f"{p}.{x}_a_proj.weight", m.head_dim, m.hidden)
        m.plain(f"{p}.{x}_b_proj.weight", width, m.head_dim)
    m.plain(p + ".b_proj.weight", n, m.hidden)
    m.plain(p + ".A_log", *(log_shape or (n,)), dtype=m.pick(BF16, F32))
    m.plain(p + ".dt_bias", width, dtype=m.pick(BF16, F32))
    m.plain(p + ".o_norm.weight", m.head_dim)
    m.plain(p + ".o_proj.weight", m.hidden, width)


def kimi_linear_layers(m, prefix, a_log, packed_experts=None):
    """Layers in turn with linear attention, MLA, dense and sparse blocks.

    Kimi-K3's experts are packed, and work on vectors of another size.
    """
    for layer in range(m.layers):
        p = f"{prefix}layers.{layer}"
        if layer % 2:
            mla(m, p + ".self_attn")
        else:
            delta_attention(m, p + ".self_attn", a_log)
        m.norms(p)
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
            continue
        b = p + ".block_sparse_moe"
        m.plain(b + ".gate.weight", m.experts, m.hidden)
        m.plain(b + ".gate.e_score_correction_bias", m.experts, dtype=m.pick(F32, BF16))
        m.gated(b + ".shared_experts", m.inner)
        if packed_experts:
            m.plain(b + ".routed_expert_down_proj.weight", 32, m.hidden)
            m.plain(b + ".routed_expert_up_proj.weight", m.hidden, 32)
            m.plain(b + ".routed_expert_norm.weight", 32)
            packed_experts(b + ".experts")
        else:
            m.split_experts(b + ".experts", names=("w1", "w3", "w2"))


def kimi_linear_config(m, model_type, architecture):
    return m.config(
        model_type,
        architecture,
        num_experts=m.experts,
        num_experts_per_token=2,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        num_shared_experts=1,
        first_k_dense_replace=m.dense,
        moe_layer_freq=1,
        linear_attn_config={
            "full_attn_layers": [i + 1 for i in range(m.layers) if i % 2],
            "kda_layers": [i + 1 for i in range(m.layers) if not i % 2],
            "head_dim": m.head_dim,
            "num_heads": m.heads,
            "short_conv_kernel_size": 4,
        },
    )


def kimi_linear(m):
    kimi_linear_layers(m, "model.", (1, 1, m.heads, 1))
    m.ends()
    config = kimi_linear_config(m, m.pick("kimi_linear", "kimi_linear_48b_a3b"), "KimiLinearForCausalLM")
    return Case(config, m.tensors, adapter("kimi_linear", "KimiLinear48B"), m.experts, m.quantized)


def glm_moe_dsa(m):
    """GLM-5: DeepSeek's sparse attention around GLM-4's experts. The adapter reads FP8."""

    def attention(m, p):
        mla(m, p)
        m.linear(p + ".indexer.wq_b", 64, 40)
        m.linear(p + ".indexer.wk", 32, m.hidden)
        m.plain(p + ".indexer.k_norm.weight", 32)
        m.plain(p + ".indexer.k_norm.bias", 32)
        m.plain(p + ".indexer.weights_proj.weight", 2, m.hidden)

    deepseek_layers(m, "model.", attention)
    m.ends()
    config = deepseek_config(m, "glm_moe_dsa", "GlmMoeDsaForCausalLM", index_n_heads=2, index_head_dim=32)
    return Case(config, m.tensors, adapter("glm_moe_dsa", "GlmMoeDsa"), m.experts)


# --- language models that are also published inside vision models ----------------------


def alone(case, prefix, head="lm_head.weight"):
    """The language model of a case without the other parts."""
    tensors = {}
    for key, a in case.tensors.items():
        if key.startswith(prefix):
            tensors["model." + key.removeprefix(prefix)] = a
        elif key == head:
            tensors["lm_head.weight"] = a
        elif key.startswith(("mtp.", "lm_head.", "model.lm_head.")):
            tensors[key] = a
    config = dict(case.config["text_config"])
    if "quantization_config" in case.config:
        config["quantization_config"] = case.config["quantization_config"]
    return dataclasses.replace(case, config=config, tensors=tensors)


def qwen3_5_text(m):
    case = alone(qwen3_5(m), "model.language_model.")
    case.config["architectures"] = ["Qwen3_5ForCausalLM"]
    return case


def qwen3_5_moe_text(m):
    case = alone(qwen3_5_moe(m), "model.language_model.")
    case.config["architectures"] = ["Qwen3_5MoeForCausalLM"]
    return case


def ministral3(m):
    case = alone(mistral3(m), "language_model.model.", "language_model.lm_head.weight")
    case.config["architectures"] = ["Ministral3ForCausalLM"]
    return case


# --- Nemotron -------------------------------------------------------------------------


def mamba(m, p):
    inner, heads = 32, 4
    m.linear(p + ".in_proj", 2 * inner + 18, m.hidden)
    m.plain(p + ".conv1d.weight", inner + 16, 1, 4)
    m.plain(p + ".conv1d.bias", inner + 16)
    m.plain(p + ".norm.weight", inner)
    m.linear(p + ".out_proj", m.hidden, inner)
    for name in ("A_log", "dt_bias", "D"):
        m.plain(f"{p}.{name}", heads, dtype=m.pick(BF16, F32))


def nemotron_layer(m, p, kind):
    """One letter of hybrid_override_pattern. Experts have no gate."""
    m.plain(p + ".norm.weight", m.hidden)
    mixer = p + ".mixer"
    if kind == "M":
        mamba(m, mixer)
    elif kind == "*":
        m.attention(mixer, norms=False)
    elif kind == "-":
        m.linear(mixer + ".up_proj", 2 * m.inner, m.hidden)
        m.linear(mixer + ".down_proj", m.hidden, 2 * m.inner)
    else:
        m.plain(mixer + ".gate.weight", m.experts, m.hidden)
        m.plain(mixer + ".gate.e_score_correction_bias", m.experts, dtype=F32)
        numbers = ["shared_experts", *(f"experts.{e}" for e in range(m.experts))]
        m.random.shuffle(numbers)
        for name in numbers:
            m.linear(f"{mixer}.{name}.up_proj", m.inner, m.hidden)
            m.linear(f"{mixer}.{name}.down_proj", m.hidden, m.inner)


def nemotron_text(m, root, sparse=True, mtp=True):
    """All layers, and the configuration of the language model."""
    kinds = "ME*" if sparse else "M-*"
    pattern = "".join(m.pick(*kinds) for _ in range(m.layers)) + kinds[1]
    for layer, kind in enumerate(pattern):
        nemotron_layer(m, f"{root}layers.{layer}", kind)
    behind = m.mtp if mtp else 0
    if behind:
        nemotron_layer(m, f"{root}layers.{len(pattern)}", "M")  # no layer of the model, so it is dropped
        for layer, kind in enumerate("*" + m.pick(*kinds)):
            nemotron_layer(m, f"mtp.layers.{layer}", kind)
        m.plain("mtp.layers.0.eh_proj.weight", m.hidden, 2 * m.hidden)
        m.plain("mtp.layers.0.enorm.weight", m.hidden)
    m.plain(root + "embeddings.weight", m.vocab, m.hidden)
    m.plain(root + "norm_f.weight", m.hidden)
    more = {"n_routed_experts": m.experts, "moe_intermediate_size": m.inner} if sparse else {}
    config = m.config(
        "nemotron_h",
        "NemotronHForCausalLM",
        hybrid_override_pattern=pattern,
        intermediate_size=2 * m.inner,
        mlp_hidden_act="relu2",
        num_nextn_predict_layers=behind,
        **more,
    )
    return config | {"num_hidden_layers": len(pattern)}


def nemotron(m):
    config = nemotron_text(m, "backbone.")
    m.plain("lm_head.weight", m.vocab, m.hidden)
    return Case(config, m.tensors, adapter("nemotron_v3", "NemotronV3"), m.experts, m.quantized)


def nemotron_dense(m):
    """No experts at all, for which the adapter gets no configuration of experts."""
    config = nemotron_text(m, "backbone.", sparse=False)
    m.plain("lm_head.weight", m.vocab, m.hidden)
    return Case(config, m.tensors, adapter("nemotron_v3", "NemotronV3"), 0, m.quantized)


# --- ERNIE, Step, Hunyuan -------------------------------------------------------------


def ernie4_5(m):
    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        m.attention(p + ".self_attn", norms=False)
        m.norms(p)
        m.gated(p + ".mlp", 2 * m.inner)
    m.ends()
    if m.pick(True, False):
        del m.tensors["lm_head.weight"]
    config = m.config("ernie4_5", "Ernie4_5ForCausalLM", intermediate_size=2 * m.inner)
    config["tie_word_embeddings"] = "lm_head.weight" not in m.tensors
    return Case(config, m.tensors, adapter("ernie4_5", "Ernie4_5"), 0, m.quantized)


def step_layer(m, p, sparse):
    m.attention(p + ".self_attn")
    m.plain(p + ".self_attn.g_proj.weight", m.heads, m.hidden)
    m.norms(p)
    if not sparse:
        m.gated(p + ".mlp", 2 * m.inner)
        return
    m.matrix(p + ".moe.gate_proj.weight", m.experts, m.inner, m.hidden)
    m.matrix(p + ".moe.up_proj.weight", m.experts, m.inner, m.hidden)
    m.matrix(p + ".moe.down_proj.weight", m.experts, m.hidden, m.inner)
    m.plain(p + ".moe.gate.weight", m.experts, m.hidden)
    m.plain(p + ".moe.router_bias", m.experts, dtype=F32)
    m.gated(p + ".share_expert", m.inner)


def step_text(m, sparse_mtp):
    """The layers and the prediction layers of Step-3.5, and its configuration."""
    for layer in range(m.layers + m.mtp):
        p = f"model.layers.{layer}"
        step_layer(m, p, sparse=sparse_mtp if layer >= m.layers else layer >= m.dense)
        if layer >= m.layers:
            m.plain(p + ".enorm.weight", m.hidden)
            m.plain(p + ".hnorm.weight", m.hidden)
            m.plain(p + ".eh_proj.weight", m.hidden, 2 * m.hidden)
            m.plain(p + ".transformer.shared_head.norm.weight", m.hidden)
    m.ends()
    return m.config(
        "step3p5",
        "Step3p5ForCausalLM",
        moe_num_experts=m.experts,
        moe_top_k=2,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        share_expert_dim=m.inner,
        moe_layers_enum=",".join(str(i) for i in range(m.dense, m.layers)),
        num_nextn_predict_layers=m.mtp,
        num_attention_groups=m.kv_heads,
        use_moe_router_bias=True,
    )


def step3p5(m):
    config = step_text(m, sparse_mtp=False)
    return Case(config, m.tensors, adapter("step3p5", "Step3p5"), m.experts, m.quantized)


def hunyuan_image3(m):
    """Experts hold up and gate in one matrix, up first. Parts of other models are dropped."""

    def halves(p):
        m.linear(p + ".gate_and_up_proj", 2 * m.inner, m.hidden)
        m.linear(p + ".down_proj", m.hidden, m.inner)

    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        m.plain(p + ".self_attn.qkv_proj.weight", (m.heads + 2 * m.kv_heads) * m.head_dim, m.hidden)
        m.linear(p + ".self_attn.o_proj", m.hidden, m.heads * m.head_dim)
        m.plain(p + ".self_attn.query_layernorm.weight", m.head_dim)
        m.norms(p)
        m.plain(p + ".mlp.gate.wg.weight", m.experts, m.hidden, dtype=F32)
        names = ["shared_mlp", *(f"experts.{e}" for e in range(m.experts))]
        m.random.shuffle(names)
        for name in names:
            halves(f"{p}.mlp.{name}")
    m.plain("model.wte.weight", m.vocab, m.hidden)
    m.plain("model.ln_f.weight", m.hidden)
    m.plain("lm_head.weight", m.vocab, m.hidden)
    m.plain("model.timestep_emb.mlp.0.weight", m.hidden, 8)
    m.plain("vae.encoder.conv_in.weight", 8, 3, 3, 3)
    m.plain("vision_model.embeddings.patch_embedding.weight", 8, 3, 2, 2)
    m.plain("vision_aligner.layers.0.weight", m.hidden, 8)
    listed = m.pick(True, False)  # one size for each layer
    config = m.config(
        "hunyuan_image_3_moe",
        "HunyuanImage3ForCausalMM",
        num_experts=[m.experts] * m.layers if listed else m.experts,
        moe_intermediate_size=[m.inner] * m.layers if listed else m.inner,
        moe_topk=2,
        num_shared_expert=1,
        intermediate_size=2 * m.inner,
        attention_head_dim=m.head_dim,
    )
    return Case(config, m.tensors, adapter("hunyuan_image3", "HunyuanImage3"), m.experts, m.quantized)


# --- MiMo -----------------------------------------------------------------------------


def mimo_sizes(m):
    """Shards of q, k and v, and the heads of both kinds of layers."""
    shards = m.pick(1, 2, 4)
    sizes = {}
    for prefix in ("", "swa_"):
        sizes[prefix + "num_attention_heads"] = shards * m.pick(1, 2, 3)
        sizes[prefix + "num_key_value_heads"] = shards
        sizes[prefix + "head_dim"] = m.pick(16, 24, 48)
        sizes[prefix + "v_head_dim"] = m.pick(8, 16, 32)
    sizes["swa_num_key_value_heads"] *= m.pick(1, 2)
    sizes["swa_num_attention_heads"] = sizes["swa_num_key_value_heads"] * m.pick(1, 2)
    return shards, sizes


def mimo_attention(m, p, shards, sizes, swa):
    prefix = "swa_" if swa else ""
    q = sizes[prefix + "num_attention_heads"] // shards * sizes[prefix + "head_dim"]
    kv = sizes[prefix + "num_key_value_heads"] // shards
    rows = q + kv * (sizes[prefix + "head_dim"] + sizes[prefix + "v_head_dim"])
    grid = (shards * -(-rows // 128), -(-m.hidden // 128))
    m.linear(p + ".qkv_proj", shards * rows, m.hidden, grid=grid)
    m.linear(p + ".o_proj", m.hidden, 32, quantized=False)
    if swa:
        m.plain(p + ".attention_sink_bias", 4)


def mimo(m, architecture, split_experts):
    shards, sizes = mimo_sizes(m)
    swa = [m.pick(0, 1) for _ in range(m.layers)]
    for layer in range(m.layers):
        p = f"model.layers.{layer}"
        mimo_attention(m, p + ".self_attn", shards, sizes, swa[layer])
        m.norms(p)
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
            continue
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden, dtype=F32)
        m.plain(p + ".mlp.gate.e_score_correction_bias", m.experts, dtype=F32)
        split_experts(p + ".mlp.experts")
    m.ends()
    config = m.config(
        "mimo_v2",
        architecture,
        n_routed_experts=m.experts,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        hybrid_layer_pattern=swa,
        moe_layer_freq=[int(i >= m.dense) for i in range(m.layers)],
        attention_projection_layout="fused_qkv",
    )
    return shards, config | sizes


def mimo_v25(m):
    _, config = mimo(m, "MiMoV25ForCausalLM", m.split_experts)
    return Case(config, m.tensors, adapter("mimo_v25", "MiMoV2"), m.experts)


def mimo_v26(m):
    """Experts in MXFP4; the index says how many shards q, k and v have."""
    m.hidden, m.inner = m.pick(64, 96, 160), m.pick(32, 64, 96)
    shards, config = mimo(m, "MiMoV2ForCausalLM", lambda p: m.mxfp4_experts(p, ".weight", ".weight_scale"))
    return Case(
        config,
        m.tensors,
        adapter("mimo_v2_flash", "MiMoV2Flash"),
        m.experts,
        metadata={"tp_size": shards},
    )


FAMILIES = {
    "hy_mt2": hy_mt2,
    "laguna": laguna,
    "kimi_linear": kimi_linear,
    "glm_moe_dsa": glm_moe_dsa,
    "qwen3_5_text": qwen3_5_text,
    "qwen3_5_moe_text": qwen3_5_moe_text,
    "ministral3": ministral3,
    "nemotron": nemotron,
    "nemotron_dense": nemotron_dense,
    "ernie4_5": ernie4_5,
    "step3p5": step3p5,
    "hunyuan_image3": hunyuan_image3,
    "mimo_v25": mimo_v25,
    "mimo_v26": mimo_v26,
}
# Their adapters read FP8.
DEQUANTIZES = {"glm_moe_dsa", "ministral3", "mimo_v25", "mimo_v26"}
