"""The figures, and what they must be."""

import statistics
import sys


class Results:
    """What was measured in each round, and the ratios that are wanted."""

    def __init__(self):
        self.runs = {}  # name → list of (bytes, seconds, facts)
        self.wanted = []  # (what, function of these results → value or None, bound, "least" or "most")
        self.notes, self.failures, self.machine = [], [], {}
        self.source = self.shown = 0

    def add(self, name, n, seconds, **facts):
        self.runs.setdefault(name, []).append((n, seconds, facts))

    def note(self, text):
        self.notes.append(text)

    def skip(self, what, why):
        self.note(f"{what}: skipped: {why}")

    def fail(self, text):
        """Something that could not be measured. It is not tried again."""
        print(f"  failed: {text}", file=sys.stderr, flush=True)
        self.failures.append(text)

    def rates(self, name):
        return [n / max(seconds, 1e-9) for n, seconds, _ in self.runs.get(name, [])]

    def rate(self, name):
        """The median rate, or None."""
        return statistics.median(self.rates(name)) if name in self.runs else None

    def fact(self, name, key):
        values = [facts[key] for _, _, facts in self.runs.get(name, []) if key in facts]
        return statistics.median(values) if values else None

    def disk(self):
        """What the disk allows: its rate in bytes shown."""
        rate = self.rate("disk: plain reads of the source")
        return rate and rate * self.shown / self.source

    def least(self, value, *bounds):
        """A value divided by the least of some bounds that were measured."""
        bounds = [b for b in bounds if b]
        return value / min(bounds) if value and bounds else None

    def ratio(self, a, b):
        """The median ratio of two measures in the same round."""
        pairs = [x / y for x, y in zip(self.rates(a), self.rates(b))]
        return statistics.median(pairs) if pairs else None

    # --- what must hold --------------------------------------------------------------------------

    def must(self, what, value, bound, how="least"):
        self.wanted.append((what, value, bound, how))

    def must_load(self, loader, layout, cores):
        cold, warm = f"{loader}: mount {layout}, cold", f"{loader}: mount {layout}, warm"
        memory = f"{loader}: memory {layout}, cold"
        self.must(
            f"{loader}, {layout}, cold / least of warm, disk" + (", FUSE file of memory" if cores <= 4 else ""),
            lambda: self.least(self.rate(cold), self.rate(warm), self.disk(), self.rate(memory)),
            0.85,
        )
        if loader == "transformers":
            self.must(
                f"transformers, {layout}, cold / the converted copy",
                lambda: self.least(self.rate(cold), self.rate(f"transformers: copy {layout}, cold")),
                1.8 if cores > 4 else None,
            )
            own = "transformers: its own dequantization, cold"
            self.must(f"transformers, {layout}, cold / its own dequantization", lambda: self.least(self.rate(cold), self.rate(own)), 1)

    def must_pread(self, direct):
        for layout in ("hf", "native"):
            cold, memory = f"pread: mount {layout}, cold", f"pread: mount {layout}, O_DIRECT, source in memory"
            self.must(f"pread, {layout}, cold / disk", lambda cold=cold: self.least(self.rate(cold), self.disk()), 0.9)
            if direct:
                past = f"pread: mount {layout} --direct, source in memory"
                self.must(
                    f"pread, {layout}, --direct / O_DIRECT, source in memory",
                    lambda past=past, memory=memory: self.least(self.rate(past), self.rate(memory)),
                    0.8,
                )

    def must_rank(self, o):
        whole = (o.layers, o.experts, o.vocabulary) == (8, 128, 151936) and o.cores >= 16
        self.must(
            "8 expert-parallel ranks, seconds",
            lambda: statistics.median(s for _, s, _ in self.runs.get("ranks: --ep all/8, native, cold", [(0, float("nan"), 0)])),
            4.5 if whole else None,
            "most",
        )

    # --- output ----------------------------------------------------------------------------------

    def judged(self):
        """Each ratio that was measured, and whether it holds. Without a bound it is a figure."""
        for what, value, bound, how in self.wanted:
            v = value()
            if v is not None:
                holds = None if bound is None else v >= bound if how == "least" else v <= bound
                yield {"what": what, "value": round(v, 3), "wanted": bound, "how": how, "holds": holds}

    def good(self):
        return not self.failures and all(j["holds"] is not False for j in self.judged())

    def facts(self):
        measures = [
            {
                "name": name,
                "bytes": runs[-1][0],
                "seconds": [round(s, 4) for _, s, _ in runs],
                "median": self.rate(name),
                "facts": [f for _, _, f in runs if f],
            }
            for name, runs in self.runs.items()
        ]
        return {
            "version": 1,
            "machine": self.machine,
            "source_bytes": self.source,
            "shown_bytes": self.shown,
            "disk_allows": self.disk(),
            "measures": measures,
            "ratios": list(self.judged()),
            "notes": self.notes,
            "failures": self.failures,
        }

    def write(self, out):
        m = self.machine
        print(f"{m.get('version')}, {m.get('cores')} cores, {m.get('device')}", file=out)
        print(f"source {self.source / 1e9:.2f} GB, shown as {self.shown / 1e9:.2f} GB", file=out)
        width = max(map(len, self.runs), default=0)
        print(f"\n{'measure':{width}}    GB/s  (slowest to fastest)  seconds", file=out)
        for name in self.runs:
            r = self.rates(name)
            seconds = statistics.median(s for _, s, _ in self.runs[name])
            print(f"{name:{width}}  {self.rate(name) / 1e9:6.2f}  ({min(r) / 1e9:.2f} to {max(r) / 1e9:.2f})  {seconds:.2f}", file=out)
        if disk := self.disk():
            print(f"{'what the disk allows, in bytes shown':{width}}  {disk / 1e9:6.2f}", file=out)
        judged = list(self.judged())
        width = max((len(j["what"]) for j in judged), default=0)
        print(f"\n{'ratio':{width}}   found  wanted  holds", file=out)
        for j in judged:
            sign = "" if j["wanted"] is None else ("≥ " if j["how"] == "least" else "≤ ") + f"{j['wanted']:g}"
            holds = {None: "", True: "yes", False: "NO"}[j["holds"]]
            print(f"{j['what']:{width}}  {j['value']:6.2f}  {sign:>6}  {holds}", file=out)
        for f in self.failures:
            print(f"failed: {f}", file=out)
        for n in self.notes:
            print(f"note: {n}", file=out)
