"""dequantfs shows a quantized checkpoint as the dequantized one, computed as it is read.

    import dequantfs

    with dequantfs.mount("Qwen/Qwen3-0.6B-FP8") as path:
        model = transformers.AutoModelForCausalLM.from_pretrained(path)

`mount` needs Linux and FUSE. `serve` shows the same files over HTTP, as the Hub does. `ls` lists
the tensors. Flags are those of the command: `shard_size="4GiB"` is `--shard-size=4GiB`, `True` is a
flag without a value, and a list repeats a flag. `dequantfs help` explains them.
"""

from importlib import metadata

from ._binary import find_binary
from ._command import Flag
from ._error import Error
from ._ls import Tensor, ls
from ._mount import Mount, mount
from ._serve import Server, serve

__all__ = ["Error", "Flag", "Mount", "Server", "Tensor", "find_binary", "ls", "mount", "serve"]

try:
    __version__ = metadata.version("dequantfs")
except metadata.PackageNotFoundError:  # in the source tree
    __version__ = "unknown"
