"""Mounts of remote sources, from servers that run here: their files, and loaders that read them."""

import hashlib
import pathlib
import shutil
import tempfile

import families
import oracle
from checks import check, expect
from container import differences, read_all, same, write_checkpoint
from mounts import mount
from served import served

GOLDEN = pathlib.Path(__file__).parent.parent / "golden/formats"
FORMATS = ("ct_int4", "awq")  # of 4 bits


def checkpoints(folder):
    """Write an FP8 checkpoint and some of 4 bits; gives their names, and the first one."""
    case = families.make("deepseek_v3", 4)
    fp8 = folder / "fp8"
    fp8.mkdir()
    write_checkpoint(fp8, case.config, case.tensors, 3, True, case.metadata)
    (fp8 / "generation_config.json").write_text("{}")
    for name in FORMATS:
        shutil.copytree(GOLDEN / name, folder / name)
    return ("fp8", *FORMATS), case


def digests(directory):
    files = sorted(p for p in pathlib.Path(directory).rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def by_library(point, want):
    """Every tensor as the safetensors library reads it. NumPy has no BF16, so views are in F32."""
    import safetensors

    seen = {}
    for path in sorted(point.glob("*.safetensors")):
        with safetensors.safe_open(path, framework="numpy") as f:
            seen |= {k: f.get_tensor(k) for k in f.keys()}
    expect(seen.keys() == want.keys(), "names differ")
    for key, array in seen.items():
        expect(same(array, want[key]), f"{key} differs")


def compare(store, load):
    """The mount of a store has the files of the local mount, and a loader reads them."""
    with tempfile.TemporaryDirectory() as d:
        folder = pathlib.Path(d)
        names, case = checkpoints(folder)
        with served(store, d) as source:
            for name in names:
                flags = ("--layout", "hf", "--dtype", "f32", "--cast", "all")
                with check(f"{store}: {name}"):
                    with mount(folder / name, *flags) as point:
                        want, arrays = digests(point), read_all(point)
                    with mount(f"{source}/{name}/", *flags) as point:
                        expect(digests(point) == want, "the files differ")
                    with mount(f"{source}/{name}/", *flags) as point:
                        load(point, arrays)
            with check(f"{store}: the values of fp8"), mount(f"{source}/fp8/", "--layout", "hf") as point:
                lines = differences(oracle.hf(case.tensors), read_all(point))
                expect(not lines, "; ".join(lines[:6]))


def s3():
    compare("s3", by_library)


def moto():
    compare("moto", by_library)


def gcs():
    compare("gcs", by_library)


def azure():
    compare("azure", by_library)


def https():
    compare("https", by_library)


def hub():
    compare("hub", by_library)


LIGHT = ("s3", "moto", "gcs", "azure", "https", "hub")


def by_torch(point, want):
    """safetensors for torch, by mmap and pread."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    for path in sorted(point.glob("*.safetensors")):
        got = load_file(path)
        for backend in ("mmap", "pread"):
            with safe_open(path, framework="pt", backend=backend) as f:
                for key in f.keys():
                    expect(same(f.get_tensor(key).numpy(), want[key]), f"{key} differs by {backend}")
                    expect(same(got[key].numpy(), want[key]), f"{key} differs by load_file")


def torch():
    """The library for torch reads every store."""
    for store in LIGHT:
        compare(store, by_torch)


def transformers():
    """from_pretrained of a mount of each store gives the logits of the plain model."""
    import loaders
    import models

    with models.source("deepseek_v3") as (fp8, plain, _):
        for store in LIGHT:
            with check(f"{store}: transformers"), served(store, fp8) as source:
                with mount(f"{source}/", "--layout", "hf", "--mtp", "drop") as point:
                    loaders.from_pretrained(point, plain, [])
