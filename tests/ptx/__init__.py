"""Executes the PTX that nvcc generates from the CUDA kernels; see README.md."""
