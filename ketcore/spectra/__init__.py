"""Decompositions of square factors, which operations differentiate.

    decompositions  inverses, spectra, gradients of log determinants; what is wrong with a factor, as data
    symmetry        which matrices count as Hermitian
    schur           systems with factors that are not
    powers          signs and logarithms to integer powers

What of this NumPy and SciPy compute waits for a device.
"""
