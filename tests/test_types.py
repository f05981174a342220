"""mypy and pyright: over the package, the code of README and tour, and files of right and wrong uses."""

import json
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.require import require

# One worker runs each checker, once for all tests: it takes a minute and more.
pytestmark = pytest.mark.xdist_group("types")

ROOT = Path(__file__).parent.parent
USES = {"numpy": "typing_uses.py", "torch": "typing_uses_torch.py"}
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REVEALED = re.compile(r'(?:Revealed type is|Type of ".*" is) "(.*)"$', re.DOTALL)


def installed(name):
    """The library, or a test that does not run."""
    require(name, find_spec(name) is not None, f"{name} is not installed")


@pytest.fixture(scope="session")
def found(tmp_path_factory):
    """What a checker says of everything: (file, line, error or "", text), in one run of it each."""
    folder = tmp_path_factory.mktemp("types")
    uses = [file for name, file in USES.items() if find_spec(name) is not None]
    for file in uses:
        (folder / file).write_text((ROOT / "tests" / file).read_text(encoding="utf-8"), encoding="utf-8")
    pages = {"readme.py": "README.md", "tour.py": "docs/tour.md"}
    for file, page in pages.items():
        (folder / file).write_text(examples(page), encoding="utf-8")
    paths = [str(ROOT / "ketcore"), *(str(folder / file) for file in (*uses, *pages))]

    @cache
    def run(checker):
        installed(checker)
        return {"mypy": mypy, "pyright": pyright}[checker](folder, paths)

    return run


def examples(page):
    """The lines of a page's examples that Python would run, one block after another."""
    blocks = FENCE.findall((ROOT / page).read_text(encoding="utf-8"))
    code = [line[4:] for block in blocks for line in block.splitlines() if line[:4] in (">>> ", "... ")]
    # A prompt shows what an expression is worth, which a file does not.
    return "\n".join(["# pyright: reportUnusedExpression=false", *code, ""])


def mypy(_, paths):
    # With mypy's own cache, beside setup.cfg: what has not changed since the last run is not read again.
    options = ["--config-file=setup.cfg", "--show-absolute-path"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--no-pretty", "--no-error-summary", *paths],
        cwd=ROOT, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    line = re.compile(r"^(.*?):(\d+): (error|note): (.*?)(?:  \[([\w-]+)\])?$")
    said = [match.groups() for match in map(line.match, result.stdout.splitlines()) if match]
    assert said, result.stdout + result.stderr
    return [
        (Path(path).name if "ketcore" not in Path(path).parts else path, int(number), code or "", text)
        for path, number, kind, text, code in said
        if kind == "error" or REVEALED.search(text)
    ]


def pyright(folder, paths):
    settings = folder / "pyrightconfig.json"
    own = re.sub(r"^\s*//.*\n", "", (ROOT / "pyrightconfig.json").read_text(encoding="utf-8"), flags=re.M)
    merged = json.loads(own) | {"include": paths, "extraPaths": [str(ROOT)]}
    settings.write_text(json.dumps(merged), encoding="utf-8")
    options = ["-p", str(settings), "--pythonpath", sys.executable, "--outputjson"]
    result = subprocess.run(
        [sys.executable, "-m", "pyright", *options],
        cwd=ROOT, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert result.stdout.startswith("{"), result.stdout + result.stderr
    return [
        (
            Path(said["file"]).name if "ketcore" not in Path(said["file"]).parts else said["file"],
            said["range"]["start"]["line"] + 1,
            said.get("rule", "error") if said["severity"] != "information" else "",
            said["message"],
        )
        for said in json.loads(result.stdout)["generalDiagnostics"]
    ]


CHECKERS = pytest.mark.parametrize("checker", ["mypy", "pyright"])


@pytest.mark.xdist_group("types")
@CHECKERS
def test_the_package_and_the_pages_have_no_errors(found, checker):
    errors = [each for each in found(checker) if each[2] and each[0] not in USES.values()]
    # What derives from classes of a framework cannot be read without them.
    missing = [ROOT / "ketcore" / name for name in ("torch", "jax") if find_spec(name) is None]
    errors = [each for each in errors if Path(each[0]).parent not in missing]
    assert not errors, "\n".join(f"{file}:{line}: {text} [{code}]" for file, line, code, text in errors)


@pytest.mark.xdist_group("types")
@CHECKERS
@pytest.mark.parametrize("library", USES)
def test_uses(found, checker, library):
    installed(library)
    said = [each[1:] for each in found(checker) if each[0] == USES[library]]
    lines = (ROOT / "tests" / USES[library]).read_text(encoding="utf-8").splitlines()
    expected, seen = {}, {}
    for number, line in enumerate(lines, 1):
        beside = expectation(line, checker)
        if beside:
            expected[number] = beside
    for number, code, text in said:
        revealed = None if code else REVEALED.search(text)
        seen.setdefault(number, set()).add(short(revealed[1]) if revealed else code)
    wrong = [
        f"line {number}: {lines[number - 1].strip()}: got {seen.get(number)}"
        for number in sorted(expected.keys() | seen.keys())
        if expected.get(number) not in seen.get(number, ())
    ]
    assert not wrong, "\n".join(wrong)


def expectation(line, checker):
    """The type or the error that stands beside a line."""
    code, _, comment = line.partition("  # ")
    if code.lstrip().startswith("reveal_type("):
        return comment
    if comment.startswith("wrong: "):
        mypys, pyrights = comment.removeprefix("wrong: ").split(", ")
        return mypys if checker == "mypy" else pyrights
    return None


def short(text):
    """A type without modules, and ndarray without the shape and dtype, which no signature promises."""
    text = re.sub(r".*fallback=(.*)\]$", r"\1", text)
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)
    while "ndarray[" in text:
        start = text.index("ndarray[") + len("ndarray")
        stop, depth = start + 1, 1
        while depth:
            depth += {"[": 1, "]": -1}.get(text[stop], 0)
            stop += 1
        text = text[:start] + text[stop:]
    return text


def test_there_are_enough_uses():
    text = (ROOT / "tests" / USES["numpy"]).read_text(encoding="utf-8")
    assert text.count("    reveal_type(") >= 40
    assert text.count("  # wrong: ") >= 20
