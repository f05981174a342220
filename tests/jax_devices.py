"""Kronecker tables and tables of kets on two devices of JAX, against one: run by `test_jax_devices.py`.

    python -m tests.jax_devices                       two devices of this process
    python -m tests.jax_devices ADDRESS NUMBER        one of two processes, each with a device

Prints what it found, as JSON.
"""

import json
import re
import sys
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import ketcore as kc
import ketcore.jax

RNG = np.random.default_rng(0)
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\(")
BYTES = {"f32": 4, "s32": 4, "pred": 1, "bf16": 2}


def draw(*shape):
    return RNG.standard_normal(shape).astype("float32")


def travelling(compiled) -> int:
    """The bytes of all results of collective operations in what XLA compiled."""
    found = 0
    for types, _ in COLLECTIVE.findall(compiled.as_text()):
        for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", types):
            found += BYTES[dtype] * prod(int(size) for size in sizes.split(",") if size)
    return found


def whole(array) -> np.ndarray:
    """The values of an array that every process has all of."""
    return np.asarray(array.addressable_data(0))


def error(found, expected) -> float:
    """The largest difference relative to the largest entry."""
    pairs = zip(map(whole, jax.tree.leaves(found)), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs)


def kronecker(mesh) -> dict:
    """Factors replicated, ids and goals sharded: by shardings, and by shard_map."""
    every, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("words"))
    table = kc.KroneckerMatrix([draw(4, 20, 8), draw(4, 15, 8)])
    ids, goal = RNG.integers(0, 300, 64), draw(64, 64)
    rows = table.rows(ids)
    slope = 2 * (rows - goal) / goal.size
    expected = np.mean((rows - goal) ** 2), kc.rows_vjp(table.factors, ids, slope, table.shape)

    def loss(table, ids, goal):
        return jnp.mean((table.rows(ids) - goal) ** 2)

    def of_a_shard(table, ids, goal):
        # The table counts as one that varies, so that its gradient is that of this shard alone.
        table = jax.tree.map(lambda leaf: jax.lax.pcast(leaf, "words", to="varying"), table)
        return jax.lax.pmean(jax.value_and_grad(loss)(table, ids, goal), "words")

    given = jax.device_put((table, ids, goal), (every, split, split))
    by_sharding = jax.jit(jax.value_and_grad(loss), out_shardings=every).lower(*given).compile()
    mapped = jax.shard_map(of_a_shard, mesh=mesh, in_specs=(P(), P("words"), P("words")), out_specs=P())
    by_map = jax.jit(mapped).lower(*given).compile()
    looked_up = [jax.jit(lambda table, ids: table.rows(ids), out_shardings=every)(*given[:2])]
    if jax.process_count() == 1:
        # Outside of jit ids are looked at, which takes a process that has all of them.
        looked_up.append(jax.device_put(given[0].rows(given[1]), every))
    return {
        "rows": error(looked_up, [rows] * len(looked_up)),
        "shardings": error(by_sharding(*given), expected),
        "shard_map": error(by_map(*given), expected),
        "factors": sum(factor.nbytes for factor in table.factors),
        "dense": 4 * prod(table.shape),
        "bytes": [travelling(by_sharding), travelling(by_map)],
    }


def kets(mesh) -> dict:
    """A table of kets of which each device has half of the words, with ids that all have."""
    every, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("words"))
    table = kc.Ket.from_packed(draw(1000, 2, 12), (4, 4, 4))
    ids, weights = RNG.integers(0, 1000, 16), draw(16, 64)
    expected = kc.ket_rows(table.packed, ids, table.dims)
    slope = kc.ket_rows_vjp(table.packed, ids, weights, table.dims)

    def loss(table, ids):
        rows = kc.ket_rows(table.packed, ids, table.dims)
        return jnp.sum(rows * weights), rows

    given = jax.device_put((table, ids), (split, every))
    shardings = (every, split)
    step = jax.jit(lambda *given: jax.grad(loss, has_aux=True)(*given)[::-1], out_shardings=shardings)
    compiled = step.lower(*given).compile()
    rows, gradient = compiled(*given)
    ours = gradient.packed.addressable_shards
    near = [np.abs(np.asarray(each.data) - slope[each.index]).max() for each in ours]
    return {
        "rows": error(rows, expected),
        "gradient": float(max(near) / np.abs(slope).max()),
        "held": sum(each.data.nbytes for each in given[0].packed.addressable_shards),
        "table": table.packed.nbytes,
        "bytes": travelling(compiled),
    }


def refused(mesh) -> str:
    """What JAX says of ids that two devices do not share evenly."""
    try:
        jax.device_put(np.zeros(63, int), NamedSharding(mesh, P("words")))
    except ValueError as problem:
        return str(problem)
    return ""


def main() -> None:
    if sys.argv[1:]:
        address, number = sys.argv[1:]
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, num_processes=2, process_id=int(number))
    mesh = Mesh(np.array(jax.devices()), ("words",))
    found = {"kronecker": kronecker(mesh), "kets": kets(mesh), "refused": refused(mesh)}
    found |= {"devices": len(jax.devices()), "here": len(jax.local_devices())}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
