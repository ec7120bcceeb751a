#!/usr/bin/env python3
"""Runs the command of a systemd unit in a root, in place of systemd.

    unit.py ROOT UNIT INSTANCE

It waits until the service says that it is ready, reads the mount as another user, ends the service
as systemctl stop does, and looks for what is left.
"""

import os
import pathlib
import resource
import shlex
import shutil
import socket
import subprocess
import sys

root, name, instance = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
lines = (root / "usr/lib/systemd/system" / name).read_text().splitlines()
unit = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
assert unit["Type"] == "notify" and unit["NoNewPrivileges"] == "yes", unit
command = shlex.split(unit["ExecStart"].replace("%I", instance))
mountpoint = command[-1]
chroot = shutil.which("chroot")
assert pathlib.Path(command[0]).is_absolute() and instance in mountpoint, command


def prepare():
    limit = int(unit["LimitNOFILE"])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, hard), min(limit, hard)))


def mounted():
    table = pathlib.Path("/proc/self/mounts").read_text()
    return f" {root}{mountpoint} " in table


with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
    address = root / "run/notify"
    told.bind(str(address))
    told.settimeout(60)
    service = subprocess.Popen(
        [chroot, root, "setpriv", "--no-new-privs", *command],
        env={"NOTIFY_SOCKET": "/run/notify", "PATH": os.defpath}, preexec_fn=prepare)
    try:
        while "READY=1" not in told.recv(4096).decode().splitlines():
            pass
        assert mounted()
        text = subprocess.run(
            [chroot, "--userspec=1000:1000", root, "cat", f"{mountpoint}/hf/config.json"],
            check=True, stdout=subprocess.PIPE, text=True).stdout
        assert "deepseek_v3" in text, text
    finally:
        service.terminate()
        status = service.wait(int(unit["TimeoutStopSec"]))
        address.unlink()
    assert status == 0, status
    assert not mounted()
