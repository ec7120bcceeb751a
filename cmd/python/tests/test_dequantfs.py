"""The package against the real command and real mounts.

DEQUANTFS_CHECKPOINT is a folder with a checkpoint, as testdata/synth/write makes it.
"""

import asyncio
import concurrent.futures
import hashlib
import json
import mmap
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import urllib.request
from unittest import mock

import dequantfs
from dequantfs import _binary, _command, _lifeline

SOURCE = os.environ["DEQUANTFS_CHECKPOINT"]


def mounted(below):
    """The mountpoints below a folder."""
    with open("/proc/self/mounts") as lines:
        points = [line.split()[1] for line in lines]
    return [p for p in points if p.startswith(os.fspath(below) + os.sep)]


def processes(below):
    """The processes of the command with a folder in their command lines."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == b"dequantfs" and os.fspath(below).encode() in b" ".join(words):
            found.append(int(path.parent.name))
    return found


def eventually(true):
    """Wait until something is true. It is patient, since machines can be slow."""
    end = time.monotonic() + 60
    while not true():
        if time.monotonic() > end:
            raise AssertionError("it does not happen")
        time.sleep(0.02)


def digests(folder):
    files = [p for p in pathlib.Path(folder).iterdir() if p.is_file() and not p.name.startswith(".")]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


class Case(unittest.TestCase):
    """Each test has a folder for temporary files. In the end nothing is in it, and nothing runs."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="dequantfs-test-")
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)
        self.temporary, self.state = os.path.join(self.folder, "tmp"), os.path.join(self.folder, "run")
        for made in (self.temporary, self.state):
            os.mkdir(made, 0o700)
        variables = {"TMPDIR": self.temporary, "XDG_RUNTIME_DIR": self.state}
        for patch in (mock.patch.dict(os.environ, variables), mock.patch("tempfile.tempdir", None)):
            patch.start()
            self.addCleanup(patch.stop)
        self.addCleanup(self.clear)

    def clear(self):
        for point in mounted(self.folder):
            subprocess.run(["umount", "-l", point], check=False)

    def nothing_is_left(self):
        """Nothing is mounted, runs, or is in the folders for temporary files and for state."""
        eventually(lambda: not processes(self.folder))
        self.assertEqual(mounted(self.folder), [])
        self.assertEqual(os.listdir(self.temporary), [])
        self.assertEqual([p.name for p in pathlib.Path(self.state).rglob("*") if p.is_file()], [])

    def program(self, text, **options):
        """Start a Python program that can write to this one."""
        words = [sys.executable, "-c", textwrap.dedent(text), SOURCE]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        return process


