"""transformers and llama.cpp's converter on views of packed models, and on plain folders.

A model of transformers with random weights is stored in a quantized format, whose codes and scales
are drawn. A plain folder holds the values that NumPy computes. Both must load alike.
"""

import contextlib
import json
import os
import pathlib
import re
import runpy
import sys
import tempfile
from unittest import mock

import container
import models
import quantized
import strict
from checks import check, expect
from loaders import from_pretrained
from mounts import mount

KIMI = re.compile(r".*\.mlp\.experts\..*")
LINEAR = re.compile(r".*(_proj|kv_a_proj_with_mqa|_[ab]_proj)\.weight$")
ROUTED = re.compile(r".*\.mlp\.experts\.(gate_up|down)_proj$")


def bf16_pack(d):
    return quantized.ct_pack(d, dtype=quantized.BF16)


# name: model, format, the weights that are stored in it, and their dtype in a view
LOADS = {
    "gpt-oss in MXFP4": ("gpt_oss", quantized.gpt_oss, ROUTED, "bf16"),
    "Llama in INT4 of compressed-tensors": ("llama", bf16_pack, LINEAR, "bf16"),
    "Qwen2 in AWQ": ("qwen2", quantized.awq, LINEAR, "f16"),
    "Llama in GPTQ": ("llama", quantized.gptq, LINEAR, "f16"),
    "Llama in NF4 of bitsandbytes": ("llama", quantized.bnb4, LINEAR, "bf16"),
    "Llama in INT8 of bitsandbytes": ("llama", quantized.bnb8, LINEAR, "f16"),
    "Qwen3-MoE in NVFP4 of ModelOpt": ("qwen3_moe", quantized.modelopt_nvfp4, LINEAR, "bf16"),
    "Kimi-K2 in INT4": ("deepseek_v3", quantized.kimi_k2, KIMI, "bf16"),
}
TO_GGUF = (
    "gpt-oss in MXFP4",
    "Llama in INT4 of compressed-tensors",
    "Qwen2 in AWQ",
    "Llama in GPTQ",
    "Qwen3-MoE in NVFP4 of ModelOpt",
    "Kimi-K2 in INT4",
)
TORCH = {"bf16": "bfloat16", "f16": "float16"}


@contextlib.contextmanager
def source(name):
    """The stored checkpoint, the plain folder, and the arrays of the latter."""
    model, make, pattern, dtype = LOADS[name]
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        tensors, config = models.saved(model, directory / "saved", TORCH[dtype])
        d = quantized.Draw(name, edges=False)
        case = make(d)
        stored, plain = {}, {}
        for key, a in tensors.items():
            stored[key] = plain[key] = a
            if not pattern.match(key):
                continue
            shape = a.shape if a.ndim == 2 else (a.shape[0], a.shape[2], a.shape[1])
            module = case.module(d, shape)
            del stored[key]
            base = key.removesuffix(module.suffix)
            stored |= {base + suffix: b for suffix, b in module.tensors.items()}
            plain[key] = quantized.view(module.values, dtype)
        expect(len(stored) > len(plain), "nothing is quantized")
        more = {"quantization_config": case.config} if case.config else {}
        container.write_checkpoint(directory / "stored", config | more, stored, 2, apart=True)
        container.write_checkpoint(directory / "plain", config, plain)
        for file, content in case.files.items():
            (directory / "stored" / file).write_text(json.dumps(content))
        tokenizer(directory / "stored", directory / "plain")
        yield directory / "stored", directory / "plain", plain


def tokenizer(*directories):
    """A tokenizer of single bytes and some pairs, as tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {c: i for i, c in enumerate(alphabet[:250])} | {"<s>": 250, "</s>": 251}
    inner = Tokenizer(models.BPE(tokens, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    for directory in directories:
        PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>").save_pretrained(directory)


def transformers():
    """from_pretrained with the path alone: keys, values, no quantizer, equal logits."""
    for name, (_, _, _, dtype) in LOADS.items():
        with check(f"{name}: built"), source(name) as (stored, plain, want):
            strict.views(name, stored, want)
            with check(f"{name}: logits"), mount(stored, "--layout", "hf") as point:
                from_pretrained(point, plain, (), TORCH[dtype])


def converter():
    """llama.cpp's converter writes the same file from the mount as from the plain folder."""
    for name in TO_GGUF:
        with check(f"{name} to GGUF"), source(name) as (stored, plain, want), mount(stored, "--layout", "hf") as point:
            with tempfile.TemporaryDirectory() as scratch:
                files = [pathlib.Path(scratch) / f"{i}.gguf" for i in range(2)]
                for directory, file in zip((point, plain), files, strict=True):
                    convert(directory, file)
                same_gguf(*files, 20)


def convert(directory, file):
    """Runs the script. It knows tokenizers by a hash: this one gets the name of a common one."""
    (root,) = pathlib.Path(os.environ["DEQUANTFS_SOURCES"]).glob("llama_cpp_python-*/vendor/llama.cpp")
    paths = [str(root / "gguf-py"), str(root)]
    sys.path[:0] = [p for p in paths if p not in sys.path]
    import conversion.base

    script, arguments = root / "convert_hf_to_gguf.py", ["--outfile", file, "--outtype", "auto", "--model-name", "tiny"]
    with (
        mock.patch.object(conversion.base.TextModel, "get_vocab_base_pre", lambda *_: "default"),
        mock.patch.object(sys, "argv", [str(x) for x in (script, directory, *arguments)]),
    ):
        runpy.run_path(str(script), run_name="__main__")


def same_gguf(a, b, least):
    """Two files with the same metadata and tensors. Their order is that of the shards."""
    import gguf

    one, two = gguf.GGUFReader(a), gguf.GGUFReader(b)
    expect(one.fields.keys() == two.fields.keys(), f"fields differ: {one.fields.keys() ^ two.fields.keys()}")
    expect("general.architecture" in one.fields, "there is no architecture")
    for key, field in one.fields.items():
        expect(field.contents() == two.fields[key].contents(), f"{key} differs")
    tensors, others = ({t.name: t for t in reader.tensors} for reader in (one, two))
    expect(tensors.keys() == others.keys(), f"tensors differ: {tensors.keys() ^ others.keys()}")
    expect(len(tensors) >= least, f"only {len(tensors)} tensors")
    for name, t in tensors.items():
        u = others[name]
        expect(t.tensor_type == u.tensor_type and list(t.shape) == list(u.shape), f"{name}: {u.tensor_type} {u.shape}")
        expect(t.data.tobytes() == u.data.tobytes(), f"{name} differs")
