"""Checkpoints over HTTP, for machines that cannot mount."""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import tempfile
import threading
from types import TracebackType
from typing import Optional

from ._command import Flag, Layout, Path, arguments, expand, failure, log, start
from ._lifeline import Lifeline


def serve(source: Path, layout: Layout = "hf", **flags: Flag) -> Server:
    """Serve a checkpoint to this machine, in the form of the Hub's API. It needs no FUSE.

        with dequantfs.serve("Qwen/Qwen3-0.6B-FP8") as server:
            path = huggingface_hub.snapshot_download(server.repository, endpoint=server.endpoint)

    Programs that take no endpoint read the environment variable HF_ENDPOINT when they start. The
    end of this program ends the server too, also if it is killed.
    """
    return Server(source, layout, flags)


class Server:
    """A checkpoint that is served at the address `endpoint`.

    `repositories` are its names there, one for each layout. `repository` is the first one.
    """

    def __init__(self, source: Path, layout: Layout, flags: dict[str, Flag]) -> None:
        self.source = expand(source)
        self.endpoint = ""
        self.repositories: list[str] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        flags = {
            "listen": "127.0.0.1:0",
            "quiet": True,
            **flags,
            "layout": layout,
            "until_eof": True,
        }
        words = arguments("serve", [self.source], flags)
        self._said = tempfile.TemporaryFile()
        self._lifeline = Lifeline()
        try:
            self._process = start(words, self._lifeline.reader, subprocess.PIPE, self._said)
        except BaseException:
            self._lifeline.close()
            raise
        finally:
            self._lifeline.close_reader()
        _servers.add(self)
        try:
            self._wait_ready()
        except BaseException:  # KeyboardInterrupt too
            self.stop()
            raise

    @property
    def repository(self) -> str:
        """The name of the first layout, such as Qwen3-0.6B-FP8/hf."""
        return self.repositories[0]

    def stop(self) -> None:
        """End the server once it has finished its answers. It may be called again."""
        if self._pid != os.getpid():
            return  # a forked child leaves it to its parent
        with self._lock:
            if self in _servers:
                self._lifeline.close()
                self._process.wait()
                if self.endpoint:  # else there is an exception with them
                    log(self._messages())
                self._said.close()
                _servers.discard(self)

    def _wait_ready(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line == b"ready\n":
                    return
                found = re.search(r"HF_ENDPOINT=(\S+) hf download (\S+)", line.decode())
                if found:
                    self.endpoint = found[1]
                    self.repositories.append(found[2])
        raise failure(self._messages(), self._process.wait())

    def _messages(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"at {self.endpoint}" if self in _servers else "stopped"
        return f"<dequantfs.Server {self.source!r} {state}>"


_servers: set[Server] = set()


@atexit.register
def _stop_all() -> None:
    for one in list(_servers):
        one.stop()
