"""How many seeds a check tries: all with the full counts, else three that change with the commit.

The environment is that of the Go package testdata/size.
"""

import os


def seeds(full=20):
    """The seeds of a run. `.ci/run` derives the first one from the commit, and prints it."""
    if os.environ.get("DEQUANTFS_FULL"):
        return range(full)
    first = int(os.environ.get("DEQUANTFS_SEED") or 1)
    return [(first + i) % full for i in range(min(3, full))]
