"""Seeded checkpoints of models with vision, audio or other parts beside their language model."""

import numpy as np

from families import BF16, F32, SCALES, Case, dense, linear_attention, mla
from text_families import adapter, delta_attention, moe, nemotron_text, step_text

TEXT = "model.language_model."


def nested(m, model_type, architecture, text, field="text_config", **more):
    """The configuration of a model whose language model has its own."""
    text = {k: v for k, v in text.items() if k not in ("architectures", "quantization_config")}
    config = {"architectures": [architecture], "model_type": model_type, field: text, "torch_dtype": "bfloat16", **more}
    return config | {k: v for k, v in m.config("", "").items() if k == "quantization_config"}


def dense_layers(m, prefix, norms=True, names=("input_layernorm", "post_attention_layernorm"), mlp=True):
    for layer in range(m.layers):
        p = f"{prefix}layers.{layer}"
        m.attention(p + ".self_attn", norms=norms)
        for name in names:
            m.plain(f"{p}.{name}.weight", m.hidden)
        if mlp:
            m.gated(p + ".mlp", 2 * m.inner)


def moe_config(m, model_type, **more):
    return m.config(
        model_type,
        "",
        num_experts=m.experts,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        **more,
    )


# --- GLM, Qwen ------------------------------------------------------------------------


def glm5_next(m):
    """The adapter reads FP8 and wants the exact grid. The layer behind the last is dropped."""
    for layer in range(m.layers + m.mtp):
        p = f"{TEXT}layers.{layer}"
        if layer % 2:
            mla(m, p + ".self_attn")
        else:
            delta_attention(m, p + ".self_attn")
        m.norms(p)
        for part in ("attn", "ffn"):
            for name, shape in (("fn", (6, 4 * m.hidden)), ("base", (6,)), ("scale", (3,))):
                m.plain(f"{p}.hc_{part}_{name}", *shape, dtype=m.pick(F32, F32, BF16))
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
        else:
            moe(m, p + ".mlp")
        if layer >= m.layers:
            m.plain(p + ".eh_proj.weight", m.hidden, 2 * m.hidden)
            m.plain(p + ".shared_head.norm.weight", m.hidden)
    m.ends(TEXT)
    m.vision("model.visual")
    text = m.config(
        "glm5_next_text",
        "",
        n_routed_experts=m.experts,
        num_experts_per_tok=2,
        n_shared_experts=1,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        first_k_dense_replace=m.dense,
        num_nextn_predict_layers=m.mtp,
        layer_types=["sparse_attention" if i % 2 else "linear_attention" for i in range(m.layers)],
    )
    config = nested(m, "glm5_next", "Glm5NextForConditionalGeneration", text)
    return Case(config, m.tensors, adapter("glm5_next", "Glm5Next"), m.experts)


def qwen3_omni_moe(m):
    """The talker has experts too, of another number, which stay as they are."""
    for layer in range(m.layers):
        p = f"thinker.model.layers.{layer}"
        m.attention(p + ".self_attn")
        m.norms(p)
        moe(m, p + ".mlp", bias=None, shared=None)
    m.ends("thinker.model.", "thinker.lm_head.weight")
    m.vision("thinker.visual")
    m.plain("thinker.audio_tower.conv2d1.weight", 8, 1, 3, 3)
    thinker, m.experts = m.experts, m.experts + m.pick(1, 2)
    moe(m, "talker.model.layers.0.mlp", bias=None, shared="shared_expert")
    m.attention("talker.model.layers.0.self_attn")
    talker, m.experts = m.experts, thinker
    m.plain("talker.codec_head.weight", 20, m.hidden)
    m.plain("code2wav.code_embedding.weight", 9, 8)
    text = moe_config(m, "qwen3_omni_moe_text", decoder_sparse_step=1, mlp_only_layers=[])
    thinker_config = nested(m, "qwen3_omni_moe_thinker", "", text)
    quant = thinker_config.pop("quantization_config", None)
    config = {
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "model_type": "qwen3_omni_moe",
        "thinker_config": thinker_config,
        "talker_config": {
            "model_type": "qwen3_omni_moe_talker",
            "text_config": {"model_type": "qwen3_omni_moe_talker_text", "num_experts": talker, "num_hidden_layers": 1},
        },
        "code2wav_config": {"hidden_size": 8},
    }
    if quant:
        config["quantization_config"] = quant
    return Case(config, m.tensors, adapter("qwen3_omni_moe", "Qwen3OmniMoe"), m.experts, m.quantized)


