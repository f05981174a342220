"""Functions exported by JAX for batches of every size: their sizes are symbols while they are traced."""

from types import SimpleNamespace

import numpy as np
import pytest

import ketcore as kc

RNG = np.random.default_rng(5)


def draw(*shape):
    return RNG.standard_normal(shape).astype("float32")


def square(size):
    return np.eye(size, dtype="f") + 0.1 * draw(1, size, size)


GIVEN = {
    "factors": [draw(2, 10, 4), draw(2, 9, 3)],
    "square": [square(4), square(5)],
    "leaves": draw(50, 2, 8),
    "books": [draw(3, 7, 4)],
    "scale": draw(90),
    "maps": [draw(2, 4, 4), draw(2, 4, 4)],
    "kets": kc.Ket.from_packed(draw(50, 2, 8), (4, 4)),
    "codes": RNG.integers(0, 7, (1, 3, 50)).astype("int32"),
    "stored": [kc.quantize(draw(2, 300, 16), 4, 16)],
}


# The sizes of the arguments that are given; None is the size that is not known.
IDS, ROWS, VECTORS, KETS = (None,), (None, 12), (None, 20), (None, 2, 4)
CALLS = {
    "rows": ((IDS,), lambda a, ids: kc.rows(a.factors, ids, row_scale=a.scale)),
    "rows of columns": ((IDS,), lambda a, ids: kc.rows(a.factors, ids[:, None])),
    "rows of an object": ((IDS,), lambda a, ids: kc.KroneckerMatrix(a.factors)[ids]),
    "entries of an object": ((IDS,), lambda a, ids: kc.KroneckerMatrix(a.factors)[ids, ids]),
    "kets of an object": (
        (IDS,),
        lambda a, ids: (a.kets[ids] + a.kets[0]).inner(a.kets[1]),
    ),
    "entries of codes": (
        (IDS,),
        lambda a, ids: kc.CodebookTable(a.books, a.codes)[ids, ids % 4],
    ),
    "ket_sandwich": ((KETS, KETS), lambda a, v, w: kc.ket_sandwich([v, v], a.maps, [w, w])),
    "kron_sandwich": ((VECTORS, VECTORS), lambda a, x, y: kc.kron_sandwich(x, a.square, y)),
    "rows of what is quantized": ((IDS,), lambda a, ids: kc.rows(a.stored, ids)),
    "rows_vjp": ((IDS, ROWS), lambda a, ids, g: kc.rows_vjp(a.factors, ids, g)),
    "grad of rows": ((IDS, ROWS), lambda a, ids, g: a.gradients(a.factors, ids, g)),
    "row_kets": ((IDS,), lambda a, ids: kc.row_kets(a.factors, ids)),
    "ket_rows": ((IDS,), lambda a, ids: kc.ket_rows(a.leaves, ids, (4, 4), layernorm=True)),
    "codebook_rows": (
        (IDS,),
        lambda a, ids: kc.codebook_rows(a.books, None, None, ids[None, None] * np.ones((1, 3, 1), int)),
    ),
    "kron_matmul": ((VECTORS,), lambda a, x: kc.kron_matmul(a.square, x)),
    "kron_matmul of columns": ((VECTORS,), lambda a, x: kc.kron_matmul(a.square, x.T, axis=-2)),
    "kron_matmul of terms": ((VECTORS,), lambda a, x: kc.kron_matmul(a.square, x, identities=[(0,)])),
    "kron_matmul_vjp": ((VECTORS,) * 2, lambda a, x, g: kc.kron_matmul_vjp(a.square, x, g)),
    "kron_solve": ((VECTORS,), lambda a, x: kc.kron_solve(a.square, x)),
    "ket_inner": ((KETS, KETS), lambda a, v, w: kc.ket_inner([v, v], [w, w])),
}


@pytest.mark.parametrize("name", CALLS)
def test_one_export_serves_batches_of_every_size(jax, name):
    shapes, call = CALLS[name]
    (size,) = jax.export.symbolic_shape("batch")
    given = [
        jax.ShapeDtypeStruct([each or size for each in shape], "int32" if shape is IDS else "float32")
        for shape in shapes
    ]
    gradients = jax.grad(lambda factors, ids, g: (kc.rows(factors, ids) * g).sum())
    traced = SimpleNamespace(gradients=gradients, **jax.tree.map(jax.numpy.asarray, GIVEN))
    exported = jax.export.export(jax.jit(lambda *args: call(traced, *args)))(*given)
    for batch in (1, 3):
        # Ids that differ, and not all of them.
        arrays = [
            RNG.permutation(7)[:batch].astype("int32")
            if shape is IDS
            else draw(*[each or batch for each in shape])
            for shape in shapes
        ]
        found = exported.call(*map(jax.numpy.asarray, arrays))
        wanted = call(SimpleNamespace(gradients=kc.rows_vjp, **GIVEN), *arrays)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
