"""Supervised contrastive loss: SupCon, and SimCLR without labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccfast import _checks as checks
from ccfast.nn._moving import checked_loss, wide
from ccfast.nn._softmax import mean_of_counted
from ccfast.ops.sets import set_contrastive_loss

ANCHORS = ("all", "one")


class SupConLoss(nn.Module):
    """Contrast of several views of each sample (Khosla et al., NeurIPS 2020, equation 2); SimCLR without labels.

    Each anchor is compared with all other views of all samples; its positives are those with the same label. The loss
    is the mean over all anchors, times ``temperature / base_temperature``; an anchor without positives counts as 0.

    Args:
        temperature: above 0.
        base_temperature: above 0.
        anchors: ``"all"`` views, or ``"one"``: the first view.
        normalize: divide the features by their norm; otherwise they are used unchanged, as in the authors' code.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> criterion = ccfast.nn.SupConLoss(temperature=1.0, base_temperature=1.0)
        >>> features = torch.zeros(3, 2, 4)  # two views of three samples
        >>> loss = criterion(features, labels=torch.tensor([0, 0, 1]))
        >>> round(loss.item(), 4)  # log 5: each anchor is compared with five others
        1.6094
    """

    def __init__(
        self,
        temperature: float = 0.07,
        base_temperature: float = 0.07,
        *,
        anchors: str = "all",
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.base_temperature = checks.real("base_temperature", base_temperature, low=0, ends="(]")
        self.anchors = checks.choice("anchors", anchors, ANCHORS)
        self.normalize = bool(normalize)

    def forward(self, features: Tensor, labels: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Mean loss of a batch.

        Args:
            features: ``[B, V, D]``, V views of each sample; the gradient goes to both sides of the product.
            labels: ``[B]`` integers; samples with -1 (noise) are ignored. None: each sample has a different label
                (SimCLR).
            mask: ``[B, B]`` instead of labels, not 0 at [b, c] if sample c is a positive of anchor b.

        Returns:
            The scalar loss, float32 (float64 for float64 features).

        Raises:
            TypeError: a tensor of another dtype or layout.
            ValueError: an empty input, wrong shapes, both labels and mask.
        """
        features = checks.tensor("features", features, 3, checks.ANY_FLOAT)
        if features.numel() == 0:
            raise ValueError(f"features: expected a non-empty [B, V, D], got shape {tuple(features.shape)}")
        positive, counted = self._positives(features, labels, mask)
        views = features.shape[1]
        with torch.autocast(features.device.type, enabled=False):
            rows = wide(features, self.normalize).transpose(0, 1).flatten(0, 1)  # view after view
            anchors = rows if self.anchors == "all" else rows[: len(features)]
            repeats = (len(anchors) // len(features), views)
            itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)[: len(anchors)]
            kept = counted.repeat(views)
            losses = set_contrastive_loss(
                anchors @ rows.T / self.temperature, positive.repeat(repeats) & ~itself, ~itself & kept
            )
            loss = mean_of_counted(losses, kept[: len(anchors)])
            return checked_loss(loss * (self.temperature / self.base_temperature), features=features)

    def _positives(self, features: Tensor, labels: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """``[B, B]`` whether sample c is a positive of sample b, and ``[B]`` whether a sample counts."""
        batch, device = features.shape[0], features.device
        everyone = torch.ones(batch, dtype=torch.bool, device=device)
        if labels is not None and mask is not None:
            raise ValueError("labels, mask: expected at most one of them, got both")
        if mask is not None:
            mask = checks.as_tensor("mask", mask)
            if tuple(mask.shape) != (batch, batch):
                raise ValueError(f"mask: expected shape {(batch, batch)}, got {tuple(mask.shape)}")
            checks.same_device(features=features, mask=mask)
            return mask != 0, everyone
        if labels is None:
            return torch.eye(batch, dtype=torch.bool, device=device), everyone
        labels = checks.vector_of_integers("labels", labels, batch, "features")
        checks.same_device(features=features, labels=labels)
        counted = labels != -1
        return (labels[:, None] == labels) & counted, counted

    def extra_repr(self) -> str:
        """Options, for ``print(module)``."""
        return f"temperature={self.temperature}, base_temperature={self.base_temperature}, anchors={self.anchors!r}"
