"""`python docs/check_site.py build/site`: a built site is checked as a reader uses it, without a network.

What every link leads to must be there, be it a page or a place in one, and so must every picture, script and
style sheet. None of these may be fetched from elsewhere. objects.inv, by which other sites link to this one,
must have every public name.
"""

import re
import sys
from html.parser import HTMLParser
from importlib import import_module
from importlib.util import find_spec
from inspect import ismodule
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util.inventory import InventoryFile

MODULES = ("ketcore", "ketcore.linalg", "ketcore.testing", "ketcore.jax", "ketcore.torch")
MODULES += ("ketcore.torch.functional",)
# What a browser fetches by itself, by tag; other links are followed by readers.
FETCHED = {"script", "img", "source", "iframe", "link"}
# Relations of <link> that are followed and not fetched.
FOLLOWED = {"next", "prev", "index", "search", "author", "copyright", "canonical"}
ADDRESS = re.compile(r"url\(\s*['\"]?(?!data:|#)([^'\")]+)")


class Page(HTMLParser):
    """The ids of a page, and what it refers to: (address, whether a browser fetches it)."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.references = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Note the ids and addresses of one tag."""
        found = dict(attributes)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        fetched = tag in FETCHED and found.get("rel") not in FOLLOWED
        self.references += [(found[key], fetched) for key in ("href", "src") if found.get(key)]


def wrong_reference(root, pages, path, address, fetched):
    """What is wrong with an address in the file `path`; None where nothing is."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        remote = parts.scheme in ("http", "https") or parts.netloc
        return "is fetched from elsewhere" if fetched and remote else None
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_relative_to(root) or not target.is_file():
        return "leads to no file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].ids:
        return "leads to no place in its page"
    return None


def html_pages(root):
    """The pages; the theme has templates among its scripts."""
    return [path for path in sorted(root.rglob("*.html")) if path.relative_to(root).parts[0] != "_static"]


def wrong_links(root):
    """Lines on addresses, of pages and of style sheets."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in html_pages(root)}
    addresses = [(path, *reference) for path, page in pages.items() for reference in page.references]
    for path in root.rglob("*.css"):
        addresses += [(path, each, True) for each in ADDRESS.findall(path.read_text(encoding="utf-8"))]
    for path, address, fetched in dict.fromkeys(addresses):
        wrong = wrong_reference(root, pages, path, address, fetched)
        if wrong:
            yield f"{path.relative_to(root)}: {address} {wrong}"


def missing_names(root):
    """Lines on public names that objects.inv does not have."""
    inventory = InventoryFile.loads((root / "objects.inv").read_bytes(), uri="")
    known = {name for kind in inventory.data if kind.startswith("py:") for name in inventory.data[kind]}
    for module in MODULES:
        if any(name in module and find_spec(name) is None for name in ("torch", "jax")):
            continue
        found = import_module(module)
        names = set(getattr(found, "__all__", dir(found))) - {"__version__"}
        names = {f"{module}.{name}" for name in names if not ismodule(getattr(found, name))}
        yield from (f"objects.inv has no {name}" for name in sorted(names - known))


def main(folder):
    """Print what is wrong, and return how much that is."""
    root = Path(folder).resolve()
    wrong = [*wrong_links(root), *missing_names(root)]
    print(*wrong, sep="\n")
    print(f"{len(html_pages(root))} pages, {len(wrong)} faults")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1]), 1))
