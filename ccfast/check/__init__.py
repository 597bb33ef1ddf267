"""The tests and timings of ``ccfast check``.

Every op runs on small inputs and is compared with ``ccfast.reference``; then the op and eager PyTorch are timed at one
real size. Each family of ops has one file here with its trials and timings.
"""
