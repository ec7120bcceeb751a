"""Mounts of checkpoints."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import subprocess
import tempfile
import threading
from types import TracebackType
from typing import Optional

from ._command import Flag, Layout, Path, arguments, call, expand, failure, log, output, start
from ._error import Error
from ._lifeline import Lifeline

WITHOUT_FUSE = "from Python: dequantfs.serve(source)"


def mount(
    source: Path, layout: Layout = "hf", mountpoint: Optional[Path] = None, **flags: Flag
) -> Mount:
    """Mount a checkpoint, and return once its files can be read.

        with dequantfs.mount("Qwen/Qwen3-0.6B-FP8") as path:
            model = AutoModelForCausalLM.from_pretrained(path)

    A source or mountpoint may begin with ~, the home of the user.

    Without `with`, the result has `path` and `unmount()`. With several layouts there is one folder
    for each below path. Without a mountpoint one is made in the folder for temporary files, and
    removed afterwards. The end of the program unmounts too, also if it is killed.
    """
    return Mount(source, layout, mountpoint, flags)


class Mount:
    """A checkpoint that is mounted at `path`."""

    def __init__(
        self, source: Path, layout: Layout, mountpoint: Optional[Path], flags: dict[str, Flag]
    ) -> None:
        self.source = expand(source)
        self._temporary = mountpoint is None
        self.path = _unused() if mountpoint is None else _absolute(expand(mountpoint))
        self._lock = threading.Lock()
        self._pid = os.getpid()
        flags = {**flags, "layout": layout, "until_eof": True}
        self._lifeline = _start(arguments("mount", [self.source, self.path], flags))
        if not _is_mounted(self.path):  # it was unmounted at once
            self._lifeline.close()
            raise Error("the command ended without a mount")
        _mounts.add(self)

    def unmount(self) -> None:
        """Unmount. It may be called again.

        Files that are still open or mapped, such as tensors that were not copied, can be read until
        they are closed or this process ends. Only the path is gone then.
        """
        if self._pid != os.getpid():
            return  # a forked child leaves it to its parent
        with self._lock:
            if self.mounted:
                self._leave()
                _mounts.discard(self)

    def _leave(self) -> None:
        try:
            call("umount", [self.path], {})
            self._lifeline.close()
        except Error:  # it is in use, or gone already
            with contextlib.suppress(Error):
                call("umount", [self.path], {"lazy": True})
            if _is_mounted(self.path):
                raise
            self._lifeline.abandon()
        if self._temporary:
            with contextlib.suppress(OSError):
                os.rmdir(self.path)

    @property
    def mounted(self) -> bool:
        """Whether it was not yet unmounted."""
        return self in _mounts

    def __enter__(self) -> str:
        return self.path

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.unmount()

    def __fspath__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        state = "" if self.mounted else ", unmounted"
        return f"<dequantfs.Mount {self.source!r} at {self.path!r}{state}>"


_mounts: set[Mount] = set()


def _unused() -> str:
    return os.path.join(tempfile.gettempdir(), "dequantfs-" + secrets.token_hex(8))


def _absolute(mountpoint: str) -> str:
    return os.path.abspath(mountpoint) if mountpoint else ""  # the command refuses an empty one


def _start(words: list[str]) -> Lifeline:
    """Mount in the background. The process behind the mount ends with the returned pipe."""
    pipe = Lifeline()
    try:
        process = start(words, pipe.reader, subprocess.DEVNULL, subprocess.PIPE)
    except BaseException:
        pipe.close()
        raise
    finally:
        pipe.close_reader()
    try:
        said = output(process)[1]
    except BaseException:
        pipe.close()
        raise
    if process.returncode:
        pipe.close()
        raise _explained(failure(said, process.returncode))
    log(said)
    return pipe


def _explained(error: Error) -> Error:
    """Add the way out of this package to an error of a machine that cannot mount."""
    if "dequantfs serve" in error.hint or "dequantfs export" in error.hint:
        return Error(error.message, f"{error.hint}; {WITHOUT_FUSE}", error.status)
    return error


def _is_mounted(path: str) -> bool:
    try:
        return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev
    except FileNotFoundError:
        return False
    except OSError:  # the process behind the mount is gone, but the mount is not
        return True


@atexit.register
def _unmount_all() -> None:
    for one in list(_mounts):
        try:
            one.unmount()
        except Error as e:
            log(f"warning: {one.path}: {e}")
