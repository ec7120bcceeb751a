"""Puts the binary of one platform into the wheel, and says for which systems the wheel is."""

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Binary(BuildHookInterface):  # type: ignore[type-arg]
    """The binary is a script of the wheel, so it is in PATH and starts without Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        name = "dequantfs.exe" if "-win_" in os.environ["DEQUANTFS_TAG"] else "dequantfs"
        build_data["pure_python"] = False
        build_data["tag"] = os.environ["DEQUANTFS_TAG"]
        build_data["shared_scripts"] = {os.environ["DEQUANTFS_BINARY"]: name}
        build_data["sbom_files"] = [os.environ["DEQUANTFS_SBOM"]]
