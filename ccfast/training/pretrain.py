"""``ccfast pretrain``: the usual supervised re-ID baseline, on the identities of a labelled source data set.

Classification of identities with smoothed labels, and a batch-hard triplet loss (Luo et al., CVPRW 2019), with the
encoder, augmentation, batches and schedule of ``ccfast train``. ``ccfast train --init`` starts from the result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ccfast
from ccfast.data import ReIDData
from ccfast.methods import Method
from ccfast.methods.source import class_labels
from ccfast.training.config import TrainConfig
from ccfast.training.loop import Run, TrainResult, run_to_the_end
from ccfast.training.pretrain_config import PretrainConfig
from ccfast.training.stopwatch import Stopwatch
from ccfast.training.trackers import OnRecord

LABEL_SMOOTHING = 0.1
MARGIN = 0.3


def pretrain(config: PretrainConfig, on_record: OnRecord | None = None) -> TrainResult:
    """Train with labels; run folder and ``on_record`` are those of :func:`ccfast.training.train`.

    Raises:
        InputError: wrong options or data; nothing was trained.
        RunError: the run cannot continue; its folder keeps the last complete epoch.
    """
    return run_to_the_end(config, _SupervisedRun, on_record)


class Supervised(Method):
    """The identities are the labels, and a classifier for them is trained together with the encoder."""

    def prepare(self, data: ReIDData) -> None:
        """Refuse data without two identities."""
        self.labels = class_labels(data.train.ids, self.config.data_dir or data.name).to(self.device)

    def head(self, num_features: int) -> SupervisedLoss:
        """The loss, which contains the classifier of the identities."""
        self.loss = SupervisedLoss(num_features, int(self.labels.max()) + 1, self.config.temperature)
        return self.loss

    def criterion(self, features: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """Classification and triplet loss."""
        return self.loss(features, targets)


class _SupervisedRun(Run):
    def check(self, config: TrainConfig, data: ReIDData) -> None:
        """Nothing: there are no clustering options."""

    def method_class(self) -> type[Method]:
        """Train on the identities."""
        return Supervised

    def epoch(self) -> None:
        """One pass of the sampler's batches over the identities."""
        watch = Stopwatch(self.device)
        assert isinstance(self.method, Supervised)
        loss = self.learn(self.method.labels, watch)
        self.end_epoch({"epoch": self.state.epoch + 1, "loss": loss}, watch)


class SupervisedLoss(nn.Module):
    """Cross-entropy over identities with smoothed labels, plus the batch-hard triplet loss.

    The features have unit norm, so the classifier's rows are normalised too, and the logits are divided by a
    temperature (Wang et al., "NormFace", ACM MM 2017). This is the contrastive loss of training without labels, with
    learned centroids.
    """

    def __init__(self, num_features: int, num_identities: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight = nn.Parameter(torch.randn(num_identities, num_features) / num_features**0.5)

    def forward(self, features: Tensor, identities: Tensor) -> Tensor:
        """``features`` [B, D] of unit norm and ``identities`` [B] in 0 .. num_identities - 1 to a scalar."""
        classification = ccfast.centroid_contrastive_loss(
            features,
            F.normalize(self.weight, dim=1),
            identities,
            self.temperature,
            label_smoothing=LABEL_SMOOTHING,
        )
        return classification + batch_hard_triplet_loss(features, identities)


def batch_hard_triplet_loss(features: Tensor, identities: Tensor, margin: float = MARGIN) -> Tensor:
    """The mean of ``max(0, farthest positive - nearest negative + margin)`` (Hermans et al. 2017, equation 5).

    Args:
        features: [B, D] of unit norm; distances are Euclidean.
        identities: [B]; if all images have one identity, there are no negatives and no loss.
    """
    squared = (2 - 2 * features @ features.T).clamp(min=1e-12)  # the root has no gradient at 0
    distances = squared.sqrt()
    same = identities[:, None] == identities[None, :]
    positive = distances.masked_fill(~same, 0).amax(dim=1)
    negative = distances.masked_fill(same, torch.inf).amin(dim=1)
    return (positive - negative + margin).clamp(min=0).mean()
