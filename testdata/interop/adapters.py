"""The native views of quantized families against AutoModel's adapters.

Each source is a golden whose codes, scales and plain tensors are drawn anew, often with more experts.
Where the adapter decodes a format, it gets the source. Where it does not, it gets the tensors of the
hf view, whose values libraries.py checks. Exponents keep clear of 0 and 255: there the view follows
the format, and libraries.py checks what the adapter gives.
"""

import functools
import json
import pathlib
import random
import re
import shutil
import sys
import tempfile

import numpy as np

import container
import families
import oracle
import quantized
import reference
from checks import check
from mounts import mount

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "formats"
ALL = ("bf16", "f16", "f32")
QWEN = "qwen3_moe.state_dict_adapter:Qwen3MoeStateDictAdapter"
V4 = "deepseek_v4.state_dict_adapter:DeepSeekV4StateDictAdapter"
# golden: adapter, dtypes, whether the adapter decodes it
CASES = {
    "gpt_oss": ("gpt_oss.state_dict_adapter:GPTOSSStateDictAdapter", ("bf16",), True),
    "kimi_k25_int4": ("kimi_k25_vl.state_dict_adapter:KimiK25VLStateDictAdapter", ("bf16",), True),
    "trap_stale_config": ("kimi_k25_vl.state_dict_adapter:KimiK25VLStateDictAdapter", ("bf16",), False),
    "kimi_k3": ("kimi_k3.state_dict_adapter:KimiK3StateDictAdapter", ("bf16",), True),
    "deepseek_v4_fp8": (V4, ALL, True),
    "deepseek_v4_fp4": (V4, ALL, True),
    "modelopt_v4_nvfp4": (V4, ALL, False),
    "deepseek_v41": ("deepseek_v41.state_dict_adapter:DeepseekV41StateDictAdapter", ALL, True),
    "minimax_m3": ("minimax_m3_vl.state_dict_adapter:MiniMaxM3VLStateDictAdapter", ALL, True),
    "mistral4": ("mistral4.state_dict_adapter:Mistral4MultimodalStateDictAdapter", ALL, True),
    "modelopt_mixed": ("nemotron_v3.state_dict_adapter:NemotronV3StateDictAdapter", ALL, False),
    "kimi_k2_int4": ("deepseek_v3.state_dict_adapter:DeepSeekV3StateDictAdapter", ALL, False),
    "ct_int4_moe": (QWEN, ALL, False),
    "ct_nvfp4": (QWEN, ALL, False),
    "modelopt_nvfp4": (QWEN, ALL, False),
    "awq_moe": (QWEN, ALL, False),
    "gptq_moe": (QWEN, ALL, False),
    "bnb_moe": (QWEN, ALL, False),
    "trap_quark": (QWEN, ALL, False),
}
EXPERTS = 2  # in each golden
COUNTS = re.compile(r"n_routed_experts|num_experts|num_local_experts")
BY_EXPERT = re.compile(
    r".*(gate|router)\.(weight|bias)$|.*e_score_correction_bias$|.*\.experts\.(gate_up|down)_proj\w*$"
)
KEPT = re.compile(r".*(weight_shape|g_idx|quant_map|quant_state\.\w+|tid2eid|weight_format)$")
SCALE = re.compile(r".*(scale\w*|scales|absmax)$")


def redraw(d, key, a, experts):
    """A tensor of a golden with other contents, for another number of experts."""
    if BY_EXPERT.match(key) and a.shape[:1] == (EXPERTS,):
        a = np.resize(a, (experts, *a.shape[1:]))
    if KEPT.match(key):
        return a
    if a.dtype == np.int32:
        return d.rng.integers(-(2**31), 2**31, a.shape).astype(np.int32)
    if SCALE.match(key) and not re.match(r".*hc_\w+_scale$", key):
        if a.dtype in (quantized.U8, quantized.E8M0):
            return d.exponents(a.shape, ends=False).view(a.dtype).reshape(a.shape)
        return d.scales(a.shape, a.dtype)
    if a.dtype in (quantized.U8, quantized.I8):
        return d.codes(a.shape, 8).astype(quantized.U8).view(a.dtype).reshape(a.shape)
    if a.dtype == quantized.E4M3:
        return d.fp8(a.shape)
    if a.dtype.itemsize == 1 or np.issubdtype(a.dtype, np.integer):
        return a
    return d.rng.normal(0, 0.05, a.shape).astype(np.float32).astype(a.dtype)


