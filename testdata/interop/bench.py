"""Figures, not checks: the reference's from_hf against a mount, and the full-size mount."""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time

import numpy as np

import families
from checks import report
from container import write_checkpoint
from mounts import BINARY, command, mount


def peer():
    """One DeepSeek-V3 layer of 16 experts: from_hf in memory, then reading the mount."""
    import torch

    import reference

    torch.set_num_threads(os.cpu_count())
    with tempfile.TemporaryDirectory() as directory:
        case = layer(directory, experts=16, hidden=7168, inner=2048)
        tensors = reference.load(directory)
        with timed() as seconds:
            native = reference.adapter(case, torch.bfloat16).from_hf(tensors)
        size = sum(v.nbytes for v in native.values())
        report("ok", f"reference from_hf: {size / 1e9 / seconds():.3f} GB/s ({size / 1e9:.2f} GB in {seconds():.1f} s)")
        theirs = size / seconds()
        del native, tensors
        ours = in_memory(directory)
        report("ok", f"in memory, native view: {ours / 1e9:.3f} GB/s, {ours / theirs:.1f} times the reference")
        for layout in ("native", "hf"):
            with mount(directory, "--layout", layout) as point, timed() as seconds:
                size = sum(drain(p) for p in sorted(point.glob("*.safetensors")))
            ratio = size / seconds() / theirs
            report("ok", f"mount, {layout} view: {size / 1e9 / seconds():.3f} GB/s, {ratio:.1f} times the reference")


def in_memory(directory, layout="native", readers=1):
    """Bytes a second of a view from a warm source into buffers, without FUSE."""
    only = ["--only", "virtual", "--readers", str(readers), "--json"]
    run = [BINARY, "bench", directory, "--layout", layout, *only]
    out = subprocess.run(run, check=True, capture_output=True).stdout
    name = "virtual-warm" if readers == 1 else f"virtual-warm-{readers}"
    return next(m["median"] for m in json.loads(out)["measures"] if m["name"] == name)


def layer(directory, experts, hidden, inner):
    """A checkpoint of one layer's experts."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 127, inner * hidden, np.uint8).view(families.FP8)
    tensors = {}
    for e in range(experts):
        for name, shape in (("gate_proj", (inner, hidden)), ("up_proj", (inner, hidden)), ("down_proj", (hidden, inner))):
            key = f"model.layers.0.mlp.experts.{e}.{name}.weight"
            tensors[key] = np.roll(codes, 977 * e).reshape(shape)
            tensors[key + "_scale_inv"] = rng.uniform(1e-4, 1e-2, (shape[0] // 128, shape[1] // 128)).astype(np.float32)
    config = {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "n_routed_experts": experts,
        "num_hidden_layers": 1,
        "first_k_dense_replace": 0,
        "hidden_size": hidden,
        "moe_intermediate_size": inner,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }
    write_checkpoint(directory, config, tensors)
    return families.Case(config, {}, "deepseek_v3.state_dict_adapter:DeepSeekV3StateDictAdapter", experts)


@contextlib.contextmanager
def timed():
    start = end = time.monotonic()
    yield lambda: end - start
    end = time.monotonic()


def drain(path):
    size, buffer = 0, bytearray(16 << 20)
    with open(path, "rb", buffering=0) as f:
        while n := f.readinto(buffer):
            size += n
    return size


def full_size():
    """The 689 GB checkpoint: time to mount and to list, and what stays resident."""
    with tempfile.TemporaryDirectory() as directory:
        source, point = pathlib.Path(directory) / "source", pathlib.Path(directory) / "mnt"
        root = pathlib.Path(__file__).parents[2]
        subprocess.run(["go", "run", "./testdata/synth/write", "-full", source], cwd=root, check=True)
        for flags in (["--layout", "native"], []):
            with timed() as seconds:
                command("mount", source, point, *flags)
                names = [p for p in point.rglob("*") if p.stat().st_size]
            memory = resident(point)
            command("umount", point)
            what = " ".join(flags) or "all layouts"
            report("ok", f"full size, {what}: {len(names)} files mounted and listed in {seconds():.2f} s, {memory} MiB resident")


def resident(point):
    """The resident size of the process that serves a mountpoint, in MiB."""
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            line = (status.parent / "cmdline").read_bytes().decode(errors="replace")
            if str(point) in line and pathlib.Path(BINARY).name in line:
                text = status.read_text()
                return int(next(x.split()[1] for x in text.splitlines() if x.startswith("VmRSS"))) // 1024
    return 0


def packed():
    """Experts of gpt-oss and of Kimi-K2 in 4 bits: the library's own dequantization, then ours."""
    import torch

    torch.set_num_threads(os.cpu_count())
    for name, make, dequantize in (("gpt-oss", gpt_oss, with_transformers), ("Kimi-K2", kimi, with_automodel)):
        with tempfile.TemporaryDirectory() as directory:
            config, tensors = make(experts=4)
            with timed() as seconds:
                size = dequantize(as_torch(tensors))
            theirs = size / seconds()
            write_checkpoint(directory, config, tensors)
            ours = in_memory(directory, "hf", os.cpu_count())
            report("ok", f"{name}: the library {theirs / 1e9:.3f} GB/s, ours in memory {ours / 1e9:.2f} GB/s, {ours / theirs:.0f} times")


