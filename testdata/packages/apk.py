#!/usr/bin/env python3
"""Checks a package for Alpine as apk does: the hash of its data, and that of each file.

A package is some gzip streams, one after the other. The last one holds the data.
"""

import gzip
import hashlib
import io
import sys
import tarfile
import zlib


def streams(data):
    while data:
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        stream.decompress(data)
        yield data[:len(data) - len(stream.unused_data)]
        data = stream.unused_data


with open(sys.argv[1], "rb") as file:
    control, data = list(streams(file.read()))[-2:]
with tarfile.open(fileobj=io.BytesIO(gzip.decompress(control) + bytes(1024))) as tar:
    lines = tar.extractfile(".PKGINFO").read().decode().splitlines()
info = dict(line.split(" = ", 1) for line in lines if " = " in line)
assert info["datahash"] == hashlib.sha256(data).hexdigest(), info
assert info["pkgname"] == "dequantfs" and info["license"] == "Apache-2.0", info
checked = 0
with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as tar:
    for member in tar:
        if member.isfile():
            want = member.pax_headers["APK-TOOLS.checksum.SHA1"]
            assert want == hashlib.sha1(tar.extractfile(member).read()).hexdigest(), member.name
            checked += 1
assert checked > 30, checked
