"""`python -m dequantfs` is the command."""

import os
import subprocess
import sys

from ._binary import find_binary
from ._error import Error


def main() -> int:
    """Become the command or, on Windows, run it and return its exit status."""
    try:
        args = [find_binary(), *sys.argv[1:]]
    except Error as e:
        print(f"dequantfs: {e}", file=sys.stderr)
        return 1
    if sys.platform != "win32":
        os.execv(args[0], args)
    return subprocess.call(args)


if __name__ == "__main__":
    sys.exit(main())