def qwen2_5_omni(m):
    """Only the thinker is left."""
    dense_layers(m, "thinker.model.", norms=False)
    m.ends("thinker.model.", "thinker.lm_head.weight")
    m.vision("thinker.visual")
    m.plain("thinker.audio_tower.audio_bos_eos_token.weight", 2, m.hidden)
    m.plain("thinker.audio_tower.conv1.weight", 8, 4, 3)
    m.attention("talker.model.layers.0.self_attn", norms=False)
    m.plain("talker.codec_head.weight", 9, m.hidden)
    m.plain("token2wav.code2wav_dit_model.text_embed.codec_embed.weight", 9, 8)
    text = m.config("qwen2_5_omni_text", "", intermediate_size=2 * m.inner)
    thinker = nested(m, "qwen2_5_omni_thinker", "", text)
    quant = thinker.pop("quantization_config", None)
    config = {"architectures": ["Qwen2_5OmniModel"], "model_type": "qwen2_5_omni", "thinker_config": thinker}
    config |= {"talker_config": {"model_type": "qwen2_5_omni_talker"}, "enable_audio_output": True}
    if quant:
        config["quantization_config"] = quant
    return Case(config, m.tensors, adapter("qwen2_5_omni", "Qwen2_5Omni"), 0, m.quantized)


def llava_onevision(m):
    prefix = m.pick("model.", "model.", "model.language_model.")
    dense_layers(m, prefix)
    m.ends(prefix)
    visual = "visual" if prefix == "model." else "model.visual"
    m.vision(visual)
    m.plain(visual + ".class_embedding", 16)
    m.plain(visual + ".merger.mlp.0.weight", m.hidden, 16)
    text = m.config("LLaVAOneVision1_5_text", "", intermediate_size=2 * m.inner)
    config = nested(m, "llavaonevision1_5", "LLaVAOneVision1_5_ForConditionalGeneration", text)
    return Case(config, m.tensors, adapter("llava_onevision", "LlavaOneVision"), 0, m.quantized)


def qwen3_vl_moe(m):
    """Groups are published as [experts, hidden, 2 × inner] and [experts, inner, hidden]."""
    if 2 * m.inner == m.hidden or m.inner == m.hidden:
        m.inner += 4  # equal sizes do not tell how a group lies
    for layer in range(m.layers):
        p = f"{TEXT}layers.{layer}"
        m.attention(p + ".self_attn")
        m.norms(p)
        if layer < m.dense:
            m.gated(p + ".mlp", 2 * m.inner)
            continue
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
        m.matrix(p + ".mlp.experts.gate_up_proj", m.experts, m.hidden, 2 * m.inner)
        m.matrix(p + ".mlp.experts.down_proj", m.experts, m.inner, m.hidden)
    m.ends(TEXT)
    m.vision("model.visual")
    text = moe_config(m, "qwen3_vl_moe_text", decoder_sparse_step=1, mlp_only_layers=list(range(m.dense)))
    config = nested(m, "qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", text)
    return Case(config, m.tensors, adapter("qwen3_vl_moe", "Qwen3VLMoe"), m.experts, m.quantized)


def qwen3_8_flash_next(m):
    """MTP layers and the shards of the n-gram table are left out."""
    m.scale = SCALES["BF16"]
    for layer in range(m.layers):
        p = f"{TEXT}layers.{layer}"
        if layer % 2:
            m.attention(p + ".self_attn")
        else:
            linear_attention(m, p + ".linear_attn", False)
        m.norms(p)
        m.plain(p + ".mlp.shared_expert_gate.weight", 1, m.hidden)
        m.plain(p + ".attn_hyper_connection.static_alpha", 4, dtype=F32)
        flash_experts(m, p, m.quantized)
    parts = m.pick(1, 2, 4)
    ple = f"{TEXT}layers.0.ple"
    m.plain(ple + ".norm_key.weight", 8)
    m.plain(ple + ".ple_embedding.value_proj.weight", 16, 8)
    for k in range(parts):
        m.plain(f"{ple}.ple_embedding.ngram_embedding.shard_{k}.weight", 6, 8)
    if m.mtp:
        m.attention("mtp.layers.0.self_attn")
        flash_experts(m, "mtp.layers.0", False)
        m.plain("mtp.fc.weight", m.hidden, 2 * m.hidden)
    m.ends(TEXT)
    m.vision("model.visual")
    # The release has the earlier name.
    model_type = m.pick("qwen3_8_flash_next", "qwen4_exp")
    text = moe_config(
        m,
        model_type + "_text",
        shared_expert_intermediate_size=m.inner,
        mtp_num_hidden_layers=m.mtp,
        split_ngram_parts=parts,
        ple_layer_ids=[1],
        layer_types=["full_attention" if i % 2 else "linear_attention" for i in range(m.layers)],
    )
    config = nested(m, model_type, "Qwen3_8_FlashNextForConditionalGeneration", text)
    name = adapter("qwen3_8_flash_next", "Qwen3_8_FlashNext")
    return Case(config, m.tensors, name, m.experts, m.quantized)


