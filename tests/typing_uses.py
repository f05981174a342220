"""Right and wrong uses as type checkers must see them; tests/test_types.py reads this file, nothing runs it.

A right use is revealed, with its type beside it.  A wrong one is marked with the code of mypy's error and the
rule of pyright's.  What returns a number of NumPy counts as ndarray.
"""

from typing import reveal_type

import numpy as np
from numpy.typing import NDArray

import ketcore as kc
from ketcore import linalg, testing

Real = NDArray[np.float64]
Integers = NDArray[np.int64]
Complex = NDArray[np.complex128]

a = np.eye(2)
single = np.ones((2, 2), "float32")
x = np.ones(4)
K = kc.KroneckerMatrix([a, single])
S = kc.KroneckerSum([a, a])
P = kc.KroneckerProduct([kc.Diagonal([1.0, 2.0]), kc.Identity(2)])
v = kc.ket([1.0, 2.0], [3.0, 4.0])


def small_numbers() -> None:
    small = kc.quantize(K.factors[0])
    reveal_type(small)  # QuantizedArray[ndarray]
    reveal_type(small.dequantize())  # ndarray
    reveal_type(kc.quantize(K, 4))  # KroneckerMatrix[ndarray]
    reveal_type(kc.quantize(v).dequantize())  # Ket[ndarray]
    reveal_type(kc.KroneckerMatrix([small, a]))  # KroneckerMatrix[ndarray]
    reveal_type(kc.rows([small, small], [0]))  # ndarray


def right() -> None:
    reveal_type(K)  # KroneckerMatrix[ndarray]
    reveal_type(kc.KroneckerMatrix([[[1.0, 2.0]], a]))  # KroneckerMatrix[ndarray]
    reveal_type(kc.KroneckerMatrix.random((4, 6), order=2, rng=0))  # KroneckerMatrix[ndarray]
    reveal_type(kc.KroneckerMatrix.from_terms([[a, a], [a, a]]))  # KroneckerMatrix[ndarray]
    reveal_type(kc.eye((2, 3)))  # KroneckerMatrix[ndarray]
    reveal_type(K.factors)  # tuple[ndarray, ...]
    reveal_type(K.H)  # KroneckerMatrix[ndarray]
    reveal_type(2 * K)  # KroneckerMatrix[ndarray]
    reveal_type(K - K / np.float32(2))  # KroneckerMatrix[ndarray]
    reveal_type(K @ x)  # ndarray
    reveal_type(x @ K)  # ndarray
    reveal_type(K @ [1, 2, 3, 4])  # ndarray
    reveal_type([1.0, 2.0, 3.0, 4.0] @ K)  # ndarray
    reveal_type(K @ K)  # KroneckerMatrix[ndarray]
    reveal_type(K @ v)  # Ket[ndarray]
    reveal_type(K[0, 1:])  # ndarray
    reveal_type(K.rows([0, 3]))  # ndarray
    reveal_type(K.row_kets(np.arange(2)))  # Ket[ndarray]
    reveal_type(K.to_dense())  # ndarray
    reveal_type(float(K.trace()))  # float
    reveal_type(v)  # Ket[ndarray]
    reveal_type(kc.Ket.random((2, 3), rank=2, rng=0).norm())  # ndarray
    reveal_type(v.combine(1.0))  # Ket[ndarray]
    reveal_type(v + v)  # Ket[ndarray]
    reveal_type(S @ x)  # ndarray
    reveal_type(S + K)  # KroneckerMatrix[ndarray]
    reveal_type(S + S)  # KroneckerSum[ndarray]
    reveal_type(x @ P)  # ndarray
    reveal_type(P.to_kronecker())  # KroneckerMatrix[ndarray]
    reveal_type(kc.rows(K.factors, [0, 1]))  # ndarray
    reveal_type(kc.rows([[[[1.0, 2.0]]]], [0]))  # ndarray
    reveal_type(kc.rows_vjp(K.factors, [0], np.ones((1, 4))))  # tuple[ndarray, ...]
    reveal_type(kc.ket_inner(v.factors, v.factors))  # ndarray
    reveal_type(kc.kron_matmul(K.factors, x))  # ndarray
    reveal_type(kc.kron_slogdet(K.factors))  # tuple[ndarray, ndarray]
    reveal_type(kc.kron(K, K))  # KroneckerMatrix[ndarray]
    reveal_type(kc.swap((2, 2), 0, 1) @ x)  # ndarray
    reveal_type(linalg.solve(K, x, shift=0.5))  # ndarray
    reveal_type(linalg.solve(K, [1, 2, 3, 4]))  # ndarray
    reveal_type(linalg.inv(K))  # KroneckerMatrix[ndarray]
    reveal_type(linalg.inv(P))  # KroneckerProduct[ndarray]
    reveal_type(linalg.slogdet(K).sign)  # ndarray
    reveal_type(linalg.eigh(K).eigenvectors)  # KroneckerMatrix[ndarray]
    reveal_type(linalg.expm(S))  # KroneckerMatrix[ndarray]
    reveal_type(kc.from_dense(np.ones((4, 4)), rank=1).value)  # KroneckerMatrix[ndarray]
    reveal_type(kc.fit_codebooks(np.ones((4, 4))).value.rows([0]))  # ndarray
    reveal_type(kc.recompress(v + v, rank=1))  # Fit[Ket[ndarray]]
    reveal_type(kc.suggest_dims(256, 4))  # tuple[int, ...]
    reveal_type(kc.digits([0, 5], (2, 3)))  # tuple[ndarray, ...]
    reveal_type(kc.digits(np.int64(5), (2, 3)))  # tuple[ndarray, ...]
    reveal_type(kc.load_word2ket({}))  # Ket[ndarray] | KroneckerMatrix[ndarray]
    kc.save("table.safetensors", K)
    table = kc.load("table.safetensors", mmap_mode="r", like=x)
    if isinstance(table, kc.Ket):
        reveal_type(table)  # Ket[ndarray]
    reveal_type(testing.factors())  # SearchStrategy[tuple[ndarray, ...]]
    reveal_type(testing.indices(3))  # SearchStrategy[ndarray]
    reveal_type(testing.crops(3, 4))  # SearchStrategy[tuple[int, int] | None]


