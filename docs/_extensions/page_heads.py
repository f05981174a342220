"""What the head and the side of a page have: its description for search engines, and no list of nothing."""

from html import escape
from textwrap import shorten

from docutils import nodes
from sphinx import addnodes

# What search engines show.
LONGEST = 160


def complete(app, pagename, templatename, context, doctree):
    """The first paragraph as description; the start page is called by the name of the project alone."""
    if doctree is not None:
        context["metatags"] += _description(doctree)
    if pagename == app.config.root_doc:
        context["docstitle"] = ""
    below = app.env.toctree_includes
    if pagename in below[app.config.root_doc] and pagename not in below:
        context["sidebars"] = []  # The theme would show the heading of its list, with nothing below it.


def _description(doctree):
    places = (nodes.document, nodes.section, addnodes.desc_content)
    texts = (each.astext() for each in doctree.findall(nodes.paragraph) if isinstance(each.parent, places))
    text = shorten(next(texts, ""), LONGEST, placeholder=" ...")
    return f'<meta name="description" content="{escape(text)}">' if text else ""


def setup(app):
    """Before the theme, which decides by the lists of a page where its columns are."""
    app.connect("html-page-context", complete, priority=400)
    return {"version": "1", "parallel_read_safe": True}
