"""Command lines, and what the command says."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Union

from ._binary import find_binary
from ._error import Error

Path = Union[str, "os.PathLike[str]"]
# What a flag may be: True is the flag alone, None leaves it out, several values repeat it.
Value = Union[str, int, float, "os.PathLike[str]"]
Flag = Union[Value, bool, None, Iterable[Value]]
Layout = Union[str, Iterable[str]]

# What flags take that are easily given something else.
TAKES = {"dtype": 'one of "auto", "bf16", "f16" and "f32"'}

PREFIX = "dequantfs: "
if sys.platform == "win32":
    GROUP = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    GROUP = 0
logger = logging.getLogger("dequantfs")


def expand(name: Path) -> str:
    """Return a path or the name of a source, with the home of a user in place of ~."""
    return os.path.expanduser(os.fsdecode(name))


def arguments(command: str, operands: Iterable[Path], flags: Mapping[str, Flag]) -> list[str]:
    """Return the command line. The command knows which flags there are, and says so."""
    words = [find_binary(), command]
    for name, value in flags.items():
        if name == "help":
            raise TypeError(
                f"dequantfs.{command} has no flag help: "
                f"help(dequantfs.{command}) explains it, and dequantfs {command} --help its flags"
            )
        words += ("--" + name.replace("_", "-") + one for one in _values(name, value))
    return [*words, "--", *(os.fspath(o) for o in operands)]


def _values(name: str, value: object) -> Iterator[str]:
    """Return what follows the name of a flag, for each time that it is given."""
    if isinstance(value, bool):
        yield "" if value else "=false"
    elif isinstance(value, (str, int, float)):
        yield f"={value}"
    elif isinstance(value, os.PathLike):
        yield "=" + expand(value)
    elif isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, Mapping)):
        for one in value:
            yield from _values(name, one)
    elif value is not None:
        takes = TAKES.get(name, "a str, a number, a path, True, False, None or a list of them")
        raise TypeError(f"{name} is {value!r}, a {type(value).__name__}, but takes {takes}")


def start(
    words: list[str], stdin: int, stdout: int, stderr: Union[int, IO[bytes]]
) -> subprocess.Popen[bytes]:
    """Start the command. Ctrl-C in a terminal does not reach it: this program decides what ends."""
    return subprocess.Popen(
        words,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        creationflags=GROUP,
    )


def call(command: str, operands: Iterable[str], flags: Mapping[str, Flag]) -> str:
    """Run the command to its end and return its output."""
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    process = start(arguments(command, operands, flags), null, pipe, pipe)
    out, said = output(process)
    if process.returncode:
        raise failure(said, process.returncode)
    log(said)
    return out


def output(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Wait for the command, and return what it wrote. An exception, as by Ctrl-C, ends it."""
    try:
        out, err = process.communicate()
    except BaseException:
        process.terminate()
        process.communicate()
        raise
    return (out or b"").decode(), err.decode(errors="replace")


def failure(said: str, status: int) -> Error:
    """Make an exception from the last message of the command and its hint."""
    message, hint = "", ""
    for line in lines(said):
        if line.startswith("hint: "):
            hint = line[len("hint: ") :]
        elif line:
            message, hint = line, ""
    return Error(message or f"the command ended with status {status}", hint, status)


def log(said: str) -> None:
    """Pass the messages of the command to the logger "dequantfs"."""
    for line in lines(said):
        if line.startswith("warning: "):
            logger.warning("%s", line[len("warning: ") :])
        elif line:
            logger.info("%s", line)


def lines(said: str) -> Iterator[str]:
    """Return the messages in what the command wrote to standard error."""
    for line in said.splitlines():
        yield line[len(PREFIX) :] if line.startswith(PREFIX) else line