def as_torch(tensors):
    import torch

    # NumPy's BF16 is unknown to torch, so it goes there as integers
    halves = {k: torch.from_numpy(v.view(np.int16)).view(torch.bfloat16) for k, v in tensors.items() if v.dtype.itemsize == 2}
    return {k: torch.from_numpy(v) for k, v in tensors.items() if v.dtype.itemsize != 2} | halves


def gpt_oss(experts, hidden=2880, inner=2880):
    rng = np.random.default_rng(1)
    tensors = {}
    for name, rows, cols in (("gate_up_proj", 2 * inner, hidden), ("down_proj", hidden, inner)):
        key = f"model.layers.0.mlp.experts.{name}"
        tensors[key + "_blocks"] = rng.integers(0, 256, (experts, rows, cols // 32, 16), np.uint8)
        tensors[key + "_scales"] = rng.integers(110, 130, (experts, rows, cols // 32), np.uint8)
    config = {"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "num_local_experts": experts, "num_hidden_layers": 1}
    config |= {"hidden_size": hidden, "intermediate_size": inner, "quantization_config": {"quant_method": "mxfp4"}}
    return config, tensors


def with_transformers(tensors):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    keys = [k.removesuffix("_blocks") for k in tensors if k.endswith("_blocks")]
    return sum(convert_moe_packed_tensors(tensors[k + "_blocks"], tensors[k + "_scales"]).nbytes for k in keys)


def kimi(experts, hidden=7168, inner=2048):
    import ml_dtypes

    rng = np.random.default_rng(1)
    tensors = {}
    for e in range(experts):
        for name, rows, cols in (("gate_proj", inner, hidden), ("up_proj", inner, hidden), ("down_proj", hidden, inner)):
            key = f"model.layers.1.mlp.experts.{e}.{name}.weight"
            tensors[key + "_packed"] = rng.integers(-(1 << 31), 1 << 31, (rows, cols // 8), np.int32)
            tensors[key + "_scale"] = rng.uniform(1e-4, 1e-2, (rows, cols // 32)).astype(ml_dtypes.bfloat16)
            tensors[key + "_shape"] = np.array([rows, cols], np.int32)
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
    config = {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "n_routed_experts": experts}
    config |= {"num_hidden_layers": 2, "first_k_dense_replace": 1, "hidden_size": hidden, "moe_intermediate_size": inner}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    config["quantization_config"] = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    return config, tensors


def with_automodel(tensors):
    from nemo_automodel.components.models.kimi_k25_vl.state_dict_adapter import dequantize_int4

    keys = [k.removesuffix("_packed") for k in tensors if k.endswith("_packed")]
    parts = ((tensors[k + "_packed"], tensors[k + "_scale"], tensors[k + "_shape"]) for k in keys)
    return sum(dequantize_int4(*p, device="cpu").nbytes for p in parts)
