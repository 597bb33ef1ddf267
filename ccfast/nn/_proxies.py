"""Sets of proxies for the samples of a batch, as masks ``[B, P]``."""

from __future__ import annotations

import torch
from torch import Tensor

from ccfast.nn._choice import best_columns, last_columns


class Batch:
    """The relation between the samples of a batch and the proxies.

    Attributes:
        own: ``[B]`` the proxy of each sample's label and camera; -1 for noise.
        is_own, of_label, of_own_camera: ``[B, P]`` bool.
        sample_cameras: ``[B]``.
    """

    def __init__(self, labels: Tensor, cameras: Tensor, targets: Tensor, sample_cameras: Tensor) -> None:
        self.sample_cameras = sample_cameras
        self.of_label = (targets[:, None] == labels) & (targets != -1)[:, None]
        self.of_own_camera = sample_cameras[:, None] == cameras
        self.is_own = self.of_label & self.of_own_camera
        found = self.is_own.any(1)
        self.own = torch.where(found, self.is_own.to(torch.uint8).argmax(1), -1)
        missing = (targets != -1) & ~found
        if targets.device.type == "cpu" and missing.any():
            at = int(missing.nonzero()[0, 0])
            raise ValueError(
                f"targets, cameras: expected one proxy per sample, got none for label {int(targets[at])} and camera "
                f"{int(sample_cameras[at])} at position {at}"
            )


@torch.no_grad()
def negatives(z: Tensor, of_label: Tensor, count: int, fill_up: str) -> Tensor:
    """The ``count`` proxies of other labels with the highest z; if there are fewer, ``fill_up`` says which own ones."""
    chosen = best_columns(z, count, ~of_label)
    if fill_up == "none":
        return chosen
    if fill_up == "highest-index":
        return chosen | last_columns(of_label, count - chosen.sum(1))
    order = torch.where(of_label, z, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(z.shape[1], device=z.device).expand_as(order))
    return chosen | (of_label & (rank < count - chosen.sum(1, keepdim=True)))


@torch.no_grad()
def online_sets(scores: Tensor, cameras: Tensor, num_positives: int, num_negatives: int) -> tuple[Tensor, Tensor]:
    """O2CAP's positives (the best among the best proxies of the cameras), and the best others."""
    best_of_camera = torch.zeros_like(scores, dtype=torch.bool)
    present = cameras.unique()
    for camera in present:
        best_of_camera |= best_columns(scores, 1, cameras == camera)
    positives = best_columns(scores, num_positives, best_of_camera)
    positives |= best_columns(scores, num_positives - len(present), ~best_of_camera)
    return positives, best_columns(scores, num_negatives, ~positives)
