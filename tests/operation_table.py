"""The table of what every kind of object does, as data: `test_operation_table.py` walks it.

A row is an operation: how it is called, and what it is of dense arrays.  A cell works, unless the row says
for the kind what the error names as the way out.
"""

import copy
import operator
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ketcore as kc
from tests.algebra_problems import dense

KINDS = (
    "Ket",
    "KroneckerMatrix",
    "KroneckerSum",
    "KroneckerProduct",
    "Permutation",
    "Diagonal",
    "Identity",
)
BARE = dict.fromkeys(("Diagonal", "Identity"), "KroneckerProduct([part])")


class Row(NamedTuple):
    """An operation.

    call      of an object and of arrays that fit it, (rows, 2) and (columns, 2), with the rows and columns
    expected  the same of the dense array
    ways      by kinds that refuse it, what the error names
    """

    call: Callable[..., Any]
    expected: Callable[..., Any]
    ways: dict[str, str]


class Arrays(NamedTuple):
    """Arrays (rows, 2) and (columns, 2) beside an object; the axes that a norm is over; dims of its modes."""

    rows: np.ndarray
    columns: np.ndarray
    axes: int | None
    dims: tuple[tuple[int, ...], ...]


def draw(rng, shape, dtype):
    """Normal values."""
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def make(kind, dims, dtype, columns=None, seed=0):
    """An object of a kind, square of these dims, or with other dims of columns where it can have them."""
    rng = np.random.default_rng(seed)
    columns = dims if columns is None else columns
    pairs = list(zip(dims, columns, strict=True))
    if kind == "Ket":
        return kc.Ket([draw(rng, (2, 3, dim), dtype) for dim in dims])
    if kind == "KroneckerMatrix":
        return kc.KroneckerMatrix([draw(rng, (2, *pair), dtype) for pair in pairs])
    if kind == "KroneckerSum":
        return kc.KroneckerSum([draw(rng, (dim, dim), dtype) for dim in dims])
    if kind == "KroneckerProduct":
        last = draw(rng, pairs[-1], dtype)
        return kc.KroneckerProduct([*(kc.Diagonal(draw(rng, dim, dtype)) for dim in dims[:-1]), last])
    if kind == "Permutation":
        return kc.Permutation(dims, range(len(dims))[::-1])
    return kc.Diagonal(draw(rng, dims[-1], dtype)) if kind == "Diagonal" else kc.Identity(dims[-1])


def definition(x):
    """The dense array of an object."""
    if isinstance(x, kc.Diagonal | kc.Identity):
        return dense(kc.KroneckerProduct([x]))
    if not isinstance(x, kc.Permutation):
        return dense(x)
    rows = np.arange(x.shape[0]).reshape(x.dims).transpose(x.order).reshape(-1)
    return np.eye(x.shape[0])[rows]


def _out(name):
    """`matmul` and `rmatmul` into an array that is given."""

    def call(x, arrays):
        operand = arrays.columns if name == "matmul" else arrays.rows.T
        found = getattr(x, name)(operand)
        out = np.empty(found.shape, found.dtype)
        assert getattr(x, name)(operand, out=out) is out
        return out

    return call


def _blocks(x, arrays):
    return np.concatenate(list(x.iter_row_blocks(2)))


def _single(x):
    """One ket of a batch."""
    return x[0] if isinstance(x, kc.Ket) else x


def _in_modes(a, n):
    """A dense array with an axis for each mode, behind the batch of kets."""
    dims = n.dims if n.axes is None else (n.dims[0],)
    return a.reshape(*a.shape[: a.ndim - len(dims)], *(size for side in dims for size in side))


def _reversed(a, n):
    modes, order = _in_modes(a, n), len(n.dims[0])
    first = modes.ndim - order * (1 if n.axes is not None else 2)
    axes = list(range(first))
    for start in range(first, modes.ndim, order):
        axes += range(start, start + order)[::-1]
    return modes.transpose(axes).reshape(a.shape)


def _first_turned(a, n):
    order = len(n.dims[0])
    turned = _in_modes(a, n).swapaxes(0, order)
    return turned.reshape(np.prod(turned.shape[:order]), -1)


