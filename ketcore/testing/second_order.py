"""The assertion on the derivative of a vjp."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.testing.dense import tolerance
from ketcore.testing.probes import (
    ROUNDING,
    as_output,
    call_vjp,
    difference,
    draw,
    magnitude,
    move_like,
    pairing,
)
from ketcore.testing.values import from_numpy, many, to_numpy, to_wide, widen

__tracebackhide__ = True


def assert_second_order(
    function: Callable[..., Any],
    vjp: Callable[..., Any],
    primals: Sequence[AnyArray],
    *,
    jvp: Callable[..., Any] | None = None,
    vjp_jvp: Callable[..., Any] | None = None,
    multilinear: bool = False,
    seed: int = 0,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Fail unless the derivative of `vjp` is that of a gradient: symmetric, that of `jvp`, and `vjp_jvp`.

    Parameters
    ----------
    function, vjp : callable
        As of `assert_vjp`.
    primals : sequence of arrays
        As of `assert_vjp`.
    jvp : callable, optional
        As of `assert_vjp`.
    vjp_jvp : callable, optional
        `(*primals, cotangent, *tangents)` -> the change of each gradient along the tangents of the primals.
    multilinear : bool, default False
        True: `function` is real-linear in each primal apart, so that the change of a gradient is the sum of
        the gradients with one other primal replaced by its tangent: checked too.
    seed : int, default 0
        Of the tangents and cotangents.
    rtol : float, optional
        The error allowed relative to what is added up; by default `tolerance` of float64 for differences.
    atol : float, optional
        What is allowed beside it; by default 0.

    Raises
    ------
    AssertionError
        It names the check that fails, and the values.
    TypeError
        On primals that are not floating.

    Notes
    -----
    All is computed in float64.  A vjp can pass `assert_vjp` at one point and be wrong here: one that keeps
    values of an earlier call, for instance.

    Examples
    --------
    >>> def square_vjp(a, cotangent):
    ...     return 2 * a * cotangent
    >>> assert_second_order(np.square, square_vjp, [np.arange(3.0)],
    ...                     vjp_jvp=lambda a, cotangent, tangent: 2 * tangent * cotangent)
    """
    rng, wide = np.random.default_rng(seed), [widen(primal) for primal in primals]
    output = function(*wide)
    along, across = ([draw(rng, primal) for primal in wide] for _ in range(2))
    cotangents = [draw(rng, array, unit=True) for array in many(output)]

    def gradients(*at):
        return tuple(call_vjp(vjp, at, cotangents, output))

    changes = [difference(gradients, wide, tangents) for tangents in (along, across)]
    scale = sum(magnitude(change, t) for change, t in zip(changes, (across, along), strict=True))
    scale += ROUNDING * magnitude(gradients(*wide), across)
    allowed = (tolerance("float64", differences=True) if rtol is None else rtol) * scale + (atol or 0.0)
    found = pairing(changes[0], across)
    references = {"symmetric": pairing(changes[1], along)}
    if jvp is not None:
        change = difference(lambda *at: jvp(*at, *move_like(across, wide)), wide, along)
        references["that of the jvp"] = pairing(cotangents, change)
    if multilinear:
        references["that of a multilinear map"] = pairing(_mixed(gradients, wide, along), across)
    if vjp_jvp is not None:
        change = vjp_jvp(*wide, as_output(cotangents, output), *move_like(along, wide))
        references["vjp_jvp"] = pairing([to_wide(array) for array in many(change)], across)
    for name, reference in references.items():
        if not abs(found - reference) <= allowed:
            raise AssertionError(
                f"the derivative of vjp must be {name}, got {found:.8g} for {reference:.8g}: "
                f"error {abs(found - reference):.3g}, allowed {allowed:.3g} (seed={seed})"
            )


def _mixed(gradients, wide, tangents):
    """The change of each gradient of a multilinear function along `tangents`."""
    changes = [np.zeros_like(to_numpy(primal)) for primal in wide]
    for m, tangent in enumerate(tangents):
        replaced = gradients(*wide[:m], from_numpy(tangent, wide[m]), *wide[m + 1 :])
        # The gradient of primal m does not depend on primal m.
        changes = [change if n == m else change + replaced[n] for n, change in enumerate(changes)]
    return changes
