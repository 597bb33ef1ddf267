"""The base class of the methods: the functions that the training loop calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

import ccfast
from ccfast._errors import InputError
from ccfast.data import ClusterSampler, ReIDData

if TYPE_CHECKING:
    from ccfast.data.sampler import BatchSampler
    from ccfast.methods.source import Source
    from ccfast.training.clustering.pseudo_labels import Clustering
    from ccfast.training.config import TrainConfig
    from ccfast.training.shard import Shard


class Method(ABC):
    """A way to learn from clusters: the labels of the images, the batches, and the loss.

    ``ccfast train --method my_module:MyMethod`` trains with a class that inherits from this one. In every epoch the
    loop calls :meth:`features`, :meth:`pseudo_labels`, :meth:`start_epoch` and :meth:`sampler`, in this order, and in
    every step :meth:`criterion`, which is the only method without a default. With several processes each has its own
    method object; it gets the features of all images and of whole batches, so that all processes compute the same.

    The settings of a method are attributes of its class; to change one, write a subclass.

    Attributes:
        defaults: class attribute: defaults for options of ``ccfast train`` by name. They override the recipe of the
            data set and the defaults of the base class.
        memories: class attribute: the allowed values of ``--memory``, the default first; empty: no such option.
        needs_cameras: class attribute: refuse training images without cameras, or from one camera only.
        needs_modalities: class attribute: refuse data without visible and infrared training images.
        joint: class attribute: can also learn from a labelled source, which ``--source`` names.
        shards: class attribute: with several processes, receive features of which each process has a slice
            (``ccfast.training.shard.Shard``), so that no process must hold all; :func:`centroids` takes both.
        config: the options of the run.
        device: the device of features and memory.
        cameras: ``[N]`` int64 on ``device``, the camera of each training image; None if unknown.
        source: the labelled images of ``--source``: ``.labels`` ``[M]`` on ``device``, their classes from 0,
            ``.cameras`` ``[M]`` or None, and ``.extract()``, their features ``[M, D]`` by the current encoder; None
            without a source. In batches these are the images N to N + M - 1, and their targets are their classes.

    Examples:
        >>> import torch, ccfast
        >>> from ccfast.methods import Method
        >>> class MyMethod(Method):
        ...     defaults = {"temperature": 0.07}
        ...
        ...     def start_epoch(self, features, labels, epoch):
        ...         self.centroids = ccfast.cluster_centroids(features, labels)
        ...
        ...     def criterion(self, features, targets, indices):
        ...         return ccfast.centroid_contrastive_loss(features, self.centroids, targets, self.config.temperature)
        >>> from ccfast.data import load_data
        >>> from ccfast.training import TrainConfig
        >>> method = MyMethod(TrainConfig(temperature=1.0), load_data("digits"), torch.device("cpu"))
        >>> method.start_epoch(torch.eye(2), torch.tensor([0, 1]), epoch=0)
        >>> round(method.criterion(torch.eye(2), torch.tensor([0, 1]), torch.tensor([0, 1])).item(), 4)
        0.3133
    """

    defaults: ClassVar[Mapping[str, Any]] = {"temperature": 0.05, "momentum": 0.1}
    memories: ClassVar[tuple[str, ...]] = ()
    needs_cameras: ClassVar[bool] = False
    needs_modalities: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    shards: ClassVar[bool] = False

    source: Source | None = None

    def __init__(self, config: TrainConfig, data: ReIDData, device: torch.device) -> None:
        self.config, self.device = config, device
        self.cameras = None if data.train.cams is None else data.train.cams.to(device)
        if self.needs_cameras:
            _require_cameras(config, data)
        if self.needs_modalities:
            _require_modalities(config, data)

    @property
    def _mode(self) -> str:
        """How the memory is updated, for a method that has a choice: the configuration has checked it."""
        assert self.config.memory is not None
        return self.config.memory

    def prepare(self, data: ReIDData) -> None:  # noqa: B027
        """Check the data once, before training; raise :class:`ValueError` if they are not suitable."""

    def head(self, num_features: int) -> nn.Module | None:
        """A module that is trained together with the encoder, whose features have ``num_features`` columns, or None.

        The loop moves it to the device, gives its parameters to the optimiser and keeps them in the checkpoints.
        """
        return None

    def features(self, extract: Callable[[], Tensor]) -> Tensor:
        """The features to cluster, ``[N, D]`` of unit norm; ``extract()`` runs the encoder over all training images."""
        return extract()

    def pseudo_labels(self, features: Tensor, cluster: Clustering) -> Tensor:
        """The label of each training image in this epoch.

        Args:
            features: ``[N, D]``, the result of :meth:`features`.
            cluster: ``cluster(features)`` returns labels ``[N]`` with the run's options. If there are fewer than two
                clusters, it stops the run with advice.

        Returns:
            ``[N]`` int64, 0 to C - 1, or -1 for images in no cluster.
        """
        return cluster(features)

    def start_epoch(self, features: Tensor, labels: Tensor, epoch: int) -> None:  # noqa: B027
        """Make the memory of an epoch.

        Args:
            features: ``[N, D]``, the result of :meth:`features`.
            labels: ``[N]``, the result of :meth:`pseudo_labels`.
            epoch: the number of the epoch, from 0.
        """

    def sampler(self, labels: Tensor, iters: int, generator: torch.Generator) -> BatchSampler:
        """``iters`` batches of ``(index, augmentation seed)``; all random numbers come from ``generator``.

        With several processes, each draws the same batches and trains on its slice of them.
        """
        return self.clusters(labels, iters, generator)

    def clusters(self, labels: Tensor, iters: int, generator: torch.Generator, share: int = 1) -> ClusterSampler:
        """Batches of ``--batch-size`` / ``--num-instances`` / ``share`` clusters of ``labels`` ``[N]``, without -1."""
        return self._drawn(labels, self.cameras, iters, generator, share)

    def source_classes(self, iters: int, generator: torch.Generator) -> ClusterSampler:
        """The same for the classes of the source; its indices count the images of the source."""
        assert self.source is not None
        return self._drawn(self.source.labels, self.source.cameras, iters, generator)

    def _drawn(
        self, labels: Tensor, cameras: Tensor | None, iters: int, generator: torch.Generator, share: int = 1
    ) -> ClusterSampler:
        return ClusterSampler(
            labels,
            cameras,
            num_clusters=self.config.clusters_per_batch // share,
            num_instances=self.config.num_instances,
            iters=iters,
            generator=generator,
        )

    @abstractmethod
    def criterion(self, features: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            features: ``[B, D]`` float32 of unit norm; the gradient goes through them.
            targets: ``[B]``, the labels of the batch's images.
            indices: ``[B]``, their indices among the training images, for example in :attr:`cameras`.
        """

    def state_dict(self) -> dict[str, Any]:
        """The state to keep between epochs, for the checkpoint: tensors and plain values.

        Without the :meth:`head`, which is always saved, and without what :meth:`start_epoch` makes again.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Continue from the result of :meth:`state_dict`; its tensors are on the CPU."""


