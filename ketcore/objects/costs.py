"""What methods of operators cost, from sizes alone: flops, bytes and path, by `ketcore.products.plans`."""

from typing import Any

from ketcore.arrays.elementary import itemsize
from ketcore.products import plans
from ketcore.products.term_plans import terms_cost
from ketcore.shapes import check_choice, check_int

COSTS = ("rows", "row_kets", "gather", "to_dense", "matmul", "rmatmul")


def matrix_cost(matrix: Any, name: str, n: int) -> plans.Cost:
    """Flops, bytes and path of a method of a Kronecker matrix, from its sizes alone; see `cost` there."""
    n, name = check_int("n", n, 0), check_choice("name", name, COSTS)
    rows, columns, rank, shape = matrix.row_dims, matrix.col_dims, matrix.rank, matrix.shape
    entry = itemsize(matrix.factors[0])
    if name == "matmul":
        return terms_cost(columns, rows, matrix.term_identities, 1, n, shape[::-1], entry)
    if name == "rmatmul":
        return terms_cost(rows, columns, matrix.term_identities, n, 1, shape, entry)
    if name in ("rows", "to_dense"):
        return plans.rows_cost(rows, columns, rank, n if name == "rows" else shape[0], shape[1], entry)
    if name == "row_kets":
        return plans.Cost(0, 2 * n * rank * sum(columns) * entry, "gather")
    flops = n * rank * matrix.order
    return plans.Cost(flops, (flops + n) * entry, "gather")


def sum_cost(matrix: Any, name: str, n: int) -> plans.Cost:
    """Flops, bytes and path of a product of a Kronecker sum with n columns or rows: one pass per mode."""
    n, name = check_int("n", n, 0), check_choice("name", name, ("matmul", "rmatmul"))
    before, after = (1, n) if name == "matmul" else (n, 1)
    after, entry, passes = after * matrix.shape[0], itemsize(matrix.factors[0]), []
    for dim in matrix.dims:
        after //= dim
        passes.append(plans.matmul_cost((dim,), (dim,), 1, before, after, itemsize=entry))
        before *= dim
    return plans.Cost(sum(c.flops for c in passes), sum(c.bytes for c in passes), "modes")
