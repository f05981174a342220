"""Assertions on jvps and vjps: random inner products, exact where the map allows it, else finite differences.

A random tangent t and cotangent c find a wrong entry of a Jacobian J with probability one, for the price of a
call: the pairing <c, J t> = Re(sum(c * J t)) must be <J^T c, t>.  J t comes from up to three sources, each of
them checked:
    linearity           the function itself with one primal replaced by its tangent: exact
    jvp                 a jvp that the caller gives: exact
    finite differences  five points in float64

What is added up within a derivative may be larger than what comes out of it, as in a LayerNorm whose output
hardly moves.  So an error beyond the tolerance is compared with what rounding does to the same call: how far
its result moves where every primal is moved by one rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.testing.dense import tolerance
from ketcore.testing.probes import (
    ROUNDING,
    call_vjp,
    check_like,
    difference,
    draw,
    magnitude,
    move_like,
    nudged,
    pairing,
)
from ketcore.testing.values import call_untouched, from_numpy, many, to_numpy, to_wide, widen

__tracebackhide__ = True

# The largest of three random products sets the scale, because a single one can cancel.
_PROBES = 3
# Roundings within a call are more than those of its primals, and eight of these do not show the largest.
_NOISE = 4.0


def assert_vjp(
    function: Callable[..., Any],
    vjp: Callable[..., Any],
    primals: Sequence[AnyArray],
    *,
    jvp: Callable[..., Any] | None = None,
    multilinear: bool = False,
    terms: int | None = None,
    scale: float = 0.0,
    seed: int = 0,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Fail unless `vjp` is the plain transpose of the derivative of `function` at `primals`.

    Parameters
    ----------
    function : callable
        `(*primals)` -> array, or a tuple of arrays.
    vjp : callable
        `(*primals, cotangent)` -> a gradient for each primal; the cotangent is a tuple where `function`
        returns one.
    primals : sequence of arrays
        Real or complex floating arrays of any library.  The derivative is taken in float64, which `function`
        must keep; the gradients are those at `primals` as given, and get the tolerance of their dtype.
    jvp : callable, optional
        `(*primals, *tangents)` -> as `function`: the vjp must be its exact transpose as well.
    multilinear : bool, default False
        True: `function` is real-linear in each primal apart, and its transpose is checked without a jvp.
    terms : int, optional
        Number of terms summed in an entry of a gradient, for the tolerance; by default the size of the
        output.
    scale : float, default 0.0
        Magnitude of what is added up within an entry of J t, for tangents as large as the primals, where more
        is added up than comes out.
    seed : int, default 0
        Of the tangents and cotangents.
    rtol : float, optional
        The error allowed relative to what is added up; by default `tolerance` of the dtypes and of `terms`.
    atol : float, optional
        What is allowed beside it, in the pairing of random tangents and cotangents; by default 0.

    Raises
    ------
    AssertionError
        It names the gradient and its wrong shape, dtype or value, or the input written to.
    TypeError
        On primals that are not floating.

    Examples
    --------
    >>> def outer_vjp(a, b, cotangent):
    ...     return cotangent @ b, a @ cotangent
    >>> a, b = np.arange(3.0), np.arange(2.0) + 1
    >>> assert_vjp(np.outer, outer_vjp, (a, b), multilinear=True)
    >>> assert_vjp(np.outer, lambda a, b, cotangent: (cotangent @ b, -a @ cotangent), (a, b))
    Traceback (most recent call last):
    AssertionError: gradient 1 must be the transpose of finite differences, got ...
    """
    primals, rng = tuple(primals), np.random.default_rng(seed)
    wide = [widen(primal) for primal in primals]
    output = call_untouched(function, "function", ("primal", primals))
    probes = []
    for _ in range(_PROBES):
        tangents = [draw(rng, primal) for primal in primals]
        cotangents = [draw(rng, array, unit=True) for array in many(output)]
        probes.append((tangents, cotangents, call_vjp(vjp, primals, cotangents, output)))
    terms = terms or sum(to_numpy(array).size for array in many(output))
    values = [to_numpy(array) for array in many(output)]

    def noise(tangents, cotangents, gradients):
        found = (call_vjp(vjp, moved, cotangents, output) for moved in nudged(primals))
        return _NOISE * max(abs(pairing(g, tangents) - pairing(gradients, tangents)) for g in found)

    for source, push in _pushes(function, jvp, multilinear, wide).items():
        differences = source == "finite differences"
        allowed = max(tolerance(primal.dtype, terms, differences=differences) for primal in primals)
        allowed = allowed if rtol is None else rtol
        _compare_pairings(source, push, probes, values, (allowed, scale, atol or 0.0, seed), noise)


