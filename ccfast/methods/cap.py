"""CAP (Wang et al., AAAI 2021): a loss over the proxies of each camera, and later also across the cameras."""

from __future__ import annotations

from torch import Tensor

import ccfast
from ccfast.methods.proxies import ProxyMethod


class CAP(ProxyMethod):
    """Proxies are sorted by camera, then label; the order decides between tied proxies."""

    @property
    def across_from(self) -> int:
        """The first epoch, counted from 0, with the loss across cameras: 5, as published; a tenth of a shorter run."""
        return min(5, self.config.epochs // 10)

    def order(self, labels: Tensor, cameras: Tensor) -> Tensor:
        """By camera, then label."""
        return cameras * (labels.max() + 1) + labels

    def new_memory(self, num_features: int, num_proxies: int) -> ccfast.nn.ProxyMemory:
        """Proxies whose loss across cameras is switched on later."""
        config = self.config
        return ccfast.nn.ProxyMemory.cap(
            num_features,
            temperature=config.temperature,
            momentum=config.momentum,
            num_negatives=self.num_negatives,
        )

    def start_epoch(self, features: Tensor, labels: Tensor, epoch: int) -> None:
        """New proxies, and the terms of this epoch."""
        super().start_epoch(features, labels, epoch)
        self.memory.offline = epoch >= self.across_from
