"""Loads checkpoints as a user of the package does, and compares them with plain folders.

    python loaded.py mounted FOLDER…          from a mount of this process
    python loaded.py served FOLDER…           downloaded from a server of this process
    python loaded.py same PATH FOLDER         from PATH, which may be the name of a repository

FOLDER holds Tiny-NAME, which is quantized, and plain, which is not.
"""

import os
import pathlib
import sys

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import dequantfs


def tensors(folder):
    """Copies of all tensors, by name, as the library safetensors reads them."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name).clone() for name in file.keys()}
    return found


def logits(path):
    model, said = AutoModelForCausalLM.from_pretrained(path, dtype="auto", output_loading_info=True)
    assert not said["missing_keys"] and model.dtype == torch.bfloat16, (said, model.dtype)
    with torch.no_grad():
        return model(torch.arange(40)[None] * 5 % 256).logits


def same(path, folder):
    want = logits(os.path.join(folder, "plain"))
    assert torch.isfinite(want).all() and want.std() > 0
    assert torch.equal(logits(path), want), f"logits of {path} differ"
    if os.path.isdir(path):
        got, plain = tensors(path), tensors(os.path.join(folder, "plain"))
        assert got.keys() >= plain.keys() and plain
        for name, tensor in plain.items():
            assert torch.equal(got[name].view(torch.uint8), tensor.view(torch.uint8)), name


def source(folder):
    return next(pathlib.Path(folder).glob("Tiny-*"))


def mounted(*folders):
    for folder in folders:
        with dequantfs.mount(source(folder)) as path:
            same(path, folder)
        assert not os.path.exists(path)


def served(*folders):
    from huggingface_hub import snapshot_download

    for folder in folders:
        with dequantfs.serve(source(folder)) as server:
            same(snapshot_download(server.repository, endpoint=server.endpoint), folder)


if __name__ == "__main__":
    {"mounted": mounted, "served": served, "same": same}[sys.argv[1]](*sys.argv[2:])
