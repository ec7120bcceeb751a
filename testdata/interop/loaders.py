"""Loaders, unmodified, on real mounts; each function is one child process."""

import contextlib
import multiprocessing
import pathlib
import tempfile
import threading

import families
import models
import oracle
from checks import check, expect
from container import read_all, write_checkpoint
from mounts import mount


def tensors_of(directory):
    """The raw reader's arrays as torch tensors: what every loader must give."""
    import torch

    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    out = {}
    for key, a in read_all(directory).items():
        flat = torch.frombuffer(bytearray(a.tobytes()), dtype=kinds[a.dtype.name])
        out[key] = flat.reshape(a.shape)
    return out


def equal(want, got, names=True):
    """Same names, dtypes, shapes and bytes."""
    import torch

    if names:
        expect(want.keys() == got.keys(), f"names differ: {sorted(want.keys() ^ got.keys())[:6]}")
    for key in got:
        a, b = want[key], got[key]
        expect(a.dtype == b.dtype and a.shape == b.shape, f"{key}: {b.dtype} {b.shape}, want {a.dtype} {a.shape}")
        same = torch.equal(a.reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))
        expect(same, f"{key} differs")


def files(directory):
    return [str(p) for p in sorted(pathlib.Path(directory).glob("*.safetensors"))]


@contextlib.contextmanager
def views(name="deepseek_v3", layouts="hf,native,transformers", *flags):
    """The mounted views of a tiny model; one layout alone is the mountpoint itself."""
    with models.source(name) as (fp8, plain, tensors):
        with mount(fp8, "--layout", layouts, *flags) as point:
            yield point, plain, tensors


# --- transformers ---------------------------------------------------------------------


def transformers():
    """from_pretrained with the path alone: keys, dtype, quantizer, logits."""
    for name in ("deepseek_v3", "qwen3_moe", "glm4_moe"):
        for mtp in ("drop", "keep") if name == "deepseek_v3" else ("auto",):
            with views(name, "hf,transformers", "--mtp", mtp) as (point, plain, tensors):
                for layout in ("hf", "transformers"):
                    with check(f"transformers {name}, {layout} view, --mtp {mtp}"):
                        # Unexpected keys are reported as they would be in memory, grouped.
                        extra = [k for k in read_all(point / "transformers") if models.is_mtp(k)]
                        from_pretrained(point / layout, plain, extra)


def from_pretrained(directory, plain, mtp, dtype="bfloat16"):
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    expect(not info["missing_keys"], f"missing {info['missing_keys']}")
    expect(set(info["unexpected_keys"]) == set(mtp), f"unexpected {info['unexpected_keys']}, MTP has {mtp}")
    expect(not info["mismatched_keys"] and not info["error_msgs"], str(info))
    expect(model.dtype == getattr(torch, dtype), f"dtype {model.dtype}")
    quantizer = getattr(model, "hf_quantizer", None)
    expect(quantizer is None and not getattr(model.config, "quantization_config", None), "a quantizer was started")
    tokens = torch.arange(40)[None] * 5 % 256
    with torch.no_grad():
        got = model(tokens).logits
        want = AutoModelForCausalLM.from_pretrained(plain)(tokens).logits
    expect(torch.isfinite(want).all() and want.std() > 0, "the plain model is not alive")
    expect(torch.equal(got, want), f"logits differ by {(got - want).abs().max()}")


# --- AutoModel ------------------------------------------------------------------------


def native_model(directory):
    """AutoModel's DeepSeek-V3 for a config, without weights."""
    import torch
    from nemo_automodel.components.models.common import BackendConfig
    from nemo_automodel.components.models.deepseek_v3.model import DeepseekV3ForCausalLM
    from transformers import AutoConfig

    backend = BackendConfig(attn="sdpa", linear="torch", rms_norm="torch", experts="torch", dispatcher="torch")
    config = AutoConfig.from_pretrained(directory)
    config.torch_dtype = torch.bfloat16
    model = DeepseekV3ForCausalLM(config, backend=backend).to(torch.bfloat16)
    for p in model.parameters():
        p.data.fill_(float("nan"))
    return model


def automodel():
    """The native view into its modules, and the hf view through its own loader."""
    import torch

    with views("deepseek_v3", "hf,native", "--mtp", "drop") as (point, _, _):
        native = tensors_of(point / "native")
        with check("AutoModel DeepseekV3ForCausalLM.load_state_dict of the native view, strict"):
            model = native_model(point / "native")
            model.load_state_dict(native, strict=True)
            holds(model, native)
        with check("AutoModel Checkpointer.load_base_model of the hf view"):
            from nemo_automodel.components.checkpoint.checkpointing import Checkpointer, CheckpointingConfig

            model = native_model(point / "hf")
            with tempfile.TemporaryDirectory() as scratch:
                config = CheckpointingConfig(checkpoint_dir=scratch, model_cache_dir=scratch, model_repo_id=str(point / "hf"))
                checkpointer = Checkpointer(config, dp_rank=0, tp_rank=0, pp_rank=0)
                checkpointer.load_base_model(model, torch.device("cpu"), scratch, str(point / "hf"))
                checkpointer.close()
            holds(model, native)


