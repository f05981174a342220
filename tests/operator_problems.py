"""Random problems for the operations on square factors: solve, determinants, traces, norms, forms, densities.

Values are drawn well-conditioned, so that rounding stays at the tolerance of the dtype: factors with singular
values in [0.8, 1.2], of every structure that the operations tell apart.
"""

import numpy as np
from hypothesis import strategies as st

from ketcore import testing
from ketcore.arrays.namespaces import is_complex, namespace_of, quiet
from tests import generic

# General, Hermitian (which have eigenvectors), triangular (defective) and unitary (normal) factors.
KINDS = ("general", "hermitian", "triangular", "unitary")


def well_conditioned(rng, size, kind, dtype):
    """A matrix with singular values near 1 and any sign or phase, in `dtype`."""
    normal = rng.standard_normal((size, size))
    if np.dtype(dtype).kind == "c":
        normal = normal + 1j * rng.standard_normal((size, size))
    unitary = np.linalg.qr(normal)[0]
    values = rng.uniform(0.8, 1.2, size)
    signs = rng.choice((-1.0, 1.0), size)
    if kind == "hermitian":
        matrix = (unitary * (values * signs)) @ unitary.conj().T
        matrix = (matrix + matrix.conj().T) / 2
    elif kind == "triangular":
        # One eigenvalue, of which there is a single eigenvector.
        matrix = signs[0] * (np.eye(size) + np.triu(normal, 1) / (8 * size))
    elif kind == "unitary":
        matrix = unitary
    else:
        matrix = (unitary * values) @ np.linalg.qr(normal + np.eye(size))[0]
    return matrix.astype(dtype)


def kron(factors):
    """The one matrix (P, P) of square factors, in float64 or complex128."""
    matrix = np.ones((1, 1))
    for factor in factors:
        matrix = np.kron(matrix, factor.sum(axis=0))
    return matrix


