"""What setup.py and pip need to build ccfast: torch, the CUDA toolkit, the sources, the jobs. Not installed."""
