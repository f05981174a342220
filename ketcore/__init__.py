"""Tensor-product vectors and Kronecker-factorised matrices, at the cost of their output.

The names, by what they are for; `help(ketcore.rows)` tells of one of them::

    objects        Ket, KroneckerMatrix, KroneckerSum, KroneckerProduct, Diagonal, Identity, Permutation,
                   CodebookTable, PackedCodes; made by ket, eye, kron, kron_power, swap, commutation
    structure      khatri_rao, face_splitting, hadamard, embed, partial_trace,
                   partial_transpose, permute_subsystems, allclose
    approximation  from_dense, nearest_kronecker, fit_codebooks, recompress, suggest_dims,
                   vocabulary_permutation
    small numbers  quantize, QuantizedArray
    files          save, load, load_words, load_word2ket
    operations     gather_kron, rows, row_kets, ket_rows, codebook_rows, ket_inner, ket_gram,
                   ket_sandwich, kron_matmul, kron_solve, kron_slogdet, kron_log_likelihood, kron_inner,
                   kron_norm, kron_trace, kron_sandwich: functions of arrays; beside each
                   stand foo_vjp, foo_jvp and foo_dense, and OPS, of Op, is the table of all
    lookups        digits, engines
    packages       linalg (names of SciPy); to be imported: ketcore.testing, ketcore.torch
"""

from types import ModuleType as _ModuleType

