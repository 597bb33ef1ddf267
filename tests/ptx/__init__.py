"""Executes what nvcc makes of the CUDA kernels; see README.md."""
