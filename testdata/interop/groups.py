"""Every model type whose experts transformers merges, in the library and in the views.

A small random model is saved under published names, which is what transformers does by default, and
loaded again. The view `transformers` of the checkpoint must be the state of the loaded model. The
model is also saved as it is in memory, with grouped experts. The views `hf` and `split` of that
checkpoint must have the published names again.

The list of types is the library's own: each entry of its table that makes experts must be used by
a model here, or be in `LEFT_OUT`.
"""

import json
import pathlib
import re
import sys
import tempfile

import container
import models
import numpy as np
import reference
import size
import tiny
from checks import check, expect
from mounts import mount

TYPES = (
    *("aria", "aria_text", "deepseek_ocr2", "unlimited_ocr"),
    *("afmoe", "axk1", "axk2", "bailing_hybrid", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32"),
    *("deepseek_v4", "dots1", "ernie4_5_moe", "exaone_moe", "flex_olmo", "flint", "glm4_moe", "glm4_moe_lite"),
    *("glm4v_moe", "glm5_next", "glm_moe_dsa", "granitemoe", "granitemoehybrid", "granitemoeshared"),
    *("hunyuan_v1_moe", "hy_v3", "inkling_mm_model", "jamba", "kimi_k25", "kimi_linear", "kolibri1", "laguna", "lfm2_moe"),
    *("longcat_flash", "mellum", "mimo_v2_flash", "minimax", "minimax_m2", "minimax_m3_vl", "mistral_large4"),
    *("mixtral", "nemotron_h", "olmoe", "phimoe", "qwen2_moe", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_moe"),
    *("qwen3_next", "qwen3_omni_moe", "qwen3_omni_moe_thinker", "qwen3_vl_moe", "qwen4_exp", "qwen4_exp_text"),
    *("sarvam_mla", "sarvam_moe", "solar_open", "step3p7"),
)
# Entries of the table that no view here follows.
LEFT_OUT = {
    "ernie4_5_vl_moe": "text and vision experts of two sizes are numbered through, and become two groups",
    "Dots3NoteTextModel": "its image encoder has experts of its own, of another number in each layer",
    "dots3_note_vision_encoder": "experts of an image encoder, of another number in each layer",
    "inkling2_text": "no row knows this later model",
    "inkling2_loop_text": "no row knows this later model",
    "nemo_speechlm": "published as NeMo's own grouped experts",
}
DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}

# What transformers saves by default is published so, except for these names.
PUBLISHED = {
    "kimi_k25": [
        (r"^language_model\.model\.blocks\.", "language_model.model.layers."),
        (r"^vision_tower\.encoder\.patch_embed\.", "vision_tower.patch_embed."),
        (r"^model\.mm_projector\.", "mm_projector."),
    ],
    "kimi_linear": [(r"\.block_sparse_moe\.(gate|up|down)_proj\.", r".mlp.\1_proj.")],
} | models.PUBLISHED
# Types that are published with grouped experts: the key of a group, and the parts of an expert in
# the order of their rows.
PUBLISHED_GROUPED = {
    "granitemoe": [
        (r"(.*\.block_sparse_moe\.)input_linear\.weight$", ("gate_proj", "up_proj")),
        (r"(.*\.block_sparse_moe\.)output_linear\.weight$", ("down_proj",)),
    ],
    "aria": [
        (r"(.*\.mlp\.)experts\.fc1\.weight$", ("gate_proj", "up_proj")),
        (r"(.*\.mlp\.)experts\.fc2\.weight$", ("down_proj",)),
    ],
    "step3p7": [(r"(.*\.moe\.)(gate|up|down)_proj\.weight$", (r"\2_proj",))],
    "qwen3_5_moe": [
        (r"(.*\.mlp\.)experts\.gate_up_proj$", ("gate_proj", "up_proj")),
        (r"(.*\.mlp\.)experts\.down_proj$", ("down_proj",)),
    ],
}
PUBLISHED_GROUPED |= dict.fromkeys(("granitemoeshared", "granitemoehybrid"), PUBLISHED_GROUPED["granitemoe"])
# The default save of these has split experts.
SAVED_APART = ("qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp", "qwen4_exp_text")
PUBLISHED_GROUPED |= dict.fromkeys((*SAVED_APART, "qwen3_vl_moe"), PUBLISHED_GROUPED["qwen3_5_moe"])
PUBLISHED_GROUPED["aria_text"] = PUBLISHED_GROUPED["aria"]
# Published with rows of gate and up in turn, which the program does not take apart.
NEVER_SPLIT = ("inkling_mm_model",)
# The axes of a group are swapped in releases of these. transformers turns those of Qwen3-VL back.
TURNED = ("aria", "aria_text", "qwen3_vl_moe")
# Releases of these give the number of experts in a field that the library reads but does not write.
NUM_EXPERTS = ("qwen3_moe", "qwen3_vl_moe")
# Types whose releases have quantized weights with scales for blocks, and what holds them.
FP8 = ("deepseek_v3", "deepseek_v32", "glm4_moe", "glm_moe_dsa", "hy_v3", "mimo_v2_flash", "minimax_m2")
FP8 += ("qwen3_5_moe", "qwen3_moe", "qwen3_next", "qwen3_vl_moe", "step3p7")
LINEAR = re.compile(r"(_proj|\.w[123])(\.weight)?$")
BLOCK = 16


# --- what the library lists ----------------------------------------------------------------


def rules():
    """The entries of the library's table that make grouped experts."""
    from transformers import conversion_mapping
    from transformers.core_model_loading import MergeModulelist

    conversion_mapping.get_checkpoint_conversion_mapping("")
    table = conversion_mapping._checkpoint_conversion_mapping_cache
    return {name for name, entry in table.items() if any(makes_experts(r, MergeModulelist) for r in entry)}


def makes_experts(rule, merge):
    merges = any(isinstance(o, merge) for o in getattr(rule, "operations", ()))
    return merges or any("experts" in t for t in rule.target_patterns)


def used(model):
    """The names under which the library may find entries of its table for a model."""
    from transformers import PreTrainedModel

    parts = [m for m in model.modules() if isinstance(m, PreTrainedModel)]
    return {type(m).__name__ for m in parts} | {m.config.model_type for m in parts}


def listing():
    """Each entry of the library's table is used by a model here, or is left out with a reason."""
    import torch

    found = set()
    for model_type in TYPES:
        with check(f"{model_type}: a small model can be made"):
            found |= used(tiny.model(model_type, 0, torch.bfloat16))
    wanted = rules()
    left = wanted - found
    with check(f"{len(wanted)} entries make experts: {len(wanted - left)} covered, {len(left)} left out"):
        expect(left <= LEFT_OUT.keys(), f"neither covered nor left out: {sorted(left - LEFT_OUT.keys())}")
    for name, reason in LEFT_OUT.items():
        with check(f"left out: {name}: {reason}"):
            expect(name in left, "it is covered, or the library has no such entry")


# --- checkpoints ---------------------------------------------------------------------------


class Case:
    """A model of one type and seed, saved in both ways, and the published checkpoint."""

    def __init__(self, model_type, seed, scratch):
        import torch

        self.type, self.seed, self.scratch = model_type, seed, pathlib.Path(scratch)
        self.flag = ("bf16", "bf16", "f16", "f32")[seed % 4]
        self.dtype = getattr(torch, DTYPES[self.flag])
        tiny.model(model_type, seed, self.dtype).save_pretrained(self.scratch / "made")
        # A loaded model has more weights in F32 than a new one.
        model, _ = tiny.loaded(self.scratch / "made", self.dtype)
        shard = ("50GB", "50KB")[seed // 2 % 2]
        model.save_pretrained(self.scratch / "saved", max_shard_size=shard)
        model.save_pretrained(self.scratch / "grouped", save_original_format=False, max_shard_size=shard)
        self.config = json.loads((self.scratch / "saved" / "config.json").read_text())
        self.saved = self.published(saved(self.scratch / "saved"))
        self.grouped = saved(self.scratch / "grouped")

    def published(self, tensors):
        """Tensors that transformers saved, under published names."""
        out = {}
        for key, a in tensors.items():
            for pattern, name in PUBLISHED.get(self.type, ()):
                key = re.sub(pattern, name, key)
            turned = self.type == "qwen3_vl_moe" and is_group(self.type, key)
            out[key] = np.swapaxes(a, 1, 2).copy() if turned else a
        return out

    def hf(self):
        """What the layout hf shows of the save with grouped experts: all as it is published."""
        if self.type not in SAVED_APART:
            return self.saved
        out = {k: a for k, a in self.saved.items() if not re.search(r"\.experts\.\d+\.", k)}
        return out | {k: a for k, a in self.grouped.items() if is_group(self.type, k)}

    def source(self):
        """Writes the published checkpoint, and the one that the library loads instead."""
        tensors = self.saved
        if self.seed % 3 == 2:
            # Releases have one dtype also where the module keeps F32.
            dtype = container.DTYPES[self.flag.upper()]
            tensors = {k: a.astype(dtype) if a.dtype == np.float32 else a for k, a in tensors.items()}
        config = as_released(self.config) if self.type in NUM_EXPERTS and self.seed % 2 else self.config
        write(self.scratch / "plain", config, tensors, 1 + self.seed % 3)
        if self.type not in FP8 or self.seed % 5 != 1:
            return self.scratch / "plain", tensors
        quantized, tensors = in_fp8(tensors, self.flag)
        fp8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]}
        write(self.scratch / "fp8", config | {"quantization_config": fp8}, quantized, 2)
        write(self.scratch / "plain", config, tensors)
        return self.scratch / "fp8", tensors

    def state(self):
        """The state of the model that the library loads, without second names of tied weights."""
        out, info = tiny.loaded(self.scratch / "plain", self.dtype)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            expect(not info[what], f"{what}: {sorted(info[what])[:4]}")
        tied = getattr(out, "all_tied_weights_keys", {})
        return {k: v for k, v in out.state_dict().items() if k not in tied}


