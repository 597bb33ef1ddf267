"""The authors' cluster memory."""

from __future__ import annotations

from ccfast.nn import ClusterMemory as _ClusterMemory


class ClusterMemory(_ClusterMemory):
    """:class:`ccfast.nn.ClusterMemory` with the authors' arguments; like theirs, it is updated in backward.

    Args:
        num_features: D.
        num_samples: number of clusters C.
        temp: temperature of the loss.
        momentum: share of the old row that an update keeps.
        use_hard: update with the hardest sample of each cluster (CM_Hard), not with all samples in order (CM).

    ``temp``, ``momentum`` and ``use_hard`` are read in each call, and may be changed between calls.
    """

    def __init__(
        self,
        num_features: int,
        num_samples: int,
        temp: float = 0.05,
        momentum: float = 0.2,
        use_hard: bool = False,
    ) -> None:
        super().__init__(num_features, num_samples, temp, momentum, update="backward")
        self.num_features = num_features
        self.num_samples = num_samples
        self.use_hard = use_hard

    @property
    def temp(self) -> float:
        """Temperature of the loss."""
        return self.temperature

    @temp.setter
    def temp(self, value: float) -> None:
        self.temperature = value

    @property
    def use_hard(self) -> bool:
        """Whether the hardest sample of each cluster updates the memory."""
        return self.mode == "hardest"

    @use_hard.setter
    def use_hard(self, value: bool) -> None:
        self.mode = "hardest" if value else "sequential"
