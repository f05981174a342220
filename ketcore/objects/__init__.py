"""The value objects, and what they alone use.

    ket, kronecker_matrix, kronecker_sum, kronecker_product, permutation    one class each, or what makes it
    codebook_table  a table that is stored as codes; by
      codebook_lookups  its rows, bags and scores
      packed_codes      codes of fewer than 8 bits
    quantization   arrays and objects whose numbers take 8, 4 or 2 bits
    parts          what a KroneckerProduct is made of: `Diagonal`, `Identity`, dense and sparse matrices
    part_operators  linear operators among them
    part_products  products of parts, with one another and with factors
    part_blocks    rows and blocks of a product of parts
    operator       what the classes share
    operands       what may stand beside `@`; sandwiches of dense arrays
    refusals       what may not, with the way out
    numpy_calls    what functions of NumPy are answered
    alignment      products and sums of two structured operands: A @ B, A @ ket, A + B, v^H A w
    arithmetic     times a number, equal scales of factors, norms and combinations of kets
    construction   random leaves, identities, stacked terms
    reductions     sums over elements, diagonals
    indexing       keys of `[...]`
    blocks         the elements that they choose
    row_blocks     all rows, block by block
    costs          what methods cost
    display        how objects describe themselves

A method is one call to a function of these modules or of `ketcore.ops`.
"""
