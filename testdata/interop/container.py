"""The safetensors container in NumPy, strict, and without the safetensors library.

A second reader beside the library: what both accept and agree on is right. Arrays have
the dtypes of ml_dtypes where NumPy has none.
"""

import json
import math
import pathlib
import struct

import ml_dtypes
import numpy as np

DTYPES = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "I32": np.int32,
    "I64": np.int64,
}
NAMES = {np.dtype(v): k for k, v in DTYPES.items()}


def write(path, tensors):
    """Write arrays by name in the order of the reference serializer."""
    names = sorted(tensors, key=lambda k: (-tensors[k].dtype.itemsize, k))
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        a = tensors[name]
        header[name] = {
            "dtype": NAMES[a.dtype],
            "shape": list(a.shape),
            "data_offsets": [offset, offset + a.nbytes],
        }
        offset += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            f.write(np.ascontiguousarray(tensors[name]).tobytes())


def header(path):
    """The header as written, with the offset at which data begins."""
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        if n > 100_000_000:
            raise ValueError(f"{path}: header of {n} bytes")
        text = f.read(n)
    if not text.startswith(b"{"):
        raise ValueError(f"{path}: header begins with {text[:1]!r}")
    return json.loads(text), 8 + n


def read(path, aligned=True):
    """Arrays by name, mapped from the file; any broken rule of the format is an error."""
    entries, start = header(path)
    metadata = entries.pop("__metadata__", {})
    if not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"{path}: metadata {metadata}")
    data = np.memmap(path, np.uint8, "c")
    end, out = 0, {}
    for name, e in sorted(entries.items(), key=lambda x: x[1]["data_offsets"]):
        begin, stop = e["data_offsets"]
        dtype = np.dtype(DTYPES[e["dtype"]])
        if begin != end or stop - begin != dtype.itemsize * math.prod(e["shape"]):
            raise ValueError(f"{path}: {name} lies at {begin}…{stop} after {end}")
        if aligned and (start + begin) % dtype.itemsize:
            raise ValueError(f"{path}: {name} is not aligned")
        out[name] = data[start + begin : start + stop].view(dtype).reshape(e["shape"])
        end = stop
    if start + end != data.size:
        raise ValueError(f"{path}: {data.size} bytes, the header says {start + end}")
    return out


def read_all(directory, aligned=True):
    """Arrays of all files of a directory, checked against the index where there is one."""
    out, where = {}, {}
    for path in sorted(pathlib.Path(directory).glob("*.safetensors")):
        for name, a in read(path, aligned).items():
            if name in out:
                raise ValueError(f"{name} is in {path.name} and {where[name]}")
            out[name], where[name] = a, path.name
    index = pathlib.Path(directory) / "model.safetensors.index.json"
    if index.exists():
        index = json.loads(index.read_text())
        if index["weight_map"] != where:
            raise ValueError(f"{directory}: the index and the files disagree")
        if index["metadata"]["total_size"] != sum(a.nbytes for a in out.values()):
            raise ValueError(f"{directory}: total_size")
    return out


def write_checkpoint(directory, config, tensors, shards=1, apart=False, metadata=None, single=False):
    """Write a checkpoint directory; apart puts each scale into another shard than its weight."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if single:
        write(directory / "model.safetensors", tensors)
        return
    weights = [k for k in tensors if "scale" not in k]
    shard = {k: i * shards // len(weights) for i, k in enumerate(weights)}
    for key in tensors:
        if key not in shard:
            base = next((key[: -len(s)] for s in ("_scale_inv", "_scale") if key.endswith(s)), key)
            shard[key] = (shard.get(base, 0) + apart) % shards
    weight_map = {}
    for i in range(shards):
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {k: v for k, v in tensors.items() if shard[k] == i}
        write(directory / name, part)
        weight_map |= dict.fromkeys(part, name)
    index = {
        "metadata": {"total_size": sum(a.nbytes for a in tensors.values())} | (metadata or {}),
        "weight_map": dict(sorted(weight_map.items())),
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def differences(want, got):
    """What differs between two dicts of arrays, bit for bit, NaN by being NaN; a list of lines."""
    lines = [f"missing {k}" for k in sorted(want.keys() - got.keys())]
    lines += [f"unexpected {k}" for k in sorted(got.keys() - want.keys())]
    for k in sorted(want.keys() & got.keys()):
        a, b = want[k], got[k]
        if a.dtype != b.dtype or a.shape != b.shape:
            lines.append(f"{k}: {b.dtype}{list(b.shape)}, want {a.dtype}{list(a.shape)}")
        elif not same(a, b):
            lines.append(f"{k}: {np.sum(bits(a) != bits(b))} of {a.size} elements differ")
    return lines


def bits(a):
    return np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}")


def same(a, b):
    unequal = bits(a) != bits(b)
    if not unequal.any():
        return True
    if np.issubdtype(a.dtype, np.integer):
        return False
    return bool((np.isnan(a[unequal].astype(np.float32)) & np.isnan(b[unequal].astype(np.float32))).all())
