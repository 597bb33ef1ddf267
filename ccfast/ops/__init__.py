"""Public ops: documented signatures over ``torch.ops.ccfast``, their shape functions and gradients."""
