"""Tidiness: files and functions that are read in one sitting, one name for one thing."""

import ast
from collections import defaultdict
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("ketcore", "tests", "bench", "docs", "examples")
# The faces of packages.
FACES = {"__init__", "__main__"}
# What stands side by side under one name, because it answers one question in another way or for another kind
# of thing: engines and the kernels and halves below them, products by either kind of plan, linalg by kind of
# operator.
SIDES = ("lookups.*", "products.*", "linalg.*")
# Why a kernel cannot take something, in both rooms that have kernels.
SHARED = {"obstacle"}
# Bridges speak the words of those whom they lead to.
BRIDGES = ("testing", "demo", "cli")


def code_lines(path):
    """The numbers of lines of code, without blanks, comments and docstrings; and the syntax tree."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    prose = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            prose |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate((line.strip() for line in text.splitlines()), 1)
    return {n for n, line in lines if line and not line.startswith("#") and n not in prose}, tree


def sources():
    return sorted(chain.from_iterable((ROOT / folder).rglob("*.py") for folder in FOLDERS))


def test_files_are_short():
    lengths = {str(path.relative_to(ROOT)): len(code_lines(path)[0]) for path in sources()}
    kinds = {".cu", ".cuh", ".cpp", ".h"}
    native = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in kinds)
    lengths |= {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in native}
    assert not {name: length for name, length in lengths.items() if length > 400}


def test_functions_are_short():
    found = {}
    for path in sources():
        lines, tree = code_lines(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[f"{path.name}:{node.name}"] = len(lines & set(range(node.lineno, node.end_lineno + 1)))
    assert not {name: length for name, length in found.items() if length > 60}


def test_no_two_modules_have_one_name():
    places = defaultdict(list)
    for path in (ROOT / "ketcore").rglob("*.py"):
        places[path.stem].append(str(path.relative_to(ROOT)))
    assert not {stem: found for stem, found in places.items() if len(found) > 1 and stem not in FACES}


def public_functions():
    """The places of every public function or class of a module, by its name; one for each of SIDES."""
    places = defaultdict(set)
    package = ROOT / "ketcore"
    for path in package.rglob("*.py"):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        place = next((side for side in SIDES if fnmatch(module, side)), module)
        if module.startswith(BRIDGES):
            continue
        for node in code_lines(path)[1].body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(place)
    return places


def test_no_two_things_have_one_name():
    twice = {name: found for name, found in public_functions().items() if len(found) > 1}
    assert not {name: found for name, found in twice.items() if name not in SHARED}
