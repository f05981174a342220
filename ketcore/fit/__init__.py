"""Approximation: the nearest sums of Kronecker products, and fewer terms for those there are."""

from ketcore.fit.codebooks import fit_codebooks
from ketcore.fit.nearest import from_dense, nearest_kronecker
from ketcore.fit.rank_one import nearest_rank_one
from ketcore.fit.recompress import recompress
from ketcore.fit.result import Fit
from ketcore.fit.vocabulary import vocabulary_permutation

__all__ = [
    "Fit",
    "fit_codebooks",
    "from_dense",
    "nearest_kronecker",
    "nearest_rank_one",
    "recompress",
    "vocabulary_permutation",
]