class Arguments(unittest.TestCase):
    def test_flags(self):
        for flags, words in (
            ({"layout": "hf"}, ["--layout=hf"]),
            ({"layout": ["hf", "native"]}, ["--layout=hf", "--layout=native"]),
            ({"shard_size": "4GiB", "allow_other": True}, ["--shard-size=4GiB", "--allow-other"]),
            ({"idle": None, "unscaled": False}, ["--unscaled=false"]),
            ({"disk_cache": pathlib.Path("/a"), "gid": 7}, ["--disk-cache=/a", "--gid=7"]),
            ({"exclude": "-x"}, ["--exclude=-x"]),
        ):
            with self.subTest(flags):
                made = _command.arguments("mount", ["-source", pathlib.Path("/mnt")], flags)
                self.assertEqual(made[1:], ["mount", *words, "--", "-source", "/mnt"])

    def test_a_tilde_is_a_home_in_paths_only(self):
        home = os.path.expanduser("~")
        for given, path in (
            ("~", home),
            ("~/models/x", home + "/models/x"),
            (pathlib.Path("~/models/x"), home + "/models/x"),
            ("~no-such-user/x", "~no-such-user/x"),
            ("a/~/b", "a/~/b"),
            ("hf://org/~name", "hf://org/~name"),
            ("s3://bucket/~", "s3://bucket/~"),
            ("org/name@revision", "org/name@revision"),
            ("", ""),
        ):
            with self.subTest(given):
                self.assertEqual(_command.expand(given), path)
        made = _command.arguments("mount", [], {"disk_cache": pathlib.Path("~/a"), "exclude": "~x"})
        self.assertEqual(made[2:4], [f"--disk-cache={home}/a", "--exclude=~x"])

    def test_values_of_wrong_types_are_refused(self):
        class DType:
            def __repr__(self):
                return "torch.bfloat16"

        anything = "a str, a number, a path, True, False, None or a list of them"
        for flags, message in (
            ({"dtype": DType()}, 'dtype is torch.bfloat16, a DType, but takes one of "auto", "bf16", "f16" and "f32"'),
            ({"ep": object}, f"ep is <class 'object'>, a type, but takes {anything}"),
            ({"exclude": b"x"}, f"exclude is b'x', a bytes, but takes {anything}"),
            ({"exclude": {"x": 1}}, f"exclude is {{'x': 1}}, a dict, but takes {anything}"),
            ({"exclude": ["x", b"y"]}, f"exclude is b'y', a bytes, but takes {anything}"),
        ):
            for call in (dequantfs.mount, dequantfs.serve, dequantfs.ls):
                with self.subTest(call=call.__name__, **flags), self.assertRaises(TypeError) as caught:
                    call(SOURCE, **flags)
                self.assertEqual(str(caught.exception), message)

    def test_the_command_takes_what_the_message_about_a_dtype_says(self):
        for dtype in _command.TAKES["dtype"].split('"')[1::2]:
            with self.subTest(dtype):
                self.assertTrue(dequantfs.ls(SOURCE, dtype=dtype))

    def test_errors_have_the_last_message_and_its_hint(self):
        for said, message, hint in (
            ("dequantfs: a\ndequantfs: hint: b\n", "a", "b"),
            ("dequantfs: warning: w\ndequantfs: a\n", "a", ""),
            ("dequantfs: x\ndequantfs: hint: y\ndequantfs: a\n", "a", ""),
            ("panic: runtime error", "panic: runtime error", ""),
            ("", "the command ended with status 3", ""),
        ):
            with self.subTest(said):
                error = _command.failure(said, 3)
                self.assertEqual((error.message, error.hint, error.status), (message, hint, 3))

    def test_an_error_shows_its_hint_and_crosses_processes(self):
        error = pickle.loads(pickle.dumps(dequantfs.Error("a", "b", 2)))
        self.assertEqual((str(error), error.status), ("a\nhint: b", 2))
        self.assertEqual(str(dequantfs.Error("a")), "a")


