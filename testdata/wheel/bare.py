"""Checks in a bare root, with Python and nothing else: `python3 bare.py CHECK…`.

/dist has the wheels, /packages the libraries of an environment with torch, /hub036 those of an old
huggingface_hub, /checkpoints what checkpoints.py writes.
"""

import contextlib
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import venv

from checks import check, expect

HERE = pathlib.Path(__file__).parent
FOLDERS = sorted(map(str, pathlib.Path("/checkpoints").iterdir()))
FP8 = "/checkpoints/fp8/Tiny-fp8"
LIBRARIES = {"PYTHONPATH": "/packages", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}


def run(*words, status=0, **variables):
    """Run a program, and return what it writes to standard output or, if it must fail, to error."""
    environment = {**os.environ, **variables}
    p = subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, timeout=300)
    expect(p.returncode == status, f"{words[0]} ended with {p.returncode}: {p.stderr[-1500:]}")
    return p.stderr if status else p.stdout


def pip(python, *words):
    return run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", *words)


@contextlib.contextmanager
def environment():
    """The Python and the command of a virtual environment into which the wheel was installed."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip(f"{folder}/bin/python", "install", "--no-index", "--find-links", "/dist", "dequantfs")
        yield f"{folder}/bin/python", f"{folder}/bin/dequantfs"


WHERE = "import dequantfs, subprocess; b = dequantfs.find_binary(); print(b, subprocess.check_output([b, 'version'], text=True))"


def installs():
    """Where installers put the command, and that the package finds it there."""
    system, index = sys.executable, ("--no-index", "--find-links", "/dist", "dequantfs")
    with check("in a virtual environment"), environment() as (python, command):
        expect(run(python, "-c", WHERE).split()[0] == command, "another command is found")
        version = run(command, "version")
        expect(run(python, "-m", "dequantfs", "version") == version, "python -m dequantfs differs")
        number = run(python, "-c", "import dequantfs; print(dequantfs.__version__)").strip()
        expect(number in next(pathlib.Path("/dist").glob("*x86_64*")).name, f"version {number}")
        before = set(pathlib.Path(command).parents[1].rglob("*dequantfs*"))
        pip(python, "uninstall", "--yes", "dequantfs")
        after = [p for p in before if p.exists() and "__pycache__" not in p.parts]
        expect(len(before) > 2 and not after, f"left behind: {after}")
    with check("for a user"):
        pip(system, "install", "--user", "--break-system-packages", *index)
        expect(run(system, "-c", WHERE).split()[0] == os.path.expanduser("~/.local/bin/dequantfs"), "not there")
        pip(system, "uninstall", "--yes", "--break-system-packages", "dequantfs")
    with check("into a folder"), tempfile.TemporaryDirectory() as to:
        pip(system, "install", "--target", to, *index)
        expect(run(system, "-c", WHERE, PYTHONPATH=to).split()[0] == f"{to}/bin/dequantfs", "not there")


def nothing_is_left():
    mounts = pathlib.Path("/proc/self/mounts").read_text()
    expect("fuse" not in mounts, mounts)
    expect(not list(pathlib.Path("/tmp").glob("dequantfs-????????????????")), "a mountpoint is left")
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = path.read_text()  # a zombie has ended: this program is process 1
            expect("(dequantfs)" not in text or ") Z" in text, f"{path.parent} still runs")


def mounted():
    """Mounts of a Python process, and of the command run."""
    with environment() as (python, command):
        with check("mount: safetensors and transformers"):
            run(python, HERE / "loaded.py", "mounted", *FOLDERS, **LIBRARIES)
            nothing_is_left()
        runs(python, command)
        with check("run: the exit status"):
            run(command, "run", FP8, "--", "sh", "-c", "exit 41", status=41)
            nothing_is_left()


def runs(python, command):
    for folder in FOLDERS:
        with check(f"run: transformers, {pathlib.Path(folder).name}"):
            [source] = pathlib.Path(folder).glob("Tiny-*")
            run(command, "run", source, "--", python, HERE / "loaded.py", "same", "{}", folder, **LIBRARIES)
            nothing_is_left()


REFUSED = """
import dequantfs, sys
try:
    dequantfs.mount(sys.argv[1])
