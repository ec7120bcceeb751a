"""What is in a checkpoint."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ._command import Flag, Layout, Path, call, expand


class Tensor(NamedTuple):
    """A tensor of a view, the file that it is in, and the recipe that computes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    file: str
    recipe: str
    layout: str


def ls(source: Path, layout: Layout = "hf", **flags: Flag) -> list[Tensor]:
    """Return the tensors that a mount of source would show, without reading their values."""
    flags = {**flags, "layout": layout, "json": True}
    views = json.loads(call("ls", [expand(source)], flags)).get("views")
    if views is None:
        raise TypeError("dequantfs.ls lists tensors: leave out the flag summary")
    return [_tensor(t, v["layout"]) for v in views for t in v["tensors"]]


def _tensor(t: dict[str, Any], layout: str) -> Tensor:
    return Tensor(
        t["name"], t["dtype"], tuple(t["shape"]), t["bytes"], t["file"], t["recipe"], layout
    )
