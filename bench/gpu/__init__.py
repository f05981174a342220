"""The steps of `bench/gpu.sh` that are Python: what the GPU is, and how fast ketcore is on it."""
