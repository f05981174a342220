"""Products with Kronecker matrices by the CUDA kernel, `path="fused"`, without a GPU."""

import numpy as np
import pytest

from ketcore.arrays import namespaces
from ketcore.arrays.checks import check_identities
from ketcore.cuda import launcher
from ketcore.ops.kron_matmul import kron_matmul, kron_matmul_dense, kron_matmul_jvp, kron_matmul_vjp
from ketcore.products import backward, forward, fused
from ketcore.products.term_plans import common
from tests.kernel_problems import make_product
from tests.matmul_problems import matmul_arguments

CUDA = pytest.mark.parametrize(
    "xp", ["cusim", "cusim-awkward", pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True
)


@CUDA
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_products_and_gradients(xp, dtype):
    """They are the dense ones, and by the kernel; what it cannot take is an error that says why."""

    def body(arguments):
        factors, x, options = arguments
        options["path"] = "fused"
        given, array = tuple(map(xp.asarray, factors)), xp.asarray(x)
        if any(factor.ndim > 3 for factor in factors):
            with pytest.raises(ValueError, match=r"^path must be None for batches of matrices, got 'fused'$"):
                kron_matmul(given, array, **options)
        elif fused.obstacle(given, array, in_all_terms(factors, options["identities"])):
            with pytest.raises(ValueError, match=r"^factors and x must have"):
                kron_matmul(given, array, **options)
        else:
            check(xp, factors, x, options)

    xp.check(matmul_arguments(dtype), body)


def in_all_terms(factors, identities):
    dims = [[factor.shape[axis] for factor in factors] for axis in (1, 2)]
    return common(check_identities(identities, dims, factors[0].shape[0]))


@CUDA
def test_identities_alone(xp):
    """The kernel multiplies by one of them; its values are not read."""
    factors = [np.full((1, 2, 2), np.nan, np.float32), np.full((1, 3, 3), np.nan, np.float32)]
    x, options = np.arange(6, dtype=np.float32), {"identities": (0, 1), "path": "fused"}
    check(xp, factors, x, options)


@CUDA
def test_an_identity_that_a_crop_makes_oblong(xp):
    """Its values are not read."""
    factors = [np.full((1, 4, 4), np.nan, np.float32), np.arange(4, dtype=np.float32).reshape(1, 2, 2)]
    x, options = np.arange(8, dtype=np.float32), {"shape": (8, 3), "identities": (0,)}
    found = kron_matmul([xp.asarray(factor) for factor in factors], xp.asarray(x), **options, path="fused")
    np.testing.assert_array_equal(xp.to_numpy(found), kron_matmul_dense(factors, x, **options))


def check(xp, factors, x, options):
    given, array = tuple(map(xp.asarray, factors)), xp.asarray(x)
    launches = getattr(launcher.launcher_for(array), "launches", [])
    before = launches.count("multiply")
    found = kron_matmul(given, array, **options)
    cotangent = np.linspace(-1, 1, found.size).reshape(found.shape).astype(x.dtype)
    to_factors, to_x = kron_matmul_vjp(given, array, xp.asarray(cotangent), **options)
    if xp.name != "cupy":
        assert launches.count("multiply") >= before + 2 * bool(x.size)
    wide = [array.astype(np.float64) for array in (*factors, x, cotangent)]
    expected, largest = (all_of(arrays, options | {"path": None}) for arrays in (wide, map(abs, wide)))
    for one, right, size in zip((found, *to_factors, to_x), expected, largest, strict=True):
        near(xp.to_numpy(one), right, size)


def all_of(arrays, options):
    """The product, the gradients of the factors and that of x."""
    *factors, x, cotangent = arrays
    to_factors, to_x = kron_matmul_vjp(factors, x, cotangent, **options)
    return kron_matmul_dense(factors, x, **options), *to_factors, to_x


def near(found, expected, largest):
    sums = 2.0**-53 if found.dtype == np.float64 else 2.0**-24
    once = {"float64": 2.0**-53, "float32": 2.0**-24}.get(found.dtype.name, 2.0**-11)
    size = 100 * sums * np.max(largest, initial=1.0)
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=2 * once, atol=size)


def test_the_gradient_of_x_may_be_left_out():
    """As `path="fused"` has it: the gradients of the factors are the same."""
    torch = pytest.importorskip("torch")
    for dims, rank, trail in (([(3, 2), (2, 5)], 1, 1), ([(4, 3)], 2, 3), ([(20, 18)] * 3, 3, 1)):
        product = make_product(dims, 2, trail, rank, "float64")
        arrays = [torch.from_numpy(array) for array in (*product.factors, product.x)]
        c = torch.ones((2, int(np.prod([q for _, q in dims])), trail), dtype=torch.float64)
        xp = namespaces.namespace_of(c)
        plan = forward.plan_of(xp, arrays[:-1], 2, trail)
        both, to_x = backward.apply_vjp(xp, arrays[:-1], arrays[-1], c, plan)
        alone, nothing = backward.apply_vjp(xp, arrays[:-1], arrays[-1], c, plan, False)
        assert to_x.shape == product.x.shape
        assert nothing is None
        for found, right in zip(alone, both, strict=True):
            np.testing.assert_array_equal(found.numpy(), right.numpy())


@pytest.mark.parametrize("xp", ["numpy", "torch", "array-api-strict"], indirect=True)
def test_elsewhere_there_is_no_such_path(xp):
    factors, x = [xp.asarray(np.ones((1, 2, 2)))], xp.asarray(np.ones(2))
    text = rf"^path must not be 'fused' but for arrays of CuPy, got {type(x).__name__}$"
    for call in (
        lambda: kron_matmul(factors, x, path="fused"),
        lambda: kron_matmul_vjp(factors, x, x, path="fused"),
        lambda: kron_matmul_jvp(factors, x, factors, x, path="fused"),
    ):
        with pytest.raises(TypeError, match=text):
            call()


@CUDA
def test_what_the_kernel_cannot_take(xp):
    x, factor = xp.asarray(np.ones(2)), xp.asarray(np.ones((1, 2, 2)))
    large = xp.asarray(np.ones((1, 2, 17)))
    text = r"^factors and x must have at most 16 rows and columns in each mode, got \[\(2, 17\)\]$"
    with pytest.raises(ValueError, match=text):
        kron_matmul([large], x, path="fused")
    with pytest.raises(ValueError, match=r"^factors and x must have one real .*, got complex128$"):
        kron_matmul([factor + 0j], x + 0j, path="fused")
    with pytest.raises(ValueError, match=r"^factors and x must have one real .*, got float32, float64$"):
        kron_matmul([xp.asarray(np.ones((1, 2, 2), np.float32))], x, path="fused")
