"""Terms that are one: zeros dropped, and terms that differ in one mode at most added up.

a (x) b (x) c  +  a (x) 2b (x) d  =  a (x) b (x) (c + 2d)
"""

from collections.abc import Sequence

import array_api_compat
import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.namespaces import to_host
from ketcore.fit.flat_leaves import epsilon, like

# Leaves that are this near to multiples of each other, in units of rounding, count as such.
_NEAR = 16


def merged_terms(leaves: Sequence[AnyArray]) -> list[AnyArray]:
    """The same sum of terms (R, d_n), exact to rounding, with fewer terms where some are one; maybe none.

    Notes
    -----
    Cost: O(R^2 sum d_n), on the host.

    Examples
    --------
    >>> a, b = np.array([[1.0, 2.0], [2.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> [leaf.tolist() for leaf in merged_terms([a, b])]
    [[[1.0, 2.0]], [[1.0, 2.0]]]
    """
    xp = array_api_compat.array_namespace(*leaves)
    near = _NEAR * epsilon(leaves[0])
    host = [np.array(to_host(leaf)) for leaf in leaves]
    sizes = _sizes(host)
    # What is lost in the rounding of the largest term counts as zero, here and where terms cancel below.
    nothing = near / _NEAR * max(sizes, default=0.0)
    host = [leaf[sizes > nothing] for leaf in host]
    parallel = [_parallel(leaf, leaf, near) for leaf in host]
    term = 0
    while term < len(host[0]):
        # The modes in which each later term is a multiple of this one.
        same = sum(p[term, term + 1 :].astype(int) for p in parallel)
        others = term + 1 + np.flatnonzero(same >= len(host) - 1)
        if not len(others):
            term += 1
            continue
        mode = _absorb(host, parallel, term, others[0])
        gone = [others[0]]
        if _sizes([leaf[term : term + 1] for leaf in host])[0] <= leaves[0].shape[0] * nothing:
            gone.append(term)
        else:
            parallel[mode][term] = _parallel(host[mode][term : term + 1], host[mode], near)[0]
            parallel[mode][:, term] = parallel[mode][term]
        host = [np.delete(leaf, gone, axis=0) for leaf in host]
        parallel = [np.delete(np.delete(p, gone, axis=0), gone, axis=1) for p in parallel]
        # The longer leaf may have become a multiple of those of earlier terms.
        term = 0
    return [like(xp, leaf, given) for leaf, given in zip(host, leaves, strict=True)]


def _sizes(leaves):
    """The norms of the terms."""
    return np.prod([np.linalg.norm(leaf, axis=1) for leaf in leaves], axis=0)


def _parallel(left, right, near):
    """(R, R'): whether leaves are multiples, by their difference: cosines tell half the digits."""
    left, right = (leaf / np.linalg.norm(leaf, axis=1, keepdims=True) for leaf in (left, right))
    products = left.conj() @ right.T
    found = np.abs(products) > 1 - np.sqrt(near)
    for k, row in enumerate(found):
        m = np.flatnonzero(row)
        row[m] = np.linalg.norm(right[m] - products[k, m, None] * left[k], axis=1) <= near
    return found


def _absorb(leaves, parallel, term, other):
    """Add term `other` to `term`, in the one mode where they differ; returns that mode."""
    differ = [n for n, p in enumerate(parallel) if not p[term, other]]
    mode = differ[0] if differ else 0
    factor = 1
    for n, leaf in enumerate(leaves):
        if n != mode:
            factor = factor * np.vdot(leaf[term], leaf[other]) / np.vdot(leaf[term], leaf[term])
    leaves[mode][term] += factor * leaves[mode][other]
    return mode
