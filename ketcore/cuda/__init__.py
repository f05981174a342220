"""All that is CuPy's or CUDA's.

    library      CuPy by its name: whose arrays are its, what stands for SciPy
    devices      what CuPy says of itself and of the GPUs, for reports
    answer       the script by which they are asked
    launcher     launches kernels on arrays of CuPy
    table        every instantiation of a kernel that is launched
    structs      what kernels are told by value

The sources lie beside them: `gather.cu` and `scatter.cu` for lookups, `matmul.cu` for products, and
`kernel.cuh`, which is put before each.
"""