class Command(Case):
    def test_the_command_is_found(self):
        run = [sys.executable, "-m", "dequantfs", "version"]
        said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
        self.assertRegex(said, r"^dequantfs \S+ go\S+ linux/")
        run = [dequantfs.find_binary(), "version"]
        self.assertEqual(said, subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    def test_its_exit_status_is_passed_on(self):
        run = [sys.executable, "-m", "dequantfs", "mount"]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr.split("\n")[0]), (2, "dequantfs: SOURCE is missing"))

    def test_without_the_command(self):
        with mock.patch.object(_binary, "_installed", lambda: iter(())), mock.patch.dict(os.environ, PATH=""):
            with self.assertRaisesRegex(dequantfs.Error, "not installed\nhint: pip install dequantfs"):
                dequantfs.ls(SOURCE)

    def test_wrong_flags(self):
        for call in (dequantfs.mount, dequantfs.serve, dequantfs.ls):
            for flags, message, hint in (
                ({"no_such": 1}, "unknown flag: --no-such", f"see dequantfs {call.__name__} --help"),
                ({"shard_sise": 1}, "unknown flag: --shard-sise", "did you mean --shard-size?"),
                ({"dtype": "f8"}, '--dtype "f8" is not auto, bf16, f16 or f32', ""),
            ):
                with self.subTest(call=call.__name__, **flags), self.assertRaises(dequantfs.Error) as caught:
                    call(SOURCE, **flags)
                e = caught.exception
                self.assertEqual((e.message, e.hint, e.status), (message, hint, 2))
        self.nothing_is_left()

    def test_a_mount_in_the_foreground_is_refused(self):
        for flags in ({"foreground": True}, {"options": "foreground"}):
            with self.subTest(**flags), self.assertRaisesRegex(dequantfs.Error, "--foreground cannot be used"):
                dequantfs.mount(SOURCE, **flags)
        self.nothing_is_left()

    def test_a_missing_source(self):
        for call in (dequantfs.mount, dequantfs.serve, dequantfs.ls):
            with self.subTest(call.__name__), self.assertRaises(dequantfs.Error) as caught:
                call(os.path.join(self.folder, "none"))
            self.assertEqual(caught.exception.status, 1)
            self.assertIn("none: no such file or directory", caught.exception.message)
        self.nothing_is_left()

    def test_help_is_not_a_flag(self):
        for call in (dequantfs.mount, dequantfs.serve, dequantfs.ls):
            for value in (True, False, None):
                with self.subTest(call.__name__, value=value), self.assertRaises(TypeError) as caught:
                    call(SOURCE, help=value)
                name = "dequantfs." + call.__name__
                said = f"{name} has no flag help: help({name}) explains it, and {name.replace('.', ' ')} --help its flags"
                self.assertEqual(str(caught.exception), said)
        with self.assertRaisesRegex(TypeError, "leave out the flag summary"):
            dequantfs.ls(SOURCE, summary=True)
        self.nothing_is_left()

    def test_empty_paths_are_refused(self):
        for call, args, message in (
            (dequantfs.mount, ("",), "SOURCE is empty"),
            (dequantfs.serve, ("",), "SOURCE is empty"),
            (dequantfs.ls, ("",), "SOURCE is empty"),
            (dequantfs.mount, (SOURCE, "hf", ""), "MOUNTPOINT is empty"),
        ):
            with self.subTest(call.__name__, args=args), self.assertRaises(dequantfs.Error) as caught:
                call(*args)
            self.assertEqual((caught.exception.message, caught.exception.status), (message, 2))
        self.nothing_is_left()

    def test_paths_below_the_home(self):
        with mock.patch.dict(os.environ, HOME=self.folder):
            os.symlink(SOURCE, os.path.join(self.folder, "model"))
            with dequantfs.mount("~/model", mountpoint="~/there") as path:
                self.assertEqual(path, os.path.join(self.folder, "there"))
                self.assertIn("config.json", os.listdir(path))
            with dequantfs.serve(pathlib.Path("~/model")) as server:
                self.assertEqual(server.source, os.path.join(self.folder, "model"))
            self.assertEqual(dequantfs.ls("~/model"), dequantfs.ls(SOURCE))
        self.nothing_is_left()

    def test_warnings_are_logged(self):
        for call in (dequantfs.mount, dequantfs.serve):
            with self.subTest(call.__name__), self.assertLogs("dequantfs", "WARNING") as logs:
                with call(SOURCE, exclude="no_such_tensor"):
                    pass
            self.assertEqual(len(logs.output), 1, logs.output)
            self.assertIn("matches the beginning of no name", logs.output[0])
        self.nothing_is_left()

    def test_tensors(self):
        for layout in ("hf", "native", ["hf", "native"]):
            with self.subTest(layout=layout):
                chosen = layout if isinstance(layout, str) else ",".join(layout)
                words = [dequantfs.find_binary(), "ls", "--json", "--layout", chosen, SOURCE]
                views = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["views"]
                want = {(v["layout"], t["name"]): t for v in views for t in v["tensors"]}
                got = {(t.layout, t.name): t for t in dequantfs.ls(SOURCE, layout)}
                self.assertEqual(got.keys(), want.keys())
                for key, tensor in got.items():
                    for field in ("dtype", "bytes", "file", "recipe"):
                        self.assertEqual(getattr(tensor, field), want[key][field])
                    self.assertEqual(tensor.shape, tuple(want[key]["shape"]))


