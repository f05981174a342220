"""The reference names every public name once and nothing else: its pages read as text, without Sphinx."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from ketcore.cli import main

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
# Every name that they export is public; of other modules the reference has what public functions return.
PUBLIC = (
    "ketcore",
    "ketcore.linalg",
    "ketcore.testing",
    "ketcore.jax",
    "ketcore.torch",
    "ketcore.torch.functional",
)
# These have a page and no line: modules, and the number of the version.
ELSEWHERE = {"linalg", "functional", "__version__"}


def tree(module):
    """The syntax tree of a module, by its full name."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def public_names(module):
    """What `__all__` of a module says; without one, what it defines, or imports as its own."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return set(ast.literal_eval(node.value))
    imported = [node for node in tree(module).body if isinstance(node, ast.ImportFrom)]
    exported = {alias.asname for node in imported for alias in node.names if alias.asname == alias.name}
    defined = {node.name for node in tree(module).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return exported | {name for name in defined if not name.startswith("_")}


def referred():
    """The pairs of module and name in all tables of the reference."""
    for page in sorted(REFERENCE.glob("*.rst")):
        module = None
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith(".. currentmodule:: "):
                module = line.rpartition(" ")[2]
            elif re.fullmatch(r"   [\w.]+", line) and module:
                yield module, line.strip()


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module):
    found = {name for place, name in referred() if place == module}
    assert sorted(public_names(module) - ELSEWHERE - found) == []


def test_what_the_reference_names_exists():
    assert not [f"{module}.{name}" for module, name in referred() if name not in public_names(module)]


def test_the_reference_names_everything_once():
    assert not [name for name, count in Counter(referred()).items() if count > 1]


def test_every_page_of_the_reference_is_listed():
    text = (REFERENCE / "index.rst").read_text(encoding="utf-8")
    listed = set(re.findall(r"^   (\w+)$", text, re.MULTILINE))
    assert listed == {page.stem for page in REFERENCE.glob("*.rst")} - {"index"}


def test_every_option_of_the_commands_is_in_the_reference(capsys):
    page = (REFERENCE / "command_line.rst").read_text(encoding="utf-8")
    sections = re.split(r"^ketcore (\w+)[ A-Z]*\n-+$", page, flags=re.MULTILINE)
    told = dict(zip(sections[1::2], sections[2::2], strict=True))
    for command in ("demo", "compress", "decompress", "inspect"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        options = set(re.findall(r"--\w+", capsys.readouterr().out)) - {"--help"}
        assert options == set(re.findall(r"``(--\w+)[ `]", told.get(command, ""))), command
