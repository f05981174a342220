"""What the site's build does by itself: what it leaves out, and where links of other pages lead."""

import runpy
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.require import require

EXTENSIONS = Path(__file__).parent.parent / "docs" / "_extensions"
TABLE = """
.. currentmodule:: ketcore

.. autosummary::
   :toctree: api

   rows
   ket
"""


def extension(name):
    require("numpydoc", find_spec("sphinx") is not None, "sphinx is not installed")
    return runpy.run_path(str(EXTENSIONS / f"{name}.py"))


def test_pages_of_names_that_are_in_no_table_are_removed(tmp_path):
    (tmp_path / "operations.rst").write_text(TABLE, encoding="utf-8")
    (tmp_path / "api").mkdir()
    for name in ("ketcore.rows", "ketcore.ket-function", "ketcore.gone"):
        (tmp_path / "api" / f"{name}.rst").touch()
    environment = SimpleNamespace(found_docs=["operations"], doc2path=lambda name: tmp_path / f"{name}.rst")
    config = SimpleNamespace(autosummary_filename_map={"ketcore.ket": "ketcore.ket-function"})
    extension("left_out")["remove"](SimpleNamespace(env=environment, config=config))
    left = {path.name for path in (tmp_path / "api").iterdir()}
    assert left == {"ketcore.rows.rst", "ketcore.ket-function.rst"}


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("../README.md#results", "../benchmarks.md#accuracy-at-a-size"),
        ("../README.md", "../index.md"),
        ("../docs/tour.md#kets", "../tour.md#kets"),
        ("../CHANGELOG.md", "../project/changes.md"),
    ],
)
def test_links_from_a_notebook_lead_to_pages_of_the_site(target, found):
    outside = extension("outside_pages")
    page = "examples/qubits.ipynb"
    text = outside["LINK"].sub(
        lambda link: outside["_relinked"](link, page, outside["ROOT"] / page), f"[x]({target})"
    )
    assert text == f"[x]({found})"
