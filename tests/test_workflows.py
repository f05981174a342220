"""Workflows, citation, hooks and forms, held against what the repository says elsewhere."""

import configparser
import re
from pathlib import Path

import pytest

import ketcore as kc

ROOT = Path(__file__).parent.parent
WORKFLOWS = ROOT / ".github" / "workflows"


def text(*parts):
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def test_the_tests_run_on_every_python_that_is_declared():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    declared = re.findall(r"Python :: (3\.\d+)$", settings["metadata"]["classifiers"], re.MULTILINE)
    assert settings["options"]["python_requires"] == f">={declared[0]}"
    tests = text(".github", "workflows", "tests.yml")
    (matrix,) = re.findall(r"python: \[(.*)\]", tests)
    # The first runs all that .ci/run has.
    assert [declared[0], *re.findall(r'"(.*?)"', matrix)] == declared
    assert f'python-version: "{declared[0]}"\n      - run: bash .ci/run\n' in tests
    used = re.findall(r'python-version: "(.*)"', "".join(text(*each) for each in workflows()))
    assert set(used) <= set(declared)


def workflows():
    return [path.relative_to(ROOT).parts for path in sorted(WORKFLOWS.glob("*.yml"))]


def test_the_tests_run_by_the_command_of_the_readme():
    command = re.findall(r"^pip install .*pytest.*$", text("README.md"), re.MULTILINE)[0]
    assert f"- run: {command}\n" in text(".github", "workflows", "tests.yml")


def test_files_that_workflows_name_are_there():
    tests = text(".github", "workflows", "tests.yml")
    named = re.findall(r"\b(?:tests/\w+\.py|README\.md|\.ci/run)\b", tests)
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("parts", workflows(), ids=lambda parts: parts[-1])
def test_a_workflow_may_do_little_and_ends(parts):
    found = text(*parts)
    assert "\npermissions:\n  contents: read\n" in found
    assert "\nconcurrency:\n" in found
    assert found.count("runs-on:") == found.count("timeout-minutes:")
    assert found.count("actions/checkout@") == found.count("persist-credentials: false")


def test_extras_that_are_tested_are_declared():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    named = re.findall(r'pip install "\.\[(\w+)\]"', text(".github", "workflows", "tests.yml"))
    assert set(named) <= {*settings["options.extras_require"]}


def test_the_citation_is_of_this_version():
    found = text("CITATION.cff")
    assert f"\nversion: {kc.__version__}\n" in found
    assert "\nlicense: BSD-3-Clause\n" in found


def test_the_hooks_use_one_ruff():
    assert len({*re.findall(r"ruff==([\d.]+)", text(".pre-commit-config.yaml"))}) == 1


def test_the_form_asks_for_the_report():
    assert "`python -m ketcore`" in text(".github", "ISSUE_TEMPLATE", "bug.yml")
