"""Clients of the Hub, unmodified, on the serve command. There is no mount and no FUSE."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request

import families
import ml_dtypes
import numpy as np
from checks import check, expect, python
from container import write_checkpoint
from light import digests
from mounts import BINARY, command


@contextlib.contextmanager
def serve(source, *flags):
    """Serve source at a free port and give the address; at the end the server ends in order."""
    args = [BINARY, "serve", "--listen", ":0", "--name", "tiny", *map(str, flags), str(source)]
    server = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    try:
        yield re.search(r"HF_ENDPOINT=(\S+)", server.stdout.readline())[1]
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(60)
    expect(status == 0, f"serve ended with {status}")


@contextlib.contextmanager
def client(source, *flags):
    """A served checkpoint, its exported layout hf, and the environment of its clients.

    huggingface_hub reads its environment when it is imported, so clients are other processes.
    """
    with tempfile.TemporaryDirectory() as scratch, serve(source, *flags) as url:
        exported = pathlib.Path(scratch) / "exported"
        command("export", source, exported, "--layout", "hf")
        home = {"HF_ENDPOINT": url, "HF_HOME": f"{scratch}/home", "HF_HUB_OFFLINE": "0", "PATH": os.environ["PATH"]}
        yield url, exported, home


def run(environment, *args):
    p = subprocess.run([*map(str, args)], env=environment, capture_output=True, text=True, timeout=300)
    expect(p.returncode == 0, f"{args[0]}: {p.stderr.strip()[-1500:]}")
    return p.stdout


def wanted(exported):
    return {k: v for k, v in digests(exported).items() if not k.startswith(".")}


# What programs do with huggingface_hub, in both of its generations.
HUB = """
import hashlib, json, pathlib, huggingface_hub as hub
api, name = hub.HfApi(), "tiny/hf"
info = api.model_info(name, files_metadata=True)
found = {s.rfilename: s.size for s in info.siblings}
assert api.repo_exists(name) and not api.repo_exists("tiny/none")
assert api.file_exists(name, "config.json") and not api.file_exists(name, "none.json")
assert [p.path for p in api.get_paths_info(name, ["config.json", "none.json"])] == ["config.json"]
assert {f.path: f.size for f in api.list_repo_tree(name)} == found
assert [b.target_commit for b in api.list_repo_refs(name).branches] == [info.sha]
for wrong, error in (
    (lambda: hub.hf_hub_download(name, "none.json"), hub.errors.EntryNotFoundError),
    (lambda: hub.hf_hub_download(name, "config.json", revision="none"), hub.errors.RevisionNotFoundError),
    (lambda: api.model_info("tiny/none"), hub.errors.RepositoryNotFoundError),
    (lambda: api.model_info("tiny"), hub.errors.RepositoryNotFoundError),
    (lambda: hub.hf_hub_download("tiny", "config.json"), hub.errors.RepositoryNotFoundError),
):
    try:
        wrong()
    except error:
        continue
    raise AssertionError(error)
