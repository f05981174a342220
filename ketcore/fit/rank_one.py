"""The nearest single Kronecker product of a sum of them: the higher-order power method on inner products.

With the other leaves f_m of norm 1 fixed, the best leaf of mode n is

    f_n = sum_k c_k x_nk,   c_k = prod_{m != n} <f_m, x_mk>,

and |f_n| = |<f, M>| grows from one update to the next (de Lathauwer, de Moor and Vandewalle, SIAM J. Matrix
Anal. Appl. 21, 2000, section 3).  Where M and the other leaves are Hermitian, or positive semi-definite, so
is f_n.
"""

from functools import reduce
from operator import mul

import array_api_compat

from ketcore.array_types import ArrayT
from ketcore.arrays import scale
from ketcore.arrays.elementary import conjugated, elementwise_product, identity, widened
from ketcore.arrays.namespaces import is_complex, quiet
from ketcore.fit.flat_leaves import epsilon, flat_leaves, inner_products, length
from ketcore.objects.kronecker_matrix import KroneckerMatrix

# A preconditioner needs few digits of its factors, and the fit settles twice as fast as they do.
_SWEEPS = 60
_SETTLED = 1e-13


@quiet
def nearest_rank_one(matrix: KroneckerMatrix[ArrayT]) -> KroneckerMatrix[ArrayT]:
    """A single Kronecker product near `matrix`: a local optimum in the Frobenius norm.

    Parameters
    ----------
    matrix : KroneckerMatrix
        Of R >= 1 terms; a cropped one counts as the whole that it is a block of.

    Returns
    -------
    KroneckerMatrix
        Of rank 1, with the dims, shape and dtype of `matrix`, its factors of one norm; Hermitian where
        `matrix` is, and positive semi-definite where it is that as well.

    Notes
    -----
    Cost: O(R sum p_n q_n) a sweep, at most 60 sweeps of two starts; waits for the device.

    Examples
    --------
    >>> import numpy as np
    >>> two = KroneckerMatrix.from_terms([[np.eye(2), np.eye(3)], [np.eye(2), 2 * np.eye(3)]])
    >>> nearest_rank_one(two).diagonal().round(12).tolist()
    [3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    """
    if matrix.rank == 1:
        return matrix
    xp = array_api_compat.array_namespace(*matrix.factors)
    units, peaks = scale.unit_leaves(flat_leaves(matrix.factors))
    sides = [f.shape[1] for f in matrix.factors] if is_hermitian_matrix(matrix) else None
    best, fit = [xp.zeros_like(unit[:1, :]) for unit in units], 0.0
    for start in _starts(xp, units, matrix, sides):
        leaves, found = _power_method(xp, units, start, sides)
        if found > fit:
            best, fit = leaves, found
        # The start by partial traces keeps a positive semi-definite matrix so: no other one may win.
        if sides and fit > 0:
            break
    scaled = scale.balanced([leaf * peak for leaf, peak in zip(best, peaks, strict=True)])
    shaped = zip(scaled, matrix.factors, strict=True)
    factors = [xp.astype(xp.reshape(a, (1, *f.shape[1:])), matrix.dtype, copy=False) for a, f in shaped]
    return KroneckerMatrix(factors, matrix.shape)


def is_hermitian_matrix(matrix: KroneckerMatrix) -> bool:
    """Whether a matrix with square factors is its conjugate transpose, as far as inner products can tell.

    They see a difference of the square root of machine precision, relative to the matrix.

    >>> import numpy as np
    >>> a = KroneckerMatrix([np.eye(2), [[1.0, 2.0], [0.0, 1.0]]])
    >>> is_hermitian_matrix(a), is_hermitian_matrix(a + a.T)
    (False, True)
    """
    if matrix.row_dims != matrix.col_dims:
        return False
    whole = KroneckerMatrix([widened(f) for f in matrix.factors])
    return float((whole - whole.H).norm()) <= 8 * epsilon(whole.factors[0]) ** 0.5 * float(whole.norm())


def _starts(xp, units, matrix, sides):
    """Leaves (1, d_n) to begin with: the partial traces of a square matrix, and its largest term."""
    if matrix.row_dims == matrix.col_dims:
        sized = zip(matrix.row_dims, units, strict=True)
        eyes = (identity(n, u) for n, u in sized)
        yield [xp.reshape(eye, (1, -1)) for eye in eyes]
    sizes = elementwise_product([xp.sum(xp.abs(unit) ** 2, axis=-1) for unit in units])
    term = int(xp.argmax(sizes))
    first = [unit[term : term + 1, :] for unit in units]
    yield [_symmetrised(xp, leaf, side) for leaf, side in zip(first, sides, strict=True)] if sides else first


def _power_method(xp, units, leaves, sides):
    """Leaves (1, d_n), all but the last of norm 1, and the fit: 0 where the start is orthogonal to M."""
    leaves = [leaf / (length(leaf) or 1.0) for leaf in leaves]
    products = [inner_products(leaf, unit) for leaf, unit in zip(leaves, units, strict=True)]
    # What is left of terms that cancel or are orthogonal to the start is rounding.
    nothing = 16 * epsilon(units[0]) * sum(length(unit) for unit in units)
    fit = 0.0
    for _ in range(_SWEEPS):
        before = fit
        for mode, unit in enumerate(units):
            others = [c for m, c in enumerate(products) if m != mode]
            leaf = (reduce(mul, others) if others else xp.ones_like(products[0])) @ unit
            leaf = _symmetrised(xp, leaf, sides[mode]) if sides else leaf
            fit = length(leaf)
            if fit <= nothing:
                return leaves, 0.0
            leaves[mode] = leaf / fit
            products[mode] = inner_products(leaves[mode], unit)
        if fit - before <= _SETTLED * fit:
            break
    leaves[-1] = leaves[-1] * fit
    return leaves, fit


def _symmetrised(xp, leaf, side):
    """The Hermitian or, for a real leaf that is nearer to one, the skew part: what rounding blurs."""
    square = xp.reshape(leaf, (side, side))
    turned = conjugated(xp.permute_dims(square, (1, 0)))
    phase = xp.sum(square * conjugated(turned))
    if is_complex(xp, leaf.dtype):
        # tr(f f) is e^{2 i phi} |f|^2 for a Hermitian matrix times e^{i phi}.
        turn = complex(phase)
        square = square * (abs(turn) / turn) ** 0.5 if turn else square
        turned = conjugated(xp.permute_dims(square, (1, 0)))
        sign = 1
    else:
        sign = 1 if float(phase) >= 0 else -1
    return xp.reshape((square + sign * turned) / 2, (1, side * side))
