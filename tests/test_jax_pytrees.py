"""Objects of ketcore as pytrees of JAX: what is taken apart comes together, and transformations take it."""

import sys

import numpy as np
import pytest

import ketcore as kc

RNG = np.random.default_rng(3)


def draw(*shape):
    return RNG.standard_normal(shape).astype("float32")


def objects(asarray):
    """One of every kind, by name."""
    factors = [asarray(draw(2, 3, 3)), asarray(draw(2, 2, 2))]
    matrix, codes = kc.KroneckerMatrix(factors), RNG.integers(0, 4, (1, 2, 5)).astype("uint8")
    parts = [factors[0][0], kc.Diagonal(asarray(draw(2))), kc.Identity(2)]
    books = [asarray(draw(2, 4, 3))]
    return {
        "ket": kc.Ket([asarray(draw(2, 3)), asarray(draw(2, 2))]),
        "matrix": matrix,
        "cropped": kc.KroneckerMatrix(factors, (5, 4)),
        "identities": kc.KroneckerMatrix(
            [factors[0], asarray(np.ones((2, 2, 2), "f") * np.eye(2, dtype="f"))], identities=(1,)
        ),
        "sum": kc.KroneckerSum([each[0] for each in factors]),
        "product": kc.KroneckerProduct(parts),
        "permutation": kc.Permutation((2, 3), (1, 0)),
        "diagonal": parts[1],
        "identity": parts[2],
        "codes": kc.CodebookTable(books, asarray(codes), asarray(draw(5)), asarray(draw(3, 4))),
        "packed": kc.CodebookTable(books, kc.PackedCodes.pack(asarray(codes))),
        "quantized": kc.quantize(matrix),
    }


def arrays(value, jax):
    """All arrays that an object holds, at any depth."""
    if isinstance(value, jax.Array):
        return [value]
    parts = value if isinstance(value, tuple) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [array for part in parts for array in arrays(part, jax)]


NAMES = list(objects(np.asarray))


@pytest.fixture
def kinds(jax):
    return objects(jax.numpy.asarray)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_taken_apart_comes_together(jax, kinds, name):
    obj = kinds[name]
    leaves, structure = jax.tree.flatten(obj)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(obj)
    assert vars(again).keys() == vars(obj).keys()
    assert repr(again) == repr(obj)
    assert hash(structure) == hash(jax.tree.structure(again))
    assert jax.tree.structure(again) == structure
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    # None of them is metadata, which would be a constant of what is compiled.
    assert {id(leaf) for leaf in leaves} == {id(array) for array in arrays(obj, jax)}
    through = jax.jit(lambda x: x)(obj)
    assert all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(through), leaves, strict=True))
    # Anything may stand in the place of leaves, and nothing is looked at.
    assert jax.tree.leaves(jax.tree.map(lambda leaf: "text", obj)) == ["text"] * len(leaves)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(obj)[0]]
    assert len(set(paths)) == len(leaves)


def test_structures_differ_where_metadata_do(jax, kinds):
    structures = {name: jax.tree.structure(kinds[name]) for name in ("matrix", "cropped", "identities")}
    assert len(set(structures.values())) == 3
    with pytest.raises(ValueError, match="different pytree metadata"):
        jax.tree.map(lambda a, b: a, kinds["matrix"], kinds["cropped"])


OPERATORS = [name for name in NAMES if name not in ("ket", "codes", "packed", "diagonal", "identity")]


