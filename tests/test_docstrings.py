"""Docstrings are in numpydoc's form, so that Sphinx, Jupyter and editors can read them.

ruff's rules D look at every docstring of the package; here numpydoc itself reads those of what a user sees,
and says what of the parameters and of what is returned is not there.
"""

import ast
import inspect
import operator
import pydoc
import re
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import ketcore
from tests.require import require
from tests.test_reference import PUBLIC

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ketcore"

# The argument tables that the docstrings once had, and what a conversion leaves behind.
TABLE = re.compile(r"^ *(returns|raises|cost|options)  +\S|\bTODO\b", re.MULTILINE)
# What numpydoc finds wrong, by its codes: sections and their order, summaries, parameters, returns, yields.
ENFORCED = re.compile(r"GL0[35678]|GL10|SS0[136]|PR(?!06)\d\d|RT0[1245]|YD01|SA0[234]")
# What functions return: the example is that of the function.
RETURNED = {"EigResult", "LstsqResult", "QRResult", "SVDResult", "SlogdetResult", "GaussianPosterior"}
RETURNED |= {"PeftPatch", "Replaced", "Skipped", "TopK"}


def docstrings():
    """Where each docstring of the package stands, and what it says."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT)}:{node.body[0].lineno}", text


def members(owner, name):
    """The public methods and properties of a class of ours, by their full names."""
    found = [each for each in dir(owner) if not each.startswith("_")]
    for each in found:
        held = inspect.getattr_static(owner, each)
        defined = inspect.unwrap(getattr(held, "__func__", getattr(held, "fget", getattr(owner, each))))
        if inspect.isfunction(defined) and (defined.__module__ or "").startswith("ketcore"):
            yield f"{name}.{each}"


def exported(module):
    """The names of the functions and classes of a module that are for users."""
    return [name for name in dir(module) if callable(getattr(module, name))]


def public_names(package):
    """What a package exports and can be called, and the methods of its classes, by full names."""
    module = import_module(package)
    for name in exported(module):
        value = getattr(module, name)
        yield f"{package}.{name}"
        if inspect.isclass(value):
            yield from members(value, f"{package}.{name}")


def complaints(name):
    """What numpydoc has against the docstring of a name."""
    from numpydoc.validate import validate

    with warnings.catch_warnings():
        # numpydoc reads sources, and leaves files open.
        warnings.simplefilter("ignore", ResourceWarning)
        report = validate(name)
    # Results have attributes where others have parameters.
    of_results = {"PR01"} if re.search("^ *Attributes\n", report["docstring"] or "", re.MULTILINE) else set()
    for code, text in report["errors"]:
        if ENFORCED.fullmatch(code) and code not in of_results:
            yield f"{name}: {code} {text}"


def require_framework(package):
    for name in ("torch", "jax"):
        if name in package:
            require(name, find_spec(name) is not None, f"{name} is not installed")


@pytest.mark.parametrize("package", PUBLIC)
def test_numpydoc_finds_all_parameters_and_returns(package):
    require("numpydoc", find_spec("numpydoc") is not None, "numpydoc is not installed")
    require_framework(package)
    names = list(public_names(package))
    assert len(names) > 10 or package == "ketcore.jax"
    wrong = [each for name in names for each in complaints(name)]
    assert not wrong, "\n".join(wrong)


def test_no_docstring_has_a_table_of_its_own():
    wrong = [f"{place}: {found[0]!r}" for place, text in docstrings() if (found := TABLE.search(text))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PUBLIC[:5])
def test_public_functions_and_classes_have_an_example(package):
    require_framework(package)
    module = import_module(package)
    bare = {name for name in exported(module) if ">>>" not in (inspect.getdoc(getattr(module, name)) or "")}
    # Derivatives and definitions have that of their operation.
    assert not {name for name in bare - RETURNED if not name.endswith(("_vjp", "_jvp", "_dense"))}


def test_help_of_the_package_is_one_screen():
    text = pydoc.plain(pydoc.render_doc(ketcore))
    assert "KroneckerMatrix, KroneckerSum" in text
    assert text.count("\n") <= 60


def test_help_of_the_package_names_what_it_exports():
    named = set(re.findall(r"\w+", ketcore.__doc__))
    derived = {op.name + suffix for op in ketcore.OPS for suffix in ("_vjp", "_jvp", "_dense")}
    assert not set(dir(ketcore)) - derived - named - {"__version__"}


def value(name, package):
    """What a full name of a package stands for: of a class the function itself, also of a class method."""
    found = import_module(package)
    for part in name.removeprefix(f"{package}.").split("."):
        found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
    return getattr(found, "__func__", found)


def defaults(name, package):
    """The parameters of a name whose types do not say the default that the signature has."""
    from numpydoc.docscrape import NumpyDocString

    function = value(name, package)
    told = {}
    for names, kind, _ in NumpyDocString(inspect.getdoc(function))["Parameters"]:
        # What is as elsewhere has no type, and of `*names` each may be left out.
        told |= dict.fromkeys(names.split(", "), kind) if kind and "*" not in names else {}
    for argument, kind in told.items():
        default = inspect.signature(function).parameters[argument].default
        said = re.search(r"\bdefault (.*)$", kind)
        if default is inspect.Parameter.empty:
            right = not said and "optional" not in kind
        elif said:
            right = eval(said[1], {"np": np, "operator": operator}) == default
        else:
            # Only what has no short name may go without it.
            right = "optional" in kind and (default is None or callable(default))
        if not right:
            yield f"{name}: {argument} : {kind}"


@pytest.mark.parametrize("package", PUBLIC)
def test_types_of_parameters_say_their_defaults(package):
    require("numpydoc", find_spec("numpydoc") is not None, "numpydoc is not installed")
    require_framework(package)
    named = [each for each in public_names(package) if inspect.getdoc(value(each, package))]
    wrong = [each for name in named if callable(value(name, package)) for each in defaults(name, package)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PUBLIC)
def test_dir_shows_public_names_only(package):
    """Also after everything has been imported, so that packages of ours are there by name."""
    require_framework(package)
    shown = set(dir(import_module(package)))
    packages = {name for name in shown if inspect.ismodule(getattr(import_module(package), name))}
    assert packages <= {"linalg", "testing", "torch", "jax", "functional"}
    assert not {name for name in shown - {"__version__"} if name.startswith("_")}
