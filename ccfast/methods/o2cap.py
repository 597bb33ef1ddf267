"""O2CAP (Wang et al., TIP 2022): proxies across cameras, by pseudo-labels and by current similarities."""

from __future__ import annotations

from torch import Tensor

import ccfast
from ccfast._errors import RunError
from ccfast.methods.proxies import ProxyMethod


class O2CAP(ProxyMethod):
    """Proxies are sorted by label, then camera.

    The paper's 3 positives and 50 negatives need 53 proxies; if there are fewer, all remaining proxies are negatives.
    """

    #: Number of proxies that the online term uses as positives of a sample.
    num_positives = 3

    def order(self, labels: Tensor, cameras: Tensor) -> Tensor:
        """By label, then camera."""
        return labels * (cameras.max() + 1) + cameras

    def new_memory(self, num_features: int, num_proxies: int) -> ccfast.nn.ProxyMemory:
        """Proxies with both terms."""
        config, others = self.config, num_proxies - self.num_positives
        if others < 1:
            raise RunError(
                f"{num_proxies} proxies (one camera of one cluster each): --method {config.method} needs more than "
                f"{self.num_positives}; try a smaller --eps than {config.eps}"
            )
        return ccfast.nn.ProxyMemory.o2cap(
            num_features,
            temperature=config.temperature,
            momentum=config.momentum,
            num_negatives=min(self.num_negatives, others),
            num_positives=self.num_positives,
        )
