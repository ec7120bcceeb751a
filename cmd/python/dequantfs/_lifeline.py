"""Pipes that end with this process, however it ends. The command waits for their end."""

from __future__ import annotations

import os
import select
import sys

_held: set[int] = set()
_abandoned: set[int] = set()


class Lifeline:
    """A pipe. `reader` is the standard input of a command; this process keeps the other end."""

    def __init__(self) -> None:
        _sweep()
        self.reader, self._writer = os.pipe()
        _held.add(self._writer)

    def close_reader(self) -> None:
        """Close the end of the command, once it has its own copy."""
        os.close(self.reader)

    def close(self) -> None:
        """End the command."""
        _close(self._writer)

    def abandon(self) -> None:
        """Let the command run as long as it has something to do and this process lives."""
        _abandoned.add(self._writer)


def _close(writer: int) -> None:
    _abandoned.discard(writer)
    if writer in _held:
        _held.remove(writer)
        os.close(writer)


def _sweep() -> None:
    """Close the abandoned pipes that no command reads any more."""
    if sys.platform == "win32" or not _abandoned:
        return
    poll = select.poll()
    for writer in list(_abandoned):
        poll.register(writer, 0)
    for writer, event in poll.poll(0):
        if event & select.POLLERR:
            _close(writer)


def _forked() -> None:
    """Close the pipes in a forked child: it must not keep alive what its parent has mounted."""
    for writer in list(_held):
        _close(writer)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
