"""Results have the dtype of what is given, where CuPy's own functions would widen bfloat16.

No kernel runs here: the dtype does not depend on what is in memory.
"""

import cupy
import numpy as np
import pytest

import ketcore as kc
from tests.cupy_host import device
from tests.kernel_problems import dtype_of

IDS, INDEX = np.array([1, 7, 3]), np.array([[1, 2], [2, 3]])


def calls(dtype):
    """Name -> a call, of operations whose array code chooses between two arrays."""

    def ones(*shape):
        return cupy.asarray(np.ones(shape, dtype_of(dtype)))

    factors, packed, ids, index = (
        [ones(2, 5, 3), ones(2, 4, 3)],
        ones(20, 2, 6),
        *map(cupy.asarray, (IDS, INDEX)),
    )
    dims = {"dims": (3, 3)}
    return {
        "row_kets": lambda: kc.row_kets(factors, ids),
        "row_kets_jvp": lambda: kc.row_kets_jvp(factors, ids, factors),
        "row_kets_vjp": lambda: kc.row_kets_vjp(factors, ids, [ones(3, 2, 3)] * 2),
        "rows": lambda: kc.rows(factors, ids),
        "rows_jvp": lambda: kc.rows_jvp(factors, ids, factors),
        "rows_vjp": lambda: kc.rows_vjp(factors, ids, ones(3, 9)),
        "ket_rows_jvp": lambda: kc.ket_rows_jvp(packed, ids, packed, **dims),
        "ket_rows_vjp": lambda: kc.ket_rows_vjp(packed, ids, ones(3, 9), **dims),
        "gather_kron_jvp": lambda: kc.gather_kron_jvp(factors, index, factors),
        "kron_matmul": lambda: kc.kron_matmul(factors, ones(2, 20), path="fused"),
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", calls("float32"))
def test_dtypes(name, dtype):
    with device.launches_that_do_nothing():
        found = calls(dtype)[name]()
    assert {array.dtype.name for array in (found if isinstance(found, tuple) else (found,))} == {dtype}
