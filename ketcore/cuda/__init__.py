"""All that is CuPy's or CUDA's: the library, the launcher, the structs of the kernels, their sources."""
