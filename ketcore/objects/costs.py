"""What methods of operators cost, from sizes alone: flops, bytes and path, by `ketcore.products.plans`."""

from math import prod
from typing import Any

import numpy as np

from ketcore.arrays.elementary import itemsize
from ketcore.arrays.namespaces import accumulation_dtype, is_numpy
from ketcore.arrays.quantized import nbytes_of
from ketcore.lookups.gather import engine_name
from ketcore.lookups.lookup import make_lookup, narrowed
from ketcore.products import chains, plans
from ketcore.products.term_plans import terms_cost
from ketcore.shapes import check_choice, check_int, halves_split, reached_dims

COSTS = ("rows", "row_kets", "gather", "to_dense", "matmul", "rmatmul")


def matrix_cost(matrix: Any, name: str, n: int) -> plans.Cost:
    """Flops, bytes, path and engine of a method of a Kronecker matrix; see `cost` there."""
    n, name = check_int("n", n, 0), check_choice("name", name, COSTS)
    if name in ("matmul", "rmatmul"):
        return _product_cost(matrix, name, n)
    cost = _cost(matrix, name, n)
    looks_up = name in ("rows", "to_dense")
    cost.engine = engine_name(_lookup(matrix)) if looks_up else _library(matrix)
    return cost


def _product_cost(matrix, name, n):
    """Of a product with n columns or rows, as `kron_matmul` plans it."""
    dims, shape, sizes = (matrix.row_dims, matrix.col_dims), matrix.shape, (n, 1)
    if name == "matmul":
        dims, shape, sizes = dims[::-1], shape[::-1], (1, n)
    marks, entry, library = matrix.term_identities, itemsize(matrix._like()), _library(matrix)
    if any(marks):
        cost = terms_cost(*dims, marks, *sizes, shape, entry)
        cost.engine = library
        return cost
    native = library == "numpy" and not chains.obstacle(matrix.factors, _computed(matrix))
    reached = [reached_dims(each, size) for each, size in zip(dims, shape, strict=True)]
    plan = plans.matmul_plan(*reached, matrix.rank, *sizes, (), entry, None, native)
    cost = plans.plan_cost(plan, matrix.rank, sizes[0], entry)
    cost.engine = "native" if plan.native else library
    return cost


def _computed(matrix):
    """An empty array of the dtype that products are computed in."""
    return np.empty(0, accumulation_dtype(np, matrix.dtype))


def _cost(matrix, name, n):
    rows, columns, rank, shape = matrix.row_dims, matrix.col_dims, matrix.rank, matrix.shape
    entry = itemsize(matrix._like())
    if name in ("rows", "to_dense"):
        return plans.rows_cost(rows, columns, rank, n if name == "rows" else shape[0], shape[1], entry)
    if name == "row_kets":
        made = n * rank * sum(columns) * entry
        return plans.Cost(0, made + _read(matrix, [n * rank * width for width in columns]), "gather")
    flops = n * rank * matrix.order
    return plans.Cost(flops, n * entry + _read(matrix, [n * rank] * matrix.order), "gather")


def _read(matrix, numbers):
    """Bytes of so many numbers of each factor, as they are stored."""
    pairs = zip(numbers, matrix.stored, strict=True)
    return sum(
        -(-number * nbytes_of(factor) // prod(factor.shape)) if number else 0 for number, factor in pairs
    )


def _lookup(matrix):
    """No row of the matrix, looked up: engines ask for kinds, dtypes and sizes alone."""
    count, columns = matrix.shape
    tables = narrowed(matrix.factors, columns)
    split = halves_split(tuple(table.shape[2] for table in tables))
    none = np.zeros(0, np.int64)
    return make_lookup(tables, none, "digits", count, True, columns, False, 0.0, split, matrix.dtype)


def _library(matrix):
    """What picks leaves, and makes products that the compiled kernels do not: the library of the factors."""
    return "numpy" if is_numpy(matrix._like()) else "arrays"


def sum_cost(matrix: Any, name: str, n: int) -> plans.Cost:
    """What a product of a Kronecker sum with n columns or rows takes: one pass per mode."""
    n, name = check_int("n", n, 0), check_choice("name", name, ("matmul", "rmatmul"))
    before, after = (1, n) if name == "matmul" else (n, 1)
    after, entry, passes = after * matrix.shape[0], itemsize(matrix._like()), []
    for dim in matrix.dims:
        after //= dim
        passes.append(plans.matmul_cost((dim,), (dim,), 1, before, after, itemsize=entry))
        before *= dim
    cost = plans.Cost(sum(c.flops for c in passes), sum(c.bytes for c in passes), "modes")
    cost.engine = _library(matrix)
    return cost
