"""A call of every kind of lookup: what `counts`, `captures` and `values` look at."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import cupy
import numpy as np

import ketcore as kc

BATCH = 32
DIMS = {"dims": (4, 4, 4, 4)}


@dataclass(frozen=True)
class Problem:
    """`forward()` and `backward(deterministic=...)`; a sorted one sums by runs of equal ids."""

    forward: Any
    backward: Any
    sorted: bool = False


def problems(dtype: str = "float32", asarray: Any = cupy.asarray) -> dict[str, Problem]:
    """One of every kind, on arrays that `asarray` makes of NumPy's: the same values in every call."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return asarray(rng.standard_normal(shape).astype(dtype))

    def below(limit, *shape):
        return asarray(rng.integers(0, limit, (*shape, BATCH)))

    def problem(forward, backward, tables, index, columns=256, lead=(), many=False, **options):
        return Problem(
            partial(forward, tables, index, **options),
            partial(backward, tables, index, normal(*lead, BATCH, columns), **options),
            many,
        )

    rows = partial(problem, kc.rows, kc.rows_vjp)
    kets = partial(problem, kc.ket_rows, kc.ket_rows_vjp)
    gather = partial(problem, kc.gather_kron, kc.gather_kron_vjp)
    factors = [normal(2, 10, 16), normal(2, 179, 16)]
    tables = [normal(2, 50, 16), normal(2, 50, 16)]
    return {
        "rows": rows(factors, below(1790)),
        "rows of a crop": rows(factors, below(1700), 250, shape=(1700, 250)),
        "rows of one mode": rows([normal(3, 50, 8)], below(50), 8),
        "kets": kets(normal(1000, 2, 16), below(1000), **DIMS),
        "kets, LayerNorm": kets(normal(1000, 2, 16), below(1000), layernorm=True, **DIMS),
        "kets, many": kets(normal(5000, 2, 16), below(5000), many=True, **DIMS),
        "an index per mode": gather(tables, below(50, 2)),
        "an index per term": gather(tables, below(50, 2, 2), per_term=True),
    }
