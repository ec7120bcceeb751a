"""What loads a checkpoint. Each loading is in a new process, forked from one that has the imports.

A loader prepares, and then returns a function. Only that function is timed. It returns the bytes
that it has loaded.
"""

import contextlib
import multiprocessing
import os
import pathlib
import tempfile
import time

import files

try:
    import safetensors.torch
    import torch
    import transformers
except ImportError as e:
    torch = None
    missing = str(e)


def device():
    return "cuda:0" if torch and torch.cuda.device_count() else "cpu"


def prepare(where):
    """Begin with the device ready, as in a program that has run for a while."""
    if where != "cpu":
        torch.cuda.init()
        torch.zeros(1, device=where)
        torch.cuda.synchronize()


def settle(where, tensors):
    """Wait for the device. On a CPU, touch each page, since tensors may still be mapped files."""
    if where != "cpu":
        torch.cuda.synchronize()
        return
    for t in tensors:
        if t.is_contiguous():
            t.detach().view(-1).view(torch.uint8)[:: files.PAGE].max()


def bytes_of(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def from_pretrained(directory, where):
    """Load a model and return its bytes."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.bfloat16, device_map=where, local_files_only=True
    )
    parameters = list(model.parameters())
    if other := {(p.dtype, p.device) for p in parameters} - {(torch.bfloat16, torch.device(where))}:
        raise RuntimeError(f"the model has parameters of {other}")
    settle(where, parameters)
    return bytes_of(parameters)


def with_transformers(directory, where, tiny):
    """from_pretrained. It loads a tiny model before, since much is imported at first use."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    prepare(where)
    from_pretrained(tiny, where)
    return lambda: from_pretrained(directory, where)


def with_load_file(directory, where):
    prepare(where)

    def load():
        n, held = 0, []
        for path in files.shards(directory):
            tensors = safetensors.torch.load_file(path, device=where)
            n += bytes_of(tensors.values())
            settle(where, tensors.values())
            held.append(tensors if where != "cpu" else None)  # a CPU's are pages of the file
        return n

    return load


def with_automodel(directory, where):
    from nemo_automodel.components.checkpoint.checkpointing import Checkpointer, CheckpointingConfig
    from nemo_automodel.components.models.common import BackendConfig
    from nemo_automodel.components.models.qwen3_moe.model import Qwen3MoeForCausalLM

    transformers.logging.set_verbosity_error()
    prepare(where)
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
    config.torch_dtype = torch.bfloat16
    backend = BackendConfig(attn="sdpa", linear="torch", rms_norm="torch", experts="torch", dispatcher="torch")
    with torch.device(where):
        model = Qwen3MoeForCausalLM(config, backend=backend).to(torch.bfloat16)
    scratch = tempfile.mkdtemp()
    checkpointer = Checkpointer(
        CheckpointingConfig(checkpoint_dir=scratch, model_cache_dir=scratch, model_repo_id=directory), 0, 0, 0
    )

    def load():
        checkpointer.load_base_model(model, torch.device(where), scratch, directory)
        settle(where, model.parameters())
        return bytes_of(model.parameters())

    return load


BY_ROW = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens", "lm_head")
BY_COLUMN = ("o_proj", "down_proj")


def with_rank(directory, where, rank, ranks):
    """One tensor-parallel rank of several: mapped tensors in the order of the files, its slices."""
    prepare(where)

    def load():
        n, held = 0, []
        for path in files.shards(directory):
            with safetensors.safe_open(path, framework="pt") as f:
                for key in f.keys():
                    t = f.get_tensor(key)
                    n += t.numel() * t.element_size()
                    name = key.split(".")[-2]
                    if name in BY_ROW + BY_COLUMN:
                        axis = 0 if name in BY_ROW else 1
                        width = t.shape[axis] // ranks
                        t = t.narrow(axis, rank * width, width)
                    t = t.contiguous().clone() if where == "cpu" else t.to(where)
                    held.append(t)
        settle(where, [])
        return n

    return load


def with_preads(directory, where, rank, ranks):
    """One expert-parallel rank, which reads all files of its own folder."""

    def load():
        mine = files.shards(directory[rank])
        files.read(mine, 1)
        return files.size(mine)

    return load


def with_mapping(ranges, where):
    """Copies ranges of files out of mappings."""

    def load():
        for path, begin, end in ranges:
            files.copy_mapped(path, begin, end)
        return sum(end - begin for _, begin, end in ranges)

    return load


LOADERS = {
    "transformers": with_transformers,
    "load_file": with_load_file,
    "automodel": with_automodel,
    "rank": with_rank,
    "preads": with_preads,
    "mapping": with_mapping,
}


def child(connection, barrier, group, threads, loader, args):
    """Load once, and say when it began and ended."""
    try:
        if group:
            with open(group, "w") as f:
                f.write(str(os.getpid()))
        if torch:
            torch.set_num_threads(threads)
        load = LOADERS[loader](*args)
        barrier.wait(600)
        begin = time.monotonic()
        n = load()
        connection.send((n, begin, time.monotonic(), None))
    except BaseException as e:
        with contextlib.suppress(Exception):
            barrier.abort()
        connection.send((0, 0, 0, f"{type(e).__name__}: {e}"))


# The process that forks ignores sys.path.
os.environ["PYTHONPATH"] = os.pathsep.join([str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["loaders"])


def run(loader, jobs, group=None):
    """Load in one process for each job, at the same time. Return the bytes and the seconds."""
    barrier = context.Barrier(len(jobs))
    cores = len(os.sched_getaffinity(0))
    threads = max(cores // len(jobs), 1) if cores > 4 else 1  # several wait for each other by spinning
    children = []
    for args in jobs:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(theirs, barrier, group and group.procs, threads, loader, args))
        process.start()
        theirs.close()
        children.append((process, ours))
    results = []
    for process, ours in children:
        try:
            results.append(ours.recv())
        except EOFError:
            process.join()
            results.append((0, 0, 0, f"{loader} ended with {process.exitcode}"))
        process.join()
    errors = [r[3] for r in results if r[3] and not r[3].startswith("BrokenBarrierError")]
    if errors:
        raise RuntimeError(f"{loader}: {errors[0]}")
    return sum(r[0] for r in results), max(r[2] for r in results) - min(r[1] for r in results)