def _first_traced(a, n):
    if n.axes is not None:
        a, n = np.outer(a[0], a[0].conj()), n._replace(axes=None, dims=n.dims * 2)
    order = len(n.dims[0])
    traced = np.trace(_in_modes(a, n), axis1=0, axis2=order)
    return traced.reshape(np.prod(traced.shape[: order - 1], dtype=int), -1) if order > 1 else traced


def _stored(x, n):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object.safetensors"
        kc.save(path, x)
        return kc.load(path)


NO_KET_MATRIX = {"Ket": "to_dense()", **BARE}
CONTRACT = {"Ket": "contract(x)", **BARE}
TO_MATRIX = {"Ket": "a KroneckerMatrix", **BARE}
NO_ROWS = {"Ket": "ket[ids]", **BARE}
NO_MULTIPLE = {"Permutation": "to_dense()", **BARE}

# In the order of the page.
ROWS = {
    "x + x": Row(lambda x, n: x + x, lambda a, n: a + a, {"Permutation": "to_dense()", **BARE}),
    "x - x": Row(lambda x, n: x - x, lambda a, n: 0 * a, {"Permutation": "to_dense()", **BARE}),
    "0 + x, x - 0": Row(lambda x, n: 0 + x - 0, lambda a, n: a, {}),
    "sum([x, x])": Row(lambda x, n: sum([x, x]), lambda a, n: 2 * a, {"Permutation": "to_dense()", **BARE}),
    "-x, 0 - x": Row(lambda x, n: 0 - 0.5 * -x - x, lambda a, n: -a / 2, NO_MULTIPLE),
    "2 * x, x * 2": Row(lambda x, n: 2 * x * 1.5, lambda a, n: 3 * a, NO_MULTIPLE),
    "x / 2": Row(lambda x, n: x / 2, lambda a, n: a / 2, NO_MULTIPLE),
    "x @ array": Row(lambda x, n: x @ n.columns, lambda a, n: a @ n.columns, CONTRACT),
    "array @ x": Row(lambda x, n: n.rows.T @ x, lambda a, n: n.rows.T @ a, CONTRACT),
    "dot": Row(lambda x, n: x.dot(n.columns), lambda a, n: a @ n.columns, CONTRACT),
    "matmul(out=)": Row(_out("matmul"), lambda a, n: a @ n.columns, CONTRACT),
    "rmatmul(out=)": Row(_out("rmatmul"), lambda a, n: n.rows.T @ a, CONTRACT),
    "sandwich": Row(
        lambda x, n: x.sandwich(n.rows.T, n.columns.T),
        lambda a, n: np.einsum("ib,ij,jb->b", n.rows.conj(), a, n.columns),
        TO_MATRIX,
    ),
    "x[1]": Row(lambda x, n: x[1], lambda a, n: a[1], BARE),
    "x[[1, 0]]": Row(lambda x, n: x[[1, 0]], lambda a, n: a[[1, 0]], BARE),
    "x[1, -1]": Row(lambda x, n: x[1, -1], lambda a, n: a[1, -1], {"Ket": "at most 1 entries", **BARE}),
    "x[:2, 1:]": Row(lambda x, n: x[:2, 1:], lambda a, n: a[:2, 1:], {"Ket": "at most 1 entries", **BARE}),
    "rows": Row(lambda x, n: x.rows([1, 0]), lambda a, n: a[[1, 0]], NO_ROWS),
    "row_kets": Row(lambda x, n: x.row_kets([1, 0]), lambda a, n: a[[1, 0]], NO_ROWS),
    "iter_row_blocks": Row(_blocks, lambda a, n: a, NO_ROWS),
    "sum(axis)": Row(
        lambda x, n: [x.sum(), *x.sum(axis=0), *x.sum(1)],
        lambda a, n: [a.sum(), *a.sum(axis=0), *a.sum(axis=1)],
        {"Ket": "contract(ones)", **BARE},
    ),
    "trace": Row(lambda x, n: x.trace(), lambda a, n: np.trace(a), TO_MATRIX),
    "diagonal": Row(lambda x, n: x.diagonal(), lambda a, n: np.diagonal(a), TO_MATRIX),
    "norm": Row(lambda x, n: x.norm(), lambda a, n: np.sqrt((abs(a) ** 2).sum(n.axes)), BARE),
    "inner": Row(
        lambda x, n: x.inner(x),
        lambda a, n: (abs(a) ** 2).sum(n.axes),
        {"Permutation": "to_dense()", **BARE},
    ),
    "conj": Row(lambda x, n: x.conj(), lambda a, n: a.conj(), BARE),
    "T, mT, transpose": Row(lambda x, n: x.T.mT.transpose(), lambda a, n: a.T, NO_KET_MATRIX),
    "H, adjoint": Row(lambda x, n: x.H.adjoint().H, lambda a, n: a.conj().T, NO_KET_MATRIX),
    "astype": Row(
        lambda x, n: x.astype(np.complex128), lambda a, n: a, {"Permutation": "to_dense(dtype=)", **BARE}
    ),
    "balance": Row(
        lambda x, n: x.balance(),
        lambda a, n: a,
        {"KroneckerSum": "to_kronecker().balance()", "Permutation": "the permutation itself", **BARE},
    ),
    "kron": Row(lambda x, n: x.kron(x), None, BARE),
    "to_dense": Row(lambda x, n: x.to_dense(), lambda a, n: a, BARE),
    "toarray": Row(lambda x, n: x.toarray(), lambda a, n: a, NO_KET_MATRIX),
    "as_linear_operator": Row(
        lambda x, n: x.as_linear_operator() @ n.columns, lambda a, n: a @ n.columns, TO_MATRIX
    ),
    "ndim, size, shape": Row(
        lambda x, n: (x.ndim, x.size, *x.shape), lambda a, n: (a.ndim, a.size, *a.shape), BARE
    ),
    "pickle, copy": Row(
        lambda x, n: pickle.loads(pickle.dumps(copy.deepcopy(copy.copy(x)))), lambda a, n: a, {}
    ),
    "save, load": Row(_stored, lambda a, n: a, {}),
    "allclose": Row(lambda x, n: [kc.allclose(x, x)], lambda a, n: [True], {}),
    "hadamard": Row(
        lambda x, n: kc.hadamard(x, x),
        lambda a, n: a * a,
        {"Ket": "Ket.to_column", "Permutation": "to_dense"},
    ),
    "partial_trace": Row(
        lambda x, n: kc.partial_trace(_single(x), 0), _first_traced, {"Permutation": "to_dense"}
    ),
    "partial_transpose": Row(
        lambda x, n: kc.partial_transpose(x, 0),
        _first_turned,
        {"Ket": "Ket.projector", "Permutation": "to_dense"},
    ),
    "permute_subsystems": Row(
        lambda x, n: kc.permute_subsystems(x, range(len(n.dims[0]))[::-1]), _reversed, {}
    ),
}

