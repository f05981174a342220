"""Factors of opposite scales, and the same ones at one level."""

import numpy as np

import ketcore as kc
from ketcore.arrays.checks import check_identities

# Leaves by rows and terms are scaled apart where they are kets, terms of matrices all together.  Kets have
# these names in every operation.
_KETS = ("v", "w")


def times_power(array, shift):
    """`array` 2^shift, exact; complex arrays part by part."""
    with np.errstate(all="ignore"):
        if array.dtype.kind != "c":
            return np.ldexp(array, shift)
        found = np.empty_like(array)
        found.real, found.imag = np.ldexp(array.real, shift), np.ldexp(array.imag, shift)
        return found


def powers(rng, count, shape, top):
    """`count` arrays of integers up to about `top` in size that add up to zero."""
    found = [rng.integers(-top, top + 1, shape) for _ in range(count - 1)]
    total = sum(found) if found else np.zeros(shape, int)
    # The last one takes what is missing, and the others what it cannot hold.
    for shift in found:
        over = np.where(np.abs(total) > top, np.sign(total) * np.minimum(np.abs(total) - top, top), 0)
        change = np.where(np.sign(shift) == np.sign(over), over, 0)
        change = np.sign(change) * np.minimum(np.abs(change), np.abs(shift))
        shift -= change
        total -= change
    return [*found, -total]


def gauge(problem, rng):
    """A shift for each array of a problem: those of each term add up to zero, per primal."""
    top = 600 if problem.arrays[0].dtype.itemsize // (1 + (problem.arrays[0].dtype.kind == "c")) == 8 else 80
    shifts, start = [], 0
    for primal, count in zip(problem.op.primals, problem.counts, strict=True):
        arrays = problem.arrays[start : start + count]
        start += count
        own = [np.zeros((1,) * a.ndim, int) for a in arrays]
        if primal.name == "leaves":
            words, rank, _ = arrays[0].shape
            dims = problem.options["dims"]
            parts = powers(rng, len(dims), (words, rank, 1), 0 if problem.options.get("layernorm") else top)
            parts = [np.repeat(part, q, axis=2) for part, q in zip(parts, dims, strict=True)]
            own = [np.concatenate(parts, axis=2)]
        elif primal.several and primal.name in _KETS:
            own = powers(rng, len(arrays), (*arrays[0].shape[:-1], 1), top)
        elif primal.several:
            own = by_terms(arrays, problem.options.get("identities", ()), rng, top)
        shifts += own
    return shifts


def by_terms(arrays, identities, rng, top):
    """Shifts (R, 1, 1) of factors (..., R, p, q), of which some modes of each term are identities."""
    rank, dims = arrays[0].shape[-3], [[a.shape[axis] for a in arrays] for axis in (-2, -1)]
    found = [np.zeros((rank, 1, 1), int) for _ in arrays]
    for k, known in enumerate(check_identities(identities, dims, rank)):
        free = [n for n in range(len(arrays)) if n not in known]
        for n, shift in zip(free, powers(rng, len(free), (1, 1), top) if free else (), strict=True):
            found[n][k] = shift
    return found


def normal(rng, shape, dtype):
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values).astype(dtype)


def scales(dtype):
    """Decimal exponents that add up to zero, in every order that can go wrong."""
    wide = [(200, -200), (-200, 200), (200, 200, -200, -200), (-200, -200, 200, 200), (-170, -130, 300)]
    narrow = [(30, -30), (30, 30, -30, -30), (-30, -30, 30, 30), (-25, -12, 37)]
    return wide if np.dtype(dtype) in (np.dtype("f8"), np.dtype("c16")) else narrow


def matrices(dtype, exponents, rng, square=True, rank=1, dims=(2, 3, 2, 2)):
    """A level Kronecker matrix and the same one with factors of opposite scales."""
    factors = []
    for size, _ in zip(dims, exponents, strict=False):
        values = normal(rng, (rank, size, size if square else size + 1), dtype)
        factors.append(values + (2 * np.eye(size, dtype=dtype) if square else 0))
    shifts = [round(e * np.log2(10)) for e in exponents]
    shifts[-1] -= sum(shifts)
    return kc.KroneckerMatrix(factors), kc.KroneckerMatrix(list(map(times_power, factors, shifts)))


def compared(function, A, B, slack=1.0):
    with np.errstate(all="ignore"):
        expected, actual = np.asarray(function(A)), np.asarray(function(B))
    assert actual.dtype == expected.dtype
    assert np.isfinite(actual).all()
    size = np.abs(expected).max()
    assert np.abs(actual - expected).max() <= 200 * slack * np.finfo(expected.dtype).eps * size
