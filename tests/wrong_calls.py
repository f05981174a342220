"""Wrong calls: every argument of every public function and method, with values that are none for it.

    python -m tests.wrong_calls

A call is "good" where its error is ours, `<argument> must <rule>, got <value>`; "raw" where it is one of
Python or of a library, or a warning; "silent" where it returns.  What arguments take is data, in
`wrong_values.py`.  Definitions (`rows_dense`) are formulas for tests, which check nothing.
"""

import operator
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

import ketcore as kc
from tests.wrong_values import RIGHT, RIGHT_HERE, VALUES

RNG = np.random.default_rng(0)
MATRIX = kc.KroneckerMatrix.random((6, 6), row_dims=(2, 3), col_dims=(3, 2), rank=2, rng=0)
SQUARE = kc.KroneckerMatrix([[[2.0, 1.0], [1.0, 3.0]], 2 * np.eye(3)])
KET = kc.Ket.random((2, 3), rank=2, rng=0)
KETS = kc.Ket.random((2, 3), rank=2, batch_shape=(4,), rng=0)
SUM = kc.KroneckerSum([[[2.0, 1.0], [1.0, 3.0]], np.eye(3)])
PRODUCT = kc.KroneckerProduct([kc.Diagonal([1.0, 2.0]), kc.Identity(3)])
PERMUTATION = kc.Permutation((2, 3), (1, 0))
TABLE = kc.CodebookTable(((np.ones((1, 2, 2))), np.ones((1, 3, 3))), [[[0, 1]], [[2, 0]]])
OBJECTS = {
    "Ket": KET,
    "Kets": KETS,
    "KroneckerMatrix": MATRIX,
    "KroneckerSum": SUM,
    "KroneckerProduct": PRODUCT,
    "Permutation": PERMUTATION,
}
X = RNG.standard_normal(6)
FOLDER = TemporaryDirectory()


