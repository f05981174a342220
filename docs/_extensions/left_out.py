"""What is not in this build: its pages go, and so do the items of lists that lead there.

Autosummary makes a page of each name, and leaves it there when the name is in no table any more; Sphinx would
take it for a page, and warn that what it describes is not there.
"""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.ext.autosummary.generate import find_autosummary_in_files
from sphinx.util import docname_join


def remove(app):
    """What is in a folder of such pages and is not of a table there."""
    pages = [str(app.env.doc2path(name)) for name in app.env.found_docs]
    entries = [each for each in find_autosummary_in_files(pages) if each.path is not None]
    names = app.config.autosummary_filename_map
    wanted = {Path(each.path) / f"{names.get(each.name, each.name)}.rst" for each in entries}
    for folder in {path.parent for path in wanted}:
        for path in set(folder.glob("*.rst")) - wanted:
            path.unlink()


def unlist(app, doctree):
    """Items that lead to a page which the settings leave out."""
    for item in list(doctree.findall(nodes.list_item)):
        links = [each for each in item.findall(addnodes.pending_xref) if each.get("reftype") == "doc"]
        pages = {docname_join(each["refdoc"], each["reftarget"]) + ".rst" for each in links}
        if pages & set(app.config.exclude_patterns):
            item.parent.remove(item)


def setup(app):
    """Before autosummary makes pages, and after each page is read."""
    app.connect("builder-inited", remove, priority=400)
    app.connect("doctree-read", unlist)
    return {"version": "1", "parallel_read_safe": True}
