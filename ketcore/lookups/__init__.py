"""Rows as sums of products of picked leaves: one question, and the engines that answer it side by side.

    lookup       the question: which leaf each row takes from each table
    index_lookup  the question of an index that is given
    stored_tables  of tables that are quantized what a call reads, decoded
    gather       the choice among the engines, and what an engine is
    on_cuda      the engine for arrays of CuPy, by
      kernels      which kernel, when, with what
      kernel_plan  the sizes of a launch
    on_native    the engine for arrays of NumPy by the compiled kernels of `ketcore.native`
    on_numpy     the engine for arrays of NumPy, at times by
      half_tables  halves for all digits, once a call
    on_arrays    the engine for arrays of every library
    leaves       how a leaf is read
    halves       a row, and its derivatives, from its leaves, by way of two halves
    tree         products of leaves, with LayerNorm or without
    row_scales   rows times one number each, before and after an engine
    segments     gradients of tables from those of leaves: sums by index
    digits       which leaves a row number picks

How a call runs through them is drawn in docs/architecture.md.
"""
