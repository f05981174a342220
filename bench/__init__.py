"""Benchmarks, run from a checkout: `python -m bench` (README.md here says what is compared and how)."""
