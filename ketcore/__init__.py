"""ketcore: tensor-product vectors and Kronecker-factorised matrices, at the cost of their output.

Pure functions on arrays (`rows`, `ket_rows`, `gather_kron`, `ket_inner`, ...) with their gradients
(`..._vjp`, `..._jvp`), the value objects built on them (`Ket`, `KroneckerMatrix`, `KroneckerSum`, ...), and
`ketcore.linalg`, linear algebra under the names of SciPy.
"""

from ketcore import linalg, ops, structure
from ketcore._version import __version__
from ketcore.divisors import suggest_dims
from ketcore.fit import from_dense, nearest_kronecker, recompress
from ketcore.io import load_word2ket
from ketcore.ket import Ket, ket
from ketcore.kronecker_sum import KroneckerSum
from ketcore.matrix import KroneckerMatrix, eye
from ketcore.ops import *  # noqa: F403  (the names are those of `ops.__all__`)
from ketcore.product import Diagonal, Identity, KroneckerProduct
from ketcore.structure import *  # noqa: F403  (the names are those of `structure.__all__`)

__all__ = [
    "Diagonal",
    "Identity",
    "Ket",
    "KroneckerMatrix",
    "KroneckerProduct",
    "KroneckerSum",
    "__version__",
    "eye",
    "from_dense",
    "ket",
    "linalg",
    "load_word2ket",
    "nearest_kronecker",
    "recompress",
    "suggest_dims",
    *ops.__all__,
    *structure.__all__,
]
