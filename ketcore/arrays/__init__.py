"""What differs between array libraries, and what is checked of arrays: everything above is written once.

    namespaces   whose array it is, dtypes, where values lie
    autodiff     what PyTorch and JAX record of an array
    conversions  what lists, numbers and integers become beside arrays
    checks       arguments that are arrays, and the texts of their errors
    elementary   small functions of arrays
    quantized    arrays of 8, 4 or 2 bits a number, and where they are decoded
    quantized_lines  some lines of one, decoded alone
    scale        products that stay in the range of their dtype
    sums         sums by index
    solvers      the iterative solvers of SciPy and CuPy
    threads      how many, and work in pieces on them

What is CuPy's alone is in `ketcore.cuda`.
"""
