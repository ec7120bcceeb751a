"""Measures cold loads of a mount against a converted copy, the disk, and files of memory.

    testdata/coldload/run [--only PARTS] [--rounds N] [--layers N --experts N --vocabulary N]

It makes a checkpoint, and converted copies of it, in --directory, and keeps them there for the next
run. Each round measures everything once, every other round backwards. Before each cold reading the
files are dropped from the page cache, and the mount is new.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import sys
import time

import adverse
import checkpoint
import files
import loaders
import machine
import report

HERE = pathlib.Path(__file__).resolve().parent
LARGE = {"layers": 8, "experts": 128, "vocabulary": 151936}  # 6.2 GB, shown as 11.2 GB
SMALL = {"layers": 2, "experts": 64, "vocabulary": 16384}  # 0.75 GB, shown as 1.4 GB
OWN = "-own"  # of folders with checkpoints that transformers dequantizes itself
SWITCH = ["--ahead", "off"]  # nothing is decoded ahead


def arguments():
    cores = len(os.sched_getaffinity(0))
    sizes = LARGE if cores >= 8 else SMALL
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--directory", default=os.path.join(os.environ.get("TMPDIR", "/tmp"), "dequantfs-coldload"))
    p.add_argument("--only", default=",".join(PARTS), help="parts, of " + ", ".join(PARTS))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=16, help="readers in the parts pread and direct")
    p.add_argument("--ranks", type=int, default=min(8, cores), help="ranks that load at the same time")
    p.add_argument("--layouts", default="hf,transformers,native", help="layouts that loaders read")
    p.add_argument("--cgroup", type=int, help="MiB of memory in the part cgroup (default: a tenth of the view, at least 512)")
    p.add_argument("--until", type=float, default=460, help="seconds after which no round is to end")
    p.add_argument("--baseline", help="an older binary, to compare with instead of decoding ahead switched off")
    p.add_argument("--json", help="write the figures to this file")
    p.add_argument("--remove", action="store_true", help="remove the checkpoint and its copies at the end")
    for name, value in sizes.items():
        p.add_argument("--" + name, type=int, default=value)
    a = p.parse_args()
    a.only, a.layouts, a.cores = a.only.split(","), a.layouts.split(","), cores
    if unknown := set(a.only) - set(PARTS):
        p.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return a


class Run:
    """One run of the program: where everything is, and what was measured."""

    def __init__(self, options):
        self.options = options
        self.device = loaders.device()
        self.root = pathlib.Path(options.directory)
        o = options
        self.source = str(self.root / f"source-{o.layers}-{o.experts}-{o.vocabulary}")
        self.point = str(self.root / "mnt")
        self.results = report.Results()

    def switch(self, ahead):
        """The flags and the binary with which a mount decodes ahead, or does not."""
        if ahead == "on":
            return [], None
        if self.options.baseline:
            return [], self.options.baseline
        return SWITCH, None

    def copy(self, layout):
        return f"{self.source}-{layout}"

    def prepare(self):
        """Make the checkpoint and the copies, unless they are there."""
        self.root.mkdir(parents=True, exist_ok=True)
        o = self.options
        self.make(self.source, lambda d: checkpoint.make(d, o.layers, o.experts, o.vocabulary))
        for layout in ("hf", "transformers"):
            if layout in self.copies():
                export = lambda d, layout=layout: machine.command("export", self.source, d, "--layout", layout)
                self.make(self.copy(layout), export)
        if "transformers" in o.only:
            self.make(self.tiny(False), lambda d: checkpoint.make(d, 1, 8, 128))
            self.make(self.tiny(True), lambda d: machine.command("export", self.tiny(False), d, "--layout", "hf"))
            for directory in (self.source, self.tiny(False)):
                self.make(directory + OWN, lambda d, of=directory: decoded_by_transformers(of, d))
        with machine.mount(self.source, self.point, "hf"):
            self.shown = files.size(files.shards(self.point))
        self.results.source, self.results.shown = files.size(files.shards(self.source)), self.shown

    def tiny(self, converted):
        return str(self.root / ("tiny-hf" if converted else "tiny"))

    def copies(self):
        """The layouts of which a converted copy is read."""
        want = {"hf"} if {"transformers", "load_file", "pread", "automodel", "rank"} & set(self.options.only) else set()
        if "transformers" in self.options.only and "transformers" in self.options.layouts:
            want.add("transformers")
        return want

    def make(self, directory, how):
        if os.path.exists(directory):
            return
        say(f"making {directory}")
        shutil.rmtree(directory + ".new", ignore_errors=True)
        how(directory + ".new")
        for path in pathlib.Path(directory + ".new").glob("*.safetensors"):  # dirty pages cannot be dropped
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        os.rename(directory + ".new", directory)

    def chill(self):
        """Drop everything on the disk from the page cache."""
        files.drop(files.shards(self.source))
        for layout in self.copies():
            files.drop(files.shards(self.copy(layout)))

    def warm(self):
        files.read(files.shards(self.source), self.options.threads)

    @contextlib.contextmanager
    def target(self, name, *flags):
        """A folder to read: 'copy hf', 'mount hf', 'memory hf', 'source'. Its bytes are cold."""
        kind, _, layout = name.partition(" ")
        self.chill()
        if kind == "source":
            yield self.source + OWN
        elif kind == "copy":
            yield self.copy(layout)
        elif kind == "mount":
            with machine.mount(self.source, self.point, layout, *flags):
                yield self.point
        elif kind == "memory":
            with machine.mount(self.source, self.point, layout), machine.memory(self.point, self.point + "-memory"):
                yield self.point + "-memory"

    def record(self, name, n, seconds, **facts):
        self.results.add(name, n, seconds, **facts)
        say(f"  {name}: {n / seconds / 1e9:.2f} GB/s in {seconds:.2f} s")


def decoded_by_transformers(source, directory):
    """The same checkpoint, whose configuration tells transformers to dequantize it."""
    os.mkdir(directory)
    for path in pathlib.Path(source).glob("*.safetensors*"):
        os.symlink(path, os.path.join(directory, path.name))
    config = json.loads((pathlib.Path(source) / "config.json").read_text())
    config["quantization_config"]["dequantize"] = True
    (pathlib.Path(directory) / "config.json").write_text(json.dumps(config, indent=1))


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- parts: each gives steps, and what must hold --------------------------------------------------


def disk(run):
    def step():
        run.chill()
        paths = files.shards(run.source)
        run.record("disk: plain reads of the source", files.size(paths), files.read(paths, run.options.threads))

    return [step]


def loads(run, loader, layouts, arguments=((),)):
    """Steps of a loader: copies, mounts, and files of memory, each cold and then warm. It runs in
    as many processes as there are arguments, and each loads everything.
    """

    def step(target):
        def do():
            with run.target(target) as where:
                for when in ("cold", "warm"):
                    n, seconds = loaders.run(loader, [(where, run.device, *more) for more in arguments])
                    run.record(f"{loader}: {target}, {when}", n // len(arguments), seconds)

        return do

    targets = [f"copy {x}" for x in layouts if x in run.copies()] + [f"mount {x}" for x in layouts]
    if run.options.cores <= 4:
        targets += [f"memory {x}" for x in layouts]
    for x in layouts:
        run.results.must_load(loader, x, run.options.cores)
    return [step(t) for t in targets]


def transformers(run):
    def own():
        with run.target("source") as where:
            n, seconds = loaders.run("transformers", [(where, run.device, run.tiny(False) + OWN)])
            run.record("transformers: its own dequantization, cold", n, seconds)

    layouts = [x for x in run.options.layouts if x != "native"]
    return [*loads(run, "transformers", layouts, [(run.tiny(True),)]), own]


def load_file(run):
    return loads(run, "load_file", [x for x in run.options.layouts if x != "transformers"])


def automodel(run):
    try:
        import nemo_automodel  # noqa: F401
    except ImportError:
        run.results.skip("automodel", "nemo_automodel is not installed")
        return []
    if run.device == "cpu":
        run.results.skip("automodel", "its Qwen3-MoE needs a GPU")
        return []
    return loads(run, "automodel", ["hf"])


def rank(run):
    ranks = run.options.ranks
    return loads(run, "rank", ["hf"], [(r, ranks) for r in range(ranks)])


def pread(run):
    threads = run.options.threads

    def copy():
        with run.target("copy hf") as where:
            run.record("pread: copy hf, cold", run.shown, files.read(files.shards(where), threads))

    def mount(layout, when, direct=False, *flags):
        def do():
            with run.target(f"mount {layout}", *flags) as where:
                paths = files.shards(where)
                if when == "source in memory":
                    run.warm()
                name = f"pread: mount {layout}{' '.join(('', *flags))}{', O_DIRECT' if direct else ''}, {when}"
                run.record(name, files.size(paths), files.read(paths, threads, direct))

        return do

    run.results.must_pread(machine.has("direct"))
    steps = [copy]
    for layout in ("hf", "native"):
        steps += [mount(layout, "cold"), mount(layout, "source in memory"), mount(layout, "source in memory", True)]
        if machine.has("direct"):
            steps.append(mount(layout, "source in memory", False, "--direct"))
    return steps


def ranks(run):
    def step():
        run.chill()
        with machine.mount(run.source, run.point, "native", "--ep", "all/8"):
            folders = sorted({os.path.dirname(str(p)) for p in pathlib.Path(run.point).rglob("*.safetensors")})
            n, seconds = loaders.run("preads", [(folders, "cpu", r, len(folders)) for r in range(len(folders))])
            facts = machine.state(run.point)
            run.record("ranks: --ep all/8, native, cold", n, seconds, source_bytes=machine.number(facts, "stats", "source_bytes"))

    run.results.must_rank(run.options)
    return [step]


PARTS = {
    "disk": disk,
    "transformers": transformers,
    "load_file": load_file,
    "automodel": automodel,
    "rank": rank,
    "pread": pread,
    "ranks": ranks,
    "adverse": adverse.cases,
    "cgroup": adverse.cgroup,
}


def main():
    options = arguments()
    run, begin = Run(options), time.monotonic()
    run.prepare()
    steps = []
    for name in [n for n in PARTS if n in options.only or n == "disk"]:
        if loaders.torch is None and name in ("transformers", "load_file", "automodel", "rank"):
            run.results.skip(name, loaders.missing)
            continue
        steps += PARTS[name](run)
    prepared = time.monotonic()
    for number in range(options.rounds):
        now = time.monotonic()
        if number and now - begin + (now - prepared) / number > options.until:
            run.results.note(f"{number} of {options.rounds} rounds: a further one would end after --until {options.until:.0f}")
            break
        say(f"round {number + 1} of {options.rounds}")
        for step in steps[:: 1 if number % 2 == 0 else -1]:
            try:
                step()
            except RuntimeError as e:
                run.results.fail(str(e))
                steps.remove(step)
    run.results.machine = {"cores": options.cores, "device": run.device, "version": machine.command("version").stdout.strip()}
    run.results.write(sys.stdout)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(run.results.facts(), indent=1))
    if options.remove:
        for directory in (run.source, run.source + OWN, run.copy("hf"), run.copy("transformers")):
            shutil.rmtree(directory, ignore_errors=True)
    return 0 if run.results.good() else 1


if __name__ == "__main__":
    sys.exit(main())
