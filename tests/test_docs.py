"""The documentation: its code runs, its links lead somewhere, the files and kernels it names are there."""

import doctest
import re
from pathlib import Path

import pytest

from ketcore.cuda import table
from ketcore.ops import OPS

ROOT = Path(__file__).parent.parent
FOLDERS = (".", "docs", "bench", "examples")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Names of files in backticks, as seen from the root; NAME stands for one that is yet to be.
FILE = re.compile(r"`((?:ketcore|tests|bench|docs|\.ci)/[\w./]*\w)`")


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


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_code_runs(page):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert not failed


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_of_python_is_a_doctest(page):
    blocks = [code for kind, code in FENCE.findall(page.read_text(encoding="utf-8")) if kind == "python"]
    assert all(code.startswith(">>>") for code in blocks)


def test_readme_opens_with_two_commands():
    suite = "python -m pytest -n 2 --dist loadgroup"
    commands = ['pip install ".[demo]" && ketcore demo', f'pip install ".[test]" && {suite}']
    assert [code.strip() for _, code in FENCE.findall(README)][:2] == commands
    # Continuous integration runs the second as it stands here.
    assert f"\n{commands[1]}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"\n{suite}\n" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_readme_has_two_tours_of_at_most_twenty_lines():
    lengths = [code.count(">>>") for kind, code in FENCE.findall(README) if kind == "python"]
    assert len(lengths) == 2
    assert all(12 <= length <= 20 for length in lengths)


def test_readme_names_every_operation():
    assert not [op.name for op in OPS if f"`{op.name}`" not in README]


def test_every_kernel_is_described():
    page = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)\.cu` \|.*\| (\d+) \|$", page, re.MULTILINE)
    counts = {}
    for kernel, _, source in table.TABLE:
        counts[kernel, source] = counts.get((kernel, source), 0) + 1
    assert {(kernel, source): int(count) for kernel, source, count in rows} == counts
