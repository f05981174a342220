"""Kronecker matrices times dense arrays, by plans of integers; and sums over their terms.

    call           the checked arguments of a product
    plans          which way to multiply, and what it costs
    direct         multiplies few rows, where what to do takes longer than to do it
    forward        multiplies by a plan
    backward       its derivatives
    chains         the compiled kernels for NumPy arrays and small modes, where a plan says so
    term_plans     which way, where the terms leave different modes alone
    term_products  multiplies by those, and by the plans above
    fused          the CUDA kernel, for path="fused"
    fused_plan     the sizes of its launches
    cublas         stacks of matrices on CuPy
    terms          sums over terms of products over modes, for inner products, norms and traces

How a call runs through them is drawn in docs/architecture.md.
"""