def counted(config, experts):
    """The configuration for another number of experts."""
    if not isinstance(config, dict):
        return config
    return {k: experts if COUNTS.fullmatch(k) else counted(v, experts) for k, v in config.items()}


def case(name, seed, directory):
    """Writes a source, and gives the case of reference.py for it."""
    d, adapter = quantized.Draw(f"{name} {seed}"), CASES[name][0]
    d.special = False
    experts = random.Random(seed).choice([2, 3, 5, 8, 11])
    golden = GOLDEN / name
    tensors = {}
    for key, a in container.read_all(golden, aligned=False).items():
        number = re.search(r"\.experts\.(\d+)\.", key)
        if number is None:
            tensors[key] = redraw(d, key, np.array(a), experts)
        elif int(number[1]) == 0:
            for e in range(experts):
                tensors[key.replace(".experts.0.", f".experts.{e}.")] = redraw(d, key, np.array(a), experts)
    config = counted(json.loads((golden / "config.json").read_text()), experts)
    container.write_checkpoint(directory, config, tensors, 1 + seed % 3, seed % 3 > 0)
    for path in golden.glob("*_config.json"):
        if path.name != "generation_config.json":
            shutil.copy(path, directory)
    return families.Case(config, tensors, adapter, experts)


def run(name):
    """All seeds of one golden, in turn in each dtype, and the ranks of an expert-parallel group."""
    _, dtypes, decodes = CASES[name]
    for seed in reference.SEEDS:
        with check(f"native {name} {seed}: the view equals from_hf"), tempfile.TemporaryDirectory() as source:
            made = case(name, seed, source)
            one(made, source, dtypes[seed % len(dtypes)], decodes)
            ranks(made, source, dtypes[(seed + 1) % len(dtypes)], decodes, 2 + seed % (made.experts + 1))


def one(made, source, dtype, decodes):
    with mount(source, "--layout", "hf,native", "--dtype", dtype) as point:
        want = reference.from_hf(made, source if decodes else point / "hf", reference.dtypes()[dtype])
        reference.compare(want, reference.load(point / "native"))


def ranks(made, source, dtype, decodes, size):
    """The views of all ranks. The adapter takes experts that are stacked in the source whole."""
    stacked = any(re.search(r"\.experts\.(gate_up|down)_proj", k) for k in made.tensors)
    with (
        mount(source, "--layout", "hf", "--dtype", dtype) as whole,
        mount(source, "--layout", "native", "--dtype", dtype, "--ep", f"all/{size}") as point,
    ):
        for rank, mesh in reference.ranks(size):
            want = reference.from_hf(made, source if decodes else whole, reference.dtypes()[dtype], mesh)
            if stacked:
                mine = oracle.share(made.experts, rank, size)
                want = {k: v[mine.start : mine.stop] if ".mlp.experts." in k else v for k, v in want.items()}
                want = {k: v for k, v in want.items() if len(v)}
            reference.compare(want, reference.load(point / f"rank-{rank}-of-{size}"))


# The goldens of one child process each: `adapters.kimi()` and so on.
GROUPS = {
    "stacks": ("gpt_oss", "mistral4", "minimax_m3", "modelopt_mixed"),
    "kimi": ("kimi_k2_int4", "kimi_k25_int4", "kimi_k3", "trap_stale_config"),
    "deepseek": ("deepseek_v4_fp8", "deepseek_v4_fp4", "modelopt_v4_nvfp4", "deepseek_v41"),
    "qwen": tuple(name for name, case in CASES.items() if case[0] == QWEN),
}


def group(names):
    for name in names:
        run(name)


for _name, _goldens in GROUPS.items():
    setattr(sys.modules[__name__], _name, functools.partial(group, _goldens))
