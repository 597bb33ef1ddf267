"""Shared by the methods with proxies (CAP, O2CAP): one row per camera of each cluster."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

import ccfast
from ccfast.data import ClusterSampler
from ccfast.methods.method import Method


class ProxyMethod(Method):
    """The memory is :class:`ccfast.nn.ProxyMemory`; a batch has ``--num-instances`` images from each of its proxies."""

    defaults: ClassVar = {"temperature": 0.07, "momentum": 0.2}
    needs_cameras = True

    #: Number of proxies of other labels that are negatives of a sample.
    num_negatives = 50

    memory: ccfast.nn.ProxyMemory

    @abstractmethod
    def new_memory(self, num_features: int, num_proxies: int) -> ccfast.nn.ProxyMemory:
        """The memory of an epoch, still empty."""

    @abstractmethod
    def order(self, labels: Tensor, cameras: Tensor) -> Tensor:
        """One sort key per image for the order of the proxies; for clustered images only, cameras from 0."""

    def start_epoch(self, features: Tensor, labels: Tensor, epoch: int) -> None:
        """Proxies are the normalised means of their images."""
        assert self.cameras is not None
        clustered = labels >= 0
        number = self.order(labels[clustered], self.cameras.unique(return_inverse=True)[1][clustered])
        proxies, own = number.unique(return_inverse=True)
        self.proxy = torch.full_like(labels, -1)
        self.proxy[clustered] = own
        of_proxy = torch.empty_like(proxies).scatter_(0, own, clustered.nonzero()[:, 0])  # any of its images
        self.memory = self.new_memory(features.shape[1], len(proxies)).to(features.device)
        rows = ccfast.cluster_centroids(features, self.proxy)
        self.memory.fill(rows, labels[of_proxy], self.cameras[of_proxy])

    def sampler(self, labels: Tensor, iters: int, generator: torch.Generator) -> ClusterSampler:
        """Batches of proxies."""
        return self.clusters(self.proxy, iters, generator)

    def criterion(self, features: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """The sum over the cameras of the batch of their losses."""
        assert self.cameras is not None
        return self.memory(features, targets, self.cameras[indices])
