"""The torchtitan view against TorchTitan's own adapters."""

import importlib
import tempfile
import types

import families
import reference
from checks import check
from container import write_checkpoint
from mounts import mount

ADAPTERS = {
    "deepseek_v3": ("DeepSeekV3StateDictAdapter", "ComplexRoPE", "n_routed_experts"),
    "qwen3_moe": ("Qwen3StateDictAdapter", "CosSinRoPE", "num_experts"),
}


def adapter(name, config):
    """TorchTitan's adapter, with the fields of a model's config that it needs."""
    from torchtitan.models.common import rope as ropes

    adapter, rope, experts = ADAPTERS[name]
    module = importlib.import_module(f"torchtitan.models.{name.removesuffix('_moe')}.state_dict_adapter")
    attention = types.SimpleNamespace(q_lora_rank=1, rope=object.__new__(getattr(ropes, rope).Config))
    layer = types.SimpleNamespace(attention=attention, moe=types.SimpleNamespace(num_experts=config[experts]))
    model = types.SimpleNamespace(
        layers=[layer] * config["num_hidden_layers"],
        mtp_layers=[layer] * config.get("num_nextn_predict_layers", 0),
        enable_weight_tying=False,
    )
    return getattr(module, adapter)(model, None)


def views():
    """from_hf over the result of the reference's dequantize_from_fp8."""
    import torch

    for name in ADAPTERS:
        for seed in range(12):
            case = families.make(name, seed)
            if "model.embed_tokens.weight" not in case.tensors:
                continue
            with check(f"torchtitan {name} {seed}"), tempfile.TemporaryDirectory() as source:
                write_checkpoint(source, case.config, case.tensors, 2)
                want = reference.dequantize_pairs(reference.load(source), torch.bfloat16)
                # Its prediction layers share the model's embedding and head. Its map has no names
                # for copies.
                want = {k: v for k, v in want.items() if "shared_head.head" not in k and not embedding_of_mtp(k)}
                with mount(source, "--layout", "torchtitan") as point:
                    reference.compare(adapter(name, case.config).from_hf(want), reference.load(point))


def embedding_of_mtp(key):
    return ".layers." in key and ".embed_tokens." in key
