"""Mounts, made with the command itself, and memory cgroups."""

import contextlib
import json
import os
import pathlib
import subprocess
import time

BINARY = os.environ.get("DEQUANTFS", "dequantfs")


def command(*args, check=True, binary=None, group=None):
    """Run the command, maybe in a cgroup. Its standard error goes into the exception."""
    args = [binary or BINARY, *map(str, args)]
    if group:
        args = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', group.procs, *args]
    p = subprocess.run(args, capture_output=True, text=True, timeout=600)
    if check and p.returncode:
        raise RuntimeError(f"{' '.join(args)}: {p.stderr.strip()}")
    return p


def has(flag):
    """Whether mount has a flag."""
    return f"--{flag}" in command("mount", "--help").stdout.split()


def umount(point):
    """Unmount. A mount that stays busy is a failure of what is measured."""
    command("umount", point)


@contextlib.contextmanager
def mount(source, point, layout, *flags, binary=None, group=None):
    """Mount one layout of source at point, and unmount at the end."""
    os.makedirs(point, exist_ok=True)
    command("mount", source, point, "--layout", layout, *flags, binary=binary, group=group)
    try:
        yield point
    except BaseException:
        command("umount", "--lazy", point, check=False)
        raise
    umount(point)


@contextlib.contextmanager
def memory(like, point):
    """Mount files of memory with the names, sizes and headers of the files in a folder."""
    os.makedirs(point, exist_ok=True)
    child = subprocess.Popen([BINARY, "bench", "memory", point, like], stderr=subprocess.PIPE, text=True)
    try:
        while not os.path.ismount(point):
            if child.poll() is not None:
                raise RuntimeError(child.stderr.read())
            time.sleep(0.01)
        yield point
    finally:
        child.terminate()
        child.wait(60)


def state(point):
    """What the process behind a mount says about itself."""
    return json.loads(command("status", "--json", point).stdout)["mounts"][0]


def number(facts, *names):
    """Find a number in nested facts."""
    for name in names:
        facts = facts.get(name, {}) if isinstance(facts, dict) else {}
    return facts if isinstance(facts, (int, float)) else 0


def peak(pid):
    """The most memory that a process has had, in bytes."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


class Group:
    """A memory cgroup, of version 2 or 1. It needs root."""

    def __init__(self, limit):
        for root, name in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
            self.directory = pathlib.Path(root) / f"dequantfs-coldload-{os.getpid()}"
            self.procs = str(self.directory / "cgroup.procs")
            try:
                self.directory.mkdir()
                if os.path.exists(self.procs):
                    (self.directory / name).write_text(str(limit))
                    return
            except OSError:
                pass
            with contextlib.suppress(OSError):
                self.directory.rmdir()
        raise RuntimeError("no memory cgroup can be made here")

    def close(self):
        for _ in range(500):
            with contextlib.suppress(OSError):
                self.directory.rmdir()
                return
            time.sleep(0.01)