weights = hub.get_safetensors_metadata(name).weight_map
files = hub.HfFileSystem()
shard = sorted(f for f in found if f.endswith(".safetensors"))[0]
part = files.read_block(f"{name}/{shard}", 1000, 5000)
folder = pathlib.Path(hub.snapshot_download(name))
assert folder.name == info.sha
data = {f: (folder / f).read_bytes() for f in found}
assert part == data[shard][1000:6000]
assert {f: len(d) for f, d in data.items()} == found
print(json.dumps([len(weights), {f: hashlib.sha256(d).hexdigest() for f, d in data.items()}]))
"""


def hub():
    """Downloads, API and file system of the newest and of the last 0.x huggingface_hub."""
    case = families.make("deepseek_v3", 3)
    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(directory, case.config, case.tensors, 3, True)
        for version, environment in (("2.", ""), ("0.36.", "HUB_036")):
            with check(f"huggingface_hub {version}x"), client(directory) as (_, exported, variables):
                it = run(variables, python(environment), "-c", "import huggingface_hub as h; print(h.__version__)")
                expect(it.startswith(version), f"it is {it}")
                tensors, got = json.loads(run(variables, python(environment), "-c", HUB))
                expect(got == wanted(exported), "the download differs from the export")
                expect(tensors > 0, "the headers name no tensors")


def tools():
    """hf download and curl."""
    case = families.make("deepseek_v3", 4)
    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(directory, case.config, case.tensors, 2, True)
        with client(directory) as (url, exported, environment):
            with check("hf download"), tempfile.TemporaryDirectory() as to:
                hf = pathlib.Path(sys.executable).parent / "hf"
                run(environment, hf, "download", "tiny/hf", "--local-dir", to)
                expect(wanted(to) == wanted(exported), "the download differs from the export")
            with check("curl with ranges"):
                for path in sorted(exported.glob("*.safetensors")):
                    at, data = f"{url}/tiny/hf/resolve/main/{path.name}", path.read_bytes()
                    for part in ("0-0", "1000-99999", "-5", f"{len(data) - 3}-"):
                        lo, hi = part.split("-")
                        want = data[-int(hi) :] if not lo else data[int(lo) : int(hi) + 1 if hi else None]
                        got = subprocess.run(["curl", "-sf", "-r", part, at], check=True, capture_output=True).stdout
                        expect(got == want, f"{path.name} {part}: {len(got)} bytes, want {len(want)}")
            with check("curl goes on with an interrupted download"), tempfile.TemporaryDirectory() as to:
                path = max(exported.glob("*.safetensors"), key=lambda p: p.stat().st_size)
                part = pathlib.Path(to) / "part"
                part.write_bytes(path.read_bytes()[:12345])
                run(environment, "curl", "-sf", "-C", "-", "-o", part, f"{url}/tiny/hf/resolve/main/{path.name}")
                expect(part.read_bytes() == path.read_bytes(), "the download differs from the export")
            with check("other host names are refused"):
                request = urllib.request.Request(f"{url}/tiny/hf/resolve/main/config.json", headers={"Host": "x.example"})
                try:
                    urllib.request.urlopen(request)
                except urllib.error.HTTPError as e:
                    expect(e.code == 403, f"status {e.code}")
                else:
                    raise AssertionError("it is served")


def token():
    """hf download with HF_TOKEN, and refused without it."""
    case = families.make("deepseek_v3", 5)
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as to:
        secret = pathlib.Path(to) / "token"
        secret.write_text("hf_a_token_of_this_test\n")
        secret.chmod(0o600)
        write_checkpoint(directory, case.config, case.tensors, 2, True)
        hf = pathlib.Path(sys.executable).parent / "hf"
        with client(directory, "--token-file", secret) as (_, exported, environment):
            download = [hf, "download", "tiny/hf", "--local-dir", f"{to}/got"]
            with check("hf download without the token"):
                for more in ({}, {"HF_TOKEN": "hf_another_token"}):
                    p = subprocess.run(download, env=environment | more, capture_output=True, text=True, timeout=300)
                    expect(p.returncode != 0, f"it is served: {p.stdout}")
                    expect("HF_TOKEN" in p.stdout + p.stderr, f"it does not say what is missing: {p.stderr}")
            with check("hf download with the token"):
                run(environment | {"HF_TOKEN": secret.read_text().strip()}, *download)
                expect(wanted(f"{to}/got") == wanted(exported), "the download differs from the export")


CROWD = """
import concurrent.futures, hashlib, json, pathlib, sys, huggingface_hub as hub
def client(n):
    folder = pathlib.Path(hub.snapshot_download("tiny/hf", local_dir=f"{sys.argv[1]}/{n}", max_workers=1))
    files = [p for p in folder.iterdir() if p.is_file()]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
with concurrent.futures.ThreadPoolExecutor(64) as threads:
    print(json.dumps(list(threads.map(client, range(64)))))
