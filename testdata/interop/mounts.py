"""Mounts, made with the command itself."""

import contextlib
import os
import pathlib
import subprocess
import tempfile

BINARY = os.environ.get("DEQUANTFS", "dequantfs")


def command(*args, check=True):
    """Run the command; its standard error goes into the exception."""
    p = subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=300)
    if check and p.returncode:
        raise RuntimeError(f"dequantfs {' '.join(map(str, args))}: {p.stderr.strip()}")
    return p


@contextlib.contextmanager
def mount(source, *flags):
    """Mount source, give the mountpoint, and unmount at the end, also after a failure."""
    with tempfile.TemporaryDirectory(prefix="dequantfs-") as directory:
        point = pathlib.Path(directory) / "mnt"
        command("mount", source, point, *flags)
        try:
            yield point
        finally:
            if command("umount", point, check=False).returncode:
                command("umount", point, "--lazy")