from ketcore import linalg as linalg
from ketcore._version import __version__ as __version__
from ketcore.arrays.quantized import QuantizedArray as QuantizedArray
from ketcore.divisors import suggest_dims as suggest_dims
from ketcore.fit import fit_codebooks as fit_codebooks
from ketcore.fit import from_dense as from_dense
from ketcore.fit import nearest_kronecker as nearest_kronecker
from ketcore.fit import recompress as recompress
from ketcore.fit import vocabulary_permutation as vocabulary_permutation
from ketcore.io import load as load
from ketcore.io import load_word2ket as load_word2ket
from ketcore.io import load_words as load_words
from ketcore.io import save as save
from ketcore.lookups.gather import engines as engines
from ketcore.objects.codebook_table import CodebookTable as CodebookTable
from ketcore.objects.ket import Ket as Ket
from ketcore.objects.ket import ket as ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix as KroneckerMatrix
from ketcore.objects.kronecker_matrix import eye as eye
from ketcore.objects.kronecker_product import Diagonal as Diagonal
from ketcore.objects.kronecker_product import Identity as Identity
from ketcore.objects.kronecker_product import KroneckerProduct as KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum as KroneckerSum
from ketcore.objects.packed_codes import PackedCodes as PackedCodes
from ketcore.objects.quantization import quantize as quantize
from ketcore.ops import OPS as OPS
from ketcore.ops import Op as Op
from ketcore.ops import codebook_rows as codebook_rows
from ketcore.ops import codebook_rows_dense as codebook_rows_dense
from ketcore.ops import codebook_rows_jvp as codebook_rows_jvp
from ketcore.ops import codebook_rows_vjp as codebook_rows_vjp
from ketcore.ops import digits as digits
from ketcore.ops import gather_kron as gather_kron
from ketcore.ops import gather_kron_dense as gather_kron_dense
from ketcore.ops import gather_kron_jvp as gather_kron_jvp
from ketcore.ops import gather_kron_vjp as gather_kron_vjp
from ketcore.ops import ket_gram as ket_gram
from ketcore.ops import ket_gram_dense as ket_gram_dense
from ketcore.ops import ket_gram_jvp as ket_gram_jvp
from ketcore.ops import ket_gram_vjp as ket_gram_vjp
from ketcore.ops import ket_inner as ket_inner
from ketcore.ops import ket_inner_dense as ket_inner_dense
from ketcore.ops import ket_inner_jvp as ket_inner_jvp
from ketcore.ops import ket_inner_vjp as ket_inner_vjp
from ketcore.ops import ket_rows as ket_rows
from ketcore.ops import ket_rows_dense as ket_rows_dense
from ketcore.ops import ket_rows_jvp as ket_rows_jvp
from ketcore.ops import ket_rows_vjp as ket_rows_vjp
from ketcore.ops import ket_sandwich as ket_sandwich
from ketcore.ops import ket_sandwich_dense as ket_sandwich_dense
from ketcore.ops import ket_sandwich_jvp as ket_sandwich_jvp
from ketcore.ops import ket_sandwich_vjp as ket_sandwich_vjp
from ketcore.ops import kron_inner as kron_inner
from ketcore.ops import kron_inner_dense as kron_inner_dense
from ketcore.ops import kron_inner_jvp as kron_inner_jvp
from ketcore.ops import kron_inner_vjp as kron_inner_vjp
from ketcore.ops import kron_log_likelihood as kron_log_likelihood
from ketcore.ops import kron_log_likelihood_dense as kron_log_likelihood_dense
from ketcore.ops import kron_log_likelihood_jvp as kron_log_likelihood_jvp
from ketcore.ops import kron_log_likelihood_vjp as kron_log_likelihood_vjp
from ketcore.ops import kron_matmul as kron_matmul
from ketcore.ops import kron_matmul_dense as kron_matmul_dense
from ketcore.ops import kron_matmul_jvp as kron_matmul_jvp
from ketcore.ops import kron_matmul_vjp as kron_matmul_vjp
from ketcore.ops import kron_norm as kron_norm
from ketcore.ops import kron_norm_dense as kron_norm_dense
from ketcore.ops import kron_norm_jvp as kron_norm_jvp
from ketcore.ops import kron_norm_vjp as kron_norm_vjp
from ketcore.ops import kron_sandwich as kron_sandwich
from ketcore.ops import kron_sandwich_dense as kron_sandwich_dense
from ketcore.ops import kron_sandwich_jvp as kron_sandwich_jvp
from ketcore.ops import kron_sandwich_vjp as kron_sandwich_vjp
from ketcore.ops import kron_slogdet as kron_slogdet
from ketcore.ops import kron_slogdet_dense as kron_slogdet_dense
from ketcore.ops import kron_slogdet_jvp as kron_slogdet_jvp
from ketcore.ops import kron_slogdet_vjp as kron_slogdet_vjp
from ketcore.ops import kron_solve as kron_solve
from ketcore.ops import kron_solve_dense as kron_solve_dense
from ketcore.ops import kron_solve_jvp as kron_solve_jvp
from ketcore.ops import kron_solve_vjp as kron_solve_vjp
from ketcore.ops import kron_trace as kron_trace
from ketcore.ops import kron_trace_dense as kron_trace_dense
from ketcore.ops import kron_trace_jvp as kron_trace_jvp
from ketcore.ops import kron_trace_vjp as kron_trace_vjp
from ketcore.ops import row_kets as row_kets
from ketcore.ops import row_kets_dense as row_kets_dense
from ketcore.ops import row_kets_jvp as row_kets_jvp
from ketcore.ops import row_kets_vjp as row_kets_vjp
from ketcore.ops import rows as rows
from ketcore.ops import rows_dense as rows_dense
from ketcore.ops import rows_jvp as rows_jvp
from ketcore.ops import rows_vjp as rows_vjp
from ketcore.structure import Permutation as Permutation
from ketcore.structure import allclose as allclose
from ketcore.structure import commutation as commutation
from ketcore.structure import embed as embed
from ketcore.structure import face_splitting as face_splitting
from ketcore.structure import hadamard as hadamard
from ketcore.structure import khatri_rao as khatri_rao
from ketcore.structure import kron as kron
from ketcore.structure import kron_power as kron_power
from ketcore.structure import partial_trace as partial_trace
from ketcore.structure import partial_transpose as partial_transpose
from ketcore.structure import permute_subsystems as permute_subsystems
from ketcore.structure import swap as swap


def __dir__() -> list[str]:
    """The public names; of packages those that are for users, where they are imported."""
    public = {"__version__", "linalg", "testing", "torch"}
    hidden = {name for name, value in globals().items() if name[0] == "_" or isinstance(value, _ModuleType)}
    return sorted(globals().keys() - (hidden - public))
