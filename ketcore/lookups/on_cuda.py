"""The engine for CuPy arrays: the CUDA kernels of `ketcore.lookups.kernels`.

Kernels look at each index themselves, so that nothing is launched to make a lookup safe.  Tangents have no
kernel: they are array code on the same arrays.
"""

from collections.abc import Sequence

from ketcore.array_types import AnyArray
from ketcore.arrays import namespaces
from ketcore.arrays.namespaces import namespace_of
from ketcore.cuda import launcher, library
from ketcore.lookups import kernels
from ketcore.lookups.leaves import PackedTables
from ketcore.lookups.lookup import Lookup
from ketcore.lookups.on_arrays import push
from ketcore.lookups.segments import sum_by_id

__all__ = ["expand", "missing", "obstacle", "pull", "pull_ids", "pull_packed", "push", "records"]


def missing() -> str:
    """As `ketcore.lookups.gather.Engine`, like all below."""
    return "" if library.is_installed() else "CuPy is not installed"


def obstacle(lookup: Lookup) -> str:
    """Why this lookup cannot run here."""
    if launcher.launcher_for(lookup.index) is None:
        return f"must be arrays of CuPy, got {namespaces.library_of(lookup.index)}"
    return kernels.obstacle(lookup)


def expand(lookup: Lookup, out: AnyArray | None) -> AnyArray:
    """Rows (B, columns), into `out` where it is given."""
    return kernels.expand(_launcher(lookup), lookup, out)


def pull(lookup: Lookup, cotangent: AnyArray, deterministic: bool) -> tuple[AnyArray, ...]:
    """The cotangent of rows back to the tables."""
    fills = kernels.fills(lookup, deterministic)
    gradients = _new(lookup, lookup.form.shapes, fills)
    _contract(lookup, cotangent, deterministic, gradients)
    return gradients


def pull_packed(lookup: Lookup, dims: Sequence[int], cotangent: AnyArray, deterministic: bool) -> AnyArray:
    """The cotangent of rows back to packed kets."""
    # Zero stays the gradient of what was cut from the tables.
    fills = kernels.fills(lookup, deterministic) and lookup.widths == tuple(dims)
    (packed,) = _new(lookup, [(lookup.bound, lookup.rank, sum(dims))], fills)
    _contract(lookup, cotangent, deterministic, PackedTables(packed, tuple(dims), lookup.widths))
    return packed


def pull_ids(lookup: Lookup, cotangent: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The cotangent of rows back to the leaves of each id."""
    return sum_by_id(namespace_of(lookup.index), lookup, records(lookup, cotangent))


def records(lookup: Lookup, cotangent: AnyArray) -> AnyArray:
    """The cotangent of rows back to the leaves of each row."""
    return kernels.leaf_cotangents(_launcher(lookup), lookup, cotangent)


def _launcher(lookup):
    return launcher.launcher_for(lookup.index)


def _new(lookup, shapes, fills):
    """Gradients: of zeros, which are one launch more for each, unless the kernels fill all of them."""
    xp, dtype = _launcher(lookup).xp, kernels.sum_dtype(lookup)
    made = xp.empty if fills else xp.zeros
    return tuple([made(shape, dtype) for shape in shapes])


def _contract(lookup, cotangent, deterministic, gradients):
    kernels.contract(_launcher(lookup), lookup, cotangent, deterministic, gradients)
