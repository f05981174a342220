"""Workflows, citation, hooks and forms, held against what the repository says elsewhere."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest

import ketcore as kc

ROOT = Path(__file__).parent.parent
WORKFLOWS = ROOT / ".github" / "workflows"


def text(*parts):
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def workflows():
    return [path.relative_to(ROOT).parts for path in sorted(WORKFLOWS.glob("*.yml"))]


def every_workflow():
    return "".join(text(*parts) for parts in workflows())


def setup_cfg():
    """The sections of setup.cfg."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings


def test_the_tests_run_on_every_python_that_is_declared():
    settings = setup_cfg()
    declared = re.findall(r"Python :: (3\.\d+)$", settings["metadata"]["classifiers"], re.MULTILINE)
    assert settings["options"]["python_requires"] == f">={declared[0]}"
    tests = text(".github", "workflows", "tests.yml")
    (matrix,) = re.findall(r"python: \[(.*)\]", tests)
    # The first runs all that .ci/run has.
    assert [declared[0], *re.findall(r'"(.*?)"', matrix)] == declared
    assert f'python-version: "{declared[0]}"\n      - run: bash .ci/run\n' in tests
    used = re.findall(r'python-version: "(.*)"', every_workflow())
    assert set(used) <= set(declared)


def test_the_tests_run_by_the_command_of_the_readme():
    command = re.findall(r"^pip install .*pytest.*$", text("README.md"), re.MULTILINE)[0]
    assert f"- run: {command}\n" in text(".github", "workflows", "tests.yml")


def test_the_site_is_made_by_the_commands_of_contributing():
    block = text("CONTRIBUTING.md").partition("## Documentation")[2].split("```")[1]
    commands = [line.replace("install -e", "install") for line in block.strip().splitlines()]
    steps = "".join(f"      - run: {command}\n" for command in commands)
    assert steps in text(".github", "workflows", "docs.yml")
    # In .ci/run more quietly, and into another folder.
    for command in commands[1:]:
        assert re.search(f"^{re.match('.*keep-going|.*py', command)[0]} ", text(".ci", "run"), re.MULTILINE)


def test_rules_of_docstrings_are_on():
    settings = tomllib.loads(text("ruff.toml"))["lint"]
    assert "D" in settings["select"]
    assert {rule for rule in settings["ignore"] if rule.startswith("D")} == {"D105", "D401"}


def test_files_that_workflows_name_are_there():
    named = re.findall(r"\b(?:(?:tests|docs)/\w+\.py|README\.md)\b|\.ci/run\b", every_workflow())
    assert {"README.md", ".ci/run", "docs/check_site.py"} < {*named}
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("parts", workflows(), ids=lambda parts: parts[-1])
def test_a_workflow_calls_what_it_installs(parts):
    """A name that is misspelt would be found by the first run elsewhere, and no sooner."""
    found = text(*parts)
    installed = {*" ".join(re.findall(r"pip install ([a-z -]+)", found)).split()}
    extras = "".join(setup_cfg()["options.extras_require"].values())
    modules = installed | {*re.findall(r"^([\w-]+)", extras, re.MULTILINE), "ketcore", "venv"}
    assert {*re.findall(r"python -m (\S+)", found)} <= modules
    assert {*re.findall(r"- run: ([^>\s]+)", found)} <= installed | {"pip", "python", "bash", "test"}


@pytest.mark.parametrize("parts", workflows(), ids=lambda parts: parts[-1])
def test_a_workflow_may_do_little_and_ends(parts):
    found = text(*parts)
    assert "\npermissions:\n  contents: read\n" in found
    assert "\nconcurrency:\n" in found
    assert found.count("runs-on:") == found.count("timeout-minutes:")
    assert found.count("actions/checkout@") == found.count("persist-credentials: false")


def test_extras_that_are_installed_are_declared():
    named = re.findall(r"\.\[([\w,]+)\]", every_workflow() + text(".ci", "run"))
    assert {"test", "docs"} <= {*",".join(named).split(",")} <= {*setup_cfg()["options.extras_require"]}


def test_the_citation_is_of_this_version():
    found = text("CITATION.cff")
    assert f"\nversion: {kc.__version__}\n" in found
    assert "\nlicense: BSD-3-Clause\n" in found


def test_the_hooks_use_one_ruff():
    assert len({*re.findall(r"ruff==([\d.]+)", text(".pre-commit-config.yaml"))}) == 1


def test_the_form_asks_for_the_report():
    assert "`python -m ketcore`" in text(".github", "ISSUE_TEMPLATE", "bug.yml")


def test_the_sdist_has_what_its_tests_and_checkers_read():
    named = set(" ".join(re.findall(r"^include (.*)$", text("MANIFEST.in"), re.MULTILINE)).split())
    # These are there without being named.
    named |= {"README.md", "LICENSE", "pyproject.toml", "setup.cfg"}
    files = {
        path.name for pattern in ("*.py", "*.json", "*.toml", "*.cff", "*.cfg") for path in ROOT.glob(pattern)
    }
    assert {"conftest.py", "pyrightconfig.json"} < files <= named
