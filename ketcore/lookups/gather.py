"""Expand a `Lookup` into rows, and pull cotangents back: the core of rows, kets and `gather_kron`.

`engine` chooses what computes it: the first of `ENGINES` that has no obstacle.  All of them are checked
against one another.  The environment variable KETCORE_ENGINE, read at import, names the only one that a
process may use, for tests and reports; one that cannot take a lookup then says why.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.autodiff import is_bare
from ketcore.arrays.checks import check_like, check_out
from ketcore.arrays.elementary import reshaped
from ketcore.arrays.namespaces import is_numpy, namespace_of, to_host
from ketcore.cuda.library import on_device_of
from ketcore.lookups import on_arrays, on_cuda, on_numpy
from ketcore.lookups.lookup import Lookup
from ketcore.shapes import check_addressable


class Engine(Protocol):
    """What an engine is: a module of these functions.

    It computes with the arrays of the lookup, on the current device.  A bad index gives a row of NaN and no
    gradient, and is never followed.  Sums run in the accumulation dtype of `lookup.dtype`.
    """

    def missing(self) -> str:
        """Why this process cannot have the engine, in words; empty where it can."""
        ...

    def obstacle(self, lookup: Lookup) -> str:
        """Why the engine cannot take the tables of this lookup, in words that follow a name; empty if it can.

        Asked in every call: a matter of kinds, dtypes and sizes, never of values.
        """
        ...

    def expand(self, lookup: Lookup, out: AnyArray | None) -> AnyArray:
        """Rows (B, columns) in `lookup.dtype`, into `out` where it is given."""
        ...

    def push(self, lookup: Lookup, tangents: Sequence[AnyArray]) -> AnyArray:
        """The derivative of `expand` along tangents, N arrays of the shapes of the tables."""
        ...

    def pull(self, lookup: Lookup, cotangent: AnyArray, deterministic: bool) -> tuple[AnyArray, ...]:
        """The cotangent (B, columns) back to the tables: N arrays (R, t_n, q_n) in the accumulation dtype.

        Sums run in a fixed order unless `deterministic` is False.
        """
        ...

    def pull_packed(
        self, lookup: Lookup, dims: Sequence[int], cotangent: AnyArray, deterministic: bool
    ) -> AnyArray:
        """`pull` of kind "same" as one array (t, R, sum dims), the tables of which were cut from `dims`."""
        ...

    def records(self, lookup: Lookup, cotangent: AnyArray) -> AnyArray:
        """The cotangent back to the leaves of each row: (B, R, sum q_n) in the accumulation dtype."""
        ...


# In the order in which they are asked.  The last one takes whatever the others do not.
ENGINES: dict[str, Engine] = {"cuda": on_cuda, "numpy": on_numpy, "arrays": on_arrays}


def _allowed(wanted):
    """The engines that may be used where KETCORE_ENGINE is `wanted`: all of them where it is not set."""
    if not wanted:
        return ENGINES
    if wanted not in ENGINES:
        raise ValueError(f"KETCORE_ENGINE must be one of {tuple(ENGINES)}, got {wanted!r}")
    return {wanted: ENGINES[wanted]}


_ALLOWED = _allowed(os.environ.get("KETCORE_ENGINE"))


@contextmanager
def only(name: str) -> Iterator[None]:
    """Within it the engine `name` alone may be used, by every thread: for tests and benchmarks."""
    global _ALLOWED
    before, _ALLOWED = _ALLOWED, {name: ENGINES[name]}
    try:
        yield
    finally:
        _ALLOWED = before


def engine(lookup: Lookup) -> Engine:
    """What computes this lookup: the first engine that is allowed and has no obstacle."""
    reason = ""
    for found in _ALLOWED.values():
        reason = found.obstacle(lookup)
        if not reason:
            return found
    # Only where one engine is allowed: the last of all takes everything.
    (only,) = _ALLOWED
    raise ValueError(f"KETCORE_ENGINE must be an engine for the tables, which for {only!r} {reason}")


def engines() -> tuple[str, ...]:
    """The names of the engines that this process has for lookups, in the order in which they are asked.

    The first that can take the arrays of a call computes it.

    Returns
    -------
    tuple of strs
        Some of "cuda" (kernels for arrays of CuPy, where it is installed), "numpy" for arrays of NumPy and
        "arrays" for those of every library; or the one that the environment variable KETCORE_ENGINE names.

    Notes
    -----
    KETCORE_ENGINE is read at import and serves tests and reports.  What the engine that it names cannot take
    is a ValueError then.

    Examples
    --------
    >>> engines()[-2:]
    ('numpy', 'arrays')
    """
    return tuple(name for name, found in _ALLOWED.items() if not found.missing())


def expanded(xp: ModuleType, lookup: Lookup, batch: tuple[int, ...], out: AnyArray | None) -> AnyArray:
    """Rows (*batch, columns) of a lookup, into `out` where it is given and fits."""
    shape = (*batch, lookup.columns)
    if out is None:
        check_addressable(shape)
        rows = gather(lookup)
        return rows if len(shape) == 2 else reshaped(xp, rows, shape)
    found = check_out(out, shape, lookup.dtype, lookup.tables[0], xp)
    gather(lookup, found.reshape((lookup.batch, lookup.columns)))
    return found


def as_rows(xp: ModuleType, lookup: Lookup, batch: tuple[int, ...], cotangent: Any) -> AnyArray:
    """The cotangent (*batch, columns) of a lookup, checked, as (B, columns)."""
    shape = (*batch, lookup.columns)
    cotangent = check_like("cotangent", cotangent, shape, xp, lookup.tables[0], lookup.dtype)
    return cotangent if len(shape) == 2 else reshaped(xp, cotangent, (lookup.batch, lookup.columns))


def gather(lookup: Lookup, out: AnyArray | None = None) -> AnyArray:
    """`Engine.expand` by the engine for this lookup, on the device of its tables, as all below."""
    with on_device_of(lookup.tables[0]):
        return engine(lookup).expand(lookup, out)


def gather_jvp(lookup: Lookup, tangents: Sequence[AnyArray]) -> AnyArray:
    """`Engine.push`."""
    check_addressable((lookup.batch, lookup.columns))
    with on_device_of(lookup.tables[0]):
        return engine(lookup).push(lookup, tangents)


def gather_vjp(lookup: Lookup, cotangent: AnyArray, deterministic: bool) -> tuple[AnyArray, ...]:
    """`Engine.pull`."""
    lookup, cotangent, returned = _in_host_memory(lookup, cotangent)
    with on_device_of(lookup.tables[0]):
        return tuple(map(returned, engine(lookup).pull(lookup, cotangent, deterministic)))


def packed_vjp(lookup: Lookup, dims: Sequence[int], cotangent: AnyArray, deterministic: bool) -> AnyArray:
    """`Engine.pull_packed`."""
    lookup, cotangent, returned = _in_host_memory(lookup, cotangent)
    with on_device_of(lookup.tables[0]):
        return returned(engine(lookup).pull_packed(lookup, dims, cotangent, deterministic))


def gather_records(lookup: Lookup, cotangent: AnyArray) -> AnyArray:
    """`Engine.records`."""
    lookup, cotangent, returned = _in_host_memory(lookup, cotangent)
    with on_device_of(lookup.tables[0]):
        return returned(engine(lookup).records(lookup, cotangent))


def _in_host_memory(lookup, cotangent):
    """Both as arrays of NumPy that share the memory of bare tensors, and what makes tensors of results.

    NumPy's engine pulls back faster than array code.  All else stays as it is, and so does
    bfloat16, which NumPy does not have.
    """
    if is_numpy(cotangent):
        return lookup, cotangent, lambda found: found
    arrays = (*lookup.tables, lookup.index, cotangent)
    names = {str(array.dtype).rpartition(".")[2] for array in arrays} if is_bare(arrays) else {"bfloat16"}
    if "bfloat16" in names:
        return lookup, cotangent, lambda found: found
    *tables, index, cotangent = map(to_host, arrays)
    dtype, xp = np.dtype(str(lookup.dtype).rpartition(".")[2]), namespace_of(lookup.index)
    records = None if lookup.records is None else to_host(lookup.records)
    found = replace(lookup, tables=tuple(tables), index=index, dtype=dtype, records=records)
    return found, cotangent, xp.asarray