"""


def crowd():
    """64 clients at once: downloads of huggingface_hub, and curl in processes of its own."""
    case = families.make("deepseek_v3", 6)
    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(directory, case.config, case.tensors, 2, True)
        with client(directory) as (url, exported, environment):
            quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # 64 threads block each other in tqdm
            for version in ("", "HUB_036"):
                with check(f"64 downloads at once {version}"), tempfile.TemporaryDirectory() as to:
                    found = json.loads(run(environment | quiet, python(version), "-c", CROWD, to))
                    expect(len(found) == 64, f"there are {len(found)}")
                    expect(all(f == wanted(exported) for f in found), "a download differs from the export")
            with check("64 curl at once"):
                shards = sorted(exported.glob("*.safetensors"))
                args = [["curl", "-sf", f"{url}/tiny/hf/resolve/main/{shards[n % len(shards)].name}"] for n in range(64)]
                started = [subprocess.Popen(a, stdout=subprocess.PIPE) for a in args]
                for n, p in enumerate(started):
                    got = p.communicate(timeout=300)[0]
                    expect(p.returncode == 0, f"curl ended with {p.returncode}")
                    expect(got == shards[n % len(shards)].read_bytes(), "a file differs from the export")


def sent(url):
    """The bytes that the server has sent."""
    servers = json.loads(command("status", "--json").stdout)["servers"]
    return next(s["stats"]["bytes"] for s in servers if s["mountpoint"] == url)


def killed():
    """A download that is killed does not fetch what is complete again, nor a part of a file in 0.x.

    2.x begins a file anew, by design: it keeps no parts.
    """
    case = families.make("deepseek_v3", 7)
    rng = np.random.default_rng(7)
    large = next(k for k in case.tensors if k.endswith("lm_head.weight"))
    case.tensors[large] = rng.integers(0, 1 << 15, (12_000, 16_384), np.uint16).view(ml_dtypes.bfloat16)
    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(directory, case.config, case.tensors, 8, True)
        with client(directory) as (url, exported, environment):
            for version, parts in (("", False), ("HUB_036", True)):
                with check(f"a killed download goes on {version}"):
                    goes_on(url, exported, environment | {"HF_HOME": f"{directory}/home{version}"}, version, parts)


def have(home):
    """The bytes of complete files and of parts in a cache."""
    complete = part = 0
    folder = pathlib.Path(home) / "hub/models--tiny--hf/blobs"
    for path in folder.iterdir() if folder.exists() else ():
        with contextlib.suppress(FileNotFoundError):  # it was renamed
            size = path.stat().st_size
            complete, part = (complete, part + size) if path.suffix == ".incomplete" else (complete + size, part)
    return complete, part


def goes_on(url, exported, environment, version, parts):
    words = [python(version), "-c", "import huggingface_hub as h; print(h.snapshot_download('tiny/hf'))"]
    download = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    complete = part = 0
    while complete < 1_000_000 or part < 50_000_000:
        expect(download.poll() is None, "the download is complete before it could be killed")
        complete, part = have(environment["HF_HOME"])
    download.kill()
    download.wait()
    complete, part = have(environment["HF_HOME"])
    before, size = sent(url), sum(p.stat().st_size for p in exported.iterdir())
    folder = run(environment, *words).strip()
    expect(wanted(folder) == wanted(exported), "the download differs from the export")
    again = sent(url) - before - (size - complete - part * parts)
    expect(again < complete // 2, f"{again} bytes too many were sent again of {size}, after {complete} and {part}")


LOGITS = """
import sys, torch
from transformers import AutoModelForCausalLM
model, info = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto", output_loading_info=True)
assert not info["missing_keys"], info
assert model.dtype == torch.bfloat16, model.dtype
with torch.no_grad():
    torch.save(model(torch.arange(40)[None] * 5 % 256).logits, sys.argv[2])
"""


def transformers():
    """from_pretrained by name gives the logits of the exported folder."""
    import torch

    import models

    for name in ("deepseek_v3", "qwen3_moe"):
        with check(f"from_pretrained {name}"), models.source(name) as (fp8, _, _):
            with client(fp8) as (_, exported, environment), tempfile.TemporaryDirectory() as to:
                for what, at in (("served", "tiny/hf"), ("exported", exported)):
                    run(environment, sys.executable, "-c", LOGITS, at, f"{to}/{what}")
                got, want = torch.load(f"{to}/served"), torch.load(f"{to}/exported")
                expect(torch.isfinite(want).all() and want.std() > 0, "the exported model is not alive")
                expect(torch.equal(got, want), f"logits differ by {(got - want).abs().max()}")