def holds(model, native):
    """The module's parameters are the native tensors, cast to what the module keeps them in."""
    import torch

    state = model.state_dict()
    expect(state.keys() == native.keys(), f"names differ: {sorted(state.keys() ^ native.keys())[:6]}")
    for key, value in native.items():
        expect(torch.equal(state[key], value.to(state[key].dtype)), f"{key} differs")


# --- torch distributed checkpoint -------------------------------------------------------


def dcp():
    """HuggingFaceStorageReader, full and sharded over two processes, and AutoModel's reader."""
    import torch.multiprocessing

    with views() as (point, _, _):
        for layout in ("hf", "native", "transformers"):
            want = tensors_of(point / layout)
            with check(f"DCP HuggingFaceStorageReader, full, {layout} view"):
                equal(want, dcp_full(upstream(point / layout), want))
            with check(f"DCP AutoModel's reader, full, {layout} view"):
                from nemo_automodel.components.checkpoint._backports.hf_storage import _HuggingFaceStorageReader

                equal(want, dcp_full(_HuggingFaceStorageReader(str(point / layout)), want))
        with check("DCP HuggingFaceStorageReader, sharded, hf and native view"), tempfile.TemporaryDirectory() as meet:
            directories = [str(point / layout) for layout in ("hf", "native")]
            torch.multiprocessing.spawn(dcp_rank, (3, directories, meet + "/store"), 3)


def upstream(directory):
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    return HuggingFaceStorageReader(str(directory), thread_count=2)


def dcp_full(reader, want):
    import torch
    import torch.distributed.checkpoint as dcp

    state = {k: torch.full_like(v, float("nan")) for k, v in want.items()}
    dcp.load(state, storage_reader=reader)
    return state


def dcp_rank(rank, size, directories, store):
    """One process: its shard of every tensor, along the first and along the last axis."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    mesh = init_device_mesh("cpu", (size,))
    for directory in directories:
        for axis in (0, -1):
            dcp_shards(directory, mesh, axis)
    dist.destroy_process_group()


def dcp_shards(directory, mesh, axis):
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.tensor import Shard, distribute_tensor

    want = tensors_of(directory)
    place = {k: [Shard(axis % v.ndim)] for k, v in want.items()}
    state = {k: distribute_tensor(torch.full_like(v, float("nan")), mesh, place[k]) for k, v in want.items()}
    dcp.load(state, storage_reader=upstream(directory))
    for k, v in want.items():
        expect(torch.equal(state[k].to_local(), distribute_tensor(v, mesh, place[k]).to_local()), f"{k} differs")


# --- accelerate -----------------------------------------------------------------------


def accelerate():
    """load_checkpoint_and_dispatch into empty models. The view needs the names of the module."""
    import torch
    from accelerate import init_empty_weights, load_checkpoint_and_dispatch
    from transformers import AutoConfig, AutoModelForCausalLM

    for name, layout in (("llama", "hf"), ("deepseek_v3", "transformers"), ("qwen3_moe", "transformers")):
        with check(f"accelerate load_checkpoint_and_dispatch, {name}, {layout} view"):
            with views(name, layout, "--mtp", "drop") as (point, plain, _):
                with init_empty_weights():
                    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(point), dtype=torch.bfloat16)
                load_checkpoint_and_dispatch(model, str(point), device_map={"": "cpu"}, strict=True)
                want = AutoModelForCausalLM.from_pretrained(plain).state_dict()
                equal(want, dict(model.state_dict()))


# --- readers of files -----------------------------------------------------------------


def safetensors():
    """The library for torch, by mmap and by pread, whole tensors and slices."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    with views() as (point, _, _):
        for layout in ("hf", "native", "transformers"):
            want = tensors_of(point / layout)
            with check(f"safetensors.torch.load_file, {layout} view"):
                got = {}
                for path in files(point / layout):
                    got |= load_file(path)
                equal(want, got)
            for backend in ("mmap", "pread"):
                with check(f"safetensors safe_open, {backend}, {layout} view"):
                    got = {}
                    for path in files(point / layout):
                        with safe_open(path, framework="pt", backend=backend) as f:
                            got |= {k: f.get_tensor(k) for k in f.keys()}
                    equal(want, got)
        with check("safetensors get_slice at odd places"):
            generator = torch.Generator().manual_seed(1)
            for path in files(point / "native"):
                with safe_open(path, framework="pt") as f:
                    for key in (k for k in f.keys() if ".experts." in k):
                        whole = f.get_tensor(key)
                        for _ in range(25):
                            cut = tuple(odd_slice(n, generator) for n in whole.shape)
                            expect(torch.equal(f.get_slice(key)[cut], whole[cut]), f"{key}{cut}")


