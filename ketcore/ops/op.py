"""What an operation is, as data: the table `ketcore.ops.OPS` holds one `Op` for each.

An adapter to a framework, a test and a page of documentation read it, so that none has a list of its own.
The arguments of the five functions follow from it, in this order:

    forward   primals, constants, options, forward_options
    vjp       primals, constants, the cotangent of each output, options, vjp_options
    jvp       primals, constants, the tangent of each primal, options
    dense     primals, constants, those of the options that change a value
    shapes    primals, constants, options

Primals are what is differentiated, constants are arrays that are not.  A vjp returns one gradient per primal,
and takes one cotangent per output.  Where there is a single primal its gradient stands alone, without a tuple
around it; so does a single output, and its cotangent.  A primal of None has a tangent and a gradient of None.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ketcore.array_types import AnyArray


class Arrays(NamedTuple):
    """What stands for one primal or for one output of an operation.

    name      of the argument, or of the result
    several   a sequence of N arrays, as factors are; else one array
    optional  None is allowed, and is the default
    real      real where the other arrays are complex
    """

    name: str
    several: bool = False
    optional: bool = False
    real: bool = False


def one(name: str, *, optional: bool = False, real: bool = False) -> Arrays:
    """One array."""
    return Arrays(name, False, optional, real)


def several(name: str) -> Arrays:
    """A sequence of N arrays."""
    return Arrays(name, True)


class Op(NamedTuple):
    """An operation: its functions, and what their arguments and results are.

    forward          the map itself
    vjp              its transposed derivative
    jvp              its forward derivative
    dense            its definition, on NumPy arrays: a formula, without the checks of the others
    shapes           the shapes of the outputs, of anything that has shapes: what compilers ask for first
    primals          the differentiated arguments, in their order
    constants        the names of the array arguments that have no derivative, which follow the primals
    options          the names of the keywords that forward, vjp and jvp share
    forward_options  those of forward alone
    vjp_options      those of vjp alone
    outputs          what forward returns

    The methods take arguments and results apart into arrays, for what differentiates functions of arrays and
    not of sequences, and put them together again.

    >>> from ketcore.ops import OPS
    >>> solve = next(op for op in OPS if op.name == "kron_solve")
    >>> [primal.name for primal in solve.primals], solve.options
    (['factors', 'b', 'shift'], ('axis', 'assume_a'))
    >>> arrays, counts = solve.flatten((["f", "g"], "b", None))
    >>> arrays, counts
    (('f', 'g', 'b'), (2, 1, 0))
    >>> solve.unflatten(arrays, counts)
    (('f', 'g'), 'b', None)
    """

    name: str
    forward: Callable[..., Any]
    vjp: Callable[..., Any]
    jvp: Callable[..., Any]
    dense: Callable[..., Any]
    shapes: Callable[..., tuple[tuple[int, ...], ...]]
    primals: tuple[Arrays, ...]
    constants: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    forward_options: tuple[str, ...] = ()
    vjp_options: tuple[str, ...] = ()
    outputs: tuple[Arrays, ...] = (Arrays("output"),)

    def flatten(self, primals: Sequence[Any]) -> tuple[tuple[AnyArray, ...], tuple[int, ...]]:
        """The arrays of the primals one after the other, and how many each primal has: 0 where it is None."""
        parts = [_parts(each, value) for each, value in zip(self.primals, primals, strict=True)]
        return sum(parts, ()), tuple(map(len, parts))

    def unflatten(self, arrays: Sequence[AnyArray], counts: Sequence[int]) -> tuple[Any, ...]:
        """The primals, or their tangents, of which `flatten` made arrays and counts."""
        found, start = [], 0
        for each, count in zip(self.primals, counts, strict=True):
            own = tuple(arrays[start : start + count])
            found.append(own if each.several else own[0] if own else None)
            start += count
        assert start == len(arrays)
        return tuple(found)

    def flat_gradients(self, gradients: Any) -> tuple[AnyArray, ...]:
        """What vjp returned, as arrays in the order of `flatten`."""
        return self.flatten((gradients,) if len(self.primals) == 1 else gradients)[0]

    def flat_outputs(self, outputs: Any) -> tuple[AnyArray, ...]:
        """What forward or jvp returned, as arrays."""
        if len(self.outputs) == 1:
            return _parts(self.outputs[0], outputs)
        parts = [_parts(each, value) for each, value in zip(self.outputs, outputs, strict=True)]
        return sum(parts, ())

    def cotangent(self, arrays: Sequence[AnyArray]) -> Any:
        """What vjp takes, of one array for each of `flat_outputs`."""
        alone = len(self.outputs) == 1 and not self.outputs[0].several
        return arrays[0] if alone else tuple(arrays)


def _parts(each, value):
    if value is None:
        return ()
    return tuple(value) if each.several else (value,)
