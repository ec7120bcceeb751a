"""The way back: native and BF16 checkpoints as Hugging Face ones, plain and in FP8."""

import contextlib
import json
import pathlib
import re
import tempfile

import numpy as np

import container
import families
import models
import oracle
import reference
from checks import check, expect
from container import differences, read_all, same, write_checkpoint
from mounts import mount

SEEDS = range(10)


def model_prefixed(seeds):
    """DeepSeek-V3 cases with the prefix model. The reference writes experts under no other."""
    for seed in seeds:
        case = families.make("deepseek_v3", seed)
        if "model.embed_tokens.weight" in case.tensors:
            yield seed, case


@contextlib.contextmanager
def native_source(case):
    """A BF16 checkpoint in the native layout, with its tensors as the reference has them."""
    with tempfile.TemporaryDirectory() as directory:
        config = without_quantization(case.config)
        write_checkpoint(directory, config, oracle.grouped(case.tensors))
        yield directory, reference.load(directory)


def to_hf():
    """to_hf, exclude_key_regex and quantization=True of the reference against hf and hf-fp8."""
    import torch

    exclude = r"model\.layers\.\d+\.(mlp\.experts\.1|self_attn\.o_proj)"
    views = {
        "hf view equals to_hf": (("--layout", "hf"), {}),
        "--exclude equals exclude_key_regex": (("--layout", "hf", "--exclude", exclude), {"exclude_key_regex": exclude}),
        "--scales ones equals to_hf(quantization=True)": (
            ("--layout", "hf-fp8", "--scales", "ones"),
            {"quantization": True},
        ),
        "--scales ones and --exclude": (
            ("--layout", "hf-fp8", "--scales", "ones", "--exclude", exclude),
            {"quantization": True, "exclude_key_regex": exclude},
        ),
    }
    for seed, case in model_prefixed(range(16)):
        with native_source(case) as (directory, tensors):
            want = reference.adapter(case, torch.bfloat16)
            for name, (flags, arguments) in views.items():
                with check(f"deepseek_v3 {seed}: {name}"), mount(directory, *flags) as point:
                    reference.compare(want.to_hf(dict(tensors), **arguments), reference.load(point))


def to_hf_families():
    """to_hf of each family, and quantization=True if its reference follows DeepSeek's rule."""
    import torch

    for name in families.FAMILIES:
        plain = ("--layout", "hf")
        views = {"hf view equals to_hf": (plain, {})}
        if name in ("deepseek_v32", "minimax_m2"):
            ones = ("--layout", "hf-fp8", "--scales", "ones")
            views["--scales ones equals to_hf(quantization=True)"] = (ones, {"quantization": True})
        # deepseek_v3 has its own checks: the reference writes its experts with the prefix model.,
        # even if the source has another one.
        seeds = (1, 3, 5) if families.make(name, 1).experts and name != "deepseek_v3" else ()
        for seed in seeds:
            case = families.make(name, seed)
            with tempfile.TemporaryDirectory() as scratch:
                tensors = saved_native(case, pathlib.Path(scratch))
                for what, (flags, arguments) in views.items():
                    with check(f"{name} {seed}: {what}"), mount(f"{scratch}/native", *flags) as point:
                        want = reference.adapter(case, torch.bfloat16).to_hf(dict(tensors), **arguments)
                        reference.compare(want, reference.load(point))


def saved_native(case, scratch):
    """The result of the reference's from_hf, written as a BF16 checkpoint."""
    import torch
    from safetensors.torch import save_file

    write_checkpoint(scratch / "source", case.config, case.tensors)
    tensors = reference.from_hf(case, scratch / "source", torch.bfloat16)
    write_checkpoint(scratch / "native", without_quantization(case.config), {}, single=True)
    contiguous = {k: v.contiguous() for k, v in tensors.items()}
    save_file(contiguous, scratch / "native" / "model.safetensors", {"format": "pt"})
    return tensors


def without_quantization(config):
    inner = {k: without_quantization(v) if isinstance(v, dict) else v for k, v in config.items()}
    return {k: v for k, v in inner.items() if k != "quantization_config"}


def amax():
    """Codes and scales of hf-fp8 against NumPy, from native and from per-expert BF16 sources."""
    for seed, case in model_prefixed(SEEDS):
        plain = oracle.hf(case.tensors)
        with check(f"deepseek_v3 {seed}: hf-fp8 of a native source"), native_source(case) as (directory, _):
            with mount(directory, "--layout", "hf-fp8") as point:
                quantized_well(plain, case.tensors, point)
        with check(f"deepseek_v3 {seed}: hf-fp8 of a BF16 source"), tempfile.TemporaryDirectory() as directory:
            config = without_quantization(case.config)
            write_checkpoint(directory, config, plain, 2)
            with mount(directory, "--layout", "hf-fp8") as point:
                quantized_well(plain, case.tensors, point)


