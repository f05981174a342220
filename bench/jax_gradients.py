"""`python -m bench.jax_gradients`: who best differentiates operations under jit of JAX, and computes them.

Value and gradients of one operation in float32, all under `jax.jit` but the last:

JAX          array code of ketcore, differentiated by JAX
custom_vjp   the same, with ketcore's own vjp in place of JAX's, made from the table of operations
callback     the compiled engine for value and vjp, by `jax.pure_callback`
engine       the compiled engine on NumPy arrays, called as it is

One thread, CPU time of single calls by turns: medians, and the quartiles of ratios within a turn.
"""

import argparse
import os
import statistics
from operator import truediv

import numpy as np

import ketcore as kc
from bench.machine import THREAD_VARIABLES, run_again
from bench.measure import single_calls
from ketcore.ops import OPS

BY_NAME = {op.name: op for op in OPS}
WAYS = ("JAX", "custom_vjp", "callback", "engine")
# XLA has one pool of threads for its loops and another for Eigen's products.
ALONE = dict.fromkeys(THREAD_VARIABLES, "1") | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


def cases() -> dict:
    """Name -> operation, primals, constants and options."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    found = {}
    for order, rank in ((2, 10), (4, 2)):
        table = kc.KroneckerMatrix.random((30_000, 256), order=order, rank=rank, rng=0)
        factors = [factor.astype(np.float32) for factor in table.factors]
        for batch in (1024, 16_384):
            ids = rng.integers(0, 30_000, batch)
            name = f"rows {order}/{rank}, {batch} ids"
            found[name] = "rows", (factors, None), (ids,), {"shape": table.shape}
    for rank, side, order, batch in ((1, 32, 2, 128), (4, 32, 2, 128), (1, 8, 4, 16), (1, 4, 6, 128)):
        factors = [normal(rank, side, side) for _ in range(order)]
        name = f"kron_matmul {side}^{order} rank {rank}, {batch} columns"
        found[name] = "kron_matmul", (factors, normal(batch, side**order)), (), {}
    kets = [normal(1024, 4, 16) for _ in range(2)], [normal(1024, 4, 16) for _ in range(2)]
    found["ket_inner 1024 kets of 16^2, rank 4"] = "ket_inner", kets, (), {}
    few = [normal(128, 4, 16) for _ in range(2)], [normal(128, 4, 16) for _ in range(2)]
    found["ket_gram 128 kets of 16^2, rank 4"] = "ket_gram", few, (), {}
    leaves, words = normal(20_000, 2, 16), rng.integers(0, 20_000, 4096)
    found["ket_rows 4^4 rank 2, 4096 ids"] = "ket_rows", (leaves, None), (words,), {"dims": (4,) * 4}
    books = [normal(8, 256, 16) for _ in range(2)]
    codes = rng.integers(0, 256, (2, 8, 4096))
    found["codebook_rows 16^2, 8 terms, 4096 rows"] = "codebook_rows", (books, None, None), (codes,), {}
    return found


def calls(name: str, primals: tuple, constants: tuple, options: dict) -> dict:
    """The same value and gradients by each of `WAYS`, by name."""
    import jax

    import ketcore.jax

    op = BY_NAME[name]
    arrays, counts = op.flatten(primals)

    def forward(arrays, constants):
        return op.call(op.forward, op.unflatten(arrays, counts), constants, **options)

    def pull(arrays, constants, cotangent):
        found = op.call(op.vjp, op.unflatten(arrays, counts), (*constants, cotangent), **options)
        return op.flat_gradients(found, counts)

    def on_host(function, like):
        # Arrays of JAX come as such, whose memory NumPy reads.
        return lambda *given: jax.pure_callback(
            lambda *given: function(*jax.tree.map(np.asarray, given)), like(*given), *given
        )

    def value_and_gradients(function):
        def both(arrays, constants, cotangent):
            value, back = jax.vjp(lambda arrays: function(arrays, constants), arrays)
            return value, back(cotangent)[0]

        compiled = jax.jit(both).lower(*given).compile()
        return lambda: jax.block_until_ready(compiled(*given))

    def own(forward, pull):
        function = jax.custom_vjp(forward)
        function.defvjp(
            lambda arrays, constants: (forward(arrays, constants), (arrays, constants)),
            lambda kept, cotangent: (list(pull(*kept, cotangent)), None),
        )
        return function

    value = forward(arrays, constants)
    cotangent = np.ones_like(value)
    given = jax.device_put((list(arrays), constants, cotangent))

    def by_table(arrays, constants):
        operation = ketcore.jax.custom_vjp(op.forward)
        return op.call(operation, op.unflatten(arrays, counts), constants, **options)

    by_callback = own(
        on_host(forward, lambda *_: jax.ShapeDtypeStruct(value.shape, value.dtype)),
        on_host(lambda *given: list(pull(*given)), lambda arrays, *_: arrays),
    )
    return {
        "JAX": value_and_gradients(forward),
        "custom_vjp": value_and_gradients(by_table),
        "callback": value_and_gradients(by_callback),
        "engine": lambda: (forward(arrays, constants), list(pull(arrays, constants, cotangent))),
    }


def record(name: str, case: tuple, duration: float) -> dict:
    """Medians of a case by way, and by way the quartiles of its ratio to JAX within a turn.

    AssertionError where results differ.
    """
    ways = calls(*case)
    value, gradients = ways["engine"]()
    for way in WAYS[:-1]:
        found, slopes = ways[way]()
        for one, other in zip((found, *slopes), (value, *gradients), strict=True):
            scale = float(np.abs(other).max())
            assert np.allclose(one, other, rtol=0, atol=1e-3 * scale), f"{way} differs in {name}"
    samples = single_calls(ways, duration)
    return {
        "name": name,
        "times": {way: statistics.median(found) for way, found in samples.items()},
        "ratios": {
            way: statistics.quantiles(map(truediv, samples[way], samples["JAX"]), n=4) for way in WAYS[1:]
        },
    }


def text(found: dict) -> str:
    """One line of the table: milliseconds, and behind each the median ratio to JAX with its quartiles."""
    cells = [f"{found['times']['JAX'] * 1e3:9.2f}"]
    for way, (low, middle, high) in found["ratios"].items():
        cells.append(f"{found['times'][way] * 1e3:9.2f} {middle:5.2f} ({low:.2f}-{high:.2f})")
    return f"{found['name']:42}" + " ".join(cells)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.jax_gradients")
    parser.add_argument("--seconds", type=float, default=3.0, help="timing of one case, all together")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    status = run_again("bench.jax_gradients", ALONE)
    if status is not None:
        return status
    # Of more than one core, as XLA's own loops take them whatever the flags say.
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    print(f"{'milliseconds, and ratios to JAX':42}{WAYS[0]:>9}" + "".join(f"{way:>28}" for way in WAYS[1:]))
    for name, case in cases().items():
        if options.only in name:
            print(text(record(name, case, options.seconds)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
