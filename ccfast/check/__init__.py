"""Whether ccfast is right on this machine, and how fast: what ``ccfast check`` runs.

Every op gets small inputs and is compared with ``ccfast.reference``; then it is timed beside eager PyTorch at one real
size. One file of this package holds the trials and the timings of each family of ops.
"""