_PERMUTED = "permute_subsystems"
_OF_KETS = "contract(x), inner(ket) or K.T @ ket"
SUMMED = ("KroneckerMatrix", "KroneckerSum", "KroneckerProduct")
# What `+` and `-` of two kinds refuse, and what `@` does, with what the error names.
SIGNS = {"+": operator.add, "-": operator.sub, "@": operator.matmul}


def way_of_pair(sign, left, right):
    """What the error of two kinds names, the first of which is the more special; None where it works."""
    if left in BARE or right in BARE:
        return BARE["Diagonal"]
    if sign != "@":
        same = left == right and left != "Permutation"
        return None if same or {left, right} <= set(SUMMED) else "to_dense()"
    if left == "Ket":
        return _OF_KETS
    moved = "Permutation" in (left, right) and left != right and right != "Ket"
    return _PERMUTED if moved else None


def page():
    """The table of the page: a line for each operation, and one for each sign between two kinds."""
    lines = ["| x is | " + " | ".join(KINDS) + " |", "|" + " --- |" * (len(KINDS) + 1)]
    for name, row in ROWS.items():
        cells = [row.ways.get(kind, "yes") for kind in KINDS]
        lines.append(f"| `{name}` | " + " | ".join(_cell(cell) for cell in cells) + " |")
    for sign in ("+", "@"):
        for left in KINDS[:5]:
            cells = [way_of_pair(sign, left, right) or "yes" for right in KINDS]
            name = f"`{left}` {'+ or -' if sign == '+' else sign} ..."
            lines.append(f"| {name} | " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _cell(way):
    return way if way == "yes" else f"no: `{way}`"