def as_released(config):
    out = {k: as_released(v) if isinstance(v, dict) else v for k, v in config.items()}
    return {"num_experts" if k == "num_local_experts" else k: v for k, v in out.items()}


def saved(directory):
    """What transformers saved. The total size in its index may be wrong."""
    files = sorted(directory.glob("*.safetensors"))
    return {k: np.array(a) for file in files for k, a in container.read(file).items()}


def read(directory):
    return {k: np.array(a) for k, a in container.read_all(directory).items()}


def write(directory, config, tensors, shards=1):
    container.write_checkpoint(directory, config, tensors, min(shards, len(tensors)))


def in_fp8(tensors, flag):
    """Weights of matrices in FP8, and the same checkpoint dequantized by NumPy.

    A weight that the module keeps in F32 is not quantized.
    """
    quantized, plain = {}, {}
    for key, a in tensors.items():
        quantized[key] = plain[key] = a
        kept = a.dtype == np.float32 and flag != "f32"
        if a.ndim not in (2, 3) or kept or not LINEAR.search(key) or "visual" in key or "vision" in key:
            continue
        parts = [models.quantize(m, BLOCK) for m in a.reshape(-1, *a.shape[-2:])]
        shape = a.shape[:-2]
        codes, scales = (np.stack(x).reshape(*shape, *x[0].shape) for x in zip(*parts, strict=True))
        quantized[key], quantized[key + "_scale_inv"] = codes, scales
        plain[key] = dequantized(codes, scales, flag)
    return quantized, plain


