"""Public ops: documented signatures over ``torch.ops.ccfast``, their shape functions and gradients."""

from ccfast import _load  # noqa: F401  (loads the extension, which defines torch.ops.ccfast)
