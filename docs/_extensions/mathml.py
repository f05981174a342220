"""Formulas of notebooks as MathML, which browsers show without a script and without a network."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

# A fraction of two single letters or digits, which the converter would take for one number.
SHORT = re.compile(r"(\\[dt]?frac) ?(\w)(\w)")
# Where the name of a function touches what stands before it, or an argument without brackets.
BEFORE = re.compile(r"(</(?:mi|mn|mfrac)>\s*)(<mi[^>]*>\w+</mi>\s*<mo>&ApplyFunction;)")
AFTER = re.compile(r'(<mo>&ApplyFunction;</mo>)(?!\s*<mo stretchy="false">\()')
SPACE = '<mspace width="0.1667em"></mspace>'


def converted(node, **options):
    """The formula of a node as MathML."""
    formula = tex2mathml(SHORT.sub(r"\1{\2}{\3}", node.astext()), **options)
    return AFTER.sub(rf"\1{SPACE}", BEFORE.sub(rf"\1{SPACE}\2", formula))


def visit_inline(translator, node):
    """A formula within a line."""
    translator.body.append(converted(node))
    raise nodes.SkipNode


def visit_block(translator, node):
    """A formula on lines of its own, which may be wider than a narrow window: keys scroll it."""
    translator.body.append(f'<div class="math-block" tabindex="0">{converted(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """A renderer, to be chosen by html_math_renderer."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"version": "1", "parallel_read_safe": True}