def odd_slice(n, generator):
    import torch

    lo = int(torch.randint(0, n, (), generator=generator))
    return slice(lo, int(torch.randint(lo + 1, n + 1, (), generator=generator)))


def gguf():
    """The tensor reader of llama.cpp's converter."""
    from gguf.utility import SafetensorsLocal

    with views() as (point, _, _):
        for layout in ("hf", "native"):
            with check(f"gguf SafetensorsLocal, {layout} view"):
                want = read_all(point / layout)
                got = {}
                for path in files(point / layout):
                    with SafetensorsLocal(pathlib.Path(path)) as tensors:
                        got |= tensors
                expect(got.keys() == want.keys(), "names differ")
                for key, t in got.items():
                    expect(t.shape == want[key].shape, f"{key}: {t.shape}")
                    expect(t.mmap_bytes().tobytes() == want[key].tobytes(), f"{key} differs")


def fastsafetensors():
    """fastsafe_open without GPUDirect storage."""
    from fastsafetensors import fastsafe_open

    with views() as (point, _, _):
        for layout in ("hf", "native"):
            with check(f"fastsafetensors fastsafe_open nogds, {layout} view"):
                want = tensors_of(point / layout)
                with fastsafe_open(files(point / layout), nogds=True, device="cpu") as f:
                    equal(want, {k: f.get_tensor(k).clone() for k in f.keys()})


def runai():
    """The Run:ai model streamer."""
    from runai_model_streamer import SafetensorsStreamer

    with views() as (point, _, _):
        for layout in ("hf", "native"):
            with check(f"runai-model-streamer SafetensorsStreamer, {layout} view"):
                want = tensors_of(point / layout)
                with SafetensorsStreamer() as streamer:
                    streamer.stream_files(files(point / layout))
                    equal(want, {k: t.clone() for k, t in streamer.get_tensors()})


# --- the access patterns of servers -----------------------------------------------------


def servers():
    """Reads files as the weight iterators of vLLM and SGLang do, without running the servers."""
    import safetensors.torch  # noqa: F401: once here, and not in each of the forked ranks

    context = multiprocessing.get_context("fork")
    patterns = {
        "vLLM, four ranks, mmap get_tensor": vllm_default,
        "vLLM, four ranks, expert filter": vllm_expert_parallel,
        "vLLM prefetch, 16 MiB blocks beside mmap": vllm_prefetch,
        "vLLM eager, whole files": vllm_eager,
        "SGLang, threads with load_file": sglang_threads,
    }
    case = families.make("deepseek_v3", 5)  # nothing here may start torch's threads before the fork
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        write_checkpoint(directory, case.config, case.tensors, 4, apart=True)
        point = stack.enter_context(mount(directory, "--layout", "hf"))
        want = {k: a.tobytes() for k, a in read_all(point).items()}
        for name, pattern in patterns.items():
            with check(name):
                args = [(pattern, files(point), want, rank, case.experts) for rank in range(4)]
                ranks = [context.Process(target=rank_main, args=a) for a in args]
                for p in ranks:
                    p.start()
                for p in ranks:
                    p.join(300)
                    expect(p.exitcode == 0, f"a rank ended with {p.exitcode}")


def rank_main(pattern, paths, want, rank, experts):
    for key, data in pattern(paths, rank, 4, experts):
        expect(data == want[key], f"{key} differs")


def raw(tensor):
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def vllm_default(paths, rank, size, experts, wanted=lambda key: True):
    from safetensors import safe_open

    for path in paths:
        with safe_open(path, framework="pt") as f:
            for key in f.keys():
                if wanted(key):
                    yield key, raw(f.get_tensor(key))


def vllm_expert_parallel(paths, rank, size, experts):
    mine = oracle.share(experts, rank, size)

    def wanted(key):
        part = key.split(".experts.")
        return len(part) == 1 or int(part[1].split(".")[0]) in mine

    return vllm_default(paths, rank, size, experts, wanted)


def vllm_prefetch(paths, rank, size, experts):
    def prefetch(mine):
        for path in mine:
            with open(path, "rb", buffering=0) as f:
                while f.read(16 << 20):
                    pass

    threads = [threading.Thread(target=prefetch, args=(paths[rank::size][i::8],)) for i in range(8)]
    for t in threads:
        t.start()
    yield from vllm_default(paths, rank, size, experts)
    for t in threads:
        t.join()


def vllm_eager(paths, rank, size, experts):
    from safetensors.torch import load

    for path in paths:
        with open(path, "rb") as f:
            for key, value in load(f.read()).items():
                yield key, raw(value)


def sglang_threads(paths, rank, size, experts):
    from concurrent.futures import ThreadPoolExecutor

    from safetensors.torch import load_file

    with ThreadPoolExecutor(8) as pool:
        for part in pool.map(load_file, paths):
            for key, value in part.items():
                yield key, raw(value)
