"""One strategy per op: random problems in a shape that every test of ops can run.

A new op needs one line in STRATEGIES; a test fails where the table of ops has a name that is not there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from random import Random
from typing import Any

import numpy as np
from hypothesis import Phase, find, settings
from hypothesis import strategies as st

from ketcore import testing
from ketcore.ops import Op
from ketcore.testing import to_numpy
from ketcore.testing.values import dtype_name
from tests import generic
from tests.matmul_problems import kron_matmul_problems
from tests.operator_problems import PROBLEMS as OPERATOR_PROBLEMS


@dataclass(frozen=True)
class Problem:
    """One call of an op, flattened: functions of differentiated arrays alone, which return tuples of arrays.

    op           entry of the table
    arrays       the arrays that are differentiated
    counts       how many of them each primal has, as `Op.flatten` says
    index        ids or indices, the op's constant; None for ops without
    options      keywords that all of the op's functions take
    multilinear  the op is real-linear in each array apart
    magnitude    what gives the scale of each output from the arrays, where it is not that of their absolute
                 values
    """

    op: Op
    arrays: Sequence[Any]
    counts: Sequence[int]
    index: Any = None
    options: dict = field(default_factory=dict)
    multilinear: bool = True
    magnitude: Callable | None = None

    @classmethod
    def of(cls, op: Op, *primals: Any, index: Any = None, **more: Any) -> "Problem":
        """The problem of a call with these primals, the last of which may be left off; `more` are fields."""
        missing = (None,) * (len(op.primals) - len(primals))
        arrays, counts = op.flatten((*primals, *missing))
        return cls(op, arrays, counts, index, **more)

    def on(self, xp) -> "Problem":
        """The same problem in the arrays of a library."""
        index = None if self.index is None else xp.asarray(self.index)
        return replace(self, arrays=tuple(xp.asarray(array) for array in self.arrays), index=index)

    def forward(self, *arrays, **more):
        return self.op.flat_outputs(self.call(self.op.forward, arrays, **more))

    def vjp(self, *arrays_and_cotangents, **more):
        *arrays, cotangents = arrays_and_cotangents
        cotangent = self.op.cotangent(cotangents)
        return self.op.flat_gradients(self.call(self.op.vjp, arrays, cotangent, **more), self.counts)

    def jvp(self, *arrays_and_tangents, **more):
        half = len(arrays_and_tangents) // 2
        arrays, tangents = arrays_and_tangents[:half], arrays_and_tangents[half:]
        tangents = self.op.unflatten(tangents, self.counts)
        return self.op.flat_outputs(self.call(self.op.jvp, arrays, tangents=tangents, **more))

    def dense(self, *arrays):
        """The dense definition, on NumPy arrays."""
        index = None if self.index is None else to_numpy(self.index)
        return replace(self, index=index).call(self.op.dense, arrays)

    def expected(self):
        """The dense definition in float64 or complex128."""
        return self.op.flat_outputs(self.dense(*self._wide()))

    def scale(self):
        """The magnitude of what each output adds up, for the tolerance."""
        if self.magnitude is not None:
            return self.op.flat_outputs(self.magnitude(*self._wide()))
        if not self.options.get("layernorm"):
            return self.op.flat_outputs(self.dense(*(np.abs(array) for array in self._wide())))
        # A LayerNorm amplifies what its input loses: the scale is its response to relative changes of the
        # leaves.
        leaves, *row_scale = self._wide()
        rng, step, found = np.random.default_rng(0), 2.0**-20, np.abs(self.dense(leaves, *row_scale))
        for _ in range(4):
            change = step * rng.choice((-1.0, 1.0), size=leaves.shape) * leaves
            found = np.maximum(
                found,
                np.abs(self.dense(leaves + change, *row_scale) - self.dense(leaves - change, *row_scale))
                / step,
            )
        return (np.max(found, initial=0.0),)

    def derivative_scale(self) -> float:
        """What is added up within a derivative, where that is larger than what comes out.

        So it is of a LayerNorm, whose output hardly moves.
        """
        if not self.options.get("layernorm"):
            return 0.0
        (leaves, *row_scale), starts = self._wide(), np.cumsum(self.options["dims"])[:-1]
        records = leaves[np.unique(to_numpy(self.index))].reshape(-1, leaves.shape[2])
        largest = max([1.0, *(np.abs(scale).max(initial=0.0) for scale in row_scale)])
        return largest * max((self._amplified(np.split(each, starts))[1] for each in records), default=0.0)

    def _amplified(self, vectors):
        """A node of the tree, and how large the tangents are that its LayerNorm and those below it cancel."""
        if len(vectors) == 1:
            return vectors[0], float(np.abs(vectors[0]).max())
        half = len(vectors) // 2
        (left, to_left), (right, to_right) = self._amplified(vectors[:half]), self._amplified(vectors[half:])
        node = np.kron(left, right)
        inner = to_left * np.abs(right).max() + np.abs(left).max() * to_right
        scale = (node.var() + self.options.get("eps", 1e-5)) ** -0.5
        z = (node - node.mean()) * scale
        return z, float(scale * inner * (2 + np.abs(z).max() ** 2))

    def dtype(self, place: int) -> str:
        """The name of the dtype of an output."""
        name = dtype_name(self.arrays[0].dtype)
        real = {"complex64": "float32", "complex128": "float64"}
        outputs = self.op.outputs
        described = outputs[0] if outputs[0].several else outputs[place]
        return real.get(name, name) if described.real else name

    @property
    def terms(self) -> int:
        """A bound on the number of terms in a sum of the forward map."""
        return max(int(np.prod(array.shape)) for array in self.arrays)

    def call(self, function, arrays, *more, **named):
        """What a function of the operation, or one of its signature, returns of these arrays."""
        constants = () if self.index is None else (self.index,)
        primals = self.op.unflatten(arrays, self.counts)
        return self.op.call(function, primals, (*constants, *more), **named, **self.options)

    def _wide(self):
        wide = [to_numpy(array) for array in self.arrays]
        return [array.astype(np.complex128 if array.dtype.kind == "c" else np.float64) for array in wide]


# Small shapes of every kind, and a batch that is longer than the half tables.
_ids_shapes = st.sampled_from((None, None, (90,)))


@st.composite
def _rows(draw, op, dtype):
    factors = draw(generic.factors(dtype=dtype))
    rows, columns = (int(np.prod([factor.shape[axis] for factor in factors])) for axis in (1, 2))
    shape = draw(testing.crops(rows, columns))
    words = rows if shape is None else shape[0]
    ids = draw(testing.indices(words, shape=draw(_ids_shapes)))
    scale = [draw(st.none() | generic.arrays((words,), dtype)) for primal in op.primals if primal.keyword]
    return Problem.of(op, factors, *scale, index=ids, options={} if shape is None else {"shape": shape})


@st.composite
def _row_kets(draw, op, dtype):
    problem, options = draw(_rows(op, dtype)), {}
    if "shape" in problem.options:
        columns = int(np.prod([factor.shape[2] for factor in problem.arrays]))
        options["shape"] = (problem.options["shape"][0], columns)
    # Each output is linear in its own factor and constant in the others.
    return replace(problem, options=options, multilinear=False)


@st.composite
def _gather_kron(draw, op, dtype):
    tables = draw(generic.factors(dtype=dtype))
    order, rank = len(tables), tables[0].shape[0]
    lengths = [table.shape[1] for table in tables]
    batch = draw(st.sampled_from(((), (0,), (1,), (5,), (2, 3), (90,))))
    per_term = draw(st.booleans())
    shape = (rank, *batch) if per_term else batch
    integer = draw(st.sampled_from(("int8", "uint8", "int32", "int64", "uint64")))
    index = [draw(testing.indices(length, shape=shape, dtype=integer)) for length in lengths]
    width = int(np.prod([table.shape[2] for table in tables]))
    columns = draw(st.sampled_from((None, width, draw(st.integers(1, width)))))
    options = {"columns": columns, "per_term": per_term}
    scale = draw(st.none() | generic.arrays(batch, dtype))
    return Problem.of(op, tables, scale, index=np.array(index).reshape(order, *shape), options=options)


@st.composite
def _codebook_rows(draw, op, dtype):
    codebooks = draw(generic.factors(dtype=dtype))
    rank, width = codebooks[0].shape[0], int(np.prod([book.shape[2] for book in codebooks]))
    batch = draw(st.sampled_from(((), (0,), (1,), (5,), (2, 3))))
    integer = draw(st.sampled_from(("int8", "uint8", "uint16", "int64")))
    codes = [draw(testing.indices(book.shape[1], shape=(rank, *batch), dtype=integer)) for book in codebooks]
    row_scale = draw(st.none() | generic.arrays(batch, dtype))
    decoder = draw(st.none() | generic.arrays((width, draw(st.integers(1, 5))), dtype))
    codes = np.array(codes).reshape(len(codebooks), rank, *batch)
    return Problem.of(op, codebooks, row_scale, decoder, index=codes)


@st.composite
def _ket_rows(draw, op, dtype):
    dims = draw(testing.mode_dims(max_order=5))
    layernorm = np.dtype(dtype).kind != "c" and draw(st.booleans())
    if layernorm and not _varies(dims):
        # A node of one entry is zero with its derivatives: only rounding would be left to compare.
        dims = tuple(max(2, dim) for dim in dims)
    leaves, dims = draw(generic.leaves(dtype=dtype, dims=dims))
    ids = draw(testing.indices(leaves.shape[0], shape=draw(_ids_shapes)))
    width = int(np.prod(dims))
    options = {"dims": dims, "columns": draw(st.sampled_from((None, draw(st.integers(1, width)))))}
    if layernorm:
        options |= {"layernorm": True, "eps": draw(st.sampled_from((1e-5, 1e-2, 1.0)))}
    scale = draw(st.none() | generic.arrays(leaves.shape[:1], dtype))
    return Problem.of(op, leaves, scale, index=ids, options=options, multilinear=False)


def _varies(dims):
    """Whether every product in the balanced tree over these modes has more than one entry."""
    half = len(dims) // 2
    return len(dims) == 1 or (np.prod(dims) > 1 and _varies(dims[:half]) and _varies(dims[half:]))


@st.composite
def _two_kets(draw, op, dtype, batches):
    dims = draw(testing.mode_dims(max_dim=6))
    left, right = draw(st.sampled_from(batches))
    ranks = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kets = [
        [draw(generic.arrays((*batch, rank, size), dtype)) for size in dims]
        for batch, rank in zip((left, right), ranks, strict=True)
    ]
    return Problem.of(op, *kets)


_BROADCAST = (((), ()), ((4,), (4,)), ((4,), ()), ((), (3,)), ((2, 1), (3,)), ((0,), (1,)), ((1, 2), (3, 1)))
_PAIRS = (((), ()), ((4,), (3,)), ((4,), ()), ((2, 2), (3,)), ((0,), (2,)), ((2,), (0, 3)))

STRATEGIES = {
    "gather_kron": _gather_kron,
    "codebook_rows": _codebook_rows,
    "rows": _rows,
    "row_kets": _row_kets,
    "ket_rows": _ket_rows,
    "ket_inner": lambda op, dtype: _two_kets(op, dtype, _BROADCAST),
    "ket_gram": lambda op, dtype: _two_kets(op, dtype, _PAIRS),
    "kron_matmul": lambda op, dtype: kron_matmul_problems(op, dtype, Problem.of),
    **{name: partial(make, problem=Problem.of) for name, make in OPERATOR_PROBLEMS.items()},
}


@st.composite
def problems(draw, op: Any, *, half: bool = False, wide: bool = False):
    """A problem for an op of the table, in one dtype: any, half precision too, or only the wide ones."""
    found = st.sampled_from(("float64", "complex128")) if wide else testing.dtypes(half=half)
    return draw(STRATEGIES[op.name](op, draw(found)))


@cache
def drawn(op: Op, dtype: str) -> Problem:
    """One problem for an op, always the same: no empty arrays, uneven modes, a crop where there can be."""

    def telling(problem):
        sizes = {size for array in problem.arrays for size in array.shape}
        cropped = "shape" not in op.options or problem.options.get("shape")
        # Of a lookup all that may be left out is there.
        whole = not op.constants or all(problem.counts)
        return 0 not in sizes and len(sizes) > 2 and cropped and whole

    # The same in every profile.
    chosen = settings(phases=[Phase.generate], database=None, max_examples=200)
    return find(STRATEGIES[op.name](op, dtype), telling, settings=chosen, random=Random(0))
