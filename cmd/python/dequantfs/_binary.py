"""Where the command is that came with this package."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ._error import Error

_NAME = "dequantfs.exe" if os.name == "nt" else "dequantfs"


def find_binary() -> str:
    """Return the path of the command.

    It is the one that was installed with this package or, without one, the first in PATH.
    """
    for path in _installed():
        if os.access(path, os.X_OK):
            return str(path.resolve())
    found = shutil.which(_NAME)
    if found is None:
        raise Error("the command dequantfs is not installed", "pip install dequantfs")
    return found


def _installed() -> Iterator[Path]:
    try:
        package = metadata.distribution("dequantfs")
    except metadata.PackageNotFoundError:  # in the source tree
        return
    for file in package.files or ():
        if file.name == _NAME:
            yield Path(str(package.locate_file(file)))
    yield Path(__file__).parent.parent / "bin" / _NAME  # pip install --target
