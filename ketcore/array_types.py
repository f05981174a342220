"""What stands in signatures: arrays of any library, and what becomes an array of NumPy.

A result has the type of the arrays that it is made of, which `ArrayT` says.  Nested lists and numbers become
arrays of NumPy.  Type checkers alone read this: nothing here runs in a call.
"""

from collections.abc import Iterator
from numbers import Complex
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, TypeAlias, TypeVar, final

import numpy as np
from numpy.typing import NDArray


class Array(Protocol):
    """An array of any library.

    It has much more in common with the others, but no two libraries declare that alike: ndarray does not even
    take all the keys that a `__getitem__(key: object)` promises to.  `__float__` is what operators do not
    have.
    """

    def __float__(self) -> float: ...

    @property
    def ndim(self) -> int:
        """The number of axes."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        ...

    @property
    def dtype(self) -> Any:
        """The dtype, an object of the library."""
        ...


T_co = TypeVar("T_co", covariant=True)


class Nested(Protocol[T_co]):
    """A list, a tuple, a range: a sequence that is no array, and no string (which holds strings alone)."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T_co]: ...
    def __contains__(self, value: object, /) -> bool: ...
    def index(self, value: Any, /) -> int:
        """Where `value` stands: arrays do not have it."""
        ...

    def count(self, value: Any, /) -> int:
        """How often `value` is there."""
        ...


class Quantized(Protocol[T_co]):
    """What decodes to an array, as a QuantizedArray does."""

    def dequantize(self) -> T_co:
        """The array."""
        ...


class SupportsCSR(Protocol):
    """A sparse matrix: all those of SciPy and CuPy can be made CSR matrices."""

    def tocsr(self) -> Any:
        """As a CSR matrix."""
        ...


@final
class Untyped:
    """Nothing is an `Untyped`: what is taken for one is of no known type, as are the arrays of CuPy."""


# Of several signatures that fit pyright takes the first; mypy gives up (Any) where arrays of NumPy of a dtype
# that it does not know fit two.  So that they fit one alone, mypy, for which MYPY is true, is told what tells
# other arrays from NumPy's: whether their class says that they cannot be hashed.
MYPY = False
if MYPY:

    class Foreign(Array, Protocol):
        """An array of another library than NumPy."""

        def __hash__(self) -> int: ...

    ForeignT = TypeVar("ForeignT", bound=Foreign)
else:
    ForeignT = TypeVar("ForeignT", bound=Array)

ArrayT = TypeVar("ArrayT", bound=Array)

# Within the package: what libraries do not declare alike is not checked.
AnyArray: TypeAlias = Any

# Arrays of NumPy (no signature promises a shape or a dtype), and what becomes one.
Host: TypeAlias = NDArray[Any]
Number: TypeAlias = complex | np.number[Any] | np.bool
Lists: TypeAlias = Nested["Host | Number | Lists"]
HostLike: TypeAlias = Host | Number | Lists | Quantized[Host]
HostFactor: TypeAlias = HostLike | SupportsCSR

# Numbers and arrays without dimensions; ids; keys of `[...]`; seeds.
Scalar: TypeAlias = Complex | complex | np.number[Any] | Array
Index: TypeAlias = SupportsIndex | Array | Lists
Key: TypeAlias = slice | Index | tuple[slice | Index, ...]
if TYPE_CHECKING:
    Seed: TypeAlias = (
        int | np.integer[Any] | Lists | np.random.SeedSequence | np.random.BitGenerator
        | np.random.Generator | None
    )  # fmt: skip
else:
    # The names above would load numpy.random, which `import ketcore` does not need.
    Seed = Any
