"""Operators from operators: products of many kinds, subsystems, permutations of modes.

A mode is also called a subsystem, as where the matrix is an operator on several systems (qubits, grid axes).
"""

from ketcore.objects.permutation import Permutation, commutation, swap
from ketcore.structure.comparison import allclose
from ketcore.structure.embedding import embed
from ketcore.structure.named_products import face_splitting, hadamard, khatri_rao, kron, kron_power
from ketcore.structure.subsystems import partial_trace, partial_transpose, permute_subsystems

__all__ = [
    "Permutation",
    "allclose",
    "commutation",
    "embed",
    "face_splitting",
    "hadamard",
    "khatri_rao",
    "kron",
    "kron_power",
    "partial_trace",
    "partial_transpose",
    "permute_subsystems",
    "swap",
]
