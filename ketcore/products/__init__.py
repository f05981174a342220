"""Kronecker matrices times dense arrays: plans of integers, and forward and backward by them."""
