"""The modules of a model that `ketify` may replace, grouped by the weight that they share.

A layer of torch is known by its exact class: a subclass may compute something else, and what has hooks, a
parametrisation or a quantised weight would lose them.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

TABLES = (nn.Embedding, nn.EmbeddingBag)


class Member(NamedTuple):
    """A module, and every name under which the model reaches it; "" is the model itself."""

    module: nn.Module
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its first name."""
        return self.names[0]

    @property
    def is_table(self) -> bool:
        """Whether it is an embedding, and no linear layer."""
        return isinstance(self.module, TABLES)


class Group(NamedTuple):
    """Modules that share one weight, embeddings first, then bags, and the names of what else holds it."""

    members: tuple[Member, ...]
    holders: tuple[str, ...]

    @property
    def has_table(self) -> bool:
        """Whether the weight is that of an embedding."""
        return self.members[0].is_table


def is_own(module: nn.Module) -> bool:
    """Whether a module is a layer of ketcore, inside which nothing is to be touched."""
    return type(module).__module__.partition(".")[0] == "ketcore"


def located(model: nn.Module) -> list[Member]:
    """Every module outside ketcore's layers, and these layers, in the order of torch."""
    modules: dict[int, nn.Module] = {}
    names: dict[int, list[str]] = defaultdict(list)
    for name, module in _walk(model, ""):
        modules[id(module)] = module
        names[id(module)].append(name)
    return [Member(module, tuple(names[key])) for key, module in modules.items()]


def _walk(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """A module and all below it, by every name they have; not into layers of ketcore."""
    yield name, module
    if is_own(module):
        return
    # named_children would give a child with two names once.
    for last, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{name}.{last}" if name else last)


def grouped(model: nn.Module, members: list[Member]) -> list[Group]:
    """Embeddings and linear layers by the weight that they share; one without a weight is alone."""
    found: dict[int, list[Member]] = defaultdict(list)
    for member in members:
        if isinstance(member.module, (*TABLES, nn.Linear)):
            weight = member.module._parameters.get("weight")
            found[id(member.module if weight is None else weight)].append(member)
    groups = [sorted(group, key=_rank) for group in found.values()]
    held = _held(model)
    return [Group(tuple(group), tuple(_holders(group, held))) for group in groups]


def _held(model: nn.Module) -> dict[object, list[tuple[nn.Module, str, str]]]:
    """Every holder of a tensor, (module, "weight", "encoder.weight"), by where the numbers are."""
    held: dict[object, list[tuple[nn.Module, str, str]]] = defaultdict(list)
    for name, module in model.named_modules():
        for last, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                held[_place(tensor)].append((module, last, f"{name}.{last}" if name else last))
    return held


def _place(tensor: Tensor) -> object:
    """Equal for tensors that begin at the same number: a second Parameter may be of the same memory."""
    # A lazy parameter has no memory before its module is called.
    plain = not is_lazy(tensor) and type(tensor.data) is Tensor and not tensor.is_meta and tensor.numel()
    return (tensor.device, tensor.data_ptr()) if plain else id(tensor)


def _holders(group, held):
    """The names of what holds the weight of a group, and is not the weight of a member."""
    weight = group[0].module._parameters.get("weight")
    inside = {id(member.module) for member in group}
    for module, last, name in () if weight is None else held[_place(weight)]:
        if last != "weight" or id(module) not in inside:
            yield name


def _rank(member):
    return [isinstance(member.module, kind) for kind in (*TABLES, nn.Linear)].index(True)


def obstacle(model: nn.Module, member: Member) -> str:
    """Why a module cannot be replaced, or the empty string."""
    module, kind = member.module, type(member.module)
    parameters = {"weight", "bias"} if isinstance(module, nn.Linear) else {"weight"}
    parents = (model.get_submodule(name.rpartition(".")[0]) for name in member.names if name)
    if kind not in (*TABLES, nn.Linear):
        return "a class of its own, which may compute something else"
    if "forward" in vars(module):
        return "its forward is not that of its class"
    if any(value for name, value in vars(module).items() if name.endswith("_hooks")):
        return "it has hooks, which would be lost"
    if set(module._parameters) != parameters or module._buffers or module._modules:
        return "it holds more than its weight"
    if not member.is_table and any(isinstance(parent, nn.TransformerEncoderLayer) for parent in parents):
        return "nn.TransformerEncoderLayer reads its weight"
    return _weight_obstacle(module._parameters["weight"])


def _weight_obstacle(weight: Tensor | None) -> str:
    """What keeps a weight from being replaced; empty where nothing does."""
    if type(weight) is not nn.Parameter or type(weight.data) is not Tensor:
        return f"its weight is of class {type(weight).__name__}"
    dtype = weight.dtype
    # Types of 8 bits have no arithmetic.
    if not (dtype.is_floating_point or dtype.is_complex) or dtype.itemsize < 2:
        return f"its weight is {dtype}"
    if weight.numel() == 0:
        return "it is empty"
    if weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None):
        return "its weight has hooks, which would be lost"
    return ""
