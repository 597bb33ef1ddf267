"""The tests and timings of ``ccfast check``.

Every op runs on small inputs and is compared with ``ccfast.reference``; then the op and eager PyTorch are timed at one
real size. Each file here has the trials and timings of a few ops.
"""
