"""Servers of remote sources, which testdata/stores/serve starts."""

import contextlib
import os
import re
import subprocess

from checks import expect

SERVE = os.environ.get("DEQUANTFS_SERVE", "serve")


@contextlib.contextmanager
def served(store, folder, *flags):
    """Start a store with the files of a folder; give its SOURCE, and set the environment for it."""
    before = dict(os.environ)
    server = subprocess.Popen([SERVE, *flags, store, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for line in server.stdout:
            name, value = re.fullmatch(r"export (\w+)='(.*)'\n", line).groups()
            os.environ[name] = value
            if name == "SOURCE":
                break
        expect(server.poll() is None, "the server has ended")
        os.environ.pop("HF_HUB_OFFLINE", None)
        yield os.environ["SOURCE"].rstrip("/")
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stdin.close()
        server.wait(60)
