"""Modes as subsystems: traced out, transposed, and put in another order."""

from collections.abc import Sequence
from functools import reduce
from math import prod
from operator import add, mul
from typing import Any, overload

from ketcore.array_types import ArrayT
from ketcore.arrays.elementary import identity, transposed, widened
from ketcore.arrays.namespaces import accumulation_dtype, is_complex, namespace_of, quiet
from ketcore.arrays.scale import level, stored
from ketcore.objects import arithmetic
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import Diagonal, Identity, KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.part_operators import is_operator
from ketcore.objects.parts import (
    as_dense,
    check_operator_size,
    holds_values,
    kind_of,
    level_parts,
    product_over_modes,
    scaled_part,
    stored_parts,
    trace_of,
    transposed_part,
    unit_diagonal,
)
from ketcore.objects.permutation import Permutation
from ketcore.objects.refusals import kind_refusal
from ketcore.shapes import check_modes, check_order


@overload
def partial_trace(
    matrix: KroneckerMatrix[ArrayT] | Ket[ArrayT], where: int | Sequence[int]
) -> KroneckerMatrix[ArrayT] | Any: ...
@overload
def partial_trace(matrix: KroneckerSum[ArrayT], where: int | Sequence[int]) -> KroneckerSum[ArrayT] | Any: ...
@overload
def partial_trace(
    matrix: KroneckerProduct[ArrayT] | Diagonal[ArrayT], where: int | Sequence[int]
) -> KroneckerProduct[ArrayT] | Any: ...
@quiet
def partial_trace(matrix: Any, where: int | Sequence[int]) -> Any:
    """The trace over some modes: what it leaves of the others, in their order.

    Parameters
    ----------
    matrix : KroneckerMatrix, KroneckerSum, KroneckerProduct, Diagonal, Identity or Ket
        An operator, not cropped; or one ket v, for the partial trace of its projector v v^H: the reduced
        density matrix where v is normalised, which is not seen to here.
    where : int or sequence of ints
        A mode or modes, from 0 (negative ones count from the end), square ones.

    Returns
    -------
    KroneckerMatrix, KroneckerSum, KroneckerProduct or array, ()
        Over all modes the trace, a number of the dtype: of a ket <v, v>.  Else of a KroneckerMatrix one of
        the same rank, of a ket one of rank R^2; of a KroneckerSum a KroneckerSum, the first of its factors
        with the traced ones, as a multiple of the identity; of a KroneckerProduct a KroneckerProduct of parts
        of the same kinds, the first that holds numbers with the traces; where none does, the smallest
        identity becomes a `Diagonal`.

    Raises
    ------
    TypeError, ValueError
        On kinds, modes and crops.
    ValueError
        For a batch of kets.
    MemoryError
        Where a linear operator among parts is too large to be made dense.

    See Also
    --------
    Ket.projector : What is traced of a ket.

    Notes
    -----
    Cost: that of the traced factors; of a ket O(R^2 q_n) for a traced mode and O(R^2 q_n^2) for another.

    Examples
    --------
    >>> partial_trace(KroneckerMatrix([[[1.0, 2.0], [3.0, 4.0]], [[5.0]]]), 0).to_dense().tolist()
    [[25.0]]
    >>> bell = (Ket([[1.0, 0.0], [1.0, 0.0]]) + Ket([[0.0, 1.0], [0.0, 1.0]])) / 2**0.5
    >>> partial_trace(bell, 0).to_dense().round(12).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    matrix = _checked("matrix", matrix, _KINDS, (Ket, *_OPERATORS))
    order = matrix.order
    traced = check_modes("where", where, order)
    kept = [n for n in range(order) if n not in traced]
    if isinstance(matrix, Ket):
        return _trace_of_ket(matrix, traced)
    row_dims, col_dims = _dims(matrix)
    shapes = [(row_dims[n], col_dims[n]) for n in traced]
    if any(rows != columns for rows, columns in shapes):
        raise ValueError(f"where must choose square modes, got {where} of shapes {shapes}")
    if not traced:
        return matrix
    if not kept:
        return matrix.trace()
    if isinstance(matrix, KroneckerSum):
        return _trace_of_sum(matrix, traced, kept)
    if isinstance(matrix, KroneckerProduct):
        return _trace_of_product(matrix, traced, kept)
    return _trace_of_terms(matrix, traced, kept)


def _trace_of_ket(ket, traced):
    if ket.batch_shape:
        raise ValueError(f"matrix must be a single ket, got batch shape {ket.batch_shape} (see ket[i])")
    if len(traced) == ket.order:
        return ket.inner(ket)
    return KroneckerMatrix(arithmetic.projector_factors(ket.factors, traced))


def _trace_of_terms(matrix, traced, kept):
    """The traces of each term as its weight, in one of the modes that are kept."""
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


def _trace_of_sum(matrix, traced, kept):
    """D (sum of the kept factors) + c I, for D the size of what is traced and c its trace."""
    wide = [widened(f) for f in matrix.factors]
    xp = namespace_of(wide[0])
    # As floats, which sizes beyond them do not fail.
    sizes = [float(f.shape[0]) for f in wide]
    total = reduce(add, [xp.linalg.trace(wide[t]) * prod(sizes[n] for n in traced if n != t) for t in traced])
    factors = [wide[n] * prod(sizes[n] for n in traced) for n in kept]
    on_diagonal = identity(factors[0].shape[0], factors[0], xp.bool)
    factors[0] = xp.where(on_diagonal, factors[0] + total, factors[0])
    return KroneckerSum([xp.astype(f, matrix.dtype, copy=False) for f in factors])


def _trace_of_product(matrix, traced, kept):
    """The traces of the other parts as a factor of one that is kept."""
    xp, like, dtype = kind_of(matrix.parts)
    parts = level_parts(matrix.parts)
    total = product_over_modes(trace_of, widened(like), [parts[n] for n in traced])
    found = [parts[n] for n in kept]
    held = [n for n, part in enumerate(found) if holds_values(part)]
    same = [n for n, part in enumerate(found) if isinstance(part, Identity)]
    at = held[0] if held else min(same, key=lambda n: found[n].size, default=0)
    if same and not held:
        found[at] = unit_diagonal(found[at].size, like)
    found = stored_parts(found, accumulation_dtype(xp, dtype))
    if is_operator(found[at]) and is_complex(xp, total.dtype):
        # It may be of a real dtype, which its multiples would have.
        check_operator_size(found[at], total)
        found[at] = as_dense(found[at], total)
    found[at] = scaled_part(found[at], total, False)
    return KroneckerProduct(stored_parts(found, dtype))


@overload
def partial_transpose(
    operator: KroneckerMatrix[ArrayT], where: int | Sequence[int]
) -> KroneckerMatrix[ArrayT]: ...
@overload
def partial_transpose(operator: KroneckerSum[ArrayT], where: int | Sequence[int]) -> KroneckerSum[ArrayT]: ...
@overload
def partial_transpose(
    operator: KroneckerProduct[ArrayT] | Diagonal[ArrayT], where: int | Sequence[int]
) -> KroneckerProduct[ArrayT]: ...
def partial_transpose(operator: Any, where: int | Sequence[int]) -> Any:
    """The operator with some modes transposed, not conjugated: their rows and columns change places.

    Parameters
    ----------
    operator : KroneckerMatrix, KroneckerSum, KroneckerProduct, Diagonal or Identity
        Not cropped; a ket has a `Ket.projector` to be transposed.
    where : int or sequence of ints
        A mode or modes, from 0 (negative ones count from the end).

    Returns
    -------
    KroneckerMatrix, KroneckerSum or KroneckerProduct
        What `operator` is, a part counting as a KroneckerProduct; of all modes its transpose.  Marked
        identities stay so.

    Raises
    ------
    TypeError, ValueError
        On kinds, modes and crops.

    Notes
    -----
    Cost: none: the factors are shared.

    Examples
    --------
    >>> matrix = KroneckerMatrix([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 0.0]]])
    >>> partial_transpose(matrix, 1).to_dense().tolist()[1]
    [1.0, 0.0, 2.0, 0.0]
    """
    if isinstance(operator, Ket):
        raise TypeError(f"operator must be {_OPERATOR_KINDS}, got Ket (see Ket.projector)")
    operator = _checked("operator", operator, _OPERATOR_KINDS, _OPERATORS)
    turned = check_modes("where", where, operator.order)
    if isinstance(operator, KroneckerProduct):
        parts = enumerate(operator.parts)
        return KroneckerProduct([transposed_part(part) if n in turned else part for n, part in parts])
    factors = [transposed(f) if n in turned else f for n, f in enumerate(operator.factors)]
    if isinstance(operator, KroneckerSum):
        return KroneckerSum(factors)
    return KroneckerMatrix(factors, identities=operator.term_identities)


@overload
def permute_subsystems(
    operator: KroneckerMatrix[ArrayT], order: Sequence[int]
) -> KroneckerMatrix[ArrayT]: ...
@overload
def permute_subsystems(operator: KroneckerSum[ArrayT], order: Sequence[int]) -> KroneckerSum[ArrayT]: ...
@overload
def permute_subsystems(
    operator: KroneckerProduct[ArrayT] | Diagonal[ArrayT], order: Sequence[int]
) -> KroneckerProduct[ArrayT]: ...
@overload
def permute_subsystems(operator: Permutation, order: Sequence[int]) -> Permutation: ...
@overload
def permute_subsystems(operator: Ket[ArrayT], order: Sequence[int]) -> Ket[ArrayT]: ...
def permute_subsystems(operator: Any, order: Sequence[int]) -> Any:
    """The same operator, or ket, with its modes in another order: mode n of the result is mode order[n].

    Parameters
    ----------
    operator : KroneckerMatrix, KroneckerSum, KroneckerProduct, Diagonal, Identity, Permutation or Ket
        A matrix must not be cropped; kets may be a batch.
    order : sequence of N ints
        Each mode once, as in `np.transpose`.

    Returns
    -------
    KroneckerMatrix, KroneckerSum, KroneckerProduct, Permutation or Ket
        What `operator` is, a part counting as a KroneckerProduct.  For P = Permutation(dims, order):
        `P @ A @ P.T` of a matrix, `P @ v` of a ket.

    Raises
    ------
    TypeError, ValueError
        On kinds, on orders, and for a cropped matrix.

    Notes
    -----
    Cost: none for a matrix, which shares its factors; a copy of the leaves of a ket.

    Examples
    --------
    >>> permute_subsystems(Ket([[1.0, 2.0], [3.0, 4.0]]), (1, 0)).to_dense().tolist()
    [3.0, 6.0, 4.0, 8.0]
    """
    if isinstance(operator, Ket):
        return Ket([operator.factors[n] for n in check_order(order, operator.order)])
    if isinstance(operator, Permutation):
        order = check_order(order, len(operator.dims))
        rows, columns = Permutation(operator.T.dims, order), Permutation(operator.dims, order)
        return rows @ operator @ columns.T
    operator = _checked("operator", operator, _KINDS_IN_ORDER, _OPERATORS)
    order = check_order(order, operator.order)
    if isinstance(operator, KroneckerProduct):
        return KroneckerProduct([operator.parts[n] for n in order])
    factors = [operator.factors[n] for n in order]
    if isinstance(operator, KroneckerSum):
        return KroneckerSum(factors)
    identities = [{order.index(n) for n in known} for known in operator.term_identities]
    return KroneckerMatrix(factors, identities=identities)


_OPERATORS = (KroneckerMatrix, KroneckerSum, KroneckerProduct)
_OPERATOR_KINDS = "a KroneckerMatrix, KroneckerSum or KroneckerProduct"
_KINDS = "a KroneckerMatrix, KroneckerSum, KroneckerProduct or Ket"
_KINDS_IN_ORDER = "a KroneckerMatrix, KroneckerSum, KroneckerProduct, Permutation or Ket"


def _checked(name, operator, kinds, known):
    """An operator or ket whose modes are whole; a part of a KroneckerProduct as one."""
    if isinstance(operator, Diagonal | Identity):
        return KroneckerProduct([operator])
    if not isinstance(operator, known):
        raise kind_refusal(name, kinds, operator)
    if isinstance(operator, KroneckerMatrix):
        full = prod(operator.row_dims), prod(operator.col_dims)
        if operator.shape != full:
            raise ValueError(f"{name} must not be cropped, got shape {operator.shape} of {full}")
    return operator


def _dims(operator):
    """The row and the column dims of an operator."""
    if isinstance(operator, KroneckerSum):
        return operator.dims, operator.dims
    return operator.row_dims, operator.col_dims
