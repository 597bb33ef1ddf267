"""Contrastive loss with a set of positives for each row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _arguments as arguments


def set_contrastive_loss(logits: Any, positives: Any, keep: Any = None, *, multiplicity: Any = None) -> Tensor:
    """Softmax with a set of positives: ``-mean_p (z_p - logsumexp(z over keep))`` for each row (SupCon, equation 2).

    The columns are chosen by a mask, without a ``[B, P]`` copy of the logits; backward computes the softmax again.

    Args:
        logits: z, ``[B, P]`` float16, bfloat16, float32 or float64. Computed in float64 for float64, else in float32.
        positives: ``[B, P]`` bool. A positive that is not in ``keep`` counts in the numerator only.
        keep: ``[B, P]`` bool, the columns in the denominator; None: all.
        multiplicity: ``[B, P]`` integers w, how often a column of ``keep`` counts in the denominator (adds ``log w`` to
            its z); 0 leaves the column out. None: once.

    Returns:
        ``[B]``, float32 or float64. A row without positives, or without columns in ``keep``, has loss 0 and no
        gradient. The gradient goes to ``logits``; there is no second derivative.

    Raises:
        TypeError: a tensor of another dtype or layout.
        ValueError: an empty input, wrong shapes, a multiplicity below 0, a loss that is not finite (on CUDA these
            checks would have to wait for the device: such a column is left out, and values are not checked).

    Examples:
        >>> import torch, ccfast
        >>> logits = torch.zeros(1, 4, requires_grad=True)
        >>> positives = torch.tensor([[True, True, False, False]])
        >>> loss = ccfast.set_contrastive_loss(logits, positives, keep=torch.tensor([[True, True, True, False]]))
        >>> round(loss.item(), 4)  # log 3: three columns are kept
        1.0986
        >>> loss.sum().backward()
        >>> [round(value, 4) for value in logits.grad[0].tolist()]
        [-0.1667, -0.1667, 0.3333, 0.0]
    """
    logits, positives, keep, multiplicity = arguments.set_contrastive_loss(logits, positives, keep, multiplicity)
    multiplicity = None if multiplicity is None else multiplicity.to(torch.int32)
    return torch.ops.ccfast.set_contrastive_loss(logits, positives, keep, multiplicity)[0]


@torch.library.register_fake("ccfast::set_contrastive_loss")
def _(
    logits: Tensor, positives: Tensor, keep: Tensor | None, multiplicity: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    rows = (logits.shape[0],)
    return (
        logits.new_empty(rows),
        logits.new_empty(rows, dtype=torch.float64),
        logits.new_empty(rows, dtype=torch.int64),
    )


@torch.library.register_fake("ccfast::set_contrastive_loss_backward")
def _(
    upstream: Tensor,
    logits: Tensor,
    positives: Tensor,
    keep: Tensor | None,
    multiplicity: Tensor | None,
    log_sums: Tensor,
    counts: Tensor,
) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs, *output[1:])


def _backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor, None, None, None]:
    gradient = torch.ops.ccfast.set_contrastive_loss_backward(upstream, *ctx.saved_tensors)
    return gradient, None, None, None


torch.library.register_autograd("ccfast::set_contrastive_loss", _backward, setup_context=_setup_context)
