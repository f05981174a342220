"""The compiled kernels for arrays of NumPy: their sources in C++, and the library that was built from them.

`loader` finds and loads it; ketcore works without it.
"""