def quantized_well(plain, published, point):
    """The weights that the rule names are quantized. The others are unchanged and listed."""
    got = read_all(point)
    config = json.loads((pathlib.Path(point) / "config.json").read_text())
    left_out = config["quantization_config"]["modules_to_not_convert"]
    expect(config["quantization_config"]["weight_block_size"] == [128, 128], "no block size in config.json")
    for key, a in plain.items():
        if key + "_scale_inv" not in got:
            expect(got[key].dtype == a.dtype and same(got[key], a), f"{key} is neither quantized nor untouched")
            linear = a.ndim == 2 and not re.search(r"norm|embed_tokens|mlp\.gate\.", key)
            module = key.removesuffix(".weight")
            expect(not linear or listed(module, left_out), f"{module} is in no list of modules not to convert")
            continue
        codes, scale = models.quantize(a)
        expect(same(got[key + "_scale_inv"], scale), f"{key}: scales differ")
        expect(same(got[key], codes), f"{key}: codes differ")
    expert = [k for k in plain if ".experts." in k and k.endswith("_proj.weight")]
    expect(all(k + "_scale_inv" in got for k in expert), "an expert is not quantized")
    published = {k for k in published if k + "_scale_inv" in published and ".experts." not in k}
    expect(published <= got.keys() and all(k + "_scale_inv" in got for k in published), "a published pair is missing")


def listed(module, modules):
    return any(m == module or m in module for m in modules)


def transformers_fp8():
    """hf-fp8 loads as a quantized checkpoint; on a CPU transformers dequantizes it itself."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 256, "intermediate_size": 256, "moe_intermediate_size": 128, "head_dim": 64}
    models.MODELS["qwen3_moe"] |= sizes  # whole blocks: transformers guesses the size of others
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        tensors, config = models.saved("qwen3_moe", scratch / "bf16")
        with check("transformers from_pretrained of hf-fp8"), mount(scratch / "bf16", "--layout", "hf-fp8") as point:
            view = read_all(point)
            expect(view.keys() > tensors.keys(), "no scales")
            container.write_checkpoint(scratch / "plain", config, oracle.hf(view))
            model, info = AutoModelForCausalLM.from_pretrained(point, dtype=torch.bfloat16, output_loading_info=True)
            expect(not info["missing_keys"] and not info["mismatched_keys"], str(info))
            # It drops its quantizer once everything is dequantized. Unused scales would be
            # reported as unexpected keys.
            expect(not info["unexpected_keys"], f"unexpected {info['unexpected_keys']}")
            expect(AutoConfig.from_pretrained(point).quantization_config["quant_method"] == "fp8", "not marked as FP8")
            tokens = torch.arange(40)[None] * 5 % 256
            with torch.no_grad():
                got = model(tokens).logits
                want = AutoModelForCausalLM.from_pretrained(scratch / "plain")(tokens).logits
            expect(torch.equal(got, want), f"logits differ by {(got - want).abs().max()}")


def twice():
    """BF16 → hf-fp8 → hf: within half a step of the format, and a second trip changes nothing."""
    for seed, case in model_prefixed(SEEDS):
        with check(f"deepseek_v3 {seed}: there and back again"), tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            plain = oracle.hf(case.tensors)
            config = without_quantization(case.config)
            write_checkpoint(scratch / "0", config, plain)
            first = trip(scratch / "0", scratch / "fp8")
            lines = differences(first, trip(write_and(scratch / "1", config, first), scratch / "fp8-2"))
            expect(not lines, "a second trip differs: " + "; ".join(lines[:6]))
            for key, a in plain.items():
                near(key, a.astype(np.float32), first[key].astype(np.float32))


def write_and(directory, config, tensors):
    write_checkpoint(directory, config, tensors)
    return directory


def trip(source, scratch):
    """source exported as hf-fp8, and that exported as hf."""
    with mount(source, "--layout", "hf-fp8") as point:
        config = json.loads((pathlib.Path(point) / "config.json").read_text())
        write_checkpoint(scratch, config, read_all(point))
    with mount(scratch, "--layout", "hf") as point:
        return {k: np.array(v) for k, v in read_all(point).items()}


def near(key, a, b):
    """At most half an FP8 step of the block plus half a BF16 ulp away."""
    if a.ndim != 2 or same(a, b):
        return
    _, scale = models.quantize(a)
    spread = np.repeat(np.repeat(scale, 128, 0), 128, 1)[: a.shape[0], : a.shape[1]]
    size = np.maximum(np.abs(a / spread), np.float32(2**-6))
    step = np.exp2(np.floor(np.log2(size)) - 3) * spread
    limit = step / 2 * 1.0001 + np.abs(a) * 2.0**-8
    expect(bool((np.abs(a - b) <= limit).all()), f"{key} is off by more than half a step")
