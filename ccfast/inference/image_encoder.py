"""``encoder(images)``: features of images in any form and size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccfast.data.any_image import FORMS, AnyImage
from ccfast.models import Encoder
from ccfast.training.precision import Precision


class ImageEncoder:
    """A trained encoder that computes features of images; made by :func:`ccfast.load_encoder`.

    Attributes:
        device: the device of the features.
        num_features: their length D.
        height, width: the size to which images are resized.
    """

    def __init__(
        self, encoder: Encoder, view: AnyImage, *, device: torch.device, precision: Precision, batch_size: int
    ) -> None:
        self._encoder, self._view, self._precision, self._batch_size = encoder.eval(), view, precision, batch_size
        self.device, self.num_features = device, encoder.num_features
        self.height, self.width = encoder.height, encoder.width

    @torch.no_grad()
    def __call__(self, images: Any, batch_size: int | None = None) -> Tensor:
        """Features [n, D] float32 of unit norm, on :attr:`device`, in the order of ``images``.

        One image, a batch of images of one size, or an iterable of images of any forms and sizes. An image is:

        - a path: the file is decoded to RGB and rotated as its EXIF orientation says;
        - a PIL image of any mode;
        - an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] in the order RGB (of OpenCV's BGR: ``crop[..., ::-1]``);
        - a tensor [H, W], [1, H, W], [3, H, W] or [4, H, W] on any device, in the order RGB.

        Arrays and tensors have uint8 values, or floats in [0, 1]. A batch is an array [B, H, W, C] or a tensor
        [B, C, H, W]; a batch with the encoder's input size stays on its device. Opacity is ignored. An encoder of
        drawings (``--dataset digits`` or ``omniglot``) takes images in grey, with bright ink on a dark background.

        Args:
            batch_size: images per batch in the encoder; None: the batch size of the run.

        Raises:
            TypeError: an object that is not an image; the message has its position.
            ValueError: an image with a wrong shape, without pixels, or with floats outside [0, 1]; a file that cannot
                be read.
        """
        size = self._batch_size if batch_size is None else batch_size
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")
        batches = images.split(size) if self._is_input(images) else self._inputs(images, size)
        features = [self._precision(self._encoder.forward, batch.to(self.device)).float() for batch in batches]
        empty = torch.empty(0, self.num_features, dtype=torch.float32, device=self.device)
        return torch.cat([empty, *features])

    def _is_input(self, images: Any) -> bool:
        """Whether ``images`` is a uint8 batch that needs no further processing."""
        channels = 1 if self._view.drawings else 3
        size = (channels, self.height, self.width)
        return isinstance(images, Tensor) and images.dtype == torch.uint8 and tuple(images.shape[1:]) == size

    def _inputs(self, images: Any, size: int) -> Iterator[Tensor]:
        """The images as batches of at most ``size`` inputs."""
        views = (self._input(image, number) for number, image in enumerate(_each(images)))
        while batch := list(islice(views, size)):
            yield torch.stack(batch)

    def _input(self, image: Any, number: int) -> Tensor:
        try:
            return self._view(image).cpu()
        except (TypeError, ValueError) as error:
            raise type(error)(f"images[{number}]: {error}") from error


def _each(images: Any) -> Iterable[Any]:
    """The images one by one."""
    from PIL import Image

    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, Tensor | np.ndarray):
        if images.ndim > 4:
            raise ValueError(f"images: expected {FORMS}, or a batch of them; got shape {tuple(images.shape)}")
        return images if images.ndim == 4 else [images]
    if not isinstance(images, Iterable):
        raise TypeError(f"images: expected images, one by one or as a batch: {FORMS}; got {type(images).__name__}")
    return images
