"""Strict from_pretrained of FP8 views: every parameter comes from the view, none is left over.

transformers forgives keys that a model class lists, so those lists are switched off here. Whether
it initialises a parameter itself is asked of the model, not of its report. The loaded model is saved
again, and each tensor must equal the one that the view must hold.
"""

import contextlib
import copy
import hashlib
import json
import pathlib
import re
import shutil
import tempfile
from unittest import mock

import numpy as np

import container
import models
import oracle
import rows
from checks import check, expect
from container import differences, read_all
from loaders import equal
from mounts import mount

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
# FP8 goldens that are whole models. In deepseek_v4_fp8, minimax_m3 and mistral4, transformers finds
# tensors missing or of other shapes. Rows with whole models of these types cover their formats.
GOLDENS = (
    "ct_fp8_tensor",
    "ct_fp8_channel",
    "ct_fp8_block",
    "ct_mxfp8",
    "modelopt_fp8",
    "modelopt_mxfp8",
    "trap_e8m0_as_u8",
)
# Types that have the transformers layout.
GROUPED = (
    "deepseek_v3",
    "deepseek_v32",
    "glm4_moe",
    "glm_moe_dsa",
    "mimo_v2_flash",
    "minimax_m2",
    "qwen3_moe",
    "qwen3_next",
)


def load(directory):
    """The model, its full report, and the parameters that transformers initialises itself."""
    import transformers
    from transformers import PreTrainedModel

    fresh, initialize = [], PreTrainedModel._initialize_missing_keys

    def watch(model, *args):
        state = model.state_dict(keep_vars=True)
        fresh.extend(k for k, v in state.items() if not getattr(v, "_is_hf_initialized", False))
        initialize(model, *args)

    (architecture,) = json.loads((pathlib.Path(directory) / "config.json").read_text())["architectures"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(PreTrainedModel, "_initialize_missing_keys", watch))
        forgive = "_adjust_missing_and_unexpected_keys"
        stack.enter_context(mock.patch.object(PreTrainedModel, forgive, lambda *_: None))
        model, report = getattr(transformers, architecture).from_pretrained(directory, output_loading_info=True)
    return copy.deepcopy(model), report, fresh  # a copy: the model maps files


def loads(directory, mtp=()):
    """The model, if all parameters come from the view. Only the MTP layer may be left over."""
    model, report, fresh = load(directory)
    report["unexpected_keys"] ^= {in_memory(k) for k in mtp}
    report |= {"newly initialised": fresh, "quantization": getattr(model.config, "quantization_config", None)}
    wrong = {k: sorted(map(str, v)) for k, v in report.items() if v}
    expect(not wrong, f"{wrong}")
    return model


def in_memory(key):
    """The name of a key in a report. transformers merges experts before it finds their module."""
    key = re.sub(r"\.experts\.\d+\.(gate|up)_proj\.weight$", ".experts.gate_up_proj", key)
    return re.sub(r"\.experts\.\d+\.down_proj\.weight$", ".experts.down_proj", key)


def holds(model, want):
    """The model, saved again, has these tensors and no others."""
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        got = models.published(model.config.model_type, read_all(scratch))
    # transformers keeps some parameters in float32, from any dtype, and casts the others.
    agree({k: a.astype(got[k].dtype) if k in got else a for k, a in want.items()}, got, "the model")


def agree(want, got, what):
    lines = differences(want, got)
    expect(not lines, f"{what}: {len(lines)} differences: " + "; ".join(lines[:4]))


def views(name, source, want, flags=()):
    """The hf view has the values and loads. The transformers view loads to the same model."""
    config = json.loads((pathlib.Path(source) / "config.json").read_text())
    mtp = {k for k in want if f".layers.{config.get('num_hidden_layers')}." in k}
    model = None
    with check(f"{name}: hf view"), mount(source, "--layout", "hf", *flags) as point:
        agree(want, read_all(point), "the view")
        model = loads(point, mtp)
        holds(model, {k: a for k, a in want.items() if k not in mtp})
    if config["model_type"] in GROUPED:
        with check(f"{name}: transformers view"), mount(source, "--layout", "transformers", *flags) as point:
            expect(model is not None, "there is no model of the hf view to compare with")
            equal(model.state_dict(), loads(point, mtp).state_dict())


def goldens():
    """The FP8 goldens. Those of formats/ give their values as SHA-256."""
    for name in GOLDENS:
        source, want = GOLDEN / "formats" / name, None
        with check(f"golden {name}: values"), mount(source, "--layout", "hf") as point:
            want = {k: np.array(a) for k, a in read_all(point).items()}
            expected = json.loads((source / "expected.json").read_text())["hf"]
            wrong = [k for k in expected.keys() | want.keys() if not as_expected(expected.get(k), want.get(k))]
            expect(not wrong, f"{len(wrong)} tensors are not as expected: {sorted(wrong)[:6]}")
        if want:
            views(f"golden {name}", source, want)
    whole = GOLDEN / "families" / "torchtitan" / "deepseek_v3"
    views("golden torchtitan/deepseek_v3", whole, oracle.hf(read_all(whole)))
    with tempfile.TemporaryDirectory() as source:
        shutil.copy(GOLDEN / "aligned-config.json", f"{source}/config.json")
        shutil.copy(GOLDEN / "aligned-hf.safetensors", f"{source}/model.safetensors")
        views("golden aligned", source, oracle.hf(read_all(source)))


def as_expected(expected, a):
    """One tensor has the dtype, shape and SHA-256 that a golden gives for a view in BF16."""
    if expected is None or a is None or list(a.shape) != expected["shape"]:
        return False
    digest = hashlib.sha256(a.tobytes()).hexdigest()
    dtype = container.NAMES[a.dtype]
    return (dtype, digest) == (expected.get("dtype", "BF16"), expected.get("sha256", expected.get("bf16")))


def blocks():
    """A small random checkpoint of each row that is read in blocks."""
    formats(rows.BLOCKWISE)


def others():
    """A small random checkpoint of each other row."""
    formats(rows.COMPRESSED | rows.MODELOPT | rows.OTHERS)


def formats(table):
    for name, row in table.items():
        with rows.checkpoint(row) as (source, want):
            views(f"{name} ({row.model})", source, want, row.flags)


def teeth():
    """The checks fail if a view lacks a parameter, has one too many, or has another value."""
    with rows.checkpoint(rows.BLOCKWISE["blocks of 128, BF16"]) as (source, want):
        for pattern, word in (
            (r"model\.norm", "missing_keys"),
            (r"model\.layers\.1\.mlp\.experts", "newly initialised"),
        ):
            with check(f"without {pattern}: {word}"), mount(source, "--layout", "hf", "--exclude", pattern) as point:
                refused(word, loads, point)
        with (
            check("one tensor too many"),
            mount(source, "--layout", "hf") as point,
            tempfile.TemporaryDirectory() as scratch,
        ):
            config = json.loads((point / "config.json").read_text())
            container.write_checkpoint(scratch, config, want | {"model.layers.0.self_attn.k_scale": rows.one()})
            refused("self_attn.k_scale", loads, scratch)
        with check("another value"), mount(source, "--layout", "hf") as point:
            key = "model.norm.weight"
            refused(key, holds, loads(point), want | {key: want[key][::-1]})


def refused(word, checking, *args):
    try:
        checking(*args)
    except AssertionError as e:
        expect(word in str(e), f"the error does not speak of {word}: {e}")
        return
    raise AssertionError("the check passed")
