"""The second family of `python -m bench`: products with Kronecker matrices, logits, Gram matrices, solves."""
