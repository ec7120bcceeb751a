"""Writes an FP8 and a 4-bit checkpoint of small models, and plain folders that NumPy computes.

It needs the environment of testdata/interop/run heavy.
"""

import pathlib
import shutil
import sys

import loads
import models

if __name__ == "__main__":
    to = pathlib.Path(sys.argv[1])
    for name, made in (
        ("fp8", models.source("deepseek_v3")),
        ("int4", loads.source("Llama in INT4 of compressed-tensors")),
    ):
        with made as (stored, plain, _):
            shutil.copytree(stored, to / name / f"Tiny-{name}")
            shutil.copytree(plain, to / name / "plain")
