"""A new operation takes a few files: the page on architecture says which, and its suite finds it by itself.

tests/toy_operation.py is added to a copy of the tree, in the files that docs/architecture.md names, and the
tests of operations run on it in a process of their own.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAME = "kron_total"
FUNCTIONS = [NAME + suffix for suffix in ("", "_dense", "_jvp", "_vjp")]
SHAPES = f"{NAME}_shapes"
LEFT_OUT = ("__pycache__", ".*", "*.ipynb", "results", "build", "*.egg-info")

# What is about this operation, about the table, and about all that is public.
SUITE = (
    *("test_ops", "test_op_table", "test_errors", "test_not_finite", "test_scale", "test_dtypes"),
    *("test_autodiff", "test_structure", "test_docs", "test_reference", "test_docstrings"),
)
CHOSEN = (
    *(NAME, "every_op_is", "every_op_has", "exported", "written_out", "quiet", "public", "tour_names"),
    *("names_what_it_exports", "(code_runs and adapters)"),
)
# torch takes longer to load than all the tests; it and the awkward arrays find what the others find.  The
# reference is read as text.
CHOSEN = f"({' or '.join(CHOSEN)}) and not torch and not awkward or in_the_reference"


@pytest.fixture
def tree(tmp_path):
    """A copy of the tree."""
    copy = tmp_path / "tree"
    for folder in ("ketcore", "tests", "docs", "bench", "examples"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for path in ROOT.iterdir():
        if path.suffix in (".md", ".cfg", ".toml"):
            shutil.copy(path, copy)
    return copy


def insert(path, anchor, text):
    """Put `text` in front of what stands in a file once."""
    found = path.read_text(encoding="utf-8")
    assert found.count(anchor) == 1, f"{path.name} must have {anchor!r} once, got {found.count(anchor)}"
    path.write_text(found.replace(anchor, text + anchor), encoding="utf-8")


def add_operation(tree):
    """The toy operation in a tree, as somebody would add one of their own."""
    ops, package = tree / "ketcore" / "ops", tree / "ketcore" / "__init__.py"
    shutil.copy(tree / "tests" / "toy_operation.py", ops / f"{NAME}.py")
    table = ops / "__init__.py"
    functions = f"{NAME}, {NAME}_vjp, {NAME}_jvp, {NAME}_dense, {SHAPES}"
    entry = f'    Op(\n        "{NAME}", {functions},\n        primals=(several("factors"),),\n    ),\n'
    insert(
        table,
        "from ketcore.ops.kron_trace import",
        f"from ketcore.ops.{NAME} import {', '.join((*FUNCTIONS, SHAPES))}\n",
    )
    insert(table, '    Op(\n        "kron_trace",', entry)
    strings = "".join(f'    "{name}",\n' for name in FUNCTIONS)
    insert(table, '    "kron_trace",\n', strings)
    exports = "".join(f"from ketcore.ops import {name} as {name}\n" for name in FUNCTIONS)
    insert(package, "from ketcore.ops import kron_trace as kron_trace\n", exports)
    strategy = "generic.factors(dtype=dtype).map(lambda factors: Problem.of(op, factors))"
    insert(
        tree / "tests" / "problems.py",
        '    "kron_matmul": ',
        f'    "{NAME}": lambda op, dtype: {strategy},\n',
    )
    torch = tree / "ketcore" / "torch" / "functional.py"
    insert(torch, '    "kron_trace",\n', f'    "{NAME}",\n')
    insert(torch, "kron_trace = ", f"{NAME} = _function(ops.{NAME})\n")
    insert(package, "kron_trace, kron_sandwich: functions", f"{NAME}, ")
    add_to_pages(tree / "docs")
    changes = (tree / "CHANGELOG.md").read_text(encoding="utf-8")
    line = f"### Added\n\n- `{NAME}`: the sum of all entries."
    (tree / "CHANGELOG.md").write_text(changes.replace("### Added\n", line, 1), encoding="utf-8")


def add_to_pages(docs):
    """The toy operation on the pages that have all of them."""
    names = "".join(f"   {NAME}{suffix}\n" for suffix in ("", "_vjp", "_jvp", "_dense"))
    table = ".. autosummary::\n   :nosignatures:\n   :toctree: api\n\n"
    insert(docs / "tour.md", "`kron_trace`.", f"`{NAME}`, ")
    insert(docs / "how-to" / "adapters.md", '"kron_trace": (factors,), ', f'"{NAME}": (factors,), ')
    insert(
        docs / "reference" / "operations.rst",
        ".. rubric:: kron_trace\n",
        f".. rubric:: {NAME}\n\n{table}{names}\n",
    )
    insert(docs / "reference" / "torch.rst", "   kron_trace\n", f"   {NAME}\n")


def run(tree, *arguments):
    """A run of pytest in a tree: its exit status and what it says."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    given = os.environ | {
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_PROFILE": "short",
        "PYTEST_ADDOPTS": "",
    }
    found = subprocess.run(
        command, cwd=tree, env=given, capture_output=True, text=True, encoding="utf-8", check=False
    )
    return found.returncode, found.stdout + found.stderr


def changed(tree):
    """The files that are not as they are here."""
    files = [path.relative_to(tree) for path in tree.rglob("*") if path.is_file()]
    same = [(ROOT / f).is_file() and (ROOT / f).read_bytes() == (tree / f).read_bytes() for f in files]
    return {file.as_posix() for file, kept in zip(files, same, strict=True) if not kept}


def test_a_new_operation_takes_the_files_of_the_page(tree):
    add_operation(tree)
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("## To add an operation\n")[1].split("\n## ")[0]
    named = re.findall(r"^\| `([^`]*)` \|", section, re.MULTILINE)
    assert changed(tree) == {name.replace("NAME", NAME) for name in named}
    # The others are pages for readers.
    assert len([name for name in named if not name.startswith("docs/")]) <= 6


def test_its_suite_passes(tree):
    add_operation(tree)
    files = [f"tests/{name}.py" for name in SUITE]
    status, text = run(tree, *files, f"ketcore/ops/{NAME}.py", "-k", CHOSEN)
    assert status == 0, text
    # The five tests of every operation on NumPy alone are so many, and the doctest is one.
    assert int(re.search(r"(\d+) passed", text)[1]) > 20, text


def test_its_suite_fails_where_a_gradient_is_wrong(tree):
    add_operation(tree)
    insert(tree / "ketcore" / "ops" / f"{NAME}.py", "(pulled * o)", "2 * ")
    status, text = run(tree, "tests/test_ops.py", "-k", f"{NAME} and numpy and transpose and not awkward")
    assert status == 1, text
    assert "gradient 0 must be the transpose of" in text


def test_a_name_that_is_not_exported_is_named(tree):
    before = (tree / "ketcore" / "__init__.py").read_text(encoding="utf-8")
    add_operation(tree)
    (tree / "ketcore" / "__init__.py").write_text(before, encoding="utf-8")
    status, text = run(tree, "tests/test_structure.py", "-k", "exported")
    assert status == 1, text
    assert f"ketcore must export every name, got none for {FUNCTIONS}" in text
