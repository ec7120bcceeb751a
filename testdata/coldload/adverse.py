"""The least favourable cases for decoding ahead, each paired with decoding ahead switched off."""

import os
import time

import numpy as np

import files
import loaders
import machine

MIB = 1 << 20
FIRST_WINDOW, LAST_WINDOW = 64 * MIB, 1024 * MIB


def available():
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("MemAvailable:"))


def window(n):
    """How far ahead of a stream that has read n bytes may be decoded."""
    w = FIRST_WINDOW
    while n >= w:
        n, w = n - w, 2 * w
    return min(w, LAST_WINDOW, available() // 10)


def at_random(paths, n, seed):
    """Reads of 4 KiB to 1 MiB at random places, n bytes in all."""
    rng = np.random.default_rng(seed)
    sizes = [os.path.getsize(p) for p in paths]
    ranges = []
    while n > 0:
        i = int(rng.choice(len(paths), p=np.array(sizes) / sum(sizes)))
        length = min(int(2 ** rng.uniform(12, 20)), sizes[i])
        at = int(rng.integers(0, sizes[i] - length + 1))
        ranges.append((paths[i], at, at + length))
        n -= length
    return [ranges], 0


def one_of_each(paths, n, seed):
    """One tensor of each shard: as many bytes as an expert's matrix, in the middle."""
    ranges = []
    for path in paths:
        size = os.path.getsize(path)
        ranges.append((path, size // 2, min(size // 2 + 3 * MIB, size)))
    return [ranges], 0


def four_places(paths, n, seed):
    """Four readers that go forward from different places, half of everything together."""
    total = files.size(paths)
    jobs = [list(files.spread(paths, i * total // 4, total // 8)) for i in range(4)]
    return jobs, sum(window(total // 8) for _ in jobs)


def stops(paths, n, seed):
    """A reader that stops after a twentieth."""
    total = files.size(paths)
    return [list(files.spread(paths, 0, total // 20))], window(total // 20)


CASES = {
    "random reads": at_random,
    "one tensor of each shard": one_of_each,
    "four readers": four_places,
    "a reader that stops": stops,
}


def quiet(point):
    """Wait until nothing more is decoded ahead, and return the state."""
    before, deadline = None, time.monotonic() + 20
    while time.monotonic() < deadline:
        facts = machine.state(point)
        now = machine.number(facts, "stats", "ahead", "bytes"), machine.number(facts, "stats", "bytes")
        if now == before:
            return facts
        before = now
        time.sleep(0.3)
    raise RuntimeError(f"{point}: decoding ahead does not end")


def pages_read(jobs):
    """How many pages of each file the readers touch."""
    touched = {}
    for ranges in jobs:
        for path, begin, end in ranges:
            pages = touched.setdefault(path, set())
            pages.update(range(begin // files.PAGE, -(-end // files.PAGE)))
    return sum(map(len, touched.values()))


def cases(run):
    """Steps of the cases, with and without decoding ahead, in the same round."""
    steps = []
    for name, case in CASES.items():
        for ahead in ("on", "off"):
            steps.append(lambda name=name, case=case, ahead=ahead: adverse(run, name, case, ahead))
        must(run.results, name)
    return steps


def must(results, name):
    on, off = f"{name}: on", f"{name}: off"
    results.must(f"{name}: speed, decoding ahead on / off", lambda: results.ratio(on, off), 0.95)
    results.must(
        f"{name}: MiB decoded ahead and never read / allowed",
        lambda: results.fact(on, "unread") and results.fact(on, "unread") / max(results.fact(on, "allowed"), 1),
        1,
        "most",
    )


def adverse(run, name, case, ahead):
    """Read a fresh cold mount in one way. Then count what is in memory and was not read."""
    flags, binary = run.switch(ahead)
    run.chill()
    shard = max(run.shown // 40 // MIB, 16)
    with machine.mount(run.source, run.point, "hf", "--shard-size", f"{shard}MiB", *flags, binary=binary):
        paths = files.shards(run.point)
        jobs, allowed = case(paths, run.shown // 20, len(run.results.runs))
        n, seconds = loaders.run("mapping", [(ranges, "cpu") for ranges in jobs])
        facts = quiet(run.point)
        pages = pages_read(jobs)
        held = sum(int(files.resident(p).sum()) for p in paths)
        run.record(
            f"{name}: {ahead}",
            n,
            seconds,
            unread=machine.number(facts, "stats", "ahead", "unread"),
            ahead=machine.number(facts, "stats", "ahead", "bytes"),
            asked=machine.number(facts, "stats", "bytes"),
            not_read=max(held - pages, 0) * files.PAGE,
            allowed=max(pages * files.PAGE // 10, allowed, FIRST_WINDOW),
        )


def cgroup(run):
    """Steps that read all of a view in a small memory cgroup, with and without decoding ahead."""
    limit = (run.options.cgroup or max(run.shown // 10 // MIB, 512)) * MIB
    try:
        machine.Group(limit).close()
    except RuntimeError as e:
        run.results.skip("cgroup", str(e))
        return []
    r = run.results
    on, off = "cgroup: on", "cgroup: off"
    r.must("cgroup: speed, decoding ahead on / off", lambda: r.ratio(on, off), 0.95)
    r.must("cgroup: bytes decoded / shown", lambda: r.fact(on, "decoded"), 1.05, "most")
    r.must("cgroup: source bytes read / needed", lambda: r.fact(on, "source"), 1.05, "most")
    r.must(
        "cgroup: resident size, on / off", lambda: r.fact(on, "resident") and r.fact(on, "resident") / r.fact(off, "resident"), 1.1, "most"
    )
    return [lambda ahead=ahead: in_cgroup(run, ahead, limit) for ahead in ("on", "off")]


def in_cgroup(run, ahead, limit):
    flags, binary = run.switch(ahead)
    run.chill()
    group = machine.Group(limit)
    try:
        with machine.mount(run.source, run.point, "hf", *flags, binary=binary, group=group):
            paths = files.shards(run.point)
            job = [(p, 0, os.path.getsize(p)) for p in paths]
            n, seconds = loaders.run("mapping", [(job, "cpu")], group)
            facts = machine.state(run.point)
            decoded = machine.number(facts, "stats", "ahead", "bytes") + machine.number(facts, "stats", "bytes")
            run.record(
                f"cgroup: {ahead}",
                n,
                seconds,
                decoded=decoded / n,
                source=machine.number(facts, "stats", "source_bytes") / run.results.source,
                resident=machine.peak(facts["pid"]),
                limit=limit,
            )
    finally:
        group.close()
