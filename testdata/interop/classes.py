"""Which adapter classes of NeMo AutoModel the checks cover. The list comes from the package.

A class that no check covers must be in LEFT_OUT, with the reason.
"""

import ast
import pathlib

import adapters
import reference
from checks import check, expect

BASE = "StateDictAdapter"
LEFT_OUT = {
    "BagelStateDictAdapter": "its two views belong to two stages of training, and no file of a checkpoint says which",
    "DeepseekV41DSparkStateDictAdapter": "the draft model reads DeepSeek-V4.1's checkpoint, shown as the main model",
}


def of_library():
    """Every concrete adapter class, by its own name and its module's."""
    import nemo_automodel

    root = pathlib.Path(nemo_automodel.__file__).parent
    found = {}
    for path in sorted(root.rglob("*.py")):
        text = path.read_text()
        if BASE not in text:
            continue
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and is_adapter(node) and not abstract(node):
                found[node.name] = module
    return found


def is_adapter(node):
    """Whether the name of a class, or of one that it is made from, says so."""
    return any(name.endswith(BASE) for name in (node.name, *(ast.unparse(b) for b in node.bases)))


def abstract(node):
    """Whether a method is marked abstract; the base class is the only such class."""
    marks = [d for f in node.body if isinstance(f, ast.FunctionDef) for d in f.decorator_list]
    return any(getattr(d, "id", getattr(d, "attr", "")) == "abstractmethod" for d in marks)


def covered():
    """The classes that reference.py and adapters.py compare with, and the families of each."""
    out = {}
    for name in reference.FAMILIES:
        cls = reference.make(name, reference.SEEDS[0]).adapter.partition(":")[2]
        if cls:
            out.setdefault(cls, set()).add(name)
    for name, case in adapters.CASES.items():
        out.setdefault(case[0].partition(":")[2], set()).add(name)
    return out


def all():
    """Every class of the library is covered or left out for a reason."""
    library, ours = of_library(), covered()
    left = library.keys() & LEFT_OUT.keys()
    seeds, families = len(reference.SEEDS), len(reference.FAMILIES)
    what = f"{len(library)} adapter classes: {len(library.keys() & ours.keys())} compared, {len(left)} left out"
    with check(f"{what}; {families} families with {seeds} checkpoints each"):
        for name in sorted(left):
            print(f"left out: {name}: {LEFT_OUT[name]}")
        unlisted = sorted(library.keys() - ours.keys() - LEFT_OUT.keys())
        expect(not unlisted, f"no check covers {', '.join(unlisted)}")
        stale = sorted((ours.keys() | LEFT_OUT.keys()) - library.keys())
        expect(not stale, f"the library has no {', '.join(stale)}")
        both = sorted(ours.keys() & LEFT_OUT.keys())
        expect(not both, f"covered and left out: {', '.join(both)}")
