"""Prediction layers of quantized families against AutoModel's adapters.

The goldens have none, so a layer is copied to where published checkpoints have them. Some keys are
added that no rule renames, or that only one part of the model has.
"""

import json
import tempfile

import numpy as np

import adapters
import container
import families
import reference
from checks import check

TEXT = "language_model.model."
LAYER = "layers.1."
ENDS = tuple(f"mtp.0.{x}" for x in ("enorm.weight", "norm.weight", "e_proj.weight", "hc_head_fn"))
BLOCK = TEXT + "mtp.layers.{}.transformer_layer."
VISION = ("vision.layers.0.attn.q.weight", "aligner.w", "image_start", "image_pad", "image_end")
# name: golden, settings, where its last layer is copied to, vectors that are added
CASES = {
    "v4": ("deepseek_v4_fp4", {"num_nextn_predict_layers": 1}, ("mtp.0.", "mtp.1."), ENDS),
    "v4_none": ("deepseek_v4_fp8", {"num_nextn_predict_layers": 0}, ("mtp.0.",), ENDS),
    "v4_behind": (
        "deepseek_v4_fp4",
        {"num_nextn_predict_layers": 1},
        ("layers.2.", "layers.3."),
        ("layers.2.eh_proj.weight", "model.layers.2.self_attn.x.weight"),
    ),
    "v4_behind_none": ("deepseek_v4_fp8", {"num_nextn_predict_layers": 0}, ("layers.2.",), ()),
    "v4_vision": (
        "deepseek_v4_fp8",
        {},
        (),
        (*VISION, "layers.0.unknown", "layers.0.ffn.fc1_latent_proj.weight", "layers.0.hc_head_fn"),
    ),
    "v41": ("deepseek_v41", {}, ("mtp.0.", "layers.2."), (*VISION, "layers.0.unknown")),
    "m3": (
        "minimax_m3",
        {"num_mtp_modules": 1},
        (BLOCK.format(0), BLOCK.format(1)),
        (TEXT + "mtp.layers.0.eh_proj.weight", TEXT + "mtp.norm.weight"),
    ),
    "m3_none": ("minimax_m3", {"num_mtp_modules": 0}, (BLOCK.format(0),), (TEXT + "mtp.norm.w",)),
    "m3_behind": ("minimax_m3", {"num_mtp_modules": 1}, (TEXT + "layers.2.",), ()),
    "kimi_k25": ("kimi_k25_int4", {}, (TEXT + "layers.2.",), (TEXT + "layers.2.eh_proj.weight",)),
}


def write(directory, golden, settings, copies, vectors):
    """Writes a golden with further tensors, and gives the case of reference.py for it."""
    rng = np.random.default_rng(len(copies) + len(vectors))
    folder = adapters.GOLDEN / golden
    tensors = {k: np.array(a) for k, a in container.read_all(folder, aligned=False).items()}
    source = next(p for p in (LAYER, TEXT + LAYER) if any(k.startswith(p) for k in tensors))
    for key in [k for k in tensors if k.startswith(source)]:
        for to in copies:
            tensors[to + key.removeprefix(source)] = tensors[key][::-1].copy()
    for key in vectors:
        tensors[key] = rng.normal(size=8).astype(np.float32).astype(families.BF16)
    config = json.loads((folder / "config.json").read_text())
    config.get("text_config", config).update(settings)
    container.write_checkpoint(directory, config, tensors, 2)
    return families.Case(config, tensors, adapters.CASES[golden][0], adapters.EXPERTS)


def views():
    """The native view of each case, in each dtype that the adapter computes in."""
    for name, (golden, *rest) in CASES.items():
        what = f"predictions {name}: the view equals from_hf"
        with check(what), tempfile.TemporaryDirectory() as source:
            case = write(source, golden, *rest)
            for dtype in adapters.CASES[golden][1]:
                adapters.one(case, source, dtype, False)
