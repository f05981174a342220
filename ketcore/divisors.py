"""Balanced dims whose product is a given number, or little more.  Standard library, no arrays.

Exact ones d_0 <= ... <= d_{N-1} of product n have d_{N-1} <= 2 d_0, so that all of them lie between half the
N-th root of n and twice that.  The search is for the least last dim and then, from the first on, for the
largest others; whether some dims can be completed is found by giving the largest prime of the rest to one dim
after the other, since few dims hold it.
"""

from bisect import bisect_right
from collections.abc import Sequence

from ketcore.shapes import MOST_MODES, check_int, integer_root

# Wider windows of divisors than this are not searched: beyond it the exact factorisation of a huge
# number would cost more than the padding that it saves.
_LARGEST_WINDOW = 1 << 16

# Divisors that are listed, and dims that are tried for one last dim and in all: some ten milliseconds.
_MOST_DIVISORS = 1 << 13
_STEPS, _ALL_STEPS = 1 << 13, 1 << 15


def suggest_dims(n: int, order: int) -> tuple[int, ...]:
    """Balanced dims, `order` of them and ascending, whose product is at least `n`.

    An exact factorisation of `n` where one has no dim above twice another; otherwise the least padding among
    dims that differ by at most one.

    Parameters
    ----------
    n : int
        At least 1: the number of rows or of columns to be factorised.
    order : int
        How many dims, from 1 to 2**20.

    Returns
    -------
    tuple of ints
        They have a product of `n`, or of a little more: `shape` crops a matrix of such dims.

    Raises
    ------
    TypeError
        If `n` or `order` is no int.
    ValueError
        If it is out of range.

    Notes
    -----
    Cost: at most some hundred milliseconds, mostly far less: of numbers with very many divisors only some
    factorisations are tried.

    Examples
    --------
    >>> suggest_dims(256, 4), suggest_dims(300, 2), suggest_dims(30428, 2)
    ((4, 4, 4, 4), (15, 20), (174, 175))
    """
    n, order = check_int("n", n, 1), check_int("order", order, 1, MOST_MODES)
    root = integer_root(n, order)
    exact = (root,) * order if root**order == n else _exact_dims(n, order, root)
    if exact:
        return exact
    larger = next(j for j in range(order + 1) if root ** (order - j) * (root + 1) ** j >= n)
    return (root,) * (order - larger) + (root + 1,) * larger


def _exact_dims(n: int, order: int, root: int) -> tuple[int, ...]:
    """The exact balanced ascending dims of `n` with the smallest last; () where none are found.

    `root` is the integer `order`-th root of n.
    """
    if order == 1:
        return (n,)
    if order == 2:
        # Divisors between half the root and the root, whose cofactors are at most twice as large.
        least = max(root // 2, root - _LARGEST_WINDOW, 1)
        first = next((d for d in range(root, least - 1, -1) if n % d == 0), None)
        return (first, n // first) if first and n // first <= 2 * first else ()
    primes = _primes(n, 2 * root)
    divisors = _divisors(n, primes, 2 * root) if primes else []
    left = _ALL_STEPS
    for last in divisors:
        if last**order < n or left <= 0:
            continue
        search = _Search([d for d in divisors if last <= 2 * d and d <= last], primes, min(_STEPS, left))
        dims = search.largest(n // last, order - 1)
        left -= search.tried + len(search.dims)
        if dims:
            return (*dims, last)
    return ()


def _primes(n, most):
    """The primes of `n`, descending; () where one is above `most`."""
    found, prime = [], 2
    while prime * prime <= n and prime <= min(most, _LARGEST_WINDOW):
        if n % prime == 0:
            found.append(prime)
            while n % prime == 0:
                n //= prime
        prime += 1 if prime == 2 else 2
    # What remains is a prime, or has none that would be tried.
    found += [n] if n > 1 else []
    return tuple(reversed(found)) if found and found[-1] <= most else ()


def _divisors(n, primes, most):
    """The divisors of `n` from a quarter of `most` up to it, ascending; [] where there are too many."""
    found = [1]
    for prime in primes:
        powers, rest = [1], n
        while rest % prime == 0 and powers[-1] * prime <= most:
            powers.append(powers[-1] * prime)
            rest //= prime
        found = [d * power for d in found for power in powers if d * power <= most]
        if len(found) > _MOST_DIVISORS:
            return []
    return sorted(d for d in found if d >= most // 4)


class _Search:
    """Factorisations into dims of a list, ascending, within so many steps."""

    def __init__(self, dims: Sequence[int], primes: Sequence[int], steps: int):
        self.dims, self.primes, self.steps, self.tried = dims, primes, steps, 0
        self.known = frozenset(dims)
        self.failed: set[tuple[int, int, int]] = set()
        self.holders = {p: [d for d in reversed(dims) if d % p == 0] for p in primes}

    def largest(self, rest: int, count: int) -> tuple[int, ...]:
        """`count` ascending dims of product `rest`, the first the largest that can be, then the second.

        Where the steps end, the dims that were found until then; () where there are none.
        """
        tail = sorted(self.completed(rest, count, 0) or ())
        head: list[int] = []
        while len(tail) > 1:
            root = integer_root(rest, len(tail))
            for dim in reversed(self.dims[bisect_right(self.dims, tail[0]) : bisect_right(self.dims, root)]):
                others = None if rest % dim else self.completed(rest // dim, len(tail) - 1, dim)
                if others:
                    tail = sorted([dim, *others])
                    break
            head, rest, tail = [*head, tail[0]], rest // tail[0], tail[1:]
        return (*head, *tail)

    def completed(self, rest: int, count: int, least: int) -> list[int] | None:
        """Some `count` dims of at least `least` whose product is `rest`; None where there are none."""
        low = max(least, self.dims[0])
        if not low**count <= rest <= self.dims[-1] ** count or self.tried >= self.steps:
            return None
        if count == 1:
            return [rest] if rest in self.known else None
        if (rest, count, least) in self.failed:
            return None
        prime = next((p for p in self.primes if rest % p == 0), None)
        for dim in self.dims if prime is None else self.holders[prime]:
            self.tried += 1
            if dim >= least and rest % dim == 0:
                others = self.completed(rest // dim, count - 1, least)
                if others:
                    return [dim, *others]
        self.failed.add((rest, count, least))
        return None
