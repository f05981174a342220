"""The frame: floors of imports, what `import ketcore` loads, file sizes, docstrings, version, packaging."""

import ast
import configparser
import re
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

import ketcore
from ketcore import fit, linalg, ops, structure, testing
from ketcore.ops import OPS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ketcore"

# A room is a folder, or a file at the top.  A module imports only rooms of lower floors, and its own room
# without a circle; operations do not even import one another.
FLOORS = (
    ("tracing",),
    ("_version", "shapes", "array_types"),
    ("divisors",),
    ("cuda", "native"),
    ("arrays",),
    ("lookups", "products"),
    ("spectra",),
    ("ops",),
    ("objects",),
    ("structure", "io"),
    ("fit",),
    ("linalg",),
    ("", "data"),
    ("testing", "demo", "torch", "jax", "environment"),
    ("compress",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}

RUN_TIME = {"numpy", "scipy", "array_api_compat", "threadpoolctl"}
# What else may be imported, and by which modules alone; several names are several patterns.
BRIDGES = {
    "cupy": "cuda.*",
    "cupyx": "cuda.*",
    "torch": "torch*",
    "peft": "torch.peft_layers",
    "safetensors": "torch.lokr_files",
    "jax": "jax*",
    "dask": "arrays.tokens",
    "sklearn": "fit.kmeans",
    "hypothesis": "testing*",
    "ml_dtypes": "testing*",
    "matplotlib": "demo* compress.pictures",
    "tqdm": "demo* compress.bars testing.identities",
}


@cache
def modules():
    """The syntax tree of every module, by its name within the package; "" is the package itself."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imports(name):
    """Full names of what a module imports, at any depth of its code."""
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively, line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_module(full):
    """The module of ketcore that an imported name belongs to; None for other packages."""
    if full.partition(".")[0] != "ketcore":
        return None
    name = full.removeprefix("ketcore").removeprefix(".")
    return name if name in modules() else name.rpartition(".")[0]


def room(name):
    """The room of a module: the package itself is ""."""
    found = name.partition(".")[0]
    assert found in FLOOR, f"{found!r} has no place in FLOORS"
    return found


def used_modules(name):
    """The modules of ketcore that a module imports; the package of a module that it imports is not one."""
    found = {own_module(full) for full in imports(name)} - {None, name}
    return {used for used in found if not name.startswith(f"{used}.") or room(used) != room(name)}


@pytest.mark.parametrize("name", modules())
def test_imports_go_down_the_floors(name):
    for used in used_modules(name):
        below = FLOOR[room(used)] < FLOOR[room(name)] or room(used) == room(name)
        assert below, f"{name} must not import {used}, which stands above it or beside it"


# Kets become matrices, and rows of matrices kets.  The first names the second within its methods alone.
MUTUAL = ("objects.ket", "objects.kronecker_matrix")


def test_no_room_has_a_circle():
    done = {}

    def visit(name, path):
        assert name not in path, f"{' imports '.join((*path[path.index(name) :], name))}"
        if name not in done:
            done[name] = True
            for used in used_modules(name):
                if (name, used) != MUTUAL:
                    visit(used, (*path, name))

    for name in modules():
        visit(name, ())


@pytest.mark.parametrize(
    "name", ["arrays", "cuda", "lookups", "products", "spectra", "objects", "io", "compress"]
)
def test_a_room_says_what_is_in_it(name):
    """Every module by its name at the begin of a line, so that a reader opens the right one."""
    text = ast.get_docstring(modules()[name], clean=False)
    said = {
        word
        for line in re.findall(r"^ +(\w+(?:, \w+)*)(?:  |$)", text, re.MULTILINE)
        for word in line.split(", ")
    }
    assert said == {module.partition(".")[2] for module in modules() if module.startswith(f"{name}.")}


def test_operations_do_not_import_one_another():
    operations = {op.forward.__module__.removeprefix("ketcore.") for op in OPS}
    for name in operations:
        assert not used_modules(name) & operations, f"{name} must not import an operation"


@pytest.mark.parametrize("name", modules())
def test_other_packages_are_imported_where_they_belong(name):
    for full in imports(name):
        top = full.partition(".")[0]
        if top == "ketcore" or top in sys.stdlib_module_names or top in RUN_TIME:
            continue
        assert top in BRIDGES, f"{name} imports {top}, which is no dependency"
        allowed = any(fnmatch(name, place) for place in BRIDGES[top].split())
        assert allowed, f"{name} imports {top}, which is for {BRIDGES[top]} alone"


def test_cupy_is_named_in_its_room_alone():
    for name, tree in modules().items():
        fields = ("id", "attr", "name", "module")
        words = [getattr(node, field, None) for node in ast.walk(tree) for field in fields]
        words = set(words) - {"is_cupy"}
        named = [word for word in words if isinstance(word, str) and "cupy" in word.lower()]
        assert not named or room(name) == "cuda", f"{name} names {named}"


def test_import_loads_nothing_but_what_it_needs():
    code = "import sys; before = set(sys.modules); import ketcore; print(*(set(sys.modules) - before))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert loaded - sys.stdlib_module_names <= RUN_TIME | {"ketcore"}


def lines_of_code(path):
    """The numbers of the lines of a file, blank ones and docstrings aside."""
    text = path.read_text(encoding="utf-8")
    numbers = {number for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    if path.suffix != ".py":
        return numbers
    owners = ast.Module | ast.ClassDef | ast.FunctionDef
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, owners)]
    docstrings = [node.body[0] for node in found if ast.get_docstring(node)]
    return numbers - {n for text in docstrings for n in range(text.lineno, text.end_lineno + 1)}


@pytest.mark.parametrize("folder", ["ketcore", "tests", "bench"])
def test_files_are_short(folder):
    kinds = {".py", ".cu", ".cuh", ".cpp", ".hpp", ".h"}
    paths = [path for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    lengths = {path.name: len(lines_of_code(path)) for path in paths}
    assert not {name: length for name, length in lengths.items() if length > 400}


def is_overload(node):
    """Whether a definition is one signature of several, of which the last one has the docstring."""
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)


@pytest.mark.parametrize("name", modules())
def test_public_names_have_docstrings(name):
    tree = modules()[name]
    assert ast.get_docstring(tree) or not tree.body or name == "_version", f"module {name!r} has no docstring"
    kinds = (ast.FunctionDef, ast.ClassDef)
    outer = [node for node in tree.body if isinstance(node, kinds)]
    inner = [(node.name, child) for node in outer if isinstance(node, ast.ClassDef) for child in node.body]
    named = [(node.name, node) for node in outer]
    named += [(f"{owner}.{node.name}", node) for owner, node in inner if isinstance(node, kinds)]
    private = re.compile(r"(^|\.)_")
    bare = [path for path, node in named if not ast.get_docstring(node) and not is_overload(node)]
    assert not [path for path in bare if not private.search(path)]


@pytest.mark.parametrize("name", modules())
def test_public_names_are_written_out(name):
    """No star imports, and lists of strings: type checkers follow neither stars nor code."""
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.ImportFrom):
            assert "*" not in [alias.name for alias in node.names], f"{name}, line {node.lineno}"
        targets = [node.target] if isinstance(node, ast.AugAssign) else getattr(node, "targets", [])
        if "__all__" in [getattr(target, "id", None) for target in targets]:
            names = getattr(node.value, "elts", [None])
            written = [isinstance(getattr(each, "value", None), str) for each in names]
            assert isinstance(node, ast.Assign), f"{name}.__all__ must be written once, line {node.lineno}"
            assert all(written), f"{name}.__all__ must be a list of strings"


def test_exported_names_exist_once():
    for package in (ops, structure, fit, linalg, testing):
        assert len(set(package.__all__)) == len(package.__all__)
        assert not [name for name in package.__all__ if not hasattr(package, name)]


def test_every_operation_and_structure_is_exported():
    functions = {op.name + suffix for op in OPS for suffix in ("", "_vjp", "_jvp", "_dense")}
    packages = (ops, functions, ops.__all__), (ketcore, functions | set(structure.__all__), dir(ketcore))
    for package, wanted, exported in packages:
        missing = sorted(wanted - set(exported))
        assert not missing, f"{package.__name__} must export every name, got none for {missing}"
    more = sorted(set(ops.__all__) - functions - {"OPS", "Op", "digits"})
    assert not more, f"ketcore.ops.__all__ must be the functions of OPS, got also {more}"


def test_an_operation_is_whole():
    for op in OPS:
        functions = {"": op.forward, "_vjp": op.vjp, "_jvp": op.jvp, "_dense": op.dense}
        assert {suffix: f.__name__ for suffix, f in functions.items()} == {s: op.name + s for s in functions}
        assert len({f.__module__ for f in functions.values()}) == 1


def test_the_version_is_written_once():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    assert settings["metadata"]["version"] == "attr: ketcore._version.__version__"
    version = re.compile(rf"\b{re.escape(ketcore.__version__)}\b")
    paths = [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "setup.cfg", *PACKAGE.rglob("*.py")]
    written = [path.name for path in paths if version.search(path.read_text(encoding="utf-8"))]
    assert written == ["CHANGELOG.md", "_version.py"]


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert versions[0] == ketcore.__version__


def test_every_file_is_packaged():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    data = settings["options.package_data"]
    patterns = [
        f"{package.replace('.', '/')}/{pattern.strip()}"
        for package, listed in data.items()
        for pattern in listed.split(",")
    ]
    files = [path.relative_to(ROOT) for path in PACKAGE.rglob("*") if path.is_file()]
    files = [path for path in files if path.suffix not in (".py", ".pyc")]
    # A library that was compiled here is packaged by setup.py.
    files = [path for path in files if not path.match("_kernels.*")]
    assert not [str(path) for path in files if not any(path.match(pattern) for pattern in patterns)]


def test_pyproject_is_the_build_system_alone():
    tables = re.findall(r"^\[(.*)\]$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert tables == ["build-system"]
