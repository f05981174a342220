"""The documentation: its code runs, its links lead somewhere, the files and kernels it names are there."""

import doctest
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from ketcore.cuda import table
from ketcore.ops import OPS
from tests.require import require

ROOT = Path(__file__).parent.parent
KINDS = (".md", ".rst")
FOLDERS = (".", "docs", "docs/how-to", "docs/reference", "bench", "examples")
PAGES = sorted(path for folder in FOLDERS for path in (ROOT / folder).iterdir() if path.suffix in KINDS)
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
OF_TORCH_NAMES = (
    "torch.md",
    "transformers.md",
    "how-to/many_machines.md",
    "how-to/teacher.md",
    "how-to/torch_layer.md",
    "reference/torch.rst",
)
OF_TORCH = {ROOT / "docs" / name for name in OF_TORCH_NAMES}
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
IMPORTED = re.compile(r"^>>> (?:import|from) (\w+)", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Names of files in backticks, as seen from the root; NAME stands for one that is yet to be.
FILE = re.compile(r"`((?:ketcore|tests|bench|docs|\.ci)/[\w./]*\w)`")

# Names with a point in backticks, and bare names of files, as pages, docstrings and comments have them.
DOTTED = re.compile(r"`(\w+(?:\.\w+)+)(?:\(\))?`")
FILE_NAME = re.compile(r"\w+\.(?:py|cu|cuh|cpp|hpp|md|txt|json|png|cfg)")
BARE_FILE = re.compile(r"(?<![\w/*-])(\w+\.(?:py|cu|cuh|cpp|hpp))\b")
KINDS = ("py", "cu", "cuh", "cpp", "hpp")
SOURCES = sorted(path for kind in KINDS for path in (ROOT / "ketcore").rglob(f"*.{kind}"))
# Names that begin with one of these are of other packages, or of arguments; these two are so as a whole.
ELSEWHERE = {"np", "xp", "jax", "torch", "nn", "scipy", "cola", "tests", "bench", "A", "op", "launch"}
# What modules of torch are called in examples.
ELSEWHERE |= {"model", "base", "wo", "keras"}
OF_ARGUMENTS = {"lookup.dtype", "table.vjp"}


def prose(text):
    """A page without its blocks of code."""
    return FENCE.sub("", text)


def anchors(text):
    """What the headings of a page may be linked by, as GitHub and most others make them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files(page):
    for link in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page):
    names = [name for name in FILE.findall(page.read_text(encoding="utf-8")) if "NAME" not in name]
    assert not [name for name in names if not (ROOT / name).exists()]


def is_of_torch(path):
    """Whether a source or a page cannot be understood without PyTorch."""
    return "torch" in path.relative_to(ROOT / "ketcore").parts if path.suffix == ".py" else path in OF_TORCH


def package(with_torch):
    """Everything of the package that has attributes, by its full name and by the last part of that."""
    found = {}
    for path in (ROOT / "ketcore").rglob("*.py"):
        if path.parent.name == "jax" and not find_spec("jax"):
            continue
        if is_of_torch(path) and not (with_torch and (path.stem != "peft_layers" or find_spec("peft"))):
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        module = import_module(name)
        classes = [each for each in vars(module).values() if isinstance(each, type)]
        found |= {each.__name__: each for each in classes if each.__module__ == name}
        found |= {name: module, name.rpartition(".")[2]: module}
    return found


def is_there(name, owners):
    """Whether some module or class that the first parts of a name give has what the last part says."""
    owner, _, last = name.rpartition(".")
    return name in owners or (owner in owners and hasattr(owners[owner], last))


@pytest.mark.parametrize("part", ["of torch", "of the rest"])
def test_names_that_prose_gives_exist(part):
    with_torch = part == "of torch"
    if with_torch:
        require("torch", find_spec("torch") is not None, "torch is not installed")
    owners = package(with_torch)
    pages = [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "bench"]
    wrong = []
    for path in (each for each in (*pages, *SOURCES) if is_of_torch(each) is with_torch):
        for name in DOTTED.findall(path.read_text(encoding="utf-8")):
            elsewhere = name.partition(".")[0] in ELSEWHERE or name in OF_ARGUMENTS
            elsewhere |= not with_torch and name.startswith("ketcore.torch")
            elsewhere |= name.startswith("ketcore.jax") and not find_spec("jax")
            if not (elsewhere or is_there(name, owners) or FILE_NAME.fullmatch(name)):
                wrong.append(f"{path.relative_to(ROOT)} speaks of {name}")
    assert not wrong


def test_files_that_sources_speak_of_exist():
    files = {path.name for path in SOURCES}
    found = ((path, name) for path in SOURCES for name in BARE_FILE.findall(path.read_text(encoding="utf-8")))
    assert not [f"{path.relative_to(ROOT)} speaks of {name}" for path, name in found if name not in files]


# What linear_operator does with PyTorch, which warns of it.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_code_runs(page):
    for name in set(IMPORTED.findall(page.read_text(encoding="utf-8"))):
        require(name, find_spec(name) is not None, f"{name} is not installed")
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert not failed


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_of_python_is_a_doctest(page):
    blocks = [code for kind, code in FENCE.findall(page.read_text(encoding="utf-8")) if kind == "python"]
    assert all(code.startswith(">>>") for code in blocks)


def test_readme_opens_with_two_commands():
    suite = "python -m pytest -n 2 --dist loadgroup"
    commands = ['pip install ".[demo]" && ketcore demo', f'pip install -e ".[test]" && {suite}']
    assert [code.strip() for _, code in FENCE.findall(README)][:2] == commands
    # Continuous integration runs the second as it stands here.
    assert f"\n{commands[1]}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"\n{suite}\n" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def prompts(page):
    """How many statements each block of examples of a page has."""
    return [code.count(">>>") for kind, code in FENCE.findall(page) if kind == "python"]


def test_readme_has_a_tour_of_at_most_twenty_lines():
    (length,) = prompts(README)
    assert 12 <= length <= 20


def test_readme_fits_on_two_screens():
    assert len(README.splitlines()) <= 120


def test_the_tour_comes_in_pieces_of_at_most_twenty_lines():
    lengths = prompts(TOUR)
    assert max(lengths) <= 20
    # What the README had before it, a table and an operator, of 12 lines at least each.
    assert sum(lengths) >= 24


def test_the_tour_names_every_operation():
    assert not [op.name for op in OPS if f"`{op.name}`" not in TOUR]


def test_every_kernel_is_described():
    page = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)\.cu` \|.*\| (\d+) \|$", page, re.MULTILINE)
    counts = {}
    for kernel, _, source in table.TABLE:
        counts[kernel, source] = counts.get((kernel, source), 0) + 1
    assert {(kernel, source): int(count) for kernel, source, count in rows} == counts