class Mount(Case):
    def setUp(self):
        super().setUp()
        self.exported = os.path.join(self.folder, "exported")
        words = [dequantfs.find_binary(), "export", "--quiet", "--layout", "hf", SOURCE, self.exported]
        subprocess.run(words, check=True)

    def test_the_files_of_an_export(self):
        with dequantfs.mount(SOURCE) as path:
            self.assertEqual(mounted(self.temporary), [path])
            self.assertEqual(digests(path), digests(self.exported))
        self.assertFalse(os.path.exists(path))
        self.nothing_is_left()

    def test_several_layouts_are_folders(self):
        with dequantfs.mount(pathlib.Path(SOURCE), layout=["hf", "native"], cache_size="64MiB") as path:
            self.assertEqual(sorted(os.listdir(path)), ["hf", "native"])
            self.assertEqual(digests(os.path.join(path, "hf")), digests(self.exported))
        self.nothing_is_left()

    def test_an_exception_unmounts(self):
        with self.assertRaisesRegex(ZeroDivisionError, "mine"):
            with dequantfs.mount(SOURCE):
                raise ZeroDivisionError("mine")
        self.nothing_is_left()

    def test_without_with(self):
        mount = dequantfs.mount(SOURCE)
        self.assertEqual(os.fspath(mount), mount.path)
        self.assertTrue(mount.mounted)
        self.assertEqual(digests(mount), digests(self.exported))
        mount.unmount()
        mount.unmount()
        self.assertFalse(mount.mounted)
        self.assertIn("unmounted", repr(mount))
        self.nothing_is_left()

    def test_a_mountpoint_of_the_caller(self):
        there = os.path.join(self.folder, "there")
        os.mkdir(there)
        with dequantfs.mount(SOURCE, mountpoint=there) as path:
            self.assertEqual((path, digests(path)), (there, digests(self.exported)))
        self.assertEqual(os.listdir(there), [])
        with dequantfs.mount(SOURCE, mountpoint=os.path.join(there, "missing", "too")) as path:
            self.assertEqual(digests(path), digests(self.exported))
        eventually(lambda: os.listdir(there) == [])

    def test_several_in_threads(self):
        def use(number):
            with dequantfs.mount(SOURCE, layout=("hf", "native")[number % 2]) as path:
                return path, digests(path)

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            found = list(threads.map(use, range(16)))
        self.assertEqual(len({path for path, _ in found}), 16)
        for _, files in found[::2]:
            self.assertEqual(files, digests(self.exported))
        self.nothing_is_left()

    def test_the_thread_may_end_before_the_mount(self):
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            mount = thread.submit(dequantfs.mount, SOURCE).result()
        self.assertEqual(digests(mount), digests(self.exported))
        mount.unmount()
        self.nothing_is_left()

    def test_in_a_running_event_loop(self):
        async def cell():
            with dequantfs.mount(SOURCE) as path:
                return digests(path)

        before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]
        self.assertEqual(asyncio.run(cell()), digests(self.exported))
        after = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]
        self.assertEqual(before, after)

    def test_mapped_files_outlive_the_path(self):
        shard = max(os.listdir(self.exported), key=lambda n: os.path.getsize(os.path.join(self.exported, n)))
        with dequantfs.mount(SOURCE) as path:
            with open(os.path.join(path, shard), "rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.assertFalse(os.path.exists(path))
        self.assertEqual(mounted(self.temporary), [])
        self.assertEqual(hashlib.sha256(data).hexdigest(), digests(self.exported)[shard])
        self.assertEqual(len(_lifeline._abandoned), 1)
        data.close()
        self.nothing_is_left()

        def released():  # by the next mount after the process has ended
            dequantfs.mount(SOURCE).unmount()
            return not _lifeline._abandoned and not _lifeline._held

        eventually(released)

    def test_unmounted_by_others(self):
        mount = dequantfs.mount(SOURCE)
        subprocess.run([dequantfs.find_binary(), "umount", mount.path], check=True)
        mount.unmount()
        self.nothing_is_left()

    def test_the_process_behind_the_mount_is_killed(self):
        mount = dequantfs.mount(SOURCE)
        [process] = processes(self.folder)
        os.kill(process, signal.SIGKILL)
        eventually(lambda: not processes(self.folder))
        mount.unmount()
        self.assertEqual((mounted(self.folder), os.listdir(self.temporary)), ([], []))

    def test_interrupted_while_a_source_does_not_answer(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = "http://{}:{}/".format(*silent.getsockname())
            for call in (dequantfs.mount, dequantfs.serve, dequantfs.ls):
                before = signal.signal(signal.SIGALRM, signal.default_int_handler)
                signal.setitimer(signal.ITIMER_REAL, 0.5)
                try:
                    with self.subTest(call.__name__), self.assertRaises(KeyboardInterrupt):
                        call(address)
                finally:
                    signal.signal(signal.SIGALRM, before)
        self.nothing_is_left()


class Ends(Case):
    """How programs end, and what that leaves."""

    def until_mounted(self, process):
        point = process.stdout.readline().strip()
        self.assertEqual(mounted(self.temporary), [point])
        return point

    def test_at_exit(self):
        for end in ("pass", "raise SystemExit(3)", "raise ValueError"):
            with self.subTest(end):
                text = "import dequantfs, sys\nprint(dequantfs.mount(sys.argv[1]).path, flush=True)\n" + end
                process = self.program(text, stderr=subprocess.DEVNULL)
                process.wait(60)
                self.assertEqual(mounted(self.temporary), [])  # at once
                self.assertIn(self.temporary, process.stdout.read())
                self.nothing_is_left()

    def test_a_mapped_file_at_exit(self):
        text = """
            import dequantfs, sys, mmap
            path = dequantfs.mount(sys.argv[1]).path
            file = open(path + "/model.safetensors.index.json", "rb")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            print(path)
        """
        process = self.program(text)
        self.assertEqual(process.wait(60), 0)
        self.assertEqual(mounted(self.temporary), [])
        self.nothing_is_left()

    def test_killed(self):
        text = """
            import dequantfs, signal, sys
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup and shells may have it ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print(dequantfs.mount(sys.argv[1]).path, flush=True)
            sys.stdin.read()
        """
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            with self.subTest(number):
                process = self.program(text, stderr=subprocess.DEVNULL)
                self.until_mounted(process)
                process.send_signal(number)
                process.wait(60)
                self.nothing_is_left()

    def test_killed_while_a_forked_child_lives(self):
        text = """
            import dequantfs, os, sys
            point = dequantfs.mount(sys.argv[1]).path
            if os.fork() == 0:
                sys.stdin.read()
                sys.exit()
            print(point, flush=True)
            sys.stdin.read()
        """
        process = self.program(text)
        self.until_mounted(process)
        process.kill()
        self.nothing_is_left()

    def test_the_end_of_a_forked_child_leaves_the_mount(self):
        text = """
            import dequantfs, os, sys
            mount, server = dequantfs.mount(sys.argv[1]), dequantfs.serve(sys.argv[1])
            child = os.fork()
            if child == 0:
                mount.unmount()
                server.stop()
                sys.exit(7)
            assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 7
            assert os.listdir(mount)
            import urllib.request
            urllib.request.urlopen(f"{server.endpoint}/{server.repository}/resolve/main/config.json").read()
            print("alive")
        """
        process = self.program(text)
        self.assertEqual(process.communicate(timeout=60)[0], "alive\n")
        self.nothing_is_left()

    def test_ctrl_c_that_the_program_handles(self):
        text = """
            import dequantfs, os, sys, time
            with dequantfs.mount(sys.argv[1]) as path, dequantfs.serve(sys.argv[1]) as server:
                try:
                    print(path, flush=True)
                    sys.stdin.read()
                except KeyboardInterrupt:
                    pass
                sys.stdin.readline()
                assert os.listdir(path)
                import urllib.request
                urllib.request.urlopen(f"{server.endpoint}/{server.repository}/resolve/main/config.json").read()
                print("handled")
        """
        process = self.program(text, start_new_session=True)
        self.until_mounted(process)
        os.killpg(process.pid, signal.SIGINT)
        self.assertEqual(process.communicate("\n", timeout=60)[0], "handled\n")
        self.nothing_is_left()

    def test_a_served_checkpoint_ends_with_the_program(self):
        text = """
            import dequantfs, sys
            print(dequantfs.serve(sys.argv[1]).endpoint, flush=True)
            sys.stdin.read()
        """
        for number in (None, signal.SIGKILL, signal.SIGTERM):
            with self.subTest(number):
                process = self.program(text)
                address = process.stdout.readline().strip()
                port = int(address.rpartition(":")[2])
                socket.create_connection(("127.0.0.1", port)).close()
                if number is None:
                    process.stdin.close()
                else:
                    process.send_signal(number)
                process.wait(60)
                eventually(lambda: refused(port))
        self.nothing_is_left()


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


class Serve(Case):
    def read(self, server, repository, name):
        address = f"{server.endpoint}/{repository}/resolve/main/{name}"
        with urllib.request.urlopen(address) as answer:
            return answer.read()

    def test_the_files_of_a_mount(self):
        with dequantfs.mount(SOURCE) as path, dequantfs.serve(SOURCE) as server:
            self.assertTrue(server.repository.endswith("/hf"))
            for name in os.listdir(path):
                with open(os.path.join(path, name), "rb") as file:
                    self.assertEqual(self.read(server, server.repository, name), file.read())
        self.nothing_is_left()

    def test_each_layout_is_a_repository(self):
        with dequantfs.serve(SOURCE, layout=["hf", "native"], name="mine") as server:
            self.assertEqual(server.repositories, ["mine/hf", "mine/native"])
            for repository in server.repositories:
                self.assertIn(b"model_type", self.read(server, repository, "config.json"))
            self.assertIn(server.endpoint, repr(server))
        self.assertIn("stopped", repr(server))
        server.stop()
        self.nothing_is_left()

    def test_several_in_threads(self):
        def use(_):
            with dequantfs.serve(SOURCE) as server:
                return server.endpoint, self.read(server, server.repository, "config.json")

        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            found = list(threads.map(use, range(8)))
        self.assertEqual(len({data for _, data in found}), 1)
        self.nothing_is_left()

    def test_an_exception_stops_it(self):
        with self.assertRaises(ZeroDivisionError):
            with dequantfs.serve(SOURCE):
                raise ZeroDivisionError
        self.nothing_is_left()


if __name__ == "__main__":
    unittest.main()