except dequantfs.Error as e:
    print(e.message)
    print(e.hint)
"""


def refused(python, message, *hints):
    said = run(python, "-c", REFUSED, FP8).splitlines()
    expect(len(said) == 2, f"it said {said}")
    expect(message in said[0], f"the message is {said[0]}")
    for hint in (*hints, "; from Python: dequantfs.serve(source)"):
        expect(hint in said[1], f"the hint is {said[1]}")
    nothing_is_left()


def user():
    """A user without fusermount3."""
    with environment() as (python, command):
        with check("mount without fusermount3 says what to do"):
            refused(python, "fusermount3 is not installed", "apt install fuse3", "dequantfs run")
        runs(python, command)


def served():
    """Without /dev/fuse."""
    with environment() as (python, command), tempfile.TemporaryDirectory() as scratch:
        with check("mount without /dev/fuse says what to do"):
            refused(python, "open /dev/fuse: no such file or directory", "modprobe fuse")
        with check("serve: snapshot_download and transformers"):
            online = {**LIBRARIES, "HF_HUB_OFFLINE": "0", "HF_HOME": f"{scratch}/one"}
            run(python, HERE / "loaded.py", "served", *FOLDERS, **online)
        exported = pathlib.Path(scratch) / "exported"
        run(command, "export", FP8, exported, "--layout", "hf")
        sys.path.insert(0, run(python, "-c", "import dequantfs, os; print(os.path.dirname(os.path.dirname(dequantfs.__file__)))").strip())
        import dequantfs

        with dequantfs.serve(FP8, name="tiny") as server:
            clients(python, server, exported, pathlib.Path(scratch))
        nothing_is_left()


DOWNLOAD = """
import huggingface_hub, sys
print(huggingface_hub.__version__)
print(huggingface_hub.snapshot_download(sys.argv[1], endpoint=sys.argv[2]))
"""
HF = "import huggingface_hub.cli.hf as hf; hf.main()"


def clients(python, server, exported, scratch):
    home = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": server.endpoint}
    with check("serve: from_pretrained by name"):
        names = {**LIBRARIES, **home, "HF_HOME": f"{scratch}/two"}
        run(python, HERE / "loaded.py", "same", server.repository, "/checkpoints/fp8", **names)
    for libraries, begins in (("/packages", "2."), ("/hub036", "0.36.")):
        with check(f"serve: huggingface_hub {begins}x"):
            words = (python, "-c", DOWNLOAD, server.repository, server.endpoint)
            version, folder = run(*words, PYTHONPATH=libraries, HF_HOME=f"{scratch}/{begins}").split()
            expect(version.startswith(begins), f"it is {version}")
            expect(digests(folder) == digests(exported), "the download differs from the export")
    with check("serve: hf download"):
        to = scratch / "downloaded"
        run(python, "-c", HF, "download", server.repository, "--local-dir", to, PYTHONPATH="/packages", **home)
        expect(digests(to) == digests(exported), "the download differs from the export")
    with check("serve: curl with ranges"):
        for path in exported.glob("*.safetensors"):
            at, data = f"{server.endpoint}/{server.repository}/resolve/main/{path.name}", path.read_bytes()
            for first, last in ((0, 0), (1000, 99999), (len(data) - 3, len(data) - 1)):
                got = subprocess.run(["curl", "-sf", "-r", f"{first}-{last}", at], check=True, capture_output=True)
                expect(got.stdout == data[first : last + 1], f"{path.name} from {first} differs")


def digests(folder):
    files = [p for p in pathlib.Path(folder).iterdir() if p.is_file() and not p.name.startswith(".")]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        {"installs": installs, "mounted": mounted, "user": user, "served": served}[name]()
