"""Pages that lie outside of docs/: copied in before the build, and links between all pages made right.

A link in a page is written for a reader of the checkout.  One that leads to another page of the site leads
there in the site too, wherever that page has been copied to.  One to a text, such as results, takes
that file along.  One to another file, a source or a licence, has no target there and becomes its name.
"""

import os
import re
import shutil
from pathlib import Path

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
# Where copies go, by where the pages are.  .gitignore has the folders.
COPIES = {
    "CHANGELOG.md": "project/changes.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "bench/README.md": "project/bench.md",
    "examples/README.md": "examples/index.md",
}
NOTEBOOKS = sorted(f"examples/{path.name}" for path in (ROOT / "examples").glob("*.ipynb"))
COPIES |= {path: path for path in NOTEBOOKS}
# What a page needs in the site alone: the pages below it.
TREES = {"examples/index.md": [Path(path).stem for path in NOTEBOOKS]}
# What has no page of its own, but one that says the same under other headings.
STANDS_FOR = {"README.md": "index.md", "README.md#results": "benchmarks.md#accuracy-at-a-size"}

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s:]+)\)")


def copy(app, config):
    """Copy what has changed; what has not keeps its time, so that Sphinx does not read it again.

    A copy of what is no longer there goes: Sphinx would take it for a page.
    """
    for folder in {(DOCS / target).parent for target in COPIES.values()}:
        for path in folder.glob("*.*"):
            if path.relative_to(DOCS).as_posix() not in COPIES.values():
                path.unlink()
    for source, target in COPIES.items():
        path = DOCS / target
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_bytes() != (ROOT / source).read_bytes():
            shutil.copyfile(ROOT / source, path)


def relink(app, docname, source):
    """Rewrite the links of a page, or of a notebook's text, in place."""
    page = Path(app.env.doc2path(docname)).relative_to(DOCS).as_posix()
    origins = {target: ROOT / origin for origin, target in COPIES.items()}
    origin = origins.get(page, DOCS / page)
    if page.endswith((".md", ".ipynb")):
        source[0] = LINK.sub(lambda link: _relinked(link, page, origin), source[0])
    if page in TREES:
        source[0] += "\n".join(["\n:::{toctree}", ":hidden:", "", *TREES[page], ":::", ""])


def _relinked(link, page, origin):
    text, target = link.groups()
    path, mark, anchor = target.partition("#")
    file = Path(os.path.normpath(origin.parent / path))
    if not path or not file.is_relative_to(ROOT) or not file.exists():
        return link[0]
    name = file.relative_to(ROOT).as_posix()
    here = COPIES.get(name)
    if name in STANDS_FOR:
        here, mark, anchor = STANDS_FOR.get(f"{name}#{anchor}", STANDS_FOR[name]), "", ""
    elif file.is_relative_to(DOCS) and file.suffix in (".md", ".rst"):
        here = file.relative_to(DOCS).as_posix()
    if here is not None:
        return f"[{text}]({_relative(DOCS / here, page)}{mark}{anchor})"
    if file.suffix == ".txt":
        return f"[{text}]({_relative(file, page)})"
    return f"`{name}`" if name.endswith(text.strip("`")) else f"{text} (`{name}`)"


def _relative(file, page):
    return Path(os.path.relpath(file, (DOCS / page).parent)).as_posix()


def setup(app):
    """Before pages are looked for, and before each is parsed."""
    app.connect("config-inited", copy)
    app.connect("source-read", relink)
    return {"version": "1", "parallel_read_safe": True}
