"""Seeded small models of transformers, one for each model type whose experts it merges.

A configuration is the library's own. Each field that the tables below know gets a drawn value, and
`CHANGES` says what else a type needs.
"""

import math
import random

# The numbers of layers, heads and so on that most types share. `Sizes` draws them.
PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type")
VISION = ("vision_config", "audio_config", "sam_config", "encoder_config")


class Sizes:
    """The values of one seed. Experts and their sizes may be odd numbers."""

    def __init__(self, model_type, seed):
        self.random = random.Random(f"{model_type} {seed}")
        pick = self.random.choice
        self.layers = pick((2, 3, 4))
        self.dense = pick((0, 1))
        self.experts = pick((3, 4, 5, 7, 8))
        self.hidden = pick((32, 48, 64))
        self.heads = pick((2, 4))
        self.tied = pick((False, False, True))
        inner, moe = pick((40, 56, 33)), pick((24, 20, 13))
        self.text = {
            "vocab_size": pick((48, 60)),
            "hidden_size": self.hidden,
            "intermediate_size": inner,
            "dense_intermediate_size": inner + 8,
            "ffn_hidden_size": inner,
            "moe_intermediate_size": moe,
            "expert_ffn_hidden_size": moe,
            "shared_intermediate_size": moe,
            "share_expert_dim": moe,
            "shared_expert_intermediate_size": moe,
            "moe_shared_expert_intermediate_size": moe,
            "num_hidden_layers": self.layers,
            "num_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_sliding_attention_heads": self.heads,
            "num_key_value_heads": pick((1, 2)),
            "head_dim": pick((8, 16)),
            "max_position_embeddings": 64,
            "sliding_window": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            # experts
            "num_experts": self.experts,
            "num_local_experts": self.experts,
            "n_routed_experts": self.experts,
            "moe_num_experts": self.experts,
            "num_experts_per_tok": 2,
            "num_experts_per_token": 2,
            "moe_topk": 2,
            "moe_k": 2,
            "n_shared_experts": 1,
            "num_shared_experts": 1,
            "moe_num_shared_experts": 1,
            "n_group": 1,
            "num_expert_group": 1,
            "topk_group": 1,
            "zero_expert_num": 0,
            # dense layers
            "first_k_dense_replace": self.dense,
            "num_dense_layers": self.dense,
            "moe_layer_start_index": self.dense,
            "moe_layer_end_index": self.layers - 1,
            "mlp_only_layers": list(range(self.dense)),
            # attention with low ranks, and with an index
            "q_lora_rank": pick((24, 16)),
            "kv_lora_rank": pick((16, 8)),
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": pick((16, 12)),
            "o_groups": 2,
            "o_lora_rank": 8,
            "index_n_heads": 2,
            "index_head_dim": 16,
            "index_topk": 8,
            "index_kpool": 4,
            "index_block_size": 4,
            "gated_norm_rank": 4,
            "rotary_dim": 8,
            "projector_hidden_size": 24,
            # linear attention and Mamba
            "linear_num_key_heads": 2,
            "linear_num_value_heads": pick((2, 4)),
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_heads": self.heads,
            "linear_head_dim": 8,
            "block_size": 16,
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "mamba_n_heads": self.hidden // 4,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "ssm_state_size": 8,
            "n_groups": 2,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "attn_layer_period": 2,
            "attn_layer_offset": pick((0, 1)),
            # several residual streams
            "hc_mult": 2,
            "hc_count": 2,
            "hc_lowrank": 8,
        }
        heads = pick((1, 2, 4))
        side = heads * pick((8, 16))
        self.vision = {
            "depth": pick((1, 2)),
            "num_hidden_layers": pick((1, 2)),
            "encoder_layers": 1,
            "hidden_size": side,
            "d_model": side,
            "intermediate_size": pick((24, 25)),
            "encoder_ffn_dim": 24,
            "mlp_dim": 24,
            "num_heads": heads,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "encoder_attention_heads": heads,
            "head_dim": side // heads,
            "image_size": 28,
            "patch_size": 14,
            "out_hidden_size": self.hidden,
            "output_dim": self.hidden,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
            "pos_emb_height": 4,
            "pos_emb_width": 4,
            "projection_intermediate_size": 24,
            "downsample_hidden_size": 8,
            "num_mel_bins": 16,
            "max_source_positions": 30,
            "n_window": 4,
            "n_window_infer": 8,
            "output_channels": 8,
            "downsample_channels": [12, 16],
        }

    def layer_list(self, kind, default):
        """One entry for each layer: dense layers first, other kinds in turn from a drawn one."""
        kinds = list(dict.fromkeys(default))
        if kind == "mlp_layer_types":
            return kinds[:1] * self.dense + kinds[-1:] * (self.layers - self.dense)
        start = self.random.randrange(len(kinds))
        # Where this list gives the number of layers, each kind is in it.
        layers = max(self.layers, len(kinds)) if kind == "layers_block_type" else self.layers
        return [kinds[(start + i) % len(kinds)] for i in range(layers)]

    def untie(self, config):
        """Embeddings of their own for the head, in every part of a configuration."""
        for key, value in config.items():
            if isinstance(value, dict):
                self.untie(value)
            elif key == "tie_word_embeddings":
                config[key] = False

    def fields(self, default, vision=False):
        """Drawn values for the fields of a default configuration that the tables know."""
        out = {}
        for key, value in default.items():
            table = self.vision if vision else self.text
            if isinstance(value, dict) and key.endswith("_config"):
                out[key] = self.fields(value, vision or key in VISION)
            elif key == "tie_word_embeddings":
                out[key] = self.tied
            elif key in PER_LAYER and not vision and value:
                out[key] = self.layer_list(key, value)
            elif key in table and not (key == "q_lora_rank" and value is None):
                out[key] = table[key]
            elif key == "model_type":
                out[key] = value
        if "kv_lora_rank" in out:
            out["num_key_value_heads"] = out["num_attention_heads"]
        return out