def flash_experts(m, p, split):
    m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
    m.gated(p + ".mlp.shared_expert", m.inner, quantized=False)
    if split:
        m.split_experts(p + ".mlp.experts")
    else:
        m.plain(p + ".mlp.experts.gate_up_proj", m.experts, 2 * m.inner, m.hidden)
        m.plain(p + ".mlp.experts.down_proj", m.experts, m.hidden, m.inner)


# --- Step, Gemma ----------------------------------------------------------------------


def step3p7(m):
    """Prediction layers have names of their own, and nothing in them is merged."""
    text = step_text(m, sparse_mtp=m.pick(True, False))
    m.vision("vision_model")
    m.plain("vit_large_projector.weight", m.hidden, 16)
    if m.pick(True, False):
        text["mtp_base_layer_idx"] = m.layers
    model_type = m.pick("step3p7", "step3p7", "step3p5v")
    config = nested(m, model_type, "Step3p7ForConditionalGeneration", text)
    return Case(config, m.tensors, adapter("step3p7", "Step3p7"), m.experts, m.quantized)


GEMMA_NORMS = tuple(f"{name}_layernorm" for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"))


def gemma_experts(m, p):
    """The scale of each expert has a dtype of its own."""
    m.plain(p + ".router.proj.weight", m.experts, m.hidden)
    m.plain(p + ".router.scale", m.hidden)
    m.plain(p + ".router.per_expert_scale", m.experts, dtype=m.pick(BF16, F32, m.stored))
    m.plain(p + ".experts.gate_up_proj", m.experts, 2 * m.inner, m.hidden)
    m.plain(p + ".experts.down_proj", m.experts, m.hidden, m.inner)
    m.plain(p + ".layer_scalar", 1)
    m.plain(p + ".post_feedforward_layernorm_1.weight", m.hidden)


def gemma4_dense(m, sparse=False):
    """The adapter is that of the sparse model. It changes nothing here."""
    dense_layers(m, TEXT, names=GEMMA_NORMS)
    if sparse:
        for layer in range(m.layers):
            gemma_experts(m, f"{TEXT}layers.{layer}")
    m.ends(TEXT)
    del m.tensors["lm_head.weight"]
    m.vision("model.vision_tower")
    m.plain("model.embed_vision.embedding_projection.weight", m.hidden, 16)
    text = moe_config(m, "gemma4_text", enable_moe_block=sparse)
    if not sparse:
        text["num_experts"] = None
    config = nested(m, "gemma4", "Gemma4ForConditionalGeneration", text, tie_word_embeddings=True)
    return Case(config, m.tensors, adapter("gemma4_moe", "Gemma4MoE"), m.experts if sparse else 0, m.quantized)


def gemma4(m):
    return gemma4_dense(m, sparse=True)


def diffusion_gemma(m):
    """The encoder is dropped. The head is the embedding if there is none."""
    dense_layers(m, "model.decoder.", names=GEMMA_NORMS)
    for layer in range(m.layers):
        gemma_experts(m, f"model.decoder.layers.{layer}")
        m.plain(f"model.encoder.language_model.layers.{layer}.layer_scalar", 1)
    m.gated("model.decoder.self_conditioning", m.inner)
    m.plain("model.decoder.self_conditioning.pre_norm.weight", m.hidden)
    m.ends("model.decoder.")
    if m.pick(True, True, False):
        del m.tensors["lm_head.weight"]
    text = moe_config(m, "diffusion_gemma_text")
    config = nested(m, "diffusion_gemma", "DiffusionGemmaForBlockDiffusion", text, tie_word_embeddings=True)
    return Case(config, m.tensors, adapter("diffusion_gemma", "DiffusionGemma"), m.experts, m.quantized)


def gemma4_unified(m):
    dense_layers(m, TEXT, names=GEMMA_NORMS)
    m.ends(TEXT)
    del m.tensors["lm_head.weight"]
    width, p = m.pick(12, 20), "model.vision_embedder."
    for name in ("patch_ln1", "patch_ln2", "pos_norm", "patch_ln12"):
        m.plain(f"{p}{name}.weight", width)
    m.plain(p + "patch_dense.weight", width, width)
    m.plain(p + "patch_dense.bias", width)
    m.plain(p + "pos_embedding", 10, 2, width)
    m.plain("model.embed_vision.embedding_projection.weight", m.hidden, width)
    m.plain("model.embed_audio.embedding_projection.weight", m.hidden, width)
    text = m.config("gemma4_unified_text", "", intermediate_size=2 * m.inner)
    config = nested(m, "gemma4_unified", "Gemma4UnifiedForConditionalGeneration", text, tie_word_embeddings=True)
    return Case(config, m.tensors, adapter("gemma4_unified", "Gemma4Unified"), 0, m.quantized)


# --- Inkling, Mistral, Muse, Nemotron -------------------------------------------------


def inkling(m):
    """Matrices of the MLPs are turned, and the rows of gate and up alternate."""
    for layer in range(m.layers):
        p = f"model.llm.layers.{layer}"
        q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
        shapes = {"wq_du": (q, m.hidden), "wk_dv": (kv, m.hidden), "wv_dv": (kv, m.hidden), "wr_du": (8, m.hidden)}
        for name, shape in (shapes | {"wo_ud": (m.hidden, q)}).items():
            m.plain(f"{p}.attn.{name}.weight", *shape)
        for name in ("q_norm", "k_norm"):
            m.plain(f"{p}.attn.{name}.weight", m.head_dim)
        m.plain(p + ".attn.rel_logits_proj.proj", 4, 12)
        for name in ("attn.k_sconv", "attn.v_sconv", "attn_sconv", "mlp_sconv"):
            m.plain(f"{p}.{name}.weight", kv, 1, 4, dtype=m.pick(F32, BF16))
        m.plain(p + ".attn_norm.weight", m.hidden)
        m.plain(p + ".mlp_norm.weight", m.hidden)
        if layer < m.dense:
            m.plain(p + ".mlp.w13_dn.weight", 4 * m.inner, m.hidden)
            m.plain(p + ".mlp.w2_md.weight", m.hidden, 2 * m.inner)
            continue
        m.plain(p + ".mlp.gate.weight", m.experts + 1, m.hidden)
        m.plain(p + ".mlp.gate.bias", m.experts + 1, dtype=m.pick(F32, BF16))
        m.plain(p + ".mlp.gate.global_scale", 1, dtype=F32)
        m.plain(p + ".mlp.experts.w13_weight", m.experts, 2 * m.inner, m.hidden)
        m.plain(p + ".mlp.experts.w2_weight", m.experts, m.hidden, m.inner)
        m.plain(p + ".mlp.shared_experts.shared_w13_weight", 1, 2 * m.inner, m.hidden)
        m.plain(p + ".mlp.shared_experts.shared_w2_weight", 1, m.hidden, m.inner)
    m.plain("model.llm.embed.weight", m.vocab, m.hidden)
    for name in ("llm.embed_norm", "llm.norm", "audio.final_norm", "visual.final_norm"):
        m.plain(f"model.{name}.weight", m.hidden)
    m.plain("model.llm.unembed.weight", m.vocab, m.hidden)
    m.plain("model.audio.encoder.weight", 8, m.hidden)
    for k in range(m.pick(1, 2, 12)):
        m.plain(f"model.visual.layers.linear_{k}.weight", 8, 8)
        m.plain(f"model.visual.layers.norm_{k}.weight", 8)
    if m.mtp:
        m.plain("model.mtp.layers.0.input_proj.weight", m.hidden, 2 * m.hidden)
    text = m.config(
        "inkling_text",
        "",
        n_routed_experts=m.experts,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=m.inner,
        intermediate_size=m.inner,
        dense_intermediate_size=2 * m.inner,
        dense_mlp_idx=m.dense,
    )
    config = nested(m, "inkling_mm_model", "InklingForConditionalGeneration", text)
    return Case(config, m.tensors, adapter("inkling", "Inkling"), m.experts)


def mistral4_layers(m, prefix):
    """Groups with one scale, or one for each expert; the bias of the router is often missing."""
    scalar = m.quantized
    for layer in range(m.layers):
        p = f"{prefix}layers.{layer}"
        mla(m, p + ".self_attn")
        m.norms(p)
        m.plain(p + ".mlp.gate.weight", m.experts, m.hidden)
        if m.pick(True, False, False):
            m.plain(p + ".mlp.gate.e_score_correction_bias", m.experts, dtype=F32)
        m.gated(p + ".mlp.shared_experts", m.inner)
        each = m.pick((m.experts,), (m.experts, 1, 1))
        m.matrix(p + ".mlp.experts.gate_up_proj", m.experts, 2 * m.inner, m.hidden, grid=each)
        m.matrix(p + ".mlp.experts.down_proj", m.experts, m.hidden, m.inner, grid=each)
    if scalar:
        for key in [k for k in m.tensors if k.endswith("_scale_inv") and ".mlp.experts." not in k]:
            m.tensors[key] = np.asarray(m.rng.uniform(0.001, 0.1), np.float32).astype(m.scale)
            weight = key.removesuffix("_scale_inv")
            m.tensors[weight.removesuffix("weight") + "activation_scale"] = np.asarray(0.5, np.float32).astype(m.scale)


def mistral4_text(m):
    return m.config(
        "mistral4",
        "Mistral4ForCausalLM",
        n_routed_experts=m.experts,
        num_experts_per_tok=2,
        n_shared_experts=1,
        moe_intermediate_size=m.inner,
        intermediate_size=2 * m.inner,
        first_k_dense_replace=0,
    )


def static(config):
    """Says that each tensor has one scale."""
    if "quantization_config" in config:
        config["quantization_config"] |= {"activation_scheme": "static", "weight_block_size": None}
    return config


def mistral4(m):
    if m.quantized:
        m.scale = SCALES[m.pick("BF16", "F32")]
    mistral4_layers(m, "language_model.model.")
    m.ends("language_model.model.", "language_model.lm_head.weight")
    m.plain("vision_tower.patch_conv.weight", 16, 3, 4, 4)
    m.plain("multi_modal_projector.linear_1.weight", m.hidden, 16)
    config = nested(m, "mistral3", "Mistral3ForConditionalGeneration", mistral4_text(m))
    name = adapter("mistral4", "Mistral4Multimodal")
    return Case(static(config), m.tensors, name, m.experts, whole=True)


def mistral4_alone(m):
    """The language model without the vision tower."""
    if m.quantized:
        m.scale = SCALES[m.pick("BF16", "F32")]
    mistral4_layers(m, "model.")
    m.ends("model.")
    name = adapter("mistral4", "Mistral4")
    return Case(static(mistral4_text(m)), m.tensors, name, m.experts, whole=True)


def muse_glimmer(m):
    names = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    dense_layers(m, TEXT, names=tuple(f"{x}_layernorm" for x in names))
    for layer in range(m.layers):
        m.linear(f"{TEXT}layers.{layer}.self_attn.gate_proj", m.heads * m.head_dim, m.hidden)
    m.ends(TEXT)
    width, p = m.pick(16, 32), "model.vision_tower."
    for layer in range(m.pick(1, 2)):
        b = f"{p}layers.{layer}."
        for x in ("q_proj", "k_proj", "v_proj", "proj"):
            m.plain(f"{b}attn.{x}.weight", width, width)
            m.plain(f"{b}attn.{x}.bias", width)
        m.plain(b + "mlp.fc1.weight", 2 * width, width)
        m.plain(b + "mlp.fc2.weight", width, 2 * width)
        m.plain(b + "norm1.weight", width)
        m.plain(b + "norm2.weight", width)
    m.plain(p + "patch_embedder.patch_embedding.weight", width, 12)
    m.plain(p + "patch_embedder.position_embedding_table.weight", 9, width)
    m.plain(p + "ln_pre.weight", width)
    m.plain("model.vision_adapter.fc1.weight", m.hidden, width)
    m.plain("model.vision_adapter.fc2.weight", m.hidden, m.hidden)
    text = m.config("muse_glimmer_text", "", intermediate_size=2 * m.inner)
    vision = {"model_type": "muse_glimmer_vision", "hidden_size": width, "num_attention_heads": 2}
    vision["rope_parameters"] = {"rope_theta": 10000.0}
    more = {"head_dim": m.head_dim, "rope_theta": 500000.0, "vision_config": vision}
    config = nested(m, "muse_glimmer", "MuseGlimmerForConditionalGeneration", text, **more)
    return Case(config, m.tensors, adapter("muse_glimmer", "MuseGlimmer"), 0, m.quantized)


def nemotron_omni(m):
    """With the RADIO tower of transformers (qkv in three), or the one of the release."""
    text = nemotron_text(m, "language_model.backbone.", mtp=False)
    m.plain("language_model.lm_head.weight", m.vocab, m.hidden)
    m.plain("mlp1.0.weight", 16)
    m.plain("mlp1.1.weight", 24, 16)
    m.plain("mlp1.3.weight", m.hidden, 24)
    m.plain("sound_encoder.encoder.layers.0.self_attn.q_proj.weight", 8, 8)
    m.plain("sound_encoder.encoder.subsampling.layers.0.weight", 4, 1, 3, 3)
    m.plain("sound_projection.linear1.weight", m.hidden, 8)
    n, p = m.pick(16, 24), "vision_model.radio_model."
    m.plain(p + "input_conditioner.norm_mean", 3, 1, 1, dtype=F32)
    m.plain(p + "summary_idxs", 3, dtype=F32)
    for name, shape in (("embedder.weight", (n, 12)), ("video_embedder.weight", (n, 24)), ("pos_embed", (1, 9, n))):
        m.plain(f"{p}model.patch_generator.{name}", *shape)
    m.plain(p + "model.patch_generator.cls_token.token", 2, n)
    for k in range(m.pick(1, 2)):
        b = f"{p}model.blocks.{k}."
        for name, rows, cols in (("attn.qkv", 3 * n, n), ("attn.proj", n, n), ("mlp.fc1", 2 * n, n)):
            m.plain(f"{b}{name}.weight", rows, cols)
            m.plain(f"{b}{name}.bias", rows)
        m.plain(b + "norm1.weight", n)
    architecture = m.pick("NemotronH_Nano_Omni_Reasoning_V3", "NemotronH_Omni_Reasoning_V3")
    more = {"vision_config": {"model_type": "radio", "hidden_size": n}, "sound_config": {"hidden_size": 8}}
    config = nested(
        m, architecture, architecture, text | {"architectures": ["NemotronHForCausalLM"]}, "llm_config", **more
    )
    return Case(config, m.tensors, adapter("nemotron_omni", "NemotronOmni"), m.experts, m.quantized)


# --- encoders -------------------------------------------------------------------------


def encoder(m):
    """A retrieval model: its names have no `model.` in files."""
    model_type, architecture = m.pick(
        ("llama_bidirec", "LlamaBidirectionalModel"),
        ("ministral3_bidirec", "Ministral3BidirectionalModel"),
    )
    case = dense(m, model_type, architecture, norms=False, bias=False)
    case.tensors = {k.removeprefix("model."): a for k, a in case.tensors.items() if k != "lm_head.weight"}
    case.adapter = "common.bidirectional:EncoderStateDictAdapter"
    return case


def reranker(m):
    """A vision model with a head that gives one score."""
    dense_layers(m, "language_model.", norms=False)
    m.ends("language_model.", "language_model.score.weight")
    m.vision("vision_tower")
    m.plain("multi_modal_projector.linear_1.weight", m.hidden, 16)
    text = m.config("ministral3", "", intermediate_size=2 * m.inner)
    config = nested(m, "mistral3_bidirec", "Mistral3VLBidirectionalForSequenceClassification", text)
    name = "ministral_bidirectional.reranker_export:Mistral3RerankerStateDictAdapter"
    return Case(config, m.tensors, name, 0, m.quantized)


FAMILIES = {
    "glm5_next": glm5_next,
    "qwen3_omni_moe": qwen3_omni_moe,
    "qwen2_5_omni": qwen2_5_omni,
    "llava_onevision": llava_onevision,
    "qwen3_vl_moe": qwen3_vl_moe,
    "qwen3_8_flash_next": qwen3_8_flash_next,
    "step3p7": step3p7,
    "gemma4": gemma4,
    "gemma4_dense": gemma4_dense,
    "diffusion_gemma": diffusion_gemma,
    "gemma4_unified": gemma4_unified,
    "inkling": inkling,
    "mistral4": mistral4,
    "mistral4_alone": mistral4_alone,
    "muse_glimmer": muse_glimmer,
    "nemotron_omni": nemotron_omni,
    "encoder": encoder,
    "reranker": reranker,
}
DEQUANTIZES = {"glm5_next"}
