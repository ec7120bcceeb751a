"""A checkpoint with the shapes of Qwen3-30B-A3B in FP8, with random weights."""

import json
import pathlib
import struct

import numpy as np

HIDDEN, EXPERT, HEADS, GROUPS, HEAD = 2048, 768, 32, 4, 128
WIDTH = {"F8_E4M3": 1, "BF16": 2, "F32": 4}


class Maker:
    """Writes shards. The bytes of tensors are slices of one array of noise."""

    def __init__(self, directory, seed=1):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.rng = np.random.default_rng(seed)
        codes = self.rng.integers(0, 256, 96 << 20, dtype=np.uint8)
        codes[codes & 0x7F == 0x7F] = 0  # no NaN
        values = self.rng.standard_normal(48 << 20, dtype=np.float32) * np.float32(0.02)
        self.noise = {
            "F8_E4M3": codes,
            "BF16": (values.view(np.uint32) >> 16).astype(np.uint16),
            "F32": self.rng.uniform(1e-4, 1e-3, 1 << 16).astype(np.float32),
        }
        self.index = {}

    def data(self, dtype, n):
        """The bytes of n elements, in pieces."""
        noise = self.noise[dtype]
        while n > 0:
            piece = min(n, len(noise) // 2)
            at = int(self.rng.integers(0, len(noise) - piece + 1))
            yield noise[at : at + piece].data
            n -= piece

    def shard(self, name, tensors):
        """Write tensors, a dict of dtypes and shapes, in the order of the safetensors library."""
        header, at = {}, 0
        order = sorted(tensors, key=lambda key: (-WIDTH[tensors[key][0]], key))
        for key in order:
            dtype, shape = tensors[key]
            n = WIDTH[dtype] * int(np.prod(shape))
            header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}
            at += n
            self.index[key] = name
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        text += b" " * (-len(text) % 8)
        with open(self.directory / name, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for key in order:
                dtype, shape = tensors[key]
                for piece in self.data(dtype, int(np.prod(shape))):
                    f.write(piece)

    def json(self, name, value):
        (self.directory / name).write_text(json.dumps(value, indent=1))


def quantized(tensors, key, rows, cols):
    tensors[key + ".weight"] = ("F8_E4M3", [rows, cols])
    tensors[key + ".weight_scale_inv"] = ("F32", [-(-rows // 128), -(-cols // 128)])


def layer(number, experts):
    """The tensors of a layer."""
    tensors, prefix = {}, f"model.layers.{number}."
    for name, rows, cols in (
        ("q_proj", HEADS * HEAD, HIDDEN),
        ("k_proj", GROUPS * HEAD, HIDDEN),
        ("v_proj", GROUPS * HEAD, HIDDEN),
        ("o_proj", HIDDEN, HEADS * HEAD),
    ):
        quantized(tensors, prefix + "self_attn." + name, rows, cols)
    for name, n in (
        ("self_attn.q_norm", HEAD),
        ("self_attn.k_norm", HEAD),
        ("input_layernorm", HIDDEN),
        ("post_attention_layernorm", HIDDEN),
    ):
        tensors[f"{prefix}{name}.weight"] = ("BF16", [n])
    tensors[prefix + "mlp.gate.weight"] = ("BF16", [experts, HIDDEN])
    for e in range(experts):
        expert = f"{prefix}mlp.experts.{e}."
        quantized(tensors, expert + "gate_proj", EXPERT, HIDDEN)
        quantized(tensors, expert + "up_proj", EXPERT, HIDDEN)
        quantized(tensors, expert + "down_proj", HIDDEN, EXPERT)
    return tensors


def config(layers, experts, vocabulary):
    plain = ("input_layernorm", "post_attention_layernorm", "mlp.gate")
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_sparse_step": 1,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": 6144,
        "max_position_embeddings": 40960,
        "max_window_layers": 48,
        "mlp_only_layers": [],
        "moe_intermediate_size": EXPERT,
        "norm_topk_prob": True,
        "num_attention_heads": HEADS,
        "num_experts": experts,
        "num_experts_per_tok": min(8, experts),
        "num_hidden_layers": layers,
        "num_key_value_heads": GROUPS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "router_aux_loss_coef": 0.001,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": vocabulary,
        "quantization_config": {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "modules_to_not_convert": ["lm_head"] + [f"model.layers.{n}.{name}" for n in range(layers) for name in plain],
            "quant_method": "fp8",
            "weight_block_size": [128, 128],
        },
    }


def make(directory, layers, experts, vocabulary):
    """Write a checkpoint: a shard for each layer, and one for the embeddings."""
    maker = Maker(directory)
    for n in range(layers):
        maker.shard(f"model-{n + 1:05d}-of-{layers + 1:05d}.safetensors", layer(n, experts))
    embeddings = {
        "model.embed_tokens.weight": ("BF16", [vocabulary, HIDDEN]),
        "lm_head.weight": ("BF16", [vocabulary, HIDDEN]),
        "model.norm.weight": ("BF16", [HIDDEN]),
    }
    maker.shard(f"model-{layers + 1:05d}-of-{layers + 1:05d}.safetensors", embeddings)
    maker.json("model.safetensors.index.json", {"metadata": {}, "weight_map": maker.index})
    maker.json("config.json", config(layers, experts, vocabulary))