class Call(NamedTuple):
    """A function and good arguments of it, by their names; `spread` names the one that is `*args`."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    spread: str = ""

    def __call__(self, **spoiled: Any) -> Any:
        """The call with some arguments changed."""
        arguments = self.arguments | spoiled
        several = arguments.pop(self.spread) if self.spread else ()
        return self.function(*several, **arguments)


class WrongCall(NamedTuple):
    """A call of which one argument is wrong, by the names of function, argument and value."""

    name: str
    argument: str
    label: str
    call: Call
    value: Any

    def __str__(self) -> str:
        return f"{self.name}({self.argument}={self.label})"

    def outcome(self) -> tuple[str, str]:
        """One of `OUTCOMES`, and what was raised or returned."""
        value = (self.value,) if self.argument == self.call.spread else self.value
        try:
            returned = self.call(**{self.argument: value})
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            ours = " must " in text and ", got " in text and _is_ours(error.__traceback__)
            return "good" if ours else "raw", text
        return "silent", type(returned).__name__


OUTCOMES = ("good", "raw", "silent")


def _is_ours(traceback: TracebackType | None) -> bool:
    """Whether it was raised by code of ketcore."""
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_globals["__name__"].startswith("ketcore.")


FACTORS = ([[[2.0, 1.0], [1.0, 3.0]]], 2 * np.eye(3)[None])
LEAVES = np.ones((4, 2, 5))
V, W = ((np.ones((4, 2, 2)), np.ones((4, 2, 3))) for _ in range(2))
# Arguments of operations, by their names; those of which the shape depends on the operation stand below.
OF_OPERATIONS: dict[str, Any] = {
    "a": FACTORS, "axis": -1, "assume_a": "pos", "b": FACTORS, "check": None, "columns": None,
    "codebooks": FACTORS, "codes": [[[0, 1]], [[2, 0]]], "decoder": np.ones((6, 2)), "row_scale": [1.0, 2.0],
    "deterministic": True, "dims": (2, 3), "eps": 1e-5, "factors": FACTORS, "identities": (), "ids": [0, 1],
    "index": [[0, 1], [0, 1]], "layernorm": False, "leaves": LEAVES, "max_bytes": 2**30, "out": None,
    "path": None, "per_term": False, "shape": None, "shift": 1.0, "sparse": False, "tables": FACTORS, "v": V,
    "w": W, "x": X, "y": X,
}  # fmt: skip
OF_ONE: dict[str, dict[str, Any]] = {
    "kron_solve": {"b": X},
    "ket_rows": {"row_scale": np.ones(4)},
    "rows": {"row_scale": np.ones(6)},
}


def operations() -> Iterator[tuple[str, Call]]:
    """The functions of all operations."""
    for op in kc.OPS:
        known = OF_OPERATIONS | OF_ONE.get(op.name, {})
        primals = {each.name: known[each.name] for each in op.primals}
        constants = {name: known[name] for name in op.constants}
        options = {name: known[name] for name in op.options}
        shared = primals | constants | options
        yield op.name, Call(op.forward, shared | _named(known, op.forward_options))
        found = op.forward(**shared)
        several = isinstance(found, tuple) or op.outputs[0].several
        cotangents = [np.ones_like(each) for each in found] if several else np.ones_like(found)
        cotangent = next(name for name in signature(op.vjp).parameters if name.startswith("cotangent"))
        more = _named(known, op.vjp_options)
        yield f"{op.name}_vjp", Call(op.vjp, shared | {cotangent: cotangents} | more)
        names = [name for name in signature(op.jvp).parameters if "tangent" in name]
        tangents = dict(zip(names, primals.values(), strict=True))
        yield f"{op.name}_jvp", Call(op.jvp, shared | tangents)


def _named(known, names):
    return {name: known[name] for name in names}


def small_numbers() -> dict[str, Call]:
    """Of arrays that are quantized, and of packed codes."""
    values, scales = np.zeros((2, 3), np.int8), np.zeros((2, 1), np.float32)
    parts = {"values": values, "scales": scales, "shape": (2, 3), "bits": 8, "block": 32}
    packed = {"packed": np.zeros((3, 1), np.uint8), "order": 1, "rank": 2, "bits": 4}
    return {
        "PackedCodes": Call(kc.PackedCodes, packed),
        "PackedCodes.pack": Call(kc.PackedCodes.pack, {"codes": [[[0, 1]], [[1, 0]]], "bits": 4}),
        "QuantizedArray": Call(kc.QuantizedArray, parts),
        "quantize": Call(kc.quantize, {"x": SQUARE.to_dense(), "bits": 8, "block": 32}),
    }


def functions() -> dict[str, Call]:
    """The functions of ketcore that are no operations, and the constructors."""
    dense = SQUARE.to_dense()
    fit = {"rank": 1, "tol": None, "restarts": 1, "iterations": 2, "rng": 0, "callback": None}
    dims = {"row_dims": (2, 3), "col_dims": (2, 3)}
    sizes = {"dims": (2, 3), "rank": 2, "batch_shape": (4,), "std": 1.0, "rng": 0, "dtype": "float64"}
    shapes = {"shape": (6, 6), "order": None, "rank": 2, "std": 1.0, "rng": 0, "dtype": "float64"}
    codebooks = {"table": dense, "n_codes": 1, "codebook_size": 2, "width": 2, "row_scale": False}
    codebooks |= {"packed": False, "weights": None, "iterations": 2, "rng": 0, "callback": None}
    packed = {"source": np.ones((2, 3, 10, 4)), "shape": (95, 16), "layer": None}
    return {
        "CodebookTable": Call(
            kc.CodebookTable,
            {"codebooks": FACTORS, "codes": [[[0, 1]], [[2, 0]]], "row_scale": None, "decoder": None},
        ),
        **small_numbers(),
        "Ket": Call(kc.Ket, {"factors": KET.factors}),
        "Ket.from_packed": Call(kc.Ket.from_packed, {"packed": KET.packed, "dims": KET.dims}),
        "Ket.random": Call(kc.Ket.random, sizes),
        "KroneckerMatrix": Call(
            kc.KroneckerMatrix, {"factors": MATRIX.factors, "shape": None, "identities": ()}
        ),
        "KroneckerMatrix.from_terms": Call(kc.KroneckerMatrix.from_terms, {"terms": [[dense]]}),
        "KroneckerMatrix.random": Call(kc.KroneckerMatrix.random, shapes | dims),
        "KroneckerSum": Call(kc.KroneckerSum, {"factors": SUM.factors}),
        "KroneckerProduct": Call(kc.KroneckerProduct, {"parts": PRODUCT.parts}),
        "Permutation": Call(kc.Permutation, {"dims": (2, 3), "order": (1, 0)}),
        "Diagonal": Call(kc.Diagonal, {"values": [1.0, 2.0]}),
        "Identity": Call(kc.Identity, {"size": 2}),
        "allclose": Call(kc.allclose, {"a": MATRIX, "b": MATRIX, "rtol": None, "atol": 0.0}),
        "commutation": Call(kc.commutation, {"m": 2, "n": 3}),
        "digits": Call(kc.digits, {"index": [0, 5], "radices": (2, 3)}),
        "embed": Call(kc.embed, {"op": np.eye(2), "dims": (2, 3), "where": 0, "linear": False, "svd": False}),
        "eye": Call(kc.eye, {"dims": (2, 3), "dtype": "float64", "like": None}),
        "face_splitting": Call(kc.face_splitting, {"matrices": (dense, dense)}, "matrices"),
        "fit_codebooks": Call(kc.fit_codebooks, codebooks),
        "from_dense": Call(
            kc.from_dense, {"A": dense, "order": 2, "gain": None, "weights": None} | fit | dims
        ),
        "hadamard": Call(kc.hadamard, {"left": MATRIX, "right": MATRIX}),
        "ket": Call(kc.ket, {"vectors": ([1.0, 2.0], [1.0, 3.0])}, "vectors"),
        "khatri_rao": Call(kc.khatri_rao, {"matrices": (dense, dense)}, "matrices"),
        "kron": Call(kc.kron, {"matrices": (MATRIX, SUM)}, "matrices"),
        "kron_power": Call(kc.kron_power, {"matrix": MATRIX, "k": 2}),
        "load": Call(kc.load, {"path": saved(), "mmap_mode": None, "like": None}),
        "load_words": Call(kc.load_words, {"path": saved()}),
        "load_word2ket": Call(kc.load_word2ket, packed),
        "nearest_kronecker": Call(
            kc.nearest_kronecker, {"A": dense, "gain": None, "weights": None} | fit | dims
        ),
        "partial_trace": Call(kc.partial_trace, {"matrix": SQUARE, "where": 0}),
        "partial_transpose": Call(kc.partial_transpose, {"operator": SQUARE, "where": 0}),
        "permute_subsystems": Call(kc.permute_subsystems, {"operator": SQUARE, "order": (1, 0)}),
        "recompress": Call(kc.recompress, {"x": MATRIX} | fit),
        "save": Call(kc.save, {"path": saved(), "obj": MATRIX, "words": None}),
        "suggest_dims": Call(kc.suggest_dims, {"n": 6, "order": 2}),
        "swap": Call(kc.swap, {"dims": (2, 3, 2), "i": 0, "j": 2}),
        "vocabulary_permutation": Call(kc.vocabulary_permutation, {"table": dense, "weights": None} | dims),
    }


def of_linalg() -> dict[str, Call]:
    """The functions of linalg."""
    posterior = {"A": SQUARE, "y": X, "noise": 1.0, "cross": None, "prior": None, "mask": None}
    return {
        "cg": Call(
            kc.linalg.cg,
            {"A": SQUARE, "b": X, "x0": None, "rtol": 1e-5, "atol": 0.0, "maxiter": None, "M": None}
            | {"mask": None, "shift": 0.0, "callback": None},
        ),
        "cholesky": Call(kc.linalg.cholesky, {"A": SQUARE, "lower": False, "assume_a": None}),
        "cond": Call(kc.linalg.cond, {"A": SQUARE, "p": None}),
        "det": Call(kc.linalg.det, {"A": SQUARE, "max_bytes": 2**30}),
        "gaussian_log_likelihood": Call(
            kc.linalg.gaussian_log_likelihood, {"A": SQUARE, "y": X, "shift": 0.0, "assume_a": None}
        ),
        "gaussian_posterior": Call(kc.linalg.gaussian_posterior, posterior | {"rtol": 1e-6, "maxiter": None}),
        "inv": Call(kc.linalg.inv, {"A": SQUARE, "assume_a": None}),
        "lstsq": Call(kc.linalg.lstsq, {"A": SQUARE, "b": X, "cond": None}),
        "matrix_power": Call(kc.linalg.matrix_power, {"A": SQUARE, "n": 2}),
        "matrix_rank": Call(kc.linalg.matrix_rank, {"A": SQUARE, "tol": None, "max_bytes": 2**30}),
        "norm": Call(kc.linalg.norm, {"A": SQUARE, "ord": None}),
        "pinv": Call(
            kc.linalg.pinv,
            {"A": SQUARE, "atol": 0.0, "rtol": None, "return_rank": False, "max_bytes": 2**30},
        ),
        "qr": Call(kc.linalg.qr, {"A": SQUARE, "mode": "economic"}),
        "slogdet": Call(kc.linalg.slogdet, {"A": SQUARE, "shift": 0.0, "assume_a": None, "max_bytes": 2**30}),
        "solve": Call(kc.linalg.solve, {"A": SQUARE, "b": X, "shift": 0.0, "assume_a": None}),
        "svd": Call(kc.linalg.svd, {"A": SQUARE, "full_matrices": False}),
        **{
            name: Call(getattr(kc.linalg, name), {"A": SUM if name == "expm" else SQUARE})
            for name in ("eig", "eigvals", "eigvalsh", "eigh", "expm", "sqrtm", "svdvals")
        },
    }


def saved() -> Path:
    """The path of a file of an object."""
    path = Path(FOLDER.name) / "matrix.safetensors"
    kc.save(path, MATRIX)
    return path


def methods() -> Iterator[tuple[str, Call]]:
    """The methods of all kinds."""
    good = {
        "A": SQUARE, "axis": None, "axes": (None,), "check": None, "cross": SQUARE, "dtype": "float32",
        "ids": [0, 1], "key": 0, "like": None, "max_bytes": 2**30, "n": 1, "name": "matmul", "out": None,
        "points": None, "prior": None, "rng": 0, "row_scale": X, "size": 2,
        "weights": np.ones(4), "x": X, "y": X,
    }  # fmt: skip
    of_bags = {"k": 1, "mode": "sum", "offsets": [0], "weights": None}
    posterior = kc.linalg.gaussian_posterior(SQUARE, X, 1.0)
    for kind, own in (OBJECTS | {"GaussianPosterior": posterior, "CodebookTable": TABLE}).items():
        here = good | {"other": own} | (of_bags if own is TABLE else {})
        for name in dir(own):
            # Constructors are among the functions.
            if name.startswith("_") or isinstance(vars(type(own)).get(name), classmethod):
                continue
            if not callable(method := getattr(own, name, None)):
                continue
            parameters = signature(method).parameters
            spread = next((p.name for p in parameters.values() if p.kind is p.VAR_POSITIONAL), "")
            arguments = {n: X if (name, n) == ("dot", "other") else here[n] for n in parameters}
            if arguments and (kind, name) not in (("Kets", "to_column"), ("Ket", "combine")):
                yield f"{kind}.{name}", Call(method, arguments, spread)
        if kind not in ("GaussianPosterior", "Ket"):
            yield f"{kind}[...]", Call(own.__getitem__, {"key": 0})


def operators() -> Iterator[tuple[str, Call]]:
    """The operators of all kinds on either side; what stands beside them has a good value of no kind."""
    for kind, own in OBJECTS.items():
        for sign, (argument, binary) in OPERATORS.items():
            for name, order in ((f"{kind} {sign}", 1), (f"{sign} {kind}", -1)):
                yield name, Call(partial(_binary, binary, own, order), {argument: None})


def _binary(binary, own, order, **other):
    """Of own and other, in this order or, where `order` is -1, in the other."""
    return binary(*[own, *other.values()][::order])


# What stands beside the operators, which has a name of its own for each kind of them.
OPERATORS = {
    "+": ("term", operator.add),
    "-": ("term", operator.sub),
    "*": ("scalar", operator.mul),
    "/": ("scalar", operator.truediv),
    "@": ("operand", operator.matmul),
}


def calls() -> Iterator[tuple[str, Call]]:
    """Good calls, by the name of their function."""
    yield from operations()
    yield from functions().items()
    yield from of_linalg().items()
    yield from methods()


def wrong_calls() -> Iterator[WrongCall]:
    """All calls with one wrong argument."""
    for name, call in chain(calls(), operators()):
        for argument in call.arguments:
            right = RIGHT.get(argument, set()) | RIGHT_HERE.get(f"{name} {argument}", set())
            for label, value in VALUES.items():
                if label not in right:
                    yield WrongCall(name, argument, label, call, value)


def found() -> dict[str, list[tuple[WrongCall, str]]]:
    """All wrong calls by their outcome, with what was raised or returned; warnings are raised."""
    outcomes: dict[str, list[tuple[WrongCall, str]]] = {kind: [] for kind in OUTCOMES}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wrong in wrong_calls():
            kind, text = wrong.outcome()
            outcomes[kind].append((wrong, text))
    return outcomes


def main() -> int:
    outcomes = found()
    for kind in ("raw", "silent"):
        print(f"--- {kind}")
        for wrong, text in sorted((str(wrong), text) for wrong, text in outcomes[kind]):
            print(f"{wrong:60} {text.splitlines()[0][:120]}")
    counts = {kind: len(wrong) for kind, wrong in outcomes.items()}
    print(counts, "of", sum(counts.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
