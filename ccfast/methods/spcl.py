"""SpCL (Ge et al., NeurIPS 2020): one row per image, kept from epoch to epoch; these rows are clustered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

import ccfast
from ccfast._errors import InputError, RunError
from ccfast.data import ReIDData
from ccfast.data.sampler import BatchSampler, FillingSampler
from ccfast.methods.method import Method
from ccfast.methods.source import WithSource
from ccfast.training.clustering.pseudo_labels import PseudoLabels

if TYPE_CHECKING:
    from ccfast.training.clustering.pseudo_labels import Clustering


class SpCL(Method):
    """The memory is :class:`ccfast.nn.HybridMemory`; features are extracted once, before the first epoch.

    A cluster that splits or grows if DBSCAN's eps is slightly smaller or larger is unreliable. Each image of such a
    cluster, and each image in no cluster, is a separate class (section 3.2). Such images are in the batches too.

    With a labelled source the memory has one row per class of the source, before the rows of the images: first the
    mean of the class, later updated by its images. A batch has as many source images as target images, the loss is
    the sum of both, and only the rows of the target images are clustered.
    """

    joint = True

    defaults: ClassVar = {"momentum": 0.2}

    #: The difference between eps and those of the reliability criterion's two other clusterings.
    gap = 0.02

    memory: ccfast.nn.HybridMemory | None = None

    def prepare(self, data: ReIDData) -> None:
        """The criterion needs DBSCAN at three radii."""
        config, self.images = self.config, len(data.train)
        if config.cluster != "dbscan":
            raise InputError(f"--cluster: expected dbscan with --method {config.method}, got {config.cluster}")
        if config.noise != "drop":
            raise InputError(
                f"--noise: expected drop with --method {config.method}, where each image in no cluster is always a "
                f"separate class, got {config.noise}"
            )
        if not isinstance(config.eps, str) and not self.gap <= config.eps < 1 - self.gap:
            raise InputError(
                f"--eps: expected a number in [{self.gap}, {1 - self.gap}) with --method {config.method}, which also "
                f"clusters at eps - {self.gap} and eps + {self.gap}, got {config.eps}"
            )

    @property
    def first(self) -> int:
        """The row of the first image; the rows of the source's classes come before it."""
        return 0 if self.source is None else self.source.num_classes

    def features(self, extract: Callable[[], Tensor]) -> Tensor:
        """The images' rows of the memory ``[N, D]``; their initial values are the features of the untrained encoder."""
        if self.memory is None:
            rows = extract()
            if self.source is not None:
                rows = torch.cat([ccfast.cluster_centroids(self.source.extract(), self.source.labels), rows])
            self.memory = self._memory(rows)
        return self.memory.features[self.first :] if self.first else self.memory.features

    def _memory(self, rows: Tensor) -> ccfast.nn.HybridMemory:
        config, (images, columns) = self.config, rows.shape
        memory = ccfast.nn.HybridMemory(columns, images, config.temperature, config.momentum).to(rows.device)
        memory.features.copy_(rows)
        return memory

    def pseudo_labels(self, features: Tensor, cluster: Clustering) -> Tensor:
        """The reliable clusters, -1 for all other images."""
        assert self.memory is not None
        eps = cluster.best_eps(features) if isinstance(self.config.eps, str) else self.config.eps
        assert eps is not None  # DBSCAN has one
        labels, tight, loose = cluster.at_radii(features, (eps, eps - self.gap, eps + self.gap))
        try:
            relied_on = self.memory.relabel(labels, tight, loose)
        except ValueError as error:  # with --min-samples 1 every cluster may have one image
            raise RunError(f"{error}; try a larger --eps than {eps:g}") from error
        if self.first:  # each row before the images' rows is a class
            classes = torch.arange(self.first, device=relied_on.device)
            self.memory.labels = torch.cat([classes, self.first + relied_on])
        return PseudoLabels(relied_on).clusters_alone().labels

    def sampler(self, labels: Tensor, iters: int, generator: torch.Generator) -> BatchSampler:
        """Batches of the memory's labels, which give every image a class; an image in no cluster is drawn once."""
        assert self.memory is not None
        config = self.config
        target = FillingSampler(
            self.memory.labels[self.first :],
            self.cameras,
            size=config.batch_size,
            num_clusters=config.clusters_per_batch,
            num_instances=config.num_instances,
            iters=iters,
            generator=generator,
        )
        return target if self.source is None else WithSource(target, self.source_classes(iters, generator), self.images)

    def criterion(self, features: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """A softmax over the mean similarities to the rows of each class.

        With a source, the first ``--batch-size`` images are target images. The memory is called for the source first:
        so backward updates its rows last (methods.md, "When a memory moves").
        """
        assert self.memory is not None
        if self.source is None:
            return self.memory(features, indices)
        size = self.config.batch_size
        of_source = self.memory(features[size:], targets[size:])
        return of_source + self.memory(features[:size], self.first + indices[:size])

    def state_dict(self) -> dict[str, Any]:
        """The memory, its labels and the threshold of independence."""
        return {} if self.memory is None else dict(self.memory.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the memory of the last complete epoch."""
        if not state:
            return
        rows = state["features"]
        if len(rows) != self.first + self.images:
            images, classes = len(rows) - self.first, f" and {self.first} classes" if self.first else ""
            raise InputError(f"the run's memory has rows for {images} images{classes}, but there are {self.images} now")
        self.memory = self._memory(rows.to(self.device))
        self.memory.load_state_dict(state)
