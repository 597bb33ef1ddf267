"""Data sets for training without labels: images to learn from, query and gallery to measure with."""

from __future__ import annotations

from ccfast.data.protocol import Comparison, Protocol
from ccfast.data.reid_data import Part, ReIDData
from ccfast.data.sampler import ClusterSampler

__all__ = ["ClusterSampler", "Comparison", "Part", "Protocol", "ReIDData", "load_data"]


def load_data(name: str, data_dir: str | None = None, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """The data set ``name``; ``data_dir`` for those that are folders of images."""
    if name == "digits":
        from ccfast.data.digits import load_digits

        return load_digits()
    from ccfast.data.market import load_market

    return load_market(data_dir, bad_images=bad_images, workers=workers)