@pytest.mark.parametrize("name", OPERATORS)
def test_products_are_compiled_and_mapped(jax, kinds, name):
    obj, jnp = kinds[name], jax.numpy
    x = jnp.asarray(draw(4, obj.shape[1]))
    # By NumPy the definition, in float64.
    dense = np.asarray(jax.tree.map(np.asarray, obj).to_dense(), float)
    expected = np.asarray(x, float) @ dense.T
    one = jax.jit(lambda A, v: A @ v)(obj, x[0])
    many = jax.jit(jax.vmap(lambda A, v: A @ v, in_axes=(None, 0)))(obj, x)
    np.testing.assert_allclose(one, expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(many, expected, rtol=1e-4, atol=1e-4)
    if jax.tree.leaves(obj) and name != "quantized":
        stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), obj)
        both = jax.vmap(lambda A, v: A @ v)(stacked, x[:2])
        alone = jax.tree.map(lambda leaf: 2 * leaf, obj) @ x[1]
        np.testing.assert_allclose(both[1], alone, rtol=1e-4, atol=1e-4)


def test_gradients_and_tangents_are_objects(jax, kinds):
    matrix, ids, jnp = kinds["cropped"], jax.numpy.array([4, 0, 4]), jax.numpy
    weights = jnp.asarray(draw(3, 4))

    def loss(matrix):
        return jnp.sum(weights * matrix.rows(ids))

    gradient = jax.jit(jax.grad(loss))(matrix)
    assert type(gradient) is kc.KroneckerMatrix
    assert gradient.shape == matrix.shape
    host = [np.asarray(factor) for factor in matrix.factors]
    expected = kc.rows_vjp(host, np.asarray(ids), np.asarray(weights), matrix.shape)
    for found, right in zip(gradient.factors, expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
    _, tangent = jax.jvp(loss, (matrix,), (matrix,))
    # Of a form of degree 2 in the factors.
    np.testing.assert_allclose(tangent, 2 * loss(matrix), rtol=1e-4)
    ket = kinds["ket"]
    slope = jax.grad(lambda v: v.inner(v))(ket)
    assert type(slope) is kc.Ket
    assert slope.dims == ket.dims


def test_codes_are_not_differentiated(jax, kinds):
    table, ids, jnp = kinds["codes"], jax.numpy.array([0, 3]), jax.numpy
    with pytest.raises(TypeError, match="grad requires real- or complex-valued inputs"):
        jax.grad(lambda table: table.rows(ids).sum())(table)
    gradient = jax.grad(lambda table: table.rows(ids).sum(), allow_int=True)(table)
    assert gradient.decoder.shape == table.decoder.shape
    assert bool(jnp.any(gradient.codebooks[0] != 0))


def test_a_scan_carries_an_object(jax, kinds):
    def step(matrix, _):
        return jax.tree.map(lambda leaf: leaf / 2, matrix), matrix @ jax.numpy.ones(6)

    last, found = jax.lax.scan(step, kinds["matrix"], length=3)
    np.testing.assert_allclose(found[1], found[0] / 4, rtol=1e-5)
    assert type(last) is kc.KroneckerMatrix


def test_metadata_without_a_hash_is_named(jax, kinds):
    matrix = kinds["matrix"]
    vars(matrix)["note"] = [1, 2]
    with pytest.raises(TypeError, match=r"^note of a KroneckerMatrix must be hashable, got \[1, 2\]"):
        jax.jit(lambda matrix: matrix.norm())(matrix)


def test_ids_out_of_range_are_nan_under_jit(jax, kinds):
    rows = jax.jit(lambda matrix, ids: matrix.rows(ids))(kinds["cropped"], jax.numpy.array([4, 5, -1]))
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_stay_under_jit(jax, kinds, dtype):
    small = jax.tree.map(lambda leaf: leaf.astype(dtype), kinds["matrix"])
    rows = jax.jit(lambda matrix: matrix.rows(jax.numpy.array([1, 2])))(small)
    assert rows.dtype == dtype
    np.testing.assert_allclose(
        rows.astype("float32"), kinds["matrix"].rows(jax.numpy.array([1, 2])), rtol=0.1, atol=0.1
    )


def test_without_jax_the_error_says_what_to_install(monkeypatch):
    for name in [
        name for name in sys.modules if name.partition(".")[0] == "jax" or name.startswith("ketcore.jax")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match=r"ketcore.jax needs JAX: pip install 'ketcore\[jax\]'"):
        __import__("ketcore.jax")
