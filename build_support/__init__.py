"""Helpers of setup.py and pip for the build: torch, the CUDA toolkit, the sources, the jobs. Not installed."""

import setuptools

if int(setuptools.__version__.split(".")[0]) < 77:  # it cannot read pyproject.toml's licence
    raise SystemExit(
        f"ccfast needs setuptools 77 or later to be built, got {setuptools.__version__}: "
        "pip install --upgrade 'setuptools>=77' wheel ninja"
    )
