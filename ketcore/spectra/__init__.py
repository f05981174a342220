"""Decompositions of square factors, which operations differentiate."""
