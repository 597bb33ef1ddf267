"""Use of a trained encoder: features of any images, and search."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccfast.inference.image_encoder import ImageEncoder

__all__ = ["load_encoder"]

#: How ``ccfast cluster --copy-to`` fills its folders; the first is the default.
COPY_MODES = ("links", "copies")


def load_encoder(path: str | PathLike[str], device: str | None = None) -> ImageEncoder:
    """Load the encoder of a run or of a checkpoint, with the transforms of its images.

    ``encoder(images)`` takes paths, PIL images, arrays such as a detector's crops, tensors, or a batch of them
    (:class:`ccfast.inference.image_encoder.ImageEncoder`), and returns their features ``[n, D]`` float32 of unit norm
    on ``encoder.device``. The product of two rows is the cosine similarity of their images.

    Args:
        path: a run folder (uses its best.pt, or else its checkpoint.pt), or a checkpoint.
        device: "cpu", "cuda" or "cuda:1"; None: CUDA if there is a GPU.

    Raises:
        ValueError: no checkpoint, a damaged one, an architecture that cannot be built, or no such device.

    Examples:
        >>> import tempfile, ccfast, numpy as np
        >>> from ccfast.training import TrainConfig, train
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = train(TrainConfig(epochs=1, iters=2, device="cpu", quiet=True, run=f"{folder}/run")).run
        ...     encoder = ccfast.load_encoder(run, device="cpu")
        >>> crops = [np.zeros((40, 30, 3), np.uint8), np.full((25, 60), 255, np.uint8)]
        >>> features = encoder(crops)
        >>> features.shape, [round(norm, 3) for norm in features.norm(dim=1).tolist()]
        (torch.Size([2, 128]), [1.0, 1.0])
    """
    from ccfast.training.trained import load_trained

    return load_trained(path, device=device).image_encoder()
