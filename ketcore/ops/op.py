"""What an operation is, as data: the table `ketcore.ops.OPS` holds one `Op` for each.

An adapter to a framework, a test and a page of documentation read it, so that none has a list of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ketcore.array_types import AnyArray


class Arrays(NamedTuple):
    """What stands for one primal or for one output of an operation.

    Attributes
    ----------
    name : str
        Of the argument, or of the result.
    several : bool
        Whether it is a sequence of N arrays, as factors are; else it is one array.
    optional : bool
        Whether None is allowed; it is the default where no constants follow the primals.
    real : bool
        Whether it is real where the other arrays are complex.
    keyword : bool
        Whether functions take it by its name, among the options.  One that is None is as if it were not
        there: it has no gradient, not even None.
    """

    name: str
    several: bool = False
    optional: bool = False
    real: bool = False
    keyword: bool = False


def one(name: str, *, optional: bool = False, real: bool = False) -> Arrays:
    """One array."""
    return Arrays(name, False, optional, real)


def several(name: str) -> Arrays:
    """A sequence of N arrays."""
    return Arrays(name, True)


def keyword(name: str) -> Arrays:
    """One optional array that is given by its name."""
    return Arrays(name, optional=True, keyword=True)


class Op(NamedTuple):
    """An operation as data: its functions, and what their arguments and results are.

    `OPS` holds one for each operation.  The arguments of the five functions follow from it, in this order::

        forward   primals, constants, options, forward_options
        vjp       primals, constants, the cotangent, options, vjp_options
        jvp       primals, constants, the tangent of each primal, options
        dense     primals, constants, those of the options that change a value
        shapes    primals, constants, options

    Primals are what is differentiated, constants are arrays that are not.  A vjp takes one cotangent, a tuple
    where there are several outputs, and returns one gradient per primal; where there is a single primal its
    gradient stands alone, without a tuple around it.  A primal of None has a tangent and a gradient of None.

    A primal that is given by keyword comes after the options, and its tangent, `NAME_tangent`, after it.
    Without it a vjp returns what it would if there were no such primal.  `call` knows all of this.

    Attributes
    ----------
    name : str
        That of the forward map.
    forward : callable
        The map itself.
    vjp : callable
        Its transposed derivative.
    jvp : callable
        Its forward derivative.
    dense : callable
        Its definition, on NumPy arrays: a formula, without the checks of the others.
    shapes : callable
        The shapes of the outputs, of anything that has shapes: what compilers ask for first.
    primals : tuple of Arrays
        The differentiated arguments in their order, each with its `name` and whether it is `several` arrays,
        `optional`, `real` beside complex ones, and given by `keyword`.
    constants : tuple of strs
        The names of the array arguments that have no derivative, which follow the primals.
    options : tuple of strs
        The names of the arguments that forward, vjp and jvp share beside these.
    forward_options : tuple of strs
        Those of forward alone.
    vjp_options : tuple of strs
        Those of vjp alone.
    outputs : tuple of Arrays
        What forward returns, described as the primals are.

    Notes
    -----
    The methods take arguments and results apart into arrays, for what differentiates functions of arrays and
    not of sequences, and put them together again.

    Examples
    --------
    >>> from ketcore.ops import OPS
    >>> solve = next(op for op in OPS if op.name == "kron_solve")
    >>> [primal.name for primal in solve.primals], solve.options
    (['factors', 'b', 'shift'], ('axis', 'assume_a'))
    >>> arrays, counts = solve.flatten((["f", "g"], "b", None))
    >>> arrays, counts
    (('f', 'g', 'b'), (2, 1, 0))
    >>> solve.unflatten(arrays, counts)
    (('f', 'g'), 'b', None)
    >>> rows = next(op for op in OPS if op.name == "rows")
    >>> rows.call(rows.forward, ([[[[1.0, 0.0], [0.0, 1.0]]]], [3.0, 5.0]), (1,), shape=None).tolist()
    [0.0, 5.0]
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

    def call(
        self,
        function: Callable[..., Any],
        primals: Sequence[Any],
        more: Sequence[Any] = (),
        tangents: Sequence[Any] | None = None,
        **options: Any,
    ) -> Any:
        """What a function of this operation returns, with each primal in its place or under its name.

        Parameters
        ----------
        function : callable
            One of the five, or one of their signatures.
        primals : sequence of arrays, of sequences of arrays, and of None
            In the order of `primals`.
        more : sequence of arrays, default ()
            What follows the primals by position: the constants, then the cotangent of a vjp.
        tangents : sequence of arrays, of sequences of arrays, and of None, optional
            Those of a jvp, one for each primal.
        **options
            Passed on.

        Returns
        -------
        object
            As the function returns it.
        """
        placed, named = self.by_place(primals)
        if tangents is not None:
            moved, named_moved = self.by_place(tangents)
            more = *more, *moved
            named |= {f"{name}_tangent": tangent for name, tangent in named_moved.items()}
        return function(*placed, *more, **named, **options)

    def by_place(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """One value for each primal, parted into those by position and those by keyword that are not None.

        Parameters
        ----------
        values : sequence
            In the order of `primals`.

        Returns
        -------
        placed : tuple
            Those by position.
        named : dict
            The others by the names of their primals.
        """
        pairs = [*zip(self.primals, values, strict=True)]
        placed = tuple([value for each, value in pairs if not each.keyword])
        return placed, {each.name: value for each, value in pairs if each.keyword and value is not None}

    def flatten(self, primals: Sequence[Any]) -> tuple[tuple[AnyArray, ...], tuple[int, ...]]:
        """The arrays of the primals one after the other, and how many each primal has.

        Parameters
        ----------
        primals : sequence of arrays, of sequences of arrays, and of None
            The primals in the order of `primals`, or their tangents.

        Returns
        -------
        arrays : tuple of arrays
            Those of all primals.
        counts : tuple of ints
            How many each has, 0 where it is None.
        """
        parts = [_parts(each, value) for each, value in zip(self.primals, primals, strict=True)]
        return sum(parts, ()), tuple(map(len, parts))

    def unflatten(self, arrays: Sequence[AnyArray], counts: Sequence[int]) -> tuple[Any, ...]:
        """The primals, or their tangents, of which `flatten` made arrays and counts.

        Parameters
        ----------
        arrays : sequence of arrays
            Those of all primals, one after the other.
        counts : sequence of ints
            How many each primal has.

        Returns
        -------
        tuple of arrays, of tuples of arrays, and of None
            One for each primal.
        """
        found, start = [], 0
        for each, count in zip(self.primals, counts, strict=True):
            own = tuple(arrays[start : start + count])
            found.append(own if each.several else own[0] if own else None)
            start += count
        assert start == len(arrays)
        return tuple(found)

    def flat_gradients(self, gradients: Any, counts: Sequence[int]) -> tuple[AnyArray, ...]:
        """What vjp returned, as arrays in the order of `flatten`.

        Parameters
        ----------
        gradients : array, or tuple of arrays and of tuples of arrays
            One gradient for each primal; that of a single primal stands alone.
        counts : sequence of ints
            How many arrays each primal has, as `flatten` gave it.

        Returns
        -------
        tuple of arrays
            As `flatten` makes them of the primals.
        """
        pairs = zip(self.primals, counts, strict=True)
        present = [each for each, count in pairs if count or not each.keyword]
        found = (gradients,) if len(present) == 1 else gradients
        parts = [_parts(each, gradient) for each, gradient in zip(present, found, strict=True)]
        return sum(parts, ())

    def flat_outputs(self, outputs: Any) -> tuple[AnyArray, ...]:
        """What forward or jvp returned, as arrays.

        Parameters
        ----------
        outputs : array, or tuple of arrays and of tuples of arrays
            One for each of `outputs`; a single one stands alone.

        Returns
        -------
        tuple of arrays
            One after the other.
        """
        if len(self.outputs) == 1:
            return _parts(self.outputs[0], outputs)
        parts = [_parts(each, value) for each, value in zip(self.outputs, outputs, strict=True)]
        return sum(parts, ())

    def cotangent(self, arrays: Sequence[AnyArray]) -> Any:
        """What vjp takes as cotangent, of one array for each of `flat_outputs`.

        Parameters
        ----------
        arrays : sequence of arrays
            One for each array of the outputs.

        Returns
        -------
        array, or tuple of arrays
            The array itself where there is a single output of one array, else a tuple.
        """
        alone = len(self.outputs) == 1 and not self.outputs[0].several
        return arrays[0] if alone else tuple(arrays)


def _parts(each, value):
    if value is None:
        return ()
    return tuple(value) if each.several else (value,)
