"""Expand a `Lookup` into rows, and pull cotangents back: the core of rows, kets and `gather_kron`.

`engine` chooses what computes it: the first of `ENGINES` that has no obstacle.  All of them are checked
against one another.  The environment variable KETCORE_ENGINE, read at import, names the only ones that a
process may use, by commas, for tests and reports; what they cannot take is an error that says why.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.autodiff import is_bare, is_torch
from ketcore.arrays.checks import check_like, check_out
from ketcore.arrays.elementary import reshaped
from ketcore.arrays.namespaces import is_numpy, namespace_of, to_host
from ketcore.cuda.library import on_device_of
from ketcore.lookups import on_arrays, on_cuda, on_native, on_numpy, stored_tables
from ketcore.lookups.lookup import Lookup, remade
from ketcore.native import loader
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

    def pull_ids(self, lookup: Lookup, cotangent: AnyArray) -> tuple[AnyArray, AnyArray]:
        """`pull` of kind "same" as unique valid ids (U,), ascending, and their gradients (U, R, sum q_n)."""
        ...

    def records(self, lookup: Lookup, cotangent: AnyArray) -> AnyArray:
        """The cotangent back to the leaves of each row: (B, R, sum q_n) in the accumulation dtype."""
        ...


# In the order in which they are asked.  The last one takes whatever the others do not.
ENGINES: dict[str, Engine] = {
    "cuda": on_cuda,
    "native": on_native,
    "numpy": on_numpy,
    "arrays": on_arrays,
}


def _allowed(wanted):
    """The engines that may be used where KETCORE_ENGINE is `wanted`: all of them where it is not set."""
    if not wanted:
        return ENGINES
    names = wanted.split(",")
    if not ENGINES.keys() >= set(names):
        raise ValueError(f"KETCORE_ENGINE must be some of {tuple(ENGINES)}, by commas, got {wanted!r}")
    return {name: found for name, found in ENGINES.items() if name in names}


_ALLOWED = ENGINES


def _use(allowed):
    global _ALLOWED
    _ALLOWED = allowed
    # What else is compiled, sums and products, follows the engine of lookups.
    loader.allow("native" in allowed)


_use(_allowed(os.environ.get("KETCORE_ENGINE")))


@contextmanager
def only(*names: str) -> Iterator[None]:
    """Within it these engines alone may be used, by every thread: for tests and benchmarks."""
    before = _ALLOWED
    _use(_allowed(",".join(names)))
    try:
        yield
    finally:
        _use(before)


def engine(lookup: Lookup) -> Engine:
    """What computes this lookup: the first engine that is allowed and has no obstacle."""
    reason = ""
    for found in _ALLOWED.values():
        reason = found.obstacle(lookup)
        if not reason:
            return found
    # Only where some engines are allowed: the last of all takes everything.
    last = next(reversed(_ALLOWED))
    raise ValueError(f"KETCORE_ENGINE must be an engine for the tables, which for {last!r} {reason}")


class Engines(tuple[str, ...]):
    """Names of engines, and why each other one is not among them.

    Attributes
    ----------
    missing : dict of strs
        The reasons, by the names of the engines.
    """

    missing: dict[str, str]


def engines() -> Engines:
    """The names of the engines that this process has for lookups, in the order in which they are asked.

    The first that can take the arrays of a call computes it.  Sums by index and products with dense arrays,
    which are for NumPy or array code otherwise, take the kernels of "native" where it is among them.

    Returns
    -------
    Engines
        A tuple of strs: some of "cuda" (kernels for arrays of CuPy, where it is installed), "native"
        (compiled kernels for arrays of NumPy, where ketcore was installed with them), "numpy" for arrays of
        NumPy and "arrays" for those of every library; or those that the environment variable
        KETCORE_ENGINE names.  Its attribute `missing`, a dict, says of each other engine why it is not there.

    Notes
    -----
    Environment variables serve tests and reports.  KETCORE_ENGINE is read at import; it names one engine or
    several, by commas, and what they cannot take is a ValueError then.  KETCORE_INSTRUCTIONS, read by the
    first call, names the instruction set of "native": "x86-64-v4", "x86-64-v3", "x86-64-v2" or "neon".  With
    one that the processor does not have, "native" is missing.

    Examples
    --------
    >>> engines()[-2:]
    ('numpy', 'arrays')
    >>> [name for name in engines().missing if name in engines()]
    []
    """
    reasons = {
        name: found.missing() if name in _ALLOWED else "KETCORE_ENGINE names others"
        for name, found in ENGINES.items()
    }
    found = Engines(name for name, reason in reasons.items() if not reason)
    found.missing = {name: reason for name, reason in reasons.items() if reason}
    return found


def engine_name(lookup: Lookup) -> str:
    """The name of `engine(lookup)`."""
    found = engine(lookup)
    return next(name for name, each in ENGINES.items() if each is found)


def expanded(xp: ModuleType, lookup: Lookup, batch: tuple[int, ...], out: AnyArray | None) -> AnyArray:
    """Rows (*batch, columns) of a lookup, into `out` where it is given and fits."""
    shape = (*batch, lookup.form.columns)
    if out is None:
        check_addressable(shape)
        rows = gather(lookup)
        return rows if len(shape) == 2 else reshaped(xp, rows, shape)
    found = check_out(out, shape, lookup.dtype, lookup.like, xp)
    gather(lookup, found.reshape((lookup.batch, lookup.columns)))
    return found


def as_rows(xp: ModuleType, lookup: Lookup, batch: tuple[int, ...], cotangent: Any) -> AnyArray:
    """The cotangent (*batch, columns) of a lookup, checked, as (B, columns)."""
    shape = (*batch, lookup.columns)
    cotangent = check_like("cotangent", cotangent, shape, xp, lookup.like, lookup.dtype)
    return cotangent if len(shape) == 2 else reshaped(xp, cotangent, (lookup.batch, lookup.columns))


def gather(lookup: Lookup, out: AnyArray | None = None) -> AnyArray:
    """`Engine.expand` by the engine for this lookup, on the device of its tables, as all below.

    Tables that are quantized are decoded as far as it reads them.
    """
    if lookup.stored:
        with on_device_of(lookup.index):
            lookup = stored_tables.with_decoded(lookup)
    return _on_device(engine(lookup).expand, lookup, out)


def gather_jvp(lookup: Lookup, tangents: Sequence[AnyArray]) -> AnyArray:
    """`Engine.push`."""
    check_addressable((lookup.batch, lookup.columns))
    return _on_device(engine(lookup).push, lookup, tangents)


def gather_vjp(lookup: Lookup, cotangent: AnyArray, deterministic: bool) -> tuple[AnyArray, ...]:
    """`Engine.pull`."""
    lookup, cotangent, returned = _in_host_memory(lookup, cotangent)
    found = _on_device(engine(lookup).pull, lookup, cotangent, deterministic)
    return found if returned is None else tuple(map(returned, found))


def packed_vjp(lookup: Lookup, dims: Sequence[int], cotangent: AnyArray, deterministic: bool) -> AnyArray:
    """`Engine.pull_packed`."""
    lookup, cotangent, returned = _in_host_memory(lookup, cotangent)
    found = _on_device(engine(lookup).pull_packed, lookup, dims, cotangent, deterministic)
    return found if returned is None else returned(found)


def ids_vjp(lookup: Lookup, cotangent: AnyArray) -> tuple[AnyArray, AnyArray]:
    """`Engine.pull_ids`."""
    lookup, cotangent, returned = _in_host_memory(lookup, cotangent)
    ids, sums = _on_device(engine(lookup).pull_ids, lookup, cotangent)
    return (ids, sums) if returned is None else (returned(ids), returned(sums))


def _on_device(function, lookup, *arguments):
    """What a function of an engine gives while new arrays lie on the device of the tables."""
    # A context that does nothing takes half a microsecond.
    if is_numpy(lookup.index):
        return function(lookup, *arguments)
    with on_device_of(lookup.index):
        return function(lookup, *arguments)


def _in_host_memory(lookup, cotangent):
    """Both as arrays of NumPy that share the memory of bare tensors, and what makes tensors of results.

    NumPy's engine pulls back faster than array code.  All else stays as it is, with None for a third, and so
    does bfloat16, which NumPy does not have.
    """
    if not is_torch(cotangent):
        return lookup, cotangent, None
    arrays = (*lookup.tables, lookup.index, cotangent)
    names = {str(array.dtype).rpartition(".")[2] for array in arrays} if is_bare(arrays) else {"bfloat16"}
    if "bfloat16" in names:
        return lookup, cotangent, None
    *tables, index, cotangent = map(to_host, arrays)
    dtype, xp = np.dtype(str(lookup.dtype).rpartition(".")[2]), namespace_of(lookup.index)
    records = None if lookup.records is None else to_host(lookup.records)
    found = remade(lookup, tables=tables, index=index, dtype=dtype, records=records)
    return found, cotangent, xp.asarray
