"""Operations on factors: pure functions with their gradients, one file each.

`OPS` is the one table of them; tests, adapters and benchmarks read it.
"""

from collections.abc import Callable
from typing import NamedTuple

from ketcore.ops.digits import digits
from ketcore.ops.gather_kron import gather_kron, gather_kron_dense, gather_kron_jvp, gather_kron_vjp
from ketcore.ops.ket_inner import (
    ket_gram,
    ket_gram_dense,
    ket_gram_jvp,
    ket_gram_vjp,
    ket_inner,
    ket_inner_dense,
    ket_inner_jvp,
    ket_inner_vjp,
)
from ketcore.ops.ket_rows import ket_rows, ket_rows_dense, ket_rows_jvp, ket_rows_vjp
from ketcore.ops.row_kets import row_kets, row_kets_dense, row_kets_jvp, row_kets_vjp
from ketcore.ops.rows import rows, rows_dense, rows_jvp, rows_vjp


class Op(NamedTuple):
    """An operation: its forward map, its transposed and its forward derivative, and its dense definition."""

    name: str
    forward: Callable
    vjp: Callable
    jvp: Callable
    dense: Callable


OPS = (
    Op("gather_kron", gather_kron, gather_kron_vjp, gather_kron_jvp, gather_kron_dense),
    Op("rows", rows, rows_vjp, rows_jvp, rows_dense),
    Op("row_kets", row_kets, row_kets_vjp, row_kets_jvp, row_kets_dense),
    Op("ket_rows", ket_rows, ket_rows_vjp, ket_rows_jvp, ket_rows_dense),
    Op("ket_inner", ket_inner, ket_inner_vjp, ket_inner_jvp, ket_inner_dense),
    Op("ket_gram", ket_gram, ket_gram_vjp, ket_gram_jvp, ket_gram_dense),
)

__all__ = [
    "OPS",
    "Op",
    "digits",
    *(f"{op.name}{suffix}" for op in OPS for suffix in ("", "_vjp", "_jvp", "_dense")),
]
