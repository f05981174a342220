"""Modes as subsystems: traced out, and put in another order."""

from collections.abc import Sequence
from functools import reduce
from math import prod
from operator import mul
from typing import Any, overload

from ketcore.array_types import ArrayT
from ketcore.arrays.elementary import widened
from ketcore.arrays.namespaces import namespace_of, quiet
from ketcore.arrays.scale import level, stored
from ketcore.objects import arithmetic
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.shapes import check_modes, check_order


@quiet
def partial_trace(matrix: KroneckerMatrix[ArrayT], where: int | Sequence[int]) -> KroneckerMatrix[ArrayT]:
    """The trace over some modes: the remaining ones in their order, of the same rank.

    where    a mode or modes, from 0 (negative ones count from the end), square ones, not all
    returns  a KroneckerMatrix of the other modes
    raises   TypeError, ValueError on kinds, modes and crops
    cost     that of the traced factors

    >>> partial_trace(KroneckerMatrix([[[1.0, 2.0], [3.0, 4.0]], [[5.0]]]), 0).to_dense().tolist()
    [[25.0]]
    """
    _check_whole(matrix)
    traced = check_modes("where", where, matrix.order)
    kept = [n for n in range(matrix.order) if n not in traced]
    if not kept:
        raise ValueError(f"where must leave at least one of {matrix.order} modes, got {where}")
    shapes = [tuple(matrix.factors[n].shape[1:]) for n in traced]
    if any(rows != columns for rows, columns in shapes):
        raise ValueError(f"where must choose square modes, got {where} of shapes {shapes}")
    if not traced:
        return matrix
    wide, _ = level([widened(f) for f in matrix.factors], None, fixed=matrix.term_identities)
    xp = namespace_of(wide[0])
    scale = reduce(mul, [xp.sum(xp.linalg.diagonal(wide[n]), axis=-1) for n in traced])

    def scaled(factor):
        return factor * scale[:, None, None]

    # The traces go to a remaining mode that is no identity, so that identities stay what they are.
    factors, marks = arithmetic.carried(wide, matrix.term_identities, scaled, kept)
    identities = tuple(frozenset(kept.index(n) for n in known if n in kept) for known in marks)
    kept_factors = stored([factors[n] for n in kept], matrix.dtype, None, identities)
    return KroneckerMatrix(kept_factors, identities=identities)


@overload
def permute_subsystems(
    operator: KroneckerMatrix[ArrayT], order: Sequence[int]
) -> KroneckerMatrix[ArrayT]: ...
@overload
def permute_subsystems(operator: Ket[ArrayT], order: Sequence[int]) -> Ket[ArrayT]: ...
def permute_subsystems(operator: Any, order: Sequence[int]) -> Any:
    """The same operator, or ket, with its modes in another order: mode n of the result is mode order[n].

    operator  a KroneckerMatrix or a Ket
    order     each mode once, as in np.transpose
    returns   what `operator` is.  For P = Permutation(dims, order): P @ A @ P.T of a matrix, P @ v of a ket
    raises    TypeError, ValueError on kinds, on orders, and for a cropped matrix
    cost      none for a matrix, which shares its factors; a copy of the leaves of a ket

    >>> permute_subsystems(Ket([[1.0, 2.0], [3.0, 4.0]]), (1, 0)).to_dense().tolist()
    [3.0, 6.0, 4.0, 8.0]
    """
    if isinstance(operator, Ket):
        return Ket([operator.factors[n] for n in check_order(order, operator.order)])
    _check_whole(operator)
    order = check_order(order, operator.order)
    identities = [{order.index(n) for n in known} for known in operator.term_identities]
    return KroneckerMatrix([operator.factors[n] for n in order], identities=identities)


def _check_whole(matrix):
    if not isinstance(matrix, KroneckerMatrix):
        raise TypeError(f"matrix must be a KroneckerMatrix, got {type(matrix).__name__}")
    full = prod(matrix.row_dims), prod(matrix.col_dims)
    if matrix.shape != full:
        raise ValueError(f"matrix must not be cropped, got shape {matrix.shape} of {full}")