# --- what some types need besides ---------------------------------------------------------


def each_head(sizes, text):
    """As many heads of keys and values as of queries."""
    text["num_key_value_heads"] = text["num_attention_heads"]


def bailing_hybrid(sizes, config):
    config["layer_types"] = sizes.layer_list("layer_types", ["linear_attention", "full_attention"])


def deepseek_ocr2(sizes, config):
    config["text_config"]["mlp_layer_types"] = sizes.layer_list("mlp_layer_types", ["dense", "sparse"])
    config["vision_config"]["encoder_config"]["num_key_value_heads"] = 1


def dots3_note(sizes, config):
    """Layers with a sliding window have fewer heads than the others, and other ranks."""
    text = config["text_config"]
    kinds = text["layer_types"]
    text["head_dim"] = text["qk_nope_head_dim"] + text["qk_rope_head_dim"]
    fewer = {"num_attention_heads": 2, "num_key_value_heads": 2, "kv_lora_rank": 24}
    text["per_layer_config"] = {str(i): fewer for i, kind in enumerate(kinds) if kind == "sliding_attention"}
    vision, audio = config["vision_config"], config["audio_config"]
    vision |= {"adapter_in_dim": vision["hidden_size"], "adapter_out_dim": sizes.hidden, "num_hidden_layers": 3}
    vision |= {"mlp_layer_types": ["dense", "sparse", "sparse"], "moe_intermediate_size": 13}
    vision["per_layer_config"] = {str(i): {"num_local_experts": i + 2} for i in (1, 2)}
    audio |= {"adapter_input_size": audio["hidden_size"], "adapter_out_dim": sizes.hidden}


def ernie4_5_vl_moe(sizes, config):
    config["text_config"] |= {"moe_intermediate_size": [24, 16], "head_dim": 16}
    config["text_config"]["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [3, 3, 2],
    }


def glm5_next(sizes, config):
    config["text_config"] |= {"qk_rope_head_dim": 0, "head_dim": 0}
    config["text_config"]["layer_types"] = sizes.layer_list("layer_types", ["linear_attention", "full_attention"])


def lfm2_moe(sizes, config):
    config["layer_types"] = sizes.layer_list("layer_types", ["conv", "full_attention"])


def qwen3_omni_moe(sizes, config):
    """The talker has another number of experts, and ties nothing. The vocoder is small too."""
    sizes.untie(config)
    config["talker_config"]["spatial_merge_size"] = 2
    config["talker_config"]["text_config"] |= {
        "shared_expert_intermediate_size": 24,
        "num_experts": sizes.experts + 1,
        "num_local_experts": sizes.experts + 1,
    }
    config["code2wav_config"] |= {"decoder_dim": 64, "codebook_size": 16, "num_quantizers": 2}


def qwen3_vl_moe(sizes, config):
    """Sizes that differ: where they are equal, a shape does not tell which axes are turned."""
    config["text_config"]["moe_intermediate_size"] = 20


def qwen4_exp_text(sizes, text):
    """A layer with a table of n-grams, which is stored in parts, and attention with an index."""
    text |= {
        "ple_layer_ids": [1 + text["layer_types"].index("linear_attention")],
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "ple_embed_dim": 16,
        "heads_per_ngram": 2,
        "ngram_vocab_size_base": sizes.random.choice((20, 50)),
        "make_ngram_vocab_size_divisible_by": 4,
        "split_ngram_parts": sizes.random.choice((1, 4, 11)),
    }


CHANGES = {
    "bailing_hybrid": bailing_hybrid,
    "deepseek_ocr2": deepseek_ocr2,
    "dots3_note": dots3_note,
    "ernie4_5_vl_moe": ernie4_5_vl_moe,
    "glm5_next": glm5_next,
    "lfm2_moe": lfm2_moe,
    "qwen3_omni_moe": qwen3_omni_moe,
    "qwen3_vl_moe": qwen3_vl_moe,
    "qwen4_exp": lambda sizes, config: qwen4_exp_text(sizes, config["text_config"]),
    "qwen4_exp_text": qwen4_exp_text,
}
AUTO = ("AutoModelForImageTextToText", "AutoModelForCausalLM", "AutoModelForMultimodalLM", "AutoModel")


def config(model_type, seed):
    """The configuration of a type for a seed."""
    from transformers import AutoConfig

    made = type(AutoConfig.for_model(model_type))
    sizes = Sizes(model_type, seed)
    fields = sizes.fields(made().to_dict())
    del fields["model_type"]
    CHANGES.get(model_type, lambda sizes, config: None)(sizes, fields)
    return made(**fields)


def auto(config):
    """The class of the library that makes models of a configuration."""
    import transformers

    return next(a for a in (getattr(transformers, name) for name in AUTO) if type(config) in a._model_mapping)


def loaded(directory, dtype):
    """The model of a folder, and what the library says of its keys."""
    from transformers import AutoConfig

    found = auto(AutoConfig.from_pretrained(directory))
    return found.from_pretrained(directory, dtype=dtype, output_loading_info=True)


def model(model_type, seed, dtype):
    """A model with random weights, norms, biases and buffers."""
    import torch

    torch.manual_seed(seed)
    made = config(model_type, seed)
    out = auto(made).from_config(made, dtype=dtype)
    with torch.no_grad():
        for p in out.state_dict().values():
            if p.is_floating_point():
                p.normal_(1.0 if p.ndim == 1 else 0.0, 0.05)
            else:
                p.random_(0, 4)
    return out
