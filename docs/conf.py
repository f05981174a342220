"""How Sphinx makes the site of these pages; CONTRIBUTING.md has the command.

Nothing is fetched and no notebook is run.  `_extensions/` says where pages from outside of this folder come
from, what in backticks becomes a link, how formulas are shown, what the page of a class lists, what a build
leaves out, and what the head of a page has.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

from ketcore import __version__  # noqa: E402  (found through the line above)

project = "ketcore"
author = "The ketcore developers"
copyright = author
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "outside_pages",
    "code_links",
    "mathml",
    "class_members",
    "left_out",
    "page_heads",
]
exclude_patterns = ["_extensions", "_templates"]
suppress_warnings = []
for framework in ("torch", "jax"):
    if find_spec(framework) is None:
        exclude_patterns += [f"reference/{framework}.rst"]
        # The reference names that page; `left_out` drops its card.
        suppress_warnings += ["toc.excluded"]
templates_path = ["_templates"]
nitpicky = True
linkcheck_timeout = 20

# Docstrings.  A name in single backticks is code, which `code_links` may make a link.
default_role = "literal"
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
autosummary_filename_map = {"ketcore.ket": "ketcore.ket-function"}  # Ket and ket are one file on some disks
numpydoc_show_class_members = False

# Pages and notebooks.
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_merge_streams = True
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
highlight_options = {language: {"stripnl": True} for language in ("python", "pycon", "default")}
html_math_renderer = "mathml"

html_theme = "pydata_sphinx_theme"
html_title = f"ketcore {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_theme_options = {
    "logo": {"image_light": "_static/wordmark.svg", "image_dark": "_static/wordmark-dark.svg"},
    "navbar_align": "left",
    "collapse_navigation": True,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
