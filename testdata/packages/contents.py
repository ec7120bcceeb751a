#!/usr/bin/env python3
"""Compares the lists of contents in a release with the binaries.

A list names each module that the Go command finds in the binary, and nothing else but Go and, for
an image, packages of Debian.
"""

import hashlib
import json
import pathlib
import subprocess
import sys


def modules(binary):
    out = subprocess.run(["go", "version", "-m", binary], check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = [line.split("\t")[1:] for line in out.splitlines()[1:]]
    return {f"{row[1]}@{row[2]}" for row in rows if row[0] == "dep"}


def main(folder):
    seen = 0
    for file in sorted(folder.glob("*.cdx.json")):
        bom = json.loads(file.read_text())
        binary = folder / file.name.removesuffix(".cdx.json").removesuffix(".tar").replace("-image-", "-linux-")
        parts = [c for c in bom["components"] if c["purl"].startswith("pkg:golang/") and c["name"] != "std"]
        assert {f"{c['name']}@{c['version']}" for c in parts} == modules(binary), file
        assert [c["version"] for c in bom["components"] if c["name"] == "std"] == [built(binary)], file
        debs = [c["name"] for c in bom["components"] if c["purl"].startswith("pkg:deb/")]
        assert sorted(debs) == (["busybox-static", "ca-certificates", "fuse3", "libc6"] if ".tar" in file.name else []), debs
        hashes = [p["value"] for p in bom["metadata"]["component"].get("properties", []) + bom.get("properties", [])
                  + bom["metadata"].get("properties", []) if p["name"] == "cdx:gomod:binary:hash:SHA-256"]
        assert hashes == [hashlib.sha256(binary.read_bytes()).hexdigest()], file
        seen += 1
    assert seen == 7, seen


def built(binary):
    """The Go that built a binary."""
    return subprocess.run(["go", "version", binary], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]


main(pathlib.Path(sys.argv[1]))
