"""Tiny models of transformers, saved, quantized by NumPy as published checkpoints are."""

import contextlib
import json
import pathlib
import re
import tempfile

import ml_dtypes
import numpy as np

import container
import oracle

FP8 = ml_dtypes.float8_e4m3fn
SIZES = {
    "hidden_size": 192,  # one and a half blocks
    "intermediate_size": 320,
    "moe_intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 256,
    "max_position_embeddings": 128,
    "num_experts_per_tok": 2,
}
GROUPS = {"n_routed_experts": 8, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
MLA = {"q_lora_rank": 96, "kv_lora_rank": 64, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32}
DENSE = {k: v for k, v in SIZES.items() if "moe" not in k and "experts" not in k}
INDEX = {"index_n_heads": 2, "index_head_dim": 32, "index_topk": 8}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
PIXTRAL = VISION | {"model_type": "pixtral"}
MODELS = {
    "deepseek_v3": SIZES | GROUPS | MLA | {"num_nextn_predict_layers": 1},
    "deepseek_v32": SIZES | GROUPS | MLA | INDEX,
    "deepseek_v4": SIZES
    | INDEX
    | {
        "q_lora_rank": 96,
        "n_routed_experts": 4,
        "head_dim": 32,
        "num_key_value_heads": 1,
        "qk_rope_head_dim": 8,
        "o_groups": 2,
        "o_lora_rank": 32,
        "hc_mult": 2,
        "num_hash_layers": 1,
        "compress_ratios": [0, 4, 128],
        "sliding_window": 16,
    },
    "glm_moe_dsa": SIZES | GROUPS | MLA | INDEX,
    "glm4_moe": SIZES | GROUPS | {"head_dim": 48, "num_nextn_predict_layers": 0},
    "gpt_oss": SIZES
    | {"head_dim": 48, "num_local_experts": 4, "intermediate_size": 96, "sliding_window": 16}
    | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "llama": DENSE,
    "llama_ragged": DENSE | {"hidden_size": 200, "intermediate_size": 330},
    "llama4_text": SIZES | {"intermediate_size_mlp": 320, "head_dim": 48, "num_local_experts": 4, "moe_layers": [1]},
    "mimo_v2_flash": SIZES
    | {
        "head_dim": 192,
        "v_head_dim": 128,
        "n_routed_experts": 4,
        "swa_num_key_value_heads": 8,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    },
    "minimax_m2": SIZES | {"head_dim": 48, "num_local_experts": 4, "intermediate_size": 160},
    "minimax_m3": {
        "text_config": SIZES
        | {
            "head_dim": 48,
            "num_local_experts": 4,
            "intermediate_size": 96,
            "dense_intermediate_size": 320,
            "shared_intermediate_size": 96,
            "moe_layer_freq": [0, 1, 1],
            "sparse_attention_config": {
                "sparse_num_index_heads": 4,
                "sparse_index_dim": 32,
                "sparse_attention_freq": [0, 1, 1],
            },
        },
        "vision_config": VISION,
        "projector_hidden_size": 48,
    },
    "ministral3": {
        "text_config": DENSE | {"model_type": "ministral3", "head_dim": 48},
        "vision_config": PIXTRAL,
        "tie_word_embeddings": False,
    },
    "mistral4": {
        "text_config": SIZES | GROUPS | MLA | {"model_type": "mistral4", "first_k_dense_replace": 0},
        "vision_config": PIXTRAL,
        "tie_word_embeddings": False,
    },
    "mixtral": SIZES | {"head_dim": 48, "num_local_experts": 4, "intermediate_size": 160},
    "phi3": DENSE | {"num_key_value_heads": 2, "pad_token_id": 0},
    "qwen2": DENSE,
    "qwen3": DENSE | {"head_dim": 48},
    "qwen3_moe": SIZES | {"head_dim": 48, "num_experts": 8},
    "qwen3_next": SIZES
    | {
        "head_dim": 48,
        "num_experts": 4,
        "shared_expert_intermediate_size": 96,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "qwen3_vl_moe": {
        "text_config": SIZES | {"head_dim": 48, "num_experts": 4, "moe_intermediate_size": 160},
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 192,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    },
}
# The model_type of families that have another name here.
TYPES = {"llama_ragged": "llama", "minimax_m3": "minimax_m3_vl", "ministral3": "mistral3", "mistral4": "mistral3"}
# Weights that stay in BF16, as in DeepSeek's checkpoints.
PLAIN = re.compile(r".*(norm|embed_tokens|lm_head|mlp\.gate|eh_proj|shared_head\.head)\.")


def quantize(a, block=128):
    """Codes and scales: scale = amax / 448 of each block, codes rounded to nearest even."""
    a = a.astype(np.float32)
    rows, cols = -(-a.shape[0] // block), -(-a.shape[1] // block)
    padded = np.zeros((rows * block, cols * block), np.float32)
    padded[: a.shape[0], : a.shape[1]] = a
    amax = np.abs(padded).reshape(rows, block, cols, block).max((1, 3))
    scale = np.maximum((amax / np.float32(448)).astype(np.float32), np.float32(2**-126))
    spread = np.repeat(np.repeat(scale, block, 0), block, 1)[: a.shape[0], : a.shape[1]]
    return (a / spread).astype(FP8), scale


def saved(name, directory, dtype="bfloat16"):
    """The arrays and the config that transformers saves for a model with random weights."""
    import torch
    import transformers

    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(TYPES.get(name, name), **MODELS[name])
    images = "vision_config" in MODELS[name]
    auto = transformers.AutoModelForImageTextToText if images else transformers.AutoModelForCausalLM
    model = auto.from_config(config, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for p in model.state_dict().values():  # norms, biases and buffers too
            if p.is_floating_point():
                p.normal_(1.0 if p.ndim == 1 else 0.0, 0.05)
            else:
                p.random_(0, 4)
    model.save_pretrained(directory)
    config = json.loads((pathlib.Path(directory) / "config.json").read_text())
    return published(config["model_type"], container.read_all(directory)), config


# DeepSeek-V4 is published under names that transformers reads but does not write.
PUBLISHED = {
    "deepseek_v4": [
        (r"^model\.", ""),
        (r"^embed_tokens\.", "embed."),
        (r"^hc_head\.", ""),
        (r"^hc_(fn|base|scale)$", r"hc_head_\1"),
        (r"\.attn\.norm\.", ".attn.kv_norm."),
    ]
}
# Qwen3-VL is published with the last axes of grouped experts swapped. transformers reads both.
SWAPPED = {"qwen3_vl_moe": re.compile(r".*\.experts\.\w+_proj$")}


def published(model_type, tensors):
    """The arrays that transformers saves, under their published names."""
    out = {}
    for key, a in tensors.items():
        if model_type in SWAPPED and SWAPPED[model_type].match(key):
            a = a.swapaxes(1, 2)
        for pattern, name in PUBLISHED.get(model_type, ()):
            key = re.sub(pattern, name, key)
        out[key] = np.array(a, order="C")
    return out


def with_mtp(tensors, layer):
    """A multi-token-prediction layer: a copy of the last layer, and the tensors that join it."""
    rng = np.random.default_rng(3)

    def plain(*shape):
        return rng.normal(0, 0.05, shape).astype(ml_dtypes.bfloat16)

    p, hidden, vocab = f"model.layers.{layer}.", SIZES["hidden_size"], SIZES["vocab_size"]
    last = f"model.layers.{layer - 1}."
    tensors |= {k.replace(last, p): v for k, v in tensors.items() if k.startswith(last)}
    return tensors | {
        p + "embed_tokens.weight": plain(vocab, hidden),
        p + "enorm.weight": plain(hidden),
        p + "hnorm.weight": plain(hidden),
        p + "eh_proj.weight": plain(hidden, 2 * hidden),
        p + "shared_head.norm.weight": plain(hidden),
        p + "shared_head.head.weight": plain(vocab, hidden),
    }


@contextlib.contextmanager
def source(name, shards=3):
    """An FP8 checkpoint of the model, and a plain folder dequantized by NumPy, without MTP."""
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        tensors, config = saved(name, directory / "saved")
        mtp = MODELS[name].get("num_nextn_predict_layers", 0)
        if mtp:
            tensors = with_mtp(tensors, SIZES["num_hidden_layers"])
        quantized = {}
        for key, a in tensors.items():
            if a.ndim == 2 and not PLAIN.match(key):
                quantized[key], quantized[key + "_scale_inv"] = quantize(a)
            else:
                quantized[key] = a
        fp8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
        container.write_checkpoint(directory / "fp8", config | {"quantization_config": fp8}, quantized, shards, True)
        plain = {k: v for k, v in oracle.hf(quantized).items() if not is_mtp(k)}
        container.write_checkpoint(directory / "plain", config, plain)
        yield directory / "fp8", directory / "plain", quantized


def is_mtp(key):
    return f"layers.{SIZES['num_hidden_layers']}." in key