@st.composite
def square_factors(draw, dtype, max_size=24):
    """N factors of one term, or several terms of order 1, as arrays (R, p_n, p_n)."""
    dims = draw(testing.mode_dims(max_order=3, max_size=max_size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(KINDS))
    matrices = [well_conditioned(rng, size, kind, dtype) for size in dims]
    if len(dims) == 1 and draw(st.booleans()):
        half = rng.standard_normal(matrices[0].shape).astype(dtype)
        return (np.stack([matrices[0] - half, half]).astype(dtype),)
    return tuple(matrix[None] for matrix in matrices)


@st.composite
def shifts(draw, dtype):
    """None, or a shift of modulus below or beyond those of the eigenvalues of `square_factors`."""
    value = draw(st.sampled_from((None, 3.0, -3.5, 0.1, -0.125, 4j, 2.0 - 3j, 0.0)))
    if value is None or (isinstance(value, complex) and np.dtype(dtype).kind != "c"):
        return None
    return np.array(value).astype(dtype)


@st.composite
def kron_solve_problems(draw, op, dtype, problem):
    """`kron_solve`, along either axis."""
    factors, shift = draw(square_factors(dtype)), draw(shifts(dtype))
    size, axis = len(kron(factors)), draw(st.sampled_from((-1, -2)))
    batch = draw(st.sampled_from(((), (3,), (0,), (2, 1))))
    b = draw(generic.arrays((*batch, size) if axis == -1 else (*batch, size, draw(st.integers(0, 3))), dtype))
    return problem(
        op,
        factors,
        b,
        shift,
        options={"axis": axis},
        multilinear=False,
        magnitude=solve_magnitude(op, len(factors), axis),
    )


def solve_magnitude(op, order, axis):
    """What rounding of a solution is relative to: |A^-1| |A| |x|, whatever the order of elimination."""

    def magnitude(*arrays):
        factors, b, *shift = arrays[:order], *arrays[order:]
        shift = shift[0] if shift else None
        matrix = _shifted(factors, shift)
        x = op.dense(factors, b, shift, axis=axis).astype(matrix.dtype)
        across = np.abs(np.linalg.inv(matrix)) @ np.abs(matrix)
        size = np.abs(x) if axis == -2 else np.abs(x)[..., None]
        return (across @ size).reshape(x.shape)

    return magnitude


def _shifted(factors, shift):
    matrix = kron(factors)
    return matrix if shift is None else matrix + shift * np.eye(len(matrix))


@st.composite
def kron_slogdet_problems(draw, op, dtype, problem):
    """`kron_slogdet`: both outputs sum over all eigenvalues."""
    factors, shift = draw(square_factors(dtype)), draw(shifts(dtype))
    size = len(kron(factors))
    return problem(
        op,
        factors,
        shift,
        multilinear=False,
        magnitude=lambda *arrays: (2.0 * size, 4.0 * size),
    )


@st.composite
def cropped_factors(draw, dtype):
    """Factors of any shapes, half of the time square ones, and the options that crop them."""
    dims = draw(testing.mode_dims(max_order=3, max_size=30))
    square = draw(st.booleans())
    factors = draw(generic.factors(row_dims=dims, col_dims=dims if square else None, dtype=dtype))
    rows, columns = (int(np.prod([factor.shape[axis] for factor in factors])) for axis in (1, 2))
    shape = draw(testing.crops(rows, columns))
    return factors, {} if shape is None else {"shape": shape}


@st.composite
def kron_trace_problems(draw, op, dtype, problem):
    """`kron_trace`, of square factors and of others."""
    factors, options = draw(cropped_factors(dtype))
    return problem(op, factors, options=options)


@st.composite
def kron_norm_problems(draw, op, dtype, problem):
    """`kron_norm` of at least three columns: that of one entry is straight but for a kink."""
    factors, options = draw(cropped_factors(dtype))
    extra = draw(generic.arrays((factors[0].shape[0], 1, 3), dtype))
    factors, options = (extra, *factors), {name: (shape[0], 2 + shape[1]) for name, shape in options.items()}
    return problem(op, factors, options=options, multilinear=False)


@st.composite
def kron_inner_problems(draw, op, dtype, problem):
    """`kron_inner` of matrices of different ranks."""
    factors, options = draw(cropped_factors(dtype))
    dims = [[factor.shape[axis] for factor in factors] for axis in (1, 2)]
    others = draw(generic.factors(row_dims=dims[0], col_dims=dims[1], dtype=dtype))
    return problem(op, factors, others, options=options)


BATCHES = (((), ()), ((3,), (3,)), ((3,), ()), ((), (2,)), ((2, 1), (3,)), ((0,), (1,)))


@st.composite
def ket_sandwich_problems(draw, op, dtype, problem):
    """`ket_sandwich` of kets of different ranks, with batches that broadcast."""
    factors = draw(generic.factors(order=draw(st.integers(1, 3)), dtype=dtype))
    batches = draw(st.sampled_from(BATCHES))
    kets = []
    for batch, axis in zip(batches, (1, 2), strict=True):
        rank = draw(st.integers(1, 2))
        kets.append([draw(generic.arrays((*batch, rank, f.shape[axis]), dtype)) for f in factors])
    return problem(op, kets[0], factors, kets[1])


@st.composite
def kron_sandwich_problems(draw, op, dtype, problem):
    """`kron_sandwich` of dense arrays, cropped and with batches that broadcast."""
    factors, options = draw(cropped_factors(dtype))
    full = tuple(int(np.prod([factor.shape[axis] for factor in factors])) for axis in (1, 2))
    rows, columns = options.get("shape", full)
    left, right = draw(st.sampled_from(BATCHES))
    x, y = draw(generic.arrays((*left, rows), dtype)), draw(generic.arrays((*right, columns), dtype))
    return problem(op, x, factors, y, options=options)


# In silence, as the operations are.
@quiet
def hermitian_part(array):
    """(B + B^H) / 2 of arrays (R, p, p) of any library."""
    xp = namespace_of(array)
    turned = xp.permute_dims(array, (0, 2, 1))
    turned = xp.conj(turned) if is_complex(xp, array.dtype) else turned
    return (array + turned) / 2


def of_hermitian_parts(op):
    """The operation as a function of any square arrays, of which it takes the Hermitian parts.

    A density is a function of Hermitian matrices alone: this way its derivatives have all directions to be
    compared in.
    """

    def parts(factors):
        return tuple(map(hermitian_part, factors))

    def vjp(factors, y, shift, cotangent):
        to_factors, *rest = op.vjp(parts(factors), y, shift, cotangent)
        return (parts(to_factors), *rest)

    def jvp(factors, y, shift, tangents, *rest):
        return op.jvp(parts(factors), y, shift, parts(tangents), *rest)

    return op._replace(
        forward=lambda factors, y, shift: op.forward(parts(factors), y, shift),
        vjp=vjp,
        jvp=jvp,
        dense=lambda factors, y, shift: op.dense(parts(factors), y, shift),
    )


@st.composite
def kron_log_likelihood_problems(draw, op, dtype, problem):
    """`kron_log_likelihood` as a function of the Hermitian parts of factors; M alone may be indefinite."""
    dims = draw(testing.mode_dims(max_order=3, max_size=24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    factors = [well_conditioned(rng, size, "hermitian", dtype)[None] for size in dims]
    shift = np.array(draw(st.sampled_from((2.5, 4.0)))).astype(np.zeros((), dtype).real.dtype)
    y = draw(generic.arrays((*draw(st.sampled_from(((), (3,), (0,), (2, 1)))), len(kron(factors))), dtype))

    def magnitude(*arrays):
        return (np.abs(arrays[-2]) ** 2).sum(axis=-1) + 4.0 * len(kron(factors))

    return problem(
        of_hermitian_parts(op),
        factors,
        y,
        shift,
        multilinear=False,
        magnitude=magnitude,
    )


PROBLEMS = {
    "kron_solve": kron_solve_problems,
    "kron_slogdet": kron_slogdet_problems,
    "kron_trace": kron_trace_problems,
    "kron_norm": kron_norm_problems,
    "kron_inner": kron_inner_problems,
    "ket_sandwich": ket_sandwich_problems,
    "kron_sandwich": kron_sandwich_problems,
    "kron_log_likelihood": kron_log_likelihood_problems,
}


def problems_to_compile(ops, dtype, problem):
    """Problems of what is not multilinear: with a shift the factors are Hermitian.

    As they must be where they are traced.
    """
    rng = np.random.default_rng(23)

    def normal(*shape):
        return (rng.standard_normal(shape) * (1.0 if real else 1 + 0.5j)).astype(dtype)

    real = np.dtype(dtype).kind != "c"
    symmetric = [well_conditioned(rng, size, "hermitian", dtype)[None] for size in (2, 3)]
    general = [well_conditioned(rng, size, "general", dtype)[None] for size in (2, 3)]
    uneven = [normal(2, 3, 2), normal(2, 4, 3)]
    shift = np.asarray(3.0).astype(np.zeros((), dtype).real.dtype)
    return [
        problem(
            ops["kron_solve"],
            general,
            normal(6, 2),
            None,
            options={"axis": -2},
            multilinear=False,
            magnitude=solve_magnitude(ops["kron_solve"], 2, -2),
        ),
        problem(
            ops["kron_solve"],
            symmetric,
            normal(2, 6),
            shift,
            multilinear=False,
            magnitude=solve_magnitude(ops["kron_solve"], 2, -1),
        ),
        problem(ops["kron_slogdet"], symmetric, shift, multilinear=False, magnitude=lambda *_: (6.0, 9.0)),
        problem(ops["kron_norm"], uneven, options={"shape": (10, 5)}, multilinear=False),
        problem(
            ops["kron_log_likelihood"],
            symmetric,
            normal(2, 6),
            shift,
            multilinear=False,
            magnitude=lambda *_: 20.0,
        ),
    ]
