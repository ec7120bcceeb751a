"""Checks with NumPy, ml_dtypes and safetensors alone, on real mounts."""

import contextlib
import hashlib
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np

import families
import libraries
import models
import oracle
import quantized
from checks import check, expect
from container import differences, read_all, same, write_checkpoint
from mounts import command, mount

SEEDS = range(6)


@contextlib.contextmanager
def source(family, seed, **more):
    """A written checkpoint and its arrays."""
    case = families.make(family, seed)
    with tempfile.TemporaryDirectory() as directory:
        shards = 1 + seed % 3
        write_checkpoint(directory, case.config, case.tensors, shards, shards > 1, case.metadata, **more)
        yield directory, case


def agree(want, got):
    lines = differences(want, got)
    expect(not lines, f"{len(lines)} differences: " + "; ".join(lines[:6]))


# What a mount of kimi_k2 says about the layout, without the version of the library.
NO_TRANSFORMERS = (
    'config.json: model_type "kimi_k2" has no layout transformers: transformers ',
    ' has it only for model_type "deepseek_v3"; it has native, hf, split, torchtitan and hf-fp8\n',
    "hint: the library transformers reads layout hf\n",
)


def refused(directory, layout, parts):
    """A mount with this layout fails, says all parts, and mounts nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        point = pathlib.Path(scratch) / "mnt"
        p = command("mount", directory, point, "--layout", layout, check=False)
        mounted = point.is_mount()
        if mounted:
            command("umount", point)
    expect(p.returncode == 1 and not mounted, f"exit status {p.returncode}, mounted: {mounted}")
    for part in parts:
        expect(part in p.stderr, f"it says {p.stderr!r}, not {part!r}")


def views():
    """Every layout and dtype of DeepSeek-V3, raw, against the NumPy computation.

    transformers groups experts of deepseek_v3 only. So kimi_k2 is refused there, with the ways out.
    """
    types = set()
    for seed in SEEDS:
        dtype = ("bf16", "f32", "f16")[seed % 3]
        with source("deepseek_v3", seed) as (directory, case):
            types.add(case.config["model_type"])
            layouts = ["native"]
            if case.config["model_type"] == "deepseek_v3":
                layouts.append("transformers")
            else:
                with check(f"views {seed}: kimi_k2 has no layout transformers"):
                    refused(directory, "transformers", NO_TRANSFORMERS)
            with check(f"views {seed} in {dtype}"):
                with mount(directory, "--layout", ",".join(["hf", *layouts]), "--dtype", dtype) as point:
                    agree(oracle.hf(case.tensors, dtype), read_all(point / "hf"))
                    for layout in layouts:
                        agree(oracle.grouped(case.tensors, dtype, layout), read_all(point / layout))
    with check("views: types with the layout transformers and without it"):
        expect(types == {"deepseek_v3", "kimi_k2"}, f"the seeds make only {types}")


def families_hf():
    """The hf view of every family, and of one that is not known."""
    for name in families.FAMILIES:
        with check(f"hf view of {name}"), source(name, 2) as (directory, case):
            block = (10**9, 10**9) if name == "mistral3" else (128, 128)
            with mount(directory, "--layout", "hf") as point:
                agree(oracle.hf(case.tensors, block=block), read_all(point))
    with check("hf view of an unknown family"), tempfile.TemporaryDirectory() as directory:
        case = families.make("qwen3_moe", 4)
        write_checkpoint(directory, case.config | {"model_type": "never_heard_of"}, case.tensors)
        with mount(directory, "--layout", "hf") as point:
            agree(oracle.hf(case.tensors), read_all(point))


def formats():
    """The hf view of every quantized format, in all dtypes."""
    for name in quantized.FORMATS:
        for seed in range(100, 103):
            with check(f"hf view of {name}, {seed}"), tempfile.TemporaryDirectory() as directory:
                made = quantized.make(name, seed)
                made.write(directory)
                libraries.views(made, directory)


def formats_fp8():
    """hf-fp8 quantizes the float32 values of every format, so it is the same for every dtype."""
    for name in quantized.FORMATS:
        with check(f"hf-fp8 of {name}"), tempfile.TemporaryDirectory() as directory:
            made = quantized.make(name, 7, edges=False)
            made.write(directory)
            seen = []
            for dtype in ("bf16", "f32"):
                with mount(directory, "--layout", "hf-fp8", "--dtype", dtype) as point:
                    seen.append({k: np.array(a) for k, a in read_all(point).items()})
            pairs = [{k: a for k, a in s.items() if k + "_scale_inv" in s or k.endswith("_scale_inv")} for s in seen]
            agree(*pairs)
            expect(len(pairs[0]) == 2 * sum(a.values.ndim == 2 for a in made.modules.values()), "weights are not pairs")
            for key, module in made.modules.items():
                if module.values.ndim == 2:
                    quantized_values(seen[0], key + ".weight", module, made.tensors)


def quantized_values(got, key, module, stored):
    """One pair: from the largest value of each block, or as it is stored."""
    codes, scale = models.quantize(module.values)
    if not (same(got[key], codes) and same(got[key + "_scale_inv"], scale)):
        # Blocks of 128 in FP8 are not quantized again.
        expect(same(got[key], stored[key]), f"{key}: the codes are neither new nor the stored ones")
        spread = got[key + "_scale_inv"].astype(np.float32).repeat(128, 0).repeat(128, 1)
        values = got[key].astype(np.float32) * spread[: codes.shape[0], : codes.shape[1]]
        expect(same(values, module.values), f"{key}: other values")


def ranks():
    """All ranks of a group under one mount."""
    for seed in range(3):
        with check(f"ranks {seed}"), source("deepseek_v3", seed) as (directory, case):
            size = (2, 3, case.experts + 1)[seed]
            with mount(directory, "--layout", "native", "--ep", f"all/{size}") as point:
                for rank in range(size):
                    want = oracle.grouped(case.tensors, rank=rank, size=size)
                    agree(want, read_all(point / f"rank-{rank}-of-{size}"))


def scales():
    """Whole tensors and whole rows with one scale, other blocks, other suffixes."""
    rng = np.random.default_rng(5)
    kinds = {
        "per tensor, no dimensions": ("_scale_inv", ()),
        "per tensor, [1]": ("_scale", (1,)),
        "per channel, [M]": ("_scale", ("rows",)),
        "per channel, [M,1]": ("_scale", ("rows", 1)),
    }
    for name, (suffix, shape) in kinds.items():
        with check(f"scales {name}"), tempfile.TemporaryDirectory() as directory:
            maker = families.Maker(name, "F32", quantized=False)
            case = families.llama(maker)
            case.config["quantization_config"] = quantization(name)
            tensors = {}
            for key, a in case.tensors.items():
                tensors[key] = a
                if "_proj" in key:
                    codes = rng.integers(0, 126, a.shape, np.uint8)
                    tensors[key] = codes.view(families.FP8)
                    size = tuple(a.shape[0] if d == "rows" else d for d in shape)
                    dtype = families.BF16 if "channel" in name else np.float32
                    tensors[key + suffix] = np.asarray(rng.uniform(0.001, 0.1, size), np.float32).astype(dtype)
                    tensors[key.removesuffix("weight") + "input_scale"] = np.float32([0.5])
            write_checkpoint(directory, case.config, tensors, 2, apart=True)
            with mount(directory, "--layout", "hf") as point:
                agree(oracle.hf(tensors), read_all(point))


def quantization(name):
    """The quantization_config that published checkpoints of the kind have."""
    if "channel" in name:
        weights = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}
        groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
        return {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "config_groups": groups,
            "ignore": ["lm_head"],
        }
    return {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}


def safe_open():
    """The safetensors library opens every file, by mmap and pread, as the raw reader does."""
    import safetensors

    for seed in range(3):
        with check(f"safe_open {seed}"), source("deepseek_v3", seed) as (directory, case):
            with mount(directory, "--layout", "hf,native", "--dtype", "f32") as point:
                for layout in ("hf", "native"):
                    raw = read_all(point / layout)
                    seen = {}
                    for path in sorted((point / layout).glob("*.safetensors")):
                        with safetensors.safe_open(path, framework="numpy") as f:
                            expect(f.metadata() == {"format": "pt"}, f"metadata {f.metadata()}")
                            seen |= {k: f.get_slice(k) for k in f.keys()}
                            for k in f.keys():
                                array(f, k, raw[k])
                    expect(seen.keys() == raw.keys(), "names differ")


def array(f, key, want):
    """One tensor by the library. NumPy has no BF16, so for BF16 only the shape is compared."""
    part = f.get_slice(key)
    expect(part.get_shape() == list(want.shape), f"{key}: shape {part.get_shape()}")
    if part.get_dtype() == "BF16":
        return
    got = f.get_tensor(key)
    expect(got.dtype == want.dtype and same(got, want), f"{key} differs")


def slices():
    """Strided slices at odd offsets, where no block begins."""
    import safetensors

    rng = np.random.default_rng(9)
    with check("slices"), source("deepseek_v3", 1) as (directory, case):
        with mount(directory, "--layout", "native", "--dtype", "f32") as point:
            for path in sorted(point.glob("*.safetensors")):
                with safetensors.safe_open(path, framework="numpy") as f:
                    grouped = [k for k in f.keys() if ".experts." in k]
                    for key in grouped:
                        whole = f.get_tensor(key)
                        for _ in range(20):
                            cut = tuple(odd_slice(rng, n) for n in whole.shape)
                            expect(same(f.get_slice(key)[cut], whole[cut]), f"{key}{cut} differs")


def odd_slice(rng, n):
    lo = int(rng.integers(0, n))
    return slice(lo, int(rng.integers(lo + 1, n + 1)))


def tools():
    """cp, rsync, tar and sha256sum of a mount work and agree."""
    with source("deepseek_v3", 5) as (directory, _), tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        with mount(directory, "--layout", "native,hf") as point:
            with check("sha256sum"):
                want = digests(point)
                expect(len(want) > 6, f"only {len(want)} files")
                out = shell(f"find {point} -type f -print0 | xargs -0 sha256sum")
                expect({x.split()[0] for x in out.splitlines()} == set(want.values()), "sums differ")
            for name, line in {
                "cp": "cp -r {point} {to}",
                "rsync": "rsync -a --checksum {point}/ {to}/",
                "tar": "mkdir {to} && tar -C {point} -cf - . | tar -C {to} -xf -",
                "dd": "cp -r {point} {to} && for f in $(cd {point} && find . -name '*.safetensors'); do "
                "dd if={point}/$f of={to}/$f bs=1000003 iflag=fullblock status=none; done",
            }.items():
                with check(name):
                    to = scratch / name
                    shell(line.format(point=point, to=to))
                    expect(digests(to) == want, "the copy differs")
                    shell(f"chmod -R u+w {to}")
                    shutil.rmtree(to)


def shell(line):
    return subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, capture_output=True, text=True).stdout


def digests(directory):
    files = sorted(p for p in pathlib.Path(directory).rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