def centroids(features: Tensor | Shard, labels: Tensor) -> Tensor:
    """The normalised means ``[C, D]`` of the clusters, from all features or from those distributed over processes."""
    if isinstance(features, Tensor):
        return ccfast.cluster_centroids(features, labels)
    from ccfast.training.clustering import sharded

    return sharded.centroids(features, labels)


def prepared(
    method: type[Method], config: TrainConfig, data: ReIDData, device: torch.device, source: Source | None = None
) -> Method:
    """A ``method`` that has checked the data; ``source``: the labelled images that it learns from too, if any.

    Raises:
        InputError: the data are not suitable; the method may raise any ValueError.
    """
    made = method(config, data, device)
    made.source = source
    try:
        made.prepare(data)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"--method {config.method}: {error}") from error
    return made


def _require_cameras(config: TrainConfig, data: ReIDData) -> None:
    known = 0 if data.train.cams is None else len(data.train.cams.unique())
    if known < 2:
        got = "one camera" if known else "no cameras"
        raise InputError(
            f"--method {config.method}: expected training images from two or more cameras, got {got} in "
            f"{config.data_dir or data.name}; --method cluster-contrast needs no cameras"
        )


def _require_modalities(config: TrainConfig, data: ReIDData) -> None:
    infrared = data.is_infrared()
    if infrared.any() and not infrared.all():
        return
    missing = "visible" if infrared.any() else "infrared"
    raise InputError(
        f"--method {config.method}: expected visible and infrared training images, as in --dataset sysumm01, got no "
        f"{missing} ones in {config.data_dir or data.name}"
    )
