"""Shared by the examples: scikit-learn's handwritten digits, a small encoder, views of images, and kNN accuracy."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import ccfast

DIM = 64


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images [N, 1, 8, 8] and labels [N] for training, and others for testing, augmented as in training."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div(16)[:, None]
    labels = torch.from_numpy(digits.target)
    order = torch.randperm(len(images))
    test, train = order.split([len(images) // 3, len(images) - len(images) // 3])
    return images[train], labels[train], view(images[test]), labels[test]


def view(images: Tensor) -> Tensor:
    """Each image rotated by up to ten degrees, scaled by up to ten percent and shifted by up to one pixel."""
    count = len(images)
    angle, zoom = 0.175 * (2 * torch.rand(count) - 1), 1 + 0.1 * (2 * torch.rand(count) - 1)
    shift = (2 * torch.rand(count, 2) - 1) * (2 / images.shape[-1])
    turned = (
        torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(count, 2, 2) * zoom[:, None, None]
    )
    grid = F.affine_grid(torch.cat([turned, shift[:, :, None]], 2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


class Encoder(nn.Sequential):
    """Three convolutions and a linear layer: 64 features per image."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 16, DIM), nn.BatchNorm1d(DIM),
        )  # fmt: skip


@torch.no_grad()
def extract(encoder: nn.Module, images: Tensor) -> Tensor:
    """Unit features."""
    encoder.eval()
    features = F.normalize(encoder(images), dim=1)
    encoder.train()
    return features


def knn_accuracy(encoder: nn.Module, data: tuple[Tensor, Tensor, Tensor, Tensor], k: int = 5) -> float:
    """Share of the test images whose k nearest training images vote for their digit."""
    train, labels, test, truth = data
    near = ccfast.knn(extract(encoder, train), k, queries=extract(encoder, test))[0]
    return float((labels[near].mode(1).values == truth).float().mean())


def batches(count: int, size: int) -> tuple[Tensor, ...]:
    """The indices of all images, shuffled, in batches of equal size; the rest is left out."""
    return torch.randperm(count)[: count - count % size].split(size)


def learn(
    encoder: nn.Module, data: tuple[Tensor, Tensor, Tensor, Tensor], epochs: int, epoch_of: Callable[[], float]
) -> tuple[float, float]:
    """Run ``epoch_of``, which returns the mean loss, and print kNN accuracy before and after; returns both."""
    before = knn_accuracy(encoder, data)
    print(f"before: kNN accuracy {before:.1%}")
    for epoch in range(epochs):
        print(f"epoch {epoch + 1}: loss {epoch_of():.3f}", flush=True)
    after = knn_accuracy(encoder, data)
    print(f"after: kNN accuracy {after:.1%}")
    return before, after


def epochs_of(description: str, default: int) -> int:
    """The command line's ``--epochs``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--epochs", type=int, default=default, help="default: %(default)s")
    return parser.parse_args().epochs
