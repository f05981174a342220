"""The code one writes in jax, compiled: the same expressions as the torch code.  Compilation is not timed."""

from functools import partial

import numpy as np

from bench.peers import Contestant

EPS = 1e-5


def build(case):
    import jax

    if case.task == "sparse":
        return None
    # Without this flag float64 arrays silently become float32.
    jax.config.update("jax_enable_x64", True)
    function = partial(_rows if case.workload.kind == "rows" else _kets, case.workload)
    tables, ids, cotangent = jax.device_put((list(case.tables), case.ids, case.cotangent))

    def value(tables, ids, cotangent):
        return function(tables, ids), ()

    def both(tables, ids, cotangent):
        rows, pull_back = jax.vjp(lambda leaves: function(leaves, ids), tables)
        return rows, pull_back(cotangent)[0]

    compiled = jax.jit(value if case.task == "forward" else both).lower(tables, ids, cotangent).compile()

    def call():
        return jax.block_until_ready(compiled(tables, ids, cotangent))

    return Contestant("jax code", "code", call, lambda r: (np.asarray(r[0]), [np.asarray(g) for g in r[1]]))


def _rows(workload, tables, ids):
    import jax.numpy as jnp

    digits, rest = [], ids
    for radix in reversed(workload.radices):
        digits.append(rest % radix)
        rest = rest // radix
    leaves = [table[:, digit] for table, digit in zip(tables, reversed(digits), strict=True)]
    left, right = (_node(half, False) for half in _halves(leaves))
    rows = jnp.einsum("rbi,rbj->bij", left, right)
    return rows.reshape(len(ids), -1)[:, : workload.dim]


def _kets(workload, tables, ids):
    import jax.numpy as jnp

    leaves = jnp.split(tables[0][ids], workload.order, axis=-1)
    if workload.layernorm:
        return _node(leaves, True).sum(1)[:, : workload.dim]
    left, right = (_node(half, False) for half in _halves(leaves))
    return jnp.einsum("bri,brj->bij", left, right).reshape(len(ids), -1)[:, : workload.dim]


def _halves(leaves):
    return leaves[: len(leaves) // 2], leaves[len(leaves) // 2 :]


def _node(leaves, layernorm):
    import jax

    if len(leaves) == 1:
        return leaves[0]
    left, right = (_node(half, layernorm) for half in _halves(leaves))
    product = (left[..., :, None] * right[..., None, :]).reshape(*left.shape[:-1], -1)
    if not layernorm:
        return product
    # Not jax.nn.standardize: its E[x^2] - m^2 loses three digits in float32.
    centred = product - product.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + EPS)
