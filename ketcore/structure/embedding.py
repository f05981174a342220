"""Operators on some modes of a larger space.

A dense operator on several modes is a sum of Kronecker products of operators on one mode each, see
`ketcore.structure.splits`.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, overload

from ketcore.array_types import ArrayT, ForeignT, Host, HostFactor
from ketcore.arrays.autodiff import is_recorded
from ketcore.arrays.checks import check_flag, check_floating
from ketcore.arrays.elementary import identity
from ketcore.arrays.namespaces import accumulation_dtype, is_array, namespace_of, quiet
from ketcore.objects import construction
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.permutation import Permutation
from ketcore.objects.refusals import kind_refusal
from ketcore.shapes import check_dims, check_modes, shown
from ketcore.structure.splits import exact_split, linear_split, svd_split


@overload
def embed(
    op: KroneckerMatrix[ArrayT] | KroneckerSum[ArrayT] | KroneckerProduct[ArrayT],
    dims: Sequence[int],
    where: int | Sequence[int],
    *,
    linear: bool = False,
    svd: bool = False,
) -> KroneckerMatrix[ArrayT]: ...
@overload
def embed(
    op: HostFactor,
    dims: Sequence[int],
    where: int | Sequence[int],
    *,
    linear: bool = False,
    svd: bool = False,
) -> KroneckerMatrix[Host]: ...
@overload
def embed(
    op: ForeignT, dims: Sequence[int], where: int | Sequence[int], *, linear: bool = False, svd: bool = False
) -> KroneckerMatrix[ForeignT]: ...
@quiet
def embed(
    op: Any, dims: Sequence[int], where: int | Sequence[int], *, linear: bool = False, svd: bool = False
) -> KroneckerMatrix[Any]:
    """`op` acting on the modes `where` of a space of these dims, the identity on all others.

    Parameters
    ----------
    op : array, (d, d), KroneckerMatrix, KroneckerSum or KroneckerProduct
        A matrix, dense or sparse, d the product of the dims of these modes; or an operator with these dims.
    dims : sequence of N ints
        Each >= 1.
    where : int or sequence of ints
        A mode or modes in any order, neighbours or not: the first one is the most significant of `op`.
        Negative ones count from the end.
    linear : bool, default False
        True: terms that are linear in the matrix, one for each element of its blocks on the last mode:
        `(d / d_last)^2`.  So are those of an array that is differentiated or traced, unless `svd` says
        otherwise: values are not looked at, and singular vectors have no derivative where values meet.
    svd : bool, default False
        True: terms of singular vectors, equal to `op` up to rounding of its largest elements.  Fewer than the
        exact ones where blocks are sums of multiples of others: exp(i t Z (x) Z (x) Z) has 2, exactly 4.
        Singular values up to eps * d * (the largest one) count as zero.

    Returns
    -------
    KroneckerMatrix
        One that knows its identities.  A matrix on one mode gives rank 1.

    Raises
    ------
    TypeError, ValueError
        On kinds, shapes and modes, and on both options at once.
    ValueError
        Where a split by values meets elements that are not finite.

    Notes
    -----
    Cost: that of looking at `op`, which is small, in host memory; with `svd` its SVDs.  Nothing of the size
    of the space.

    A matrix on several modes is split exactly, unless an option says otherwise: an element of the result is
    one product, in one term, and equals that of `op`.  Blocks that are multiples of one another share a term:
    CNOT has 2, SWAP 4, Toffoli 3.  They do also where they are multiples but for the rounding of numbers, as
    those of A (x) B are: elements then agree to 4 N eps of each, N the number of modes in `where` (exactly,
    in 16-bit storage).

    Examples
    --------
    >>> cnot = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    >>> gate = embed(cnot, (2,) * 30, (29, 0))
    >>> gate.rank, gate.shape == (2**30, 2**30)
    (2, True)
    """
    linear, svd = check_flag("linear", linear), check_flag("svd", svd)
    if linear and svd:
        raise ValueError(f"linear and svd must not be True at once, got {linear} and {svd}")
    dims = check_dims("dims", dims)
    where = check_modes("where", where, len(dims))
    if not where:
        raise ValueError("where must hold at least one mode, got none")
    inside = tuple(dims[n] for n in where)
    if isinstance(op, KroneckerSum | KroneckerProduct):
        op = op.to_kronecker()
    parts = _parts(op, inside, _split_for(op, linear, svd))
    like = parts[0]
    factors = dict(zip(where, parts, strict=True))
    xp = namespace_of(like)
    for mode, dim in enumerate(dims):
        if mode not in factors:
            one = identity(dim, like)
            factors[mode] = xp.broadcast_to(one, (like.shape[0], dim, dim))
    known = op.term_identities if isinstance(op, KroneckerMatrix) else [()] * like.shape[0]
    outside = frozenset(range(len(dims))).difference(where)
    identities = [outside.union(where[n] for n in term) for term in known]
    return KroneckerMatrix([factors[n] for n in range(len(dims))], identities=identities)


def _split_for(op, linear, svd):
    """The way to split a dense operator: terms by values have derivatives of their own values alone."""
    if svd:
        return svd_split
    return linear_split if linear or (is_array(op) and is_recorded([op])) else exact_split


def _parts(op, dims, split):
    """One array (R, d_n, d_n) per mode that `op` acts on."""
    if isinstance(op, KroneckerMatrix):
        if (op.row_dims, op.col_dims, op.shape) != (dims, dims, (prod(dims),) * 2):
            rule = f"op must have row_dims and col_dims {shown(dims)} and no crop"
            raise ValueError(f"{rule}, got {op.row_dims} and {op.col_dims} of shape {op.shape}")
        return op.factors
    if isinstance(op, Ket | Permutation):
        raise kind_refusal("op", "a matrix, KroneckerMatrix, KroneckerSum or KroneckerProduct", op)
    xp, (op,), dtype = check_floating("op", construction.dense_factors([op]))
    if tuple(op.shape) != (prod(dims),) * 2:
        rule = f"op must have shape {shown((prod(dims),) * 2)} for modes {shown(dims)}"
        raise ValueError(f"{rule}, got {tuple(op.shape)}")
    if len(dims) == 1:
        return [op[None, :, :]]
    wide = xp.astype(op, accumulation_dtype(xp, dtype), copy=False)
    return [xp.astype(part, dtype, copy=False) for part in split(wide if split is svd_split else op, dims)]
