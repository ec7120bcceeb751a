"""Figures, not checks: loaders on an ordinary mount, and on one with --direct."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import bench
from checks import report
from mounts import command, mount

ROUNDS = int(os.environ.get("DEQUANTFS_ROUNDS", "3"))


def loaders():
    """Each loader in a fresh process on a fresh mount, cold; the kinds of mount alternate."""
    with tempfile.TemporaryDirectory() as directory:
        bench.layer(directory, experts=8, hidden=7168, inner=2048)
        rates = {(how, kind): [] for how in LOADERS for kind in ("--ahead=on", "--direct")}
        for turn in range(ROUNDS):
            for how, kind in list(rates)[:: 1 if turn % 2 == 0 else -1]:
                rates[how, kind].append(measure(directory, how, kind))
    for how in LOADERS:
        cache, direct = ([statistics.median(x) for x in zip(*rates[how, kind])] for kind in ("--ahead=on", "--direct"))
        report(
            "ok",
            f"{how}: {cache[0]:.2f} GB/s, --direct {direct[0]:.2f} ({direct[0] / cache[0]:.2f} times); "
            f"core-seconds for a GiB {cache[1]:.2f} and {direct[1]:.2f}; mean read with --direct {direct[2]:.0f} KiB",
        )


def measure(directory, how, kind):
    """GB/s, core-seconds for a GiB, and KiB of a READ."""
    with mount(directory, "--layout", "hf", kind) as point:
        before, used = stats(point)
        load = [sys.executable, __file__, how, point]
        seconds, own, size = json.loads(subprocess.run(load, check=True, capture_output=True).stdout)
        after, now = stats(point)
        requests = max(after["requests"] - before["requests"], 1)
        cores = (own + now - used) / size * 2**30
        return size / seconds / 1e9, cores, (after["bytes"] - before["bytes"]) / requests / 1024


def stats(point):
    """The counters of a mount, and the processor time of its process."""
    found = json.loads(command("status", point, "--json").stdout)["mounts"][0]
    fields = pathlib.Path(f"/proc/{found['pid']}/stat").read_text().rpartition(")")[2].split()
    return found["stats"], sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


# Each returns a function that loads everything into memory of its own.


def mapped(files):
    from safetensors.torch import load_file

    return lambda: [t.clone() for f in files for t in load_file(f).values()]


def pread(files):
    from safetensors.torch import load_file

    return lambda: [t for f in files for t in load_file(f, backend="pread").values()]


def fast(files):
    from fastsafetensors import fastsafe_open

    def load():
        with fastsafe_open(files, nogds=True, device="cpu") as f:
            return [f.get_tensor(k).clone() for k in f.keys()]

    return load


def runai(files):
    from runai_model_streamer import SafetensorsStreamer

    def load():
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(files)
            return [t.clone() for _, t in streamer.get_tensors()]

    return load


def dcp(files):
    import torch
    import torch.distributed.checkpoint as dcp
    from safetensors import safe_open
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    state = {}
    for f in files:
        with safe_open(f, framework="pt") as tensors:
            for key in tensors.keys():
                state[key] = torch.empty(tensors.get_slice(key).get_shape(), dtype=torch.bfloat16)
    reader = HuggingFaceStorageReader(os.path.dirname(files[0]), thread_count=os.cpu_count())
    return lambda: dcp.load(state, storage_reader=reader)


LOADERS = {
    "load_file": mapped,
    'load_file(backend="pread")': pread,
    "fastsafetensors": fast,
    "Run:ai's streamer": runai,
    "DCP's HuggingFaceStorageReader": dcp,
}


def main(how, point):
    import torch

    torch.set_num_threads(os.cpu_count())
    files = sorted(map(str, pathlib.Path(point).glob("*.safetensors")))
    load = LOADERS[how](files)
    for f in files:  # what the preparation has read
        fd = os.open(f, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    begun, used = time.perf_counter(), time.process_time()
    load()
    print(json.dumps([time.perf_counter() - begun, time.process_time() - used, sum(map(os.path.getsize, files))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
