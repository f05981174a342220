"""Systems with M + s I for factors that are not Hermitian: complex Schur forms and back substitution.

    F_n = Z_n T_n Z_n^H,   (M + s I)^-1 = Z (T + s I)^-1 Z^H,   T = T_0 (x) ... (x) T_{N-1} upper triangular

Where a T_n is diagonal (F_n is normal) its digits are solved side by side; the last mode, the largest of
those that are not, is a stack of small triangular systems.

Letters: N order, p_n size of factor n, P = prod p_n, s shift.
"""

from collections.abc import Callable, Sequence
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import adjoint, complex_dtype, identity
from ketcore.arrays.namespaces import device_of, is_complex, to_host
from ketcore.spectra import decompositions


def triangular_solver(
    xp: ModuleType, matrices: Sequence[AnyArray], shift: AnyArray, axis: int, dtype: Any
) -> Callable[[AnyArray], AnyArray]:
    """A function of b, of `dtype`, that gives (M + s I)^-1 b: by complex Schur forms, made once.

    Where a factor is not finite all of it is NaN.  The matrices have no derivatives; those by b and by the
    shift are recorded.
    """
    from scipy.linalg import schur  # here, because scipy.linalg is slow to import

    real, dtype = not is_complex(xp, dtype), complex_dtype(xp, dtype)
    device = device_of(matrices[0])
    hosted = [to_host(matrix) for matrix in matrices]
    if not all(np.isfinite(matrix).all() for matrix in hosted):
        return lambda b: xp.full_like(b, xp.nan)
    forms = [schur(matrix, output="complex") for matrix in hosted]
    narrow = [[part.astype(decompositions.np_complex(xp, dtype)) for part in form] for form in forms]
    moved = [[xp.asarray(part, device=device) for part in form] for form in narrow]
    triangles, bases = zip(*moved, strict=True)
    decompositions.check_regular(
        xp, decompositions.kron_of_vectors(xp, [xp.linalg.diagonal(t) for t in triangles]), shift
    )
    shift = xp.astype(shift, dtype)

    def solve(b):
        b = xp.astype(b, dtype)
        turned = decompositions.times_matrix(xp, [adjoint(basis) for basis in bases], b, axis)
        flat = xp.reshape(turned, (prod(b.shape[:axis]), b.shape[axis], b.shape[-1] if axis == -2 else 1))
        found = _ordered(xp, [t for t, _ in forms], triangles, flat, shift)
        found = decompositions.times_matrix(xp, bases, xp.reshape(found, b.shape), axis)
        return xp.real(found) if real else found

    return solve


def _ordered(xp, hosted, triangles, c, shift):
    """Back substitution with the diagonal factors, which need no loop, before the others."""
    plain = [np.abs(np.triu(t, 1)).max(initial=0) <= np.finfo(t.dtype).eps * np.abs(t).max() for t in hosted]
    order = sorted(range(len(plain)), key=lambda n: (not plain[n], triangles[n].shape[0]))
    dims = [t.shape[0] for t in triangles]
    batch, _, trail = c.shape
    axes = (*(1 + n for n in order), 0, 1 + len(dims))
    split = xp.permute_dims(xp.reshape(c, (batch, *dims, trail)), axes)
    flat = xp.reshape(split, (1, prod(dims), batch * trail))
    parts = [(triangles[n], plain[n]) for n in order]
    one = xp.ones((1,), dtype=c.dtype, device=device_of(c))
    found = xp.reshape(_substitute(xp, parts, flat, one, shift), split.shape)
    back = tuple(axes.index(i) for i in range(len(axes)))
    return xp.reshape(xp.permute_dims(found, back), c.shape)


def _substitute(xp, parts, c, scale, shift):
    """The y with (scale T + s I) y = c for a stack: c (B, P, n), scale (B,), T the product of all parts."""
    if not parts:
        return c / (scale + shift)[:, None, None]
    (triangle, plain), rest = parts[0], parts[1:]
    count, size = c.shape[0], triangle.shape[0]
    blocks = xp.reshape(c, (count, size, c.shape[1] // size, c.shape[2]))
    diagonal = xp.linalg.diagonal(triangle)
    if plain:
        scales = xp.reshape(scale[:, None] * diagonal[None, :], (-1,))
        stack = xp.reshape(blocks, (count * size, *blocks.shape[2:]))
        return xp.reshape(_substitute(xp, rest, stack, scales, shift), c.shape)
    if not rest:
        shifted = scale[:, None, None] * triangle + shift * identity(triangle.shape[0], triangle)
        return xp.linalg.solve(shifted, c)
    found, pushed = [], []
    for i in reversed(range(size)):
        right = blocks[:, i, ...]
        for j, push in zip(range(size - 1, i, -1), pushed, strict=True):
            right = right - triangle[i, j] * push
        found.append(_substitute(xp, rest, right, scale * diagonal[i], shift))
        pushed.append(
            scale[:, None, None] * decompositions.times_matrix(xp, [t for t, _ in rest], found[-1], -2)
        )
    return xp.reshape(xp.stack(found[::-1], axis=1), c.shape)
