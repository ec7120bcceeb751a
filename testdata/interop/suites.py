"""Which children belong to which suite: `python suites.py light heavy …`."""

import os
import sys

import adapters
import checks
import groups
import libraries
import reference
import stand_in
import stores
import titan

# module, function, seconds that it may take, and the environment if it is not that of the suite
CHECKS = ("views", "formats", "formats_fp8", "families_hf", "ranks", "scales", "safe_open", "slices", "tools")
LIGHT = [("light", f, 600) for f in CHECKS]
LIGHT += [("requantized", "goldens", 600)]
LIGHT += [("stores", f, 600) for f in stores.LIGHT]
LOADERS = (
    "transformers",
    "automodel",
    "dcp",
    "accelerate",
    "safetensors",
    "gguf",
    "fastsafetensors",
    "runai",
    "servers",
)
SERVED = [("serve", f, 600) for f in ("hub", "tools", "token", "crowd", "killed", "transformers")]
HEAVY = [("loaders", f, 600) for f in LOADERS]
HEAVY += [("titan", f, 600) for f in titan.CHILDREN]
HEAVY += [("reference", f, 600) for f in (*reference.GROUPS, "differs")]
HEAVY += [("classes", "all", 600)]
HEAVY += [("stand_in", f, 600) for f in stand_in.CHILDREN]
HEAVY += [("stores", f, 600) for f in ("torch", "transformers")]
HEAVY += [("groups", f, 600) for f in ("listing", *groups.CHILDREN)]
BACK = [("back", f, 600) for f in ("to_hf", "to_hf_families", "amax", "twice", "transformers_fp8")]
STRICT = [("strict", f, 600) for f in ("others", "blocks", "goldens", "teeth")]
BENCH = [("bench", f, 600) for f in ("peer", "packed", "full_size")] + [("direct", "loaders", 600)]
ADAPTERS = [("adapters", f, 600) for f in adapters.GROUPS]
ADAPTERS += [("predictions", "views", 600)]
LIBRARIES = [("libraries", f, 600, "LIBRARIES") for f in libraries.GROUPS] + [("libraries", "g_idx", 600, "013")]
LOADS = [("loads", f, 600, "LIBRARIES") for f in ("transformers", "converter")]
SUITES = {
    "light": LIGHT,
    "heavy": HEAVY + BACK + STRICT + SERVED,
    "libraries": LIBRARIES + ADAPTERS + LOADS,
    "bench": BENCH,
}
CHILDREN = [c for s in SUITES.values() for c in s]


def chosen(name):
    """The children of a suite, or with that name. A family of a group is a child too."""
    found = SUITES.get(name) or [c for c in CHILDREN if name in c[:2]]
    return found or [("reference", f, 600) for f in reference.FAMILIES if f == name]


if __name__ == "__main__":
    names = sys.argv[1:] or ["light"]
    children = [c for name in names for c in chosen(name)]
    if not children:
        sys.exit(f"suites: no suite or check {' '.join(names)}; there are {', '.join(SUITES)}")
    alone = "bench" in names
    sys.exit(checks.run(children, 1 if alone else os.cpu_count() or 1))
