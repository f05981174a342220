"""What stands in backticks and is in the reference becomes a link to it: in pages and in docstrings alike.

`kron_matmul`, `kc.linalg.solve` and `KroneckerMatrix.row_kets` are found anywhere; in what is said of a class
or of a module, so are their own names without it.  The arguments of the function at hand, and the thing
itself, stay code.
"""

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

# What modules are called in examples, and where pages look for a name that has no module.  Not in
# ketcore.testing: its strategies have the names of arguments.
SHORT = {"kc.": "ketcore.", "kt.": "ketcore.torch."}
MODULES = ("ketcore", "ketcore.linalg", "ketcore.torch")


class CodeLinks(SphinxPostTransform):
    """After references are resolved, since what they have made of code is left as it is."""

    default_priority = 200
    formats = ("html",)

    def run(self, **kwargs):
        """Every literal that is not part of a link, a heading or a signature."""
        objects = self.env.domains.python_domain.objects
        for literal in list(self.document.findall(nodes.literal)):
            above = {type(each) for each in _above(literal)}
            if above & {nodes.reference, nodes.title, addnodes.desc_signature, nodes.topic}:
                continue
            found = self._found(literal, objects)
            if found:
                page, anchor = objects[found].docname, objects[found].node_id
                link = make_refnode(self.app.builder, self.env.docname, page, anchor, [], found)
                literal.replace_self(link)
                link += literal

    def _found(self, literal, objects):
        """The full name of what a literal means; None where that is nothing of the reference."""
        text = literal.astext()
        name = text.removesuffix("()")
        for short, module in SHORT.items():
            name = name.replace(short, module, 1) if name.startswith(short) else name
        signature = _signature(literal)
        if signature is None:
            # In a page `name()` is a method of what is spoken of.
            alone = text.endswith("()") and "." not in name
            names = [] if alone else [name, *(f"{module}.{name}" for module in MODULES)]
        else:
            arguments = {each.astext() for each in signature.findall(addnodes.desc_parameter)}
            if name in {argument.lstrip("*").partition("=")[0] for argument in arguments}:
                return None
            module, owner = signature["module"], signature["class"] or signature["fullname"]
            names = [f"{module}.{owner}.{name}", f"{module}.{name}", f"ketcore.{name}", name]
            names = names if f"{module}.{signature['fullname']}" not in names[:2] else []
        return next((each for each in names if each in objects), None)


def _above(node):
    while node.parent is not None:
        node = node.parent
        yield node


def _signature(node):
    """The signature of the nearest description that a node is part of."""
    found = next((each for each in _above(node) if isinstance(each, addnodes.desc)), None)
    return None if found is None or found["domain"] != "py" else found[0]


def from_top(app, env, node, text):
    """Where a module lacks what is referred to, as See Also does: the name in ketcore."""
    found = env.domains.python_domain.objects.get(f"ketcore.{node['reftarget']}")
    if node.get("refdomain") != "py" or found is None:
        return None
    return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, text)


def setup(app):
    """What has no role, and what has one."""
    app.add_post_transform(CodeLinks)
    app.connect("missing-reference", from_top)
    return {"version": "1", "parallel_read_safe": True}
