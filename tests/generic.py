"""The strategies of `ketcore.testing` with standard normal values.

For tests whose tolerances are those of sums of numbers near one, or that need matrices that are not singular.
"""

from functools import partial

from ketcore import testing

arrays = partial(testing.arrays, elements="normal")
factors = partial(testing.factors, elements="normal")
leaves = partial(testing.leaves, elements="normal")
kets = partial(testing.kets, elements="normal")
kronecker_matrices = partial(testing.kronecker_matrices, elements="normal")