def function_of_reals(y: Real) -> Real:
    return K @ y


def two_dtypes(
    real: kc.KroneckerMatrix[Real],
    terms: kc.KroneckerSum[Real],
    parts: kc.KroneckerProduct[Real],
    ids: Integers,
    amplitudes: Complex,
) -> None:
    """A signature may promise a dtype; dense arrays beside it may have another."""
    reveal_type(real @ x)  # ndarray
    reveal_type(real + K)  # KroneckerMatrix[ndarray]
    reveal_type(real @ v)  # Ket[ndarray]
    reveal_type(real @ ids)  # ndarray
    reveal_type(ids @ real)  # ndarray
    reveal_type(real @ amplitudes)  # ndarray
    reveal_type(real.matmul(ids))  # ndarray
    reveal_type(real.rmatmul(amplitudes))  # ndarray
    reveal_type(real.sandwich(x, amplitudes))  # ndarray
    reveal_type(terms @ amplitudes)  # ndarray
    reveal_type(ids @ terms)  # ndarray
    reveal_type(parts @ amplitudes)  # ndarray
    reveal_type(ids @ parts)  # ndarray
    in_phases: kc.KroneckerMatrix[Complex] = real.astype("complex128")
    reveal_type(in_phases)  # KroneckerMatrix[ndarray]


def wrong() -> None:
    _ = K @ "x"  # wrong: operator, reportOperatorIssue
    _ = "x" @ K  # wrong: operator, reportOperatorIssue
    _ = K @ None  # wrong: operator, reportOperatorIssue
    _ = K @ 3  # wrong: operator, reportOperatorIssue
    _ = K @ {"x": 1.0}  # wrong: operator, reportOperatorIssue
    _ = K + 1  # wrong: operator, reportOperatorIssue
    _ = K * "2"  # wrong: operator, reportOperatorIssue
    _ = v + K  # wrong: operator, reportOperatorIssue
    _ = v @ x  # wrong: operator, reportOperatorIssue
    kc.KroneckerMatrix("x")  # wrong: arg-type, reportArgumentType
    kc.KroneckerMatrix([None])  # wrong: list-item, reportArgumentType
    kc.KroneckerMatrix([a], shape=4)  # wrong: call-overload, reportArgumentType
    kc.KroneckerSum(3)  # wrong: call-overload, reportArgumentType
    kc.ket("x", "y")  # wrong: call-overload, reportArgumentType
    kc.Identity("2")  # wrong: arg-type, reportArgumentType
    kc.rows(3, [0])  # wrong: call-overload, reportArgumentType
    kc.rows(K.factors, "x")  # wrong: call-overload, reportArgumentType
    kc.rows(K.factors, [0], chek=True)  # wrong: call-overload, reportCallIssue
    kc.digits("x", (2, 3))  # wrong: call-overload, reportArgumentType
    kc.digits([0], 6)  # wrong: call-overload, reportArgumentType
    testing.assert_vjp(3, np.ones, [x])  # wrong: arg-type, reportArgumentType
    linalg.solve(x, x)  # wrong: call-overload, reportArgumentType
    linalg.inv(v)  # wrong: call-overload, reportArgumentType
    _ = v.dim  # wrong: attr-defined, reportAttributeAccessIssue
    kc.row(K.factors, [0])  # wrong: attr-defined, reportAttributeAccessIssue
    K.shape = (4, 4)  # wrong: misc, reportAttributeAccessIssue
    _number: int = K @ x  # wrong: assignment, reportAssignmentType
