"""`ketify`: factorised layers in the place of a model's embeddings and, if asked, of its linear layers.

Modules that share a weight make a group, which is replaced as a whole or not at all: what is tied stays tied.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import chain
from math import hypot
from typing import Any, TypeAlias, TypeVar, overload

from torch import nn
from torch.nn.parameter import is_lazy

from ketcore.shapes import check_choice, check_int
from ketcore.torch.embedding_tables import in_few_bytes
from ketcore.torch.ketify_report import KetifyReport, Replaced, Skipped
from ketcore.torch.module_groups import Group, Member, grouped, is_own, located, obstacle
from ketcore.torch.nearest_tables import first_not_finite
from ketcore.torch.ratios import METHODS, Method, check_alone, check_ratio
from ketcore.torch.replacements import (
    TABLES,
    Kind,
    LayerOptions,
    Made,
    empty_layer,
    new_layers,
    ratio_obstacle,
    table_class,
)
from ketcore.torch.tied_names import rename_tied, tied_names
from ketcore.torch.xs_table import XSTable

__all__ = ["Selection", "ketify"]

# The names in an error: enough to see what they look like.
_SHOWN = 8

Selection: TypeAlias = str | Iterable[str] | Callable[[str, nn.Module], bool]
ModelT = TypeVar("ModelT", bound=nn.Module)


@overload
def ketify(
    model: nn.Embedding | nn.EmbeddingBag | nn.Linear,
    *,
    kind: Kind = "xs",
    order: int | None = None,
    rank: int | None = None,
    linears: bool = False,
    linear_order: int = 2,
    linear_rank: int = 1,
    factorise: bool = True,
    ratio: float | None = None,
    method: Method | None = None,
    include: Selection = "*",
    exclude: Selection = (),
    min_parameters: int = 0,
) -> tuple[nn.Module, KetifyReport]: ...
@overload
def ketify(
    model: ModelT,
    *,
    kind: Kind = "xs",
    order: int | None = None,
    rank: int | None = None,
    linears: bool = False,
    linear_order: int = 2,
    linear_rank: int = 1,
    factorise: bool = True,
    ratio: float | None = None,
    method: Method | None = None,
    include: Selection = "*",
    exclude: Selection = (),
    min_parameters: int = 0,
) -> tuple[ModelT, KetifyReport]: ...
def ketify(
    model: nn.Module,
    *,
    kind: Kind = "xs",
    order: int | None = None,
    rank: int | None = None,
    linears: bool = False,
    linear_order: int = 2,
    linear_rank: int = 1,
    factorise: bool = True,
    ratio: float | None = None,
    method: Method | None = None,
    include: Selection = "*",
    exclude: Selection = (),
    min_parameters: int = 0,
) -> tuple[nn.Module, KetifyReport]:
    """Replace the embeddings of a model, and if asked its linear layers, by factorised ones.

    Parameters
    ----------
    model : nn.Module
        Changed in place; where it is itself an embedding, it stays as it is and its replacement is returned.
    kind : {"xs", "ket"}, default "xs"
        `EmbeddingKetXS`, one Kronecker matrix, or `EmbeddingKet`, a ket for each word; likewise for bags.
    order, rank : int, optional
        Of the embeddings; None: what these layers have by default.
    linears : bool, default False
        Whether `nn.Linear` layers become `KroneckerLinear`. One that shares its weight with an embedding
        follows that embedding in any case, as a head that computes logits through the factors.
    linear_order : int, default 2
        Of the linear layers.
    linear_rank : int, default 1
        Of the linear layers.
    factorise : bool, default True
        True: the new weights are the nearest to the old ones, which is a warning with the relative errors,
        since weights that were trained dense are mostly far from any such; large tables take seconds each,
        and much longer at higher orders.
        False: they are drawn, with entries of the size of the old ones; for a model that is to be trained,
        or loaded.
    ratio : float, optional
        Tables take at most 1 / `ratio` of their bytes, by `from_pretrained`, which chooses their sizes: of
        `kind` "xs", and without `order` and `rank`.  A table that cannot become so small is left.
    method : {"auto", "kronecker", "codebooks"}, optional
        As of `from_pretrained`, with a ratio alone; "auto", which fits both, if left out.  Without
        `factorise` it must be one of the two others.
    include : str, iterable of str, or callable (name, module) -> bool, default "*"
        Which modules: patterns of their names as those of `fnmatch` ("transformer.wte", "*.mlp.*"), or a
        predicate. A module is chosen by any of its names.
    exclude : str, iterable of str, or callable (name, module) -> bool, default ()
        Which of these are left, said in the same ways.
    min_parameters : int, default 0
        Weights of fewer parameters are left. One that would not become smaller is left anyway.

    Returns
    -------
    model : nn.Module
        The model, or what replaces it: `model, report = ketify(model)`.
    report : KetifyReport
        What was replaced, what was left and why, parameters and bytes before and after, relative errors;
        `print` shows a table.

    Raises
    ------
    TypeError, ValueError
        On arguments; where the model has nothing that could be replaced; where weights to be factorised are
        on the meta device or not finite. The model is unchanged then.

    Warns
    -----
    UserWarning
        With the relative error of each weight that was factorised; and where nothing was replaced.

    Notes
    -----
    What is kept: `padding_idx` and the other arguments of an embedding, device, dtype, `training`,
    `requires_grad`, biases, and what shares its weight with what. Modules of other classes than exactly
    `nn.Embedding`, `nn.EmbeddingBag` and `nn.Linear`, with hooks, a parametrisation or a quantised weight
    are left, and so are those whose weight something else holds too. A second call changes nothing.

    Parameters are new: make the optimiser after `ketify`. The names of tied parameters that models of the
    transformers library keep are brought up to date, which `save_pretrained` and `tie_weights` need.

    To load a checkpoint of such a model, make the model, `ketify` it with the same arguments and
    `factorise=False`, and then `load_state_dict`.

    Examples
    --------
    >>> model = nn.Sequential(nn.Embedding(1000, 64), nn.Linear(64, 2))
    >>> model, report = ketify(model, rank=4, factorise=False)
    >>> print(report)
    replaced  layer                        shape      parameters       bytes             ratio  error
    0         Embedding -> EmbeddingKetXS  1000 x 64  64,000 -> 2,080  256,000 -> 8,320  30.8x
    <BLANKLINE>
    parameters of the model: 64,130 -> 2,210
    bytes of the model: 256,520 -> 8,840, 29x
    """
    options = _options(kind, order, rank, linears, linear_order, linear_rank, factorise)
    options = _with_ratio(options, ratio, method)
    choice = _Choice(include, exclude, check_int("min_parameters", min_parameters, 0))
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    members = located(model)
    done = any(is_own(member.module) for member in members)
    groups = [group for group in grouped(model, members) if linears or group.has_table]
    _check_groups(model, groups, done, linears, choice)
    left = {id(group): _left(model, group, choice, options) for group in groups}
    kept = [group for group in groups if not left[id(group)]]
    # Everything is made before anything is replaced: an error leaves the model as it was.
    _check_weights(kept, options)
    made = [new_layers(group, options) for group in kept]
    before, ties = (_count(model), _bytes(model)), tied_names(model)
    replaced = tuple(
        each for group, one in zip(kept, made, strict=True) for each in _lines(group, one.layers, one.error)
    )
    for group, one in zip(kept, made, strict=True):
        model = _replace(model, group, one.layers)
    rename_tied(model, ties, [name for group in kept for member in group.members for name in member.names])
    skipped, after = tuple(chain.from_iterable(left.values())), (_count(model), _bytes(model))
    counts = (*zip(before, after, strict=True),)
    report = KetifyReport(replaced, skipped, *counts[0], *counts[1], _total_error(made))
    _warn(report, done)
    return model, report


class _Choice:
    """Which modules were asked for."""

    def __init__(self, include: Selection, exclude: Selection, least: int) -> None:
        self.include, self.exclude, self.least = _test("include", include), _test("exclude", exclude), least

    def included(self, member: Member) -> bool:
        return any(self.include(name, member.module) for name in member.names)

    def excluded(self, member: Member) -> bool:
        return any(self.exclude(name, member.module) for name in member.names)


def _test(argument: str, selection: Selection) -> Callable[[str, nn.Module], bool]:
    """A selection as a predicate."""
    if callable(selection):
        return selection
    patterns = (selection,) if isinstance(selection, str) else selection
    if not isinstance(patterns, Iterable):
        raise TypeError(f"{argument} must be patterns of names or callable, got {type(selection).__name__}")
    patterns = tuple(patterns)
    if wrong := [pattern for pattern in patterns if not isinstance(pattern, str)]:
        raise TypeError(f"{argument} must be patterns of names or callable, got {wrong[0]!r}")
    return lambda name, module: any(fnmatchcase(name, pattern) for pattern in patterns)


def _options(kind, order, rank, linears, linear_order, linear_rank, factorise) -> LayerOptions:
    """What the new layers are to be, checked."""
    if kind not in tuple(TABLES):
        raise ValueError(f"kind must be one of {sorted(TABLES)}, got {kind!r}")
    for name, value in (("linears", linears), ("factorise", factorise)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be a bool, got {value!r}")
    given = {"order": order, "rank": rank}
    table = {name: check_int(name, value, 1) for name, value in given.items() if value is not None}
    linear = {
        "order": check_int("linear_order", linear_order, 1),
        "rank": check_int("linear_rank", linear_rank, 1),
    }
    return LayerOptions(kind, table, linear, factorise, None, "auto")


def _with_ratio(options: LayerOptions, ratio: Any, method: Any) -> LayerOptions:
    """The options with a ratio, which decides what others say otherwise."""
    if ratio is None:
        if method is not None:
            raise ValueError(f"ratio must be given with a method, got None and {method!r}")
        return options
    check_alone("ratio", order=options.table.get("order"), rank=options.table.get("rank"))
    if options.kind != "xs":
        raise ValueError(f"kind must be 'xs' where ratio is given, got {options.kind!r}")
    method = check_choice("method", "auto" if method is None else method, METHODS)
    if method == "auto" and not options.factorise:
        raise ValueError("method must be 'kronecker' or 'codebooks' unless factorise is True, got 'auto'")
    return options._replace(ratio=check_ratio(ratio), method=method)


def _check_groups(model, groups, done, linears, choice) -> None:
    """ValueError where there is nothing to replace, unless it was replaced before."""
    wanted = "nn.Embedding, nn.EmbeddingBag or nn.Linear" if linears else "nn.Embedding or nn.EmbeddingBag"
    if not groups and not done:
        raise ValueError(f"model must have some {wanted}, got a {type(model).__name__} without")
    members = [member for group in groups for member in group.members]
    if groups and not any(choice.included(member) for member in members):
        names = [repr(name) for member in members for name in member.names]
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise ValueError(f"include must choose some of {shown}, got none of them")


def _left(model, group: Group, choice: _Choice, options: LayerOptions) -> list[Skipped]:
    """The modules of a group, each with the reason why it is left; none if it is to be replaced."""
    own = [_own_reason(model, member, choice, options) for member in group.members]
    blamed = next((member.name for member, reason in zip(group.members, own, strict=True) if reason), None)
    if blamed is not None:
        shared = f"its weight is that of {blamed!r}, which is left"
        reasons = [reason or shared for reason in own]
    elif reason := _group_reason(group, choice, options):
        reasons = [reason] * len(own)
    else:
        return []
    return [
        Skipped(member.name, type(member.module).__name__, reason)
        for member, reason in zip(group.members, reasons, strict=True)
    ]


def _own_reason(model, member: Member, choice: _Choice, options: LayerOptions) -> str:
    """Why a layer stays as it is; empty where it need not."""
    if choice.excluded(member):
        return "excluded"
    if reason := obstacle(model, member):
        return reason
    if options.kind == "xs" and getattr(member.module, "sparse", False):
        name = table_class(options, type(member.module)).__name__
        return f"its gradients are sparse, those of {name} are not"
    return ""


def _group_reason(group: Group, choice: _Choice, options: LayerOptions) -> str:
    """Why layers that share a weight stay as they are; empty where they need not."""
    if not any(choice.included(member) for member in group.members):
        return "not included"
    if group.holders:
        return f"its weight is also {group.holders[0]!r}"
    kinds = [type(member.module) for member in group.members]
    if nn.Linear in kinds and nn.Embedding not in kinds and group.has_table:
        return "its weight is that of a linear layer too, whose logits need an embedding"
    weight = group.members[0].module.get_parameter("weight")
    before = weight.numel()
    if before < choice.least:
        return f"its {before:,} parameters are fewer than {choice.least:,}"
    if options.ratio and group.has_table:
        return ratio_obstacle(weight, options)
    after = _count(empty_layer(group, options))
    return "" if after < before else f"its {before:,} parameters would become {after:,}"


def _check_weights(groups: list[Group], options: LayerOptions) -> None:
    """ValueError where a weight has no values to be factorised."""
    for group in groups if options.factorise else ():
        member = group.members[0]
        weight = member.module.get_parameter("weight").detach()
        if weight.is_meta:
            raise ValueError(f"factorise must be False for weights on the meta device, got {member.name!r}")
        if bad := first_not_finite(weight):
            raise ValueError(f"weights must be finite to be factorised, got {bad} of {member.name!r}")


def _lines(group: Group, layers: list[nn.Module], error: float | None) -> Iterator[Replaced]:
    """What a report says of each layer that shares a weight; the first one has its parameters."""
    first = group.members[0]
    rows, columns = first.module.get_parameter("weight").shape
    for member, layer in zip(group.members, layers, strict=True):
        yield Replaced(
            member.names,
            type(member.module).__name__,
            type(layer).__name__,
            (rows, columns),
            _count(member.module),
            _count(layer),
            None if member is first else first.name,
            error,
            _bytes(member.module),
            _bytes(layer),
        )


def _total_error(made: list[Made]) -> float | None:
    """The relative error of all weights that were factorised."""
    pairs = [(one.error, one.norm) for one in made if one.error is not None]
    given = hypot(*(norm for _, norm in pairs))
    if not pairs or not given:
        return 0.0 if pairs else None
    return hypot(*(error * norm for error, norm in pairs)) / given


def _bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers, as `_count`, of permutations those of a state dict."""
    tables = [each for each in module.modules() if isinstance(each, XSTable)]
    orders = {id(each.permutation): each.permutation for each in tables if each.permutation is not None}
    tensors = [*module.parameters(), *(each for each in module.buffers() if id(each) not in orders)]
    tensors += map(in_few_bytes, orders.values())
    return sum(each.numel() * each.element_size() for each in tensors if not is_lazy(each))


def _count(module: nn.Module) -> int:
    """Parameters, those that are shared once, those of lazy modules not before they have a shape."""
    return sum(each.numel() for each in module.parameters() if not is_lazy(each))


def _replace(model: nn.Module, group: Group, layers: list[nn.Module]) -> nn.Module:
    """The model with the layers in the places of a group's modules."""
    for member, layer in zip(group.members, layers, strict=True):
        for name in member.names:
            if not name:
                return layer
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, layer)
    return model


def _warn(report: KetifyReport, done: bool) -> None:
    """The relative errors, or that nothing was replaced by this call or one before."""
    errors = {each.names[0]: each.error for each in report.replaced if each.tied_to is None}
    found = [f"{name or '(the model)'} {error:.3g}" for name, error in errors.items() if error is not None]
    if found:
        text = f"factorised weights differ from the old ones, by relative errors of {', '.join(found)}"
        warnings.warn(text, UserWarning, stacklevel=3)
    elif not report.replaced and not done:
        warnings.warn(f"nothing was replaced\n{report}", UserWarning, stacklevel=3)