def assert_jvp(
    function: Callable[..., Any],
    jvp: Callable[..., Any],
    primals: Sequence[AnyArray],
    *,
    multilinear: bool = False,
    terms: int | None = None,
    scale: float = 0.0,
    seed: int = 0,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Fail unless `jvp` is the derivative of `function` at `primals`, along random tangents.

    Parameters
    ----------
    function : callable
        As of `assert_vjp`.
    jvp : callable
        `(*primals, *tangents)` -> as `function`, in its shape and dtype.
    primals : sequence of arrays
        As of `assert_vjp`.
    multilinear : bool, default False
        As of `assert_vjp`.
    terms : int, optional
        As of `assert_vjp`.
    scale : float, default 0.0
        As of `assert_vjp`.
    seed : int, default 0
        As of `assert_vjp`.
    rtol : float, optional
        As of `assert_vjp`.
    atol : float, optional
        What is allowed beside `rtol`, in each entry; by default 0.

    Raises
    ------
    AssertionError
        On shape, dtype, value or an input that was written to.
    TypeError
        On primals that are not floating.

    Examples
    --------
    >>> def outer_jvp(a, b, da, db):
    ...     return np.outer(da, b) + np.outer(a, db)
    >>> assert_jvp(np.outer, outer_jvp, (np.arange(3.0), np.arange(2.0)))
    >>> assert_jvp(np.outer, lambda a, b, da, db: np.outer(da, b), (np.arange(3.0), np.arange(2.0)))
    Traceback (most recent call last):
    AssertionError: jvp must equal finite differences, got ...
    """
    primals, rng = tuple(primals), np.random.default_rng(seed)
    wide = [widen(primal) for primal in primals]
    output = many(call_untouched(function, "function", ("primal", primals)))
    terms = terms or max(to_numpy(array).size for array in output)
    probes = []
    for _ in range(_PROBES):
        tangents = [draw(rng, primal) for primal in primals]
        moved = [from_numpy(tangent, primal) for tangent, primal in zip(tangents, primals, strict=True)]
        pushed = many(call_untouched(jvp, "jvp", ("primal", primals), ("tangent", moved)))
        check_like("jvp", pushed, output)
        probes.append((tangents, [to_wide(array) for array in pushed]))

    def noise(k, tangents, found):
        given = move_like(tangents, primals)
        pushed = (to_wide(many(jvp(*moved, *given))[k]) for moved in nudged(primals))
        return _NOISE * max(np.abs(p - found).max(initial=0.0) for p in pushed)

    values = [to_numpy(array) for array in output]
    for source, push in _pushes(function, None, multilinear, wide).items():
        differences = source == "finite differences"
        allowed = max(tolerance(array.dtype, terms, differences=differences) for array in output)
        allowed = allowed if rtol is None else rtol
        _compare_outputs(source, push, probes, values, (allowed, scale, atol or 0.0, seed), noise)


def _pushes(function, jvp, multilinear, wide):
    """The sources of J t by name: functions of tangents (NumPy) that give a list of outputs (NumPy)."""

    def linearity(tangents):
        replaced = ([*wide[:n], from_numpy(t, wide[n]), *wide[n + 1 :]] for n, t in enumerate(tangents))
        outputs = [[to_wide(y) for y in many(function(*at))] for at in replaced]
        return [sum(parts) for parts in zip(*outputs, strict=True)]

    def pushforward(tangents):
        return [to_wide(array) for array in many(jvp(*wide, *move_like(tangents, wide)))]

    pushes: dict[str, Any] = {"linearity": linearity} if multilinear else {}
    if jvp is not None:
        pushes["the jvp"] = pushforward
    return pushes | {"finite differences": lambda tangents: difference(function, wide, tangents)}


def _compare_pairings(source, push, probes, values, allowed, noise):
    """Fail unless <gradients, tangents> is <cotangents, J tangents>: primal by primal, then for every probe.

    Primal by primal, because beside the pairing of a large primal that of a small one is lost in rounding.
    """
    tangents, cotangents, gradients = probes[0]
    for n in range(len(tangents)):
        alone = [t if m == n else np.zeros_like(t) for m, t in enumerate(tangents)]
        probe = alone, cotangents, gradients
        _compare_pairing(source, push, probe, values, allowed, noise, f"gradient {n}")
    for probe in probes[1:]:
        _compare_pairing(source, push, probe, values, allowed, noise, "the gradients")


def _compare_pairing(source, push, probe, values, allowed, noise, name):
    """Fail unless gradients with tangents and cotangents with what was pushed give the same number."""
    tangents, cotangents, gradients = probe
    pushed = push(tangents)
    left, right = pairing(gradients, tangents), pairing(cotangents, pushed)
    allowed, scale, beside, seed = allowed
    size = magnitude(cotangents, pushed) + magnitude(gradients, tangents)
    size += scale * sum(float(np.abs(c).sum()) for c in cotangents)
    if source == "finite differences":
        size += ROUNDING * magnitude(cotangents, values)
    error, bound = abs(left - right), allowed * size + beside
    if error > bound:
        bound += noise(*probe)
    if not error <= bound:
        raise AssertionError(
            f"{name} must be the transpose of {source}, got <gradient, tangent> = {left:.8g} and "
            f"<cotangent, J tangent> = {right:.8g}: error {error:.3g}, allowed {bound:.3g} (seed={seed})"
        )


def _compare_outputs(source, push, probes, values, allowed, noise):
    """Fail unless J tangents is what the jvp gave, for every probe and every output."""
    allowed, scale, beside, seed = allowed
    pushes = [push(tangents) for tangents, _ in probes]
    for k, value in enumerate(values):
        largest = max(np.abs(pushed[k]).max(initial=0.0) for pushed in pushes)
        bound = allowed * (largest + scale + ROUNDING * np.abs(to_wide(value)).max(initial=0.0)) + beside
        for (tangents, found), pushed in zip(probes, pushes, strict=True):
            error = np.abs(found[k] - pushed[k])
            room = noise(k, tangents, found[k]) if (error > bound).any() else 0.0
            if not (error <= bound + room).all():
                flat = int(np.argmax(np.nan_to_num(error, nan=np.inf)))
                at = tuple(int(i) for i in np.unravel_index(flat, error.shape))
                raise AssertionError(
                    f"jvp must equal {source}, got {found[k][at]:.8g} for {pushed[k][at]:.8g} "
                    f"in output {k} at {at}: error {error[at]:.3g}, allowed {bound + room:.3g} "
                    f"(seed={seed})"
                )
