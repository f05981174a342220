"""All instantiations of kernels that are ever launched, and the C names of their types."""

from functools import cache

import numpy as np

STORAGE = {"float32": "float", "float64": "double", "float16": "float16", "bfloat16": "bfloat16"}
INDEX = {"int32": "int", "int64": "long long"}
_NAMES = STORAGE | INDEX
_SUMS = ("float", "double")

# (kernel, template arguments, source): all that is ever launched, and what tests compile and run.
TABLE = (
    *(("expand", (t, i), "gather") for t in STORAGE.values() for i in INDEX.values()),
    *(
        ("contract", (t, g, i), "gather")
        for t in STORAGE.values()
        for g in dict.fromkeys((t, "double" if t == "double" else "float"))
        for i in INDEX.values()
    ),
    *(
        (kernel, (t, i), "scatter")
        for kernel in ("accumulate", "pieces", "segments")
        for t in _SUMS
        for i in INDEX.values()
    ),
    *(("reduce", (t,), "scatter") for t in _SUMS),
    *(("multiply", (t,), "matmul") for t in STORAGE.values()),
)


@cache
def c_type(dtype: np.dtype) -> str | None:
    """The C name of a dtype; None where kernels have none.  To ask NumPy for its name takes a microsecond."""
    return _NAMES.get(dtype.name)