def dequantized(codes, scales, flag):
    """float32 of a code times its block's scale, rounded once."""
    spread = np.repeat(np.repeat(scales, BLOCK, -2), BLOCK, -1)[..., : codes.shape[-2], : codes.shape[-1]]
    return (codes.astype(np.float32) * spread).astype(container.DTYPES[flag.upper()])


# --- checks --------------------------------------------------------------------------------


def one(model_type, seed):
    """All checks of a type and seed."""
    name = f"{model_type} {seed}"
    with tempfile.TemporaryDirectory() as scratch:
        case = None
        with check(f"{name}: saved and loaded"):
            case = Case(model_type, seed, scratch)
            source, tensors = case.source()
            state = case.state()
        if case is None:
            return
        layouts = "hf,transformers" if model_type in NEVER_SPLIT else "hf,split,transformers"
        with check(f"{name}: views of the published checkpoint"):
            expect(any(".experts." in k and v.ndim == 3 for k, v in state.items()), "the model has no experts")
            with mount(source, "--layout", layouts, "--dtype", case.flag) as point:
                reference.compare(state, widened(reference.load(point / "transformers"), state, tensors))
                same("hf", tensors, read(point / "hf"))
                if "split" in layouts:
                    same("split", apart(model_type, tensors), read(point / "split"))
        with check(f"{name}: views of the checkpoint with grouped experts"):
            with mount(case.scratch / "grouped", "--layout", layouts, "--dtype", case.flag) as point:
                same("hf", case.hf(), read(point / "hf"))
                if "split" in layouts:
                    same("split", apart(model_type, case.hf()), read(point / "split"))
                same("transformers", case.grouped, read(point / "transformers"))


def is_group(model_type, key):
    return any(re.match(pattern, key) for pattern, _ in PUBLISHED_GROUPED.get(model_type, ()))


def apart(model_type, tensors):
    """Published tensors, with grouped experts as one matrix for each projection."""
    out = dict(tensors)
    for pattern, parts in PUBLISHED_GROUPED.get(model_type, ()):
        for key, a in tensors.items():
            match = re.match(pattern, key)
            if not match:
                continue
            del out[key]
            for e, expert in enumerate(np.swapaxes(a, 1, 2) if model_type in TURNED else a):
                for part, rows in zip(parts, np.split(expert, len(parts)), strict=True):
                    out[f"{match[1]}experts.{e}.{match.expand(part)}.weight"] = np.ascontiguousarray(rows)
    return out


def widened(view, state, tensors):
    """A module keeps some weights in F32, which holds all values of the dtype that a view keeps."""
    import torch

    if any(a.dtype == np.float32 for a in tensors.values()):
        return view
    return {k: v.float() if k in state and state[k].dtype == torch.float32 else v for k, v in view.items()}


def same(layout, want, got):
    lines = container.differences(want, got)
    expect(not lines, f"{layout}: {len(lines)} differences: " + "; ".join(lines[:6]))


def quiet():
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def group(number):
    """Every type of one child process, with all seeds."""
    quiet()
    for model_type in TYPES[number :: len(CHILDREN)]:
        for seed in size.seeds():
            one(model_type, seed)


CHILDREN = tuple(f"types_{i}" for i in range(8))
for _number, _name in enumerate(CHILDREN):
    setattr(sys.modules[__name__], _name, lambda number=_number: group(number))
