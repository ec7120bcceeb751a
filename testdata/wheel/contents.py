"""Checks what is in the wheels of a folder, for every platform: `python contents.py WHEELS`."""

import base64
import csv
import hashlib
import json
import pathlib
import re
import struct
import sys
import zipfile

# The tags of each platform, the first bytes of its binary, and where its machine is said.
ELF, MACHO, PE = b"\x7fELF\x02", b"\xcf\xfa\xed\xfe", b"MZ"
PLATFORMS = {
    "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64": (ELF, 18, 62),
    "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64": (ELF, 18, 183),
    "macosx_13_0_x86_64": (MACHO, 4, 7),
    "macosx_13_0_arm64": (MACHO, 4, 12),
    "win_amd64": (PE, None, 0x8664),
}


def interpreted(binary):
    """Whether a binary for Linux asks for a dynamic linker."""
    offset, size, n = (struct.unpack_from(f, binary, at)[0] for f, at in (("<Q", 32), ("<H", 54), ("<H", 56)))
    return any(struct.unpack_from("<I", binary, offset + i * size)[0] == 3 for i in range(n))


def least_macos(binary):
    """The version of macOS that a binary needs."""
    at = 32
    for _ in range(struct.unpack_from("<I", binary, 16)[0]):
        kind, size = struct.unpack_from("<II", binary, at)
        if kind == 0x32:
            version = struct.unpack_from("<I", binary, at + 12)[0]
            return version >> 16, version >> 8 & 255
        at += size
    raise AssertionError("it does not say which macOS it needs")


def check_binary(tag, binary):
    magic, at, machine = PLATFORMS[tag]
    assert binary.startswith(magic), binary[:8]
    at = struct.unpack_from("<I", binary, 60)[0] + 4 if at is None else at
    assert struct.unpack_from("<H", binary, at)[0] == machine
    if magic == ELF:
        assert not interpreted(binary), "it is not static"
    if magic == MACHO:
        assert "macosx_{}_{}".format(*least_macos(binary)) == tag.rpartition("_")[0].removesuffix("_x86")


def check_record(wheel, info):
    for name, digest, size in csv.reader(wheel.read(f"{info}/RECORD").decode().splitlines()):
        if name != f"{info}/RECORD":
            data = wheel.read(name)
            made = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={made}", len(data)), name


def check_parts(bom):
    names = {c["name"] for c in bom["components"]}
    assert bom["bomFormat"] == "CycloneDX" and {"github.com/spf13/cobra", "std"} <= names, names
    assert bom["metadata"]["component"]["name"] == "github.com/dequantfs/dequantfs"


def check(path):
    name, version, _, _, tag = path.stem.split("-")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path) as wheel:
        check_record(wheel, info)
        command = f"{name}-{version}.data/scripts/dequantfs" + ".exe" * tag.startswith("win")
        assert wheel.getinfo(command).external_attr >> 16 & 0o777 == 0o755
        check_binary(tag, wheel.read(command))
        [parts] = [n for n in wheel.namelist() if n.startswith(f"{info}/sboms/")]
        check_parts(json.loads(wheel.read(parts)))
        assert "dequantfs/py.typed" in wheel.namelist()
        said = wheel.read(f"{info}/METADATA").decode()
        assert f"\nVersion: {version}\n" in said and "\nRequires-Python: >=3.9\n" in said
        assert not re.search("^Requires-Dist", said, re.M)
        tags = set(re.findall("^Tag: py3-none-(.*)$", wheel.read(f"{info}/WHEEL").decode(), re.M))
        assert tags == set(tag.split(".")), tags
    return tag


if __name__ == "__main__":
    found = sorted(check(path) for path in pathlib.Path(sys.argv[1]).glob("*.whl"))
    assert found == sorted(PLATFORMS), found
