"""What the page of a class lists, by kind: only what classes of ketcore define, not what their bases do."""

from functools import cached_property
from importlib import import_module

from sphinx.util import inspect

OPERATORS = ("__getitem__", "__matmul__", "__mul__")


def members_by_kind(module, name):
    """The names of makers, properties, methods and operators of a class, each in alphabetical order."""
    kind = getattr(import_module(module), name)
    found = {"Makers": [], "Properties": [], "Methods": [], "Operators": []}
    owned = [vars(each) for each in kind.__mro__ if each.__module__.startswith("ketcore.")]
    for attribute in sorted({name for each in owned for name in each}):
        value = next(each[attribute] for each in owned if attribute in each)
        if attribute in OPERATORS and value.__doc__:
            found["Operators"].append(attribute)
        elif attribute.startswith("_"):
            continue
        elif isinstance(value, property | cached_property):
            found["Properties"].append(attribute)
        elif isinstance(value, classmethod | staticmethod):
            found["Makers"].append(attribute)
        elif inspect.isfunction(value):
            found["Methods"].append(attribute)
    return {heading: names for heading, names in found.items() if names}


def setup(app):
    """For the template, which has no other way to know.

    A function in the settings would have all pages read again in the next build, so that it is there only
    while the pages of classes are written.
    """

    def offer(app):
        app.config.autosummary_context["members_by_kind"] = members_by_kind

    def withdraw(app):
        del app.config.autosummary_context["members_by_kind"]

    app.connect("builder-inited", offer, priority=400)
    app.connect("builder-inited", withdraw, priority=600)
    return {"version": "1", "parallel_read_safe": True}
