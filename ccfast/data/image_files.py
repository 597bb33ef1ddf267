"""Image files as a sequence, and one pass over them to find unreadable ones."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ccfast._errors import InputError
from ccfast._limits import MAX_IMAGE_PIXELS
from ccfast._progress import progress
from ccfast._words import counted
from ccfast.data import formats

log = logging.getLogger(__name__)

#: Number of bad images that a message names.
NAMED = 5


#: The current limit of an image's pixels: :func:`pixels_at_most`.
_max_pixels = MAX_IMAGE_PIXELS


@contextmanager
def pixels_at_most(count: int) -> Iterator[None]:
    """Inside this context larger images count as unreadable; :class:`ImageFiles` made inside it keep the limit."""
    global _max_pixels
    before, _max_pixels = _max_pixels, count
    try:
        yield
    finally:
        _max_pixels = before


class ImageFiles(Sequence[Any]):
    """``images[i]`` decodes file i to a PIL image in RGB."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = [str(path) for path in paths]
        self.max_pixels = _max_pixels

    @cached_property
    def folder(self) -> str:
        """The innermost folder that holds all files; empty if there is none."""
        try:
            return os.path.commonpath({os.path.dirname(path) for path in self.paths})
        except ValueError:  # no files, or relative and absolute paths
            return ""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return decode(self.paths[index], self.max_pixels)


def decode(path: str | Path, max_pixels: int | None = None) -> Any:
    """The image in ``path``, completely decoded, in RGB, upright; if it has several frames, the first.

    Raises:
        InputError: it cannot be read, or has more than ``max_pixels`` (None: the limit of :func:`pixels_at_most`).
    """
    formats.readable()  # plugins of Pillow, in every process
    from PIL import Image

    limit = _max_pixels if max_pixels is None else max_pixels
    _let_pillow_read(limit)
    try:
        with Image.open(path) as image:
            _check_size(image.size, limit)
            image.load()
            _turn_upright(image)
            if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # Pillow would cut off at 255
            return image.convert("RGB")
    except MemoryError:  # not an error of the image
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {_TOO_LARGE.format(limit)}") from error
    except Exception as error:  # a broken file can raise anything: OSError, SyntaxError, ValueError, ...
        raise InputError(f"{path}: cannot be read as an image: {error}{formats.hint(path)}") from error


_TOO_LARGE = "cannot be read as an image: it has more than the {:,} pixels of --max-image-pixels"


def _check_size(size: tuple[int, int], limit: int) -> None:
    if size[0] * size[1] > limit:
        raise ValueError(f"it has {size[0]:,} x {size[1]:,} pixels, and --max-image-pixels is {limit:,}")


@cache
def _let_pillow_read(limit: int) -> None:
    """Let :func:`_check_size` limit the size of images; Pillow would warn above 89 million pixels."""
    from PIL import Image

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit


def _turn_upright(image: Any) -> None:
    """Rotate a decoded image, in place, as its EXIF orientation says."""
    from PIL import ImageOps

    with suppress(Exception):  # damaged EXIF data can raise any error, but the pixels are correct
        ImageOps.exif_transpose(image, in_place=True)


def leave_out_bad(files: dict[str, list[Path]], *, skip: bool, workers: int) -> dict[str, list[Path]]:
    """``files`` (folder to paths) without unreadable ones, which are an error unless ``skip``.

    Every file is decoded once, because a truncated image shows its error only in its last rows, and should not end a
    run later.
    """
    problems = unreadable([path for folder in files.values() for path in folder], workers=workers)
    if not problems:
        return files
    say_bad([message for _, message in problems], skip=skip)
    bad = {path for path, _ in problems}
    return {name: [path for path in folder if path not in bad] for name, folder in files.items()}


def unreadable(paths: Sequence[Path], *, workers: int) -> list[tuple[Path, str]]:
    """The ``paths`` that cannot be decoded, each with its message."""
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        found = progress(pool.map(_problem, paths), "check images", len(paths))
        return [problem for problem in found if problem is not None]


def say_bad(messages: Sequence[str], *, skip: bool) -> None:
    """Log the ``messages`` about unreadable images, which are an InputError unless ``skip``."""
    listed = "\n".join(f"  {message}" for message in messages[:NAMED])
    more = f"\n  and {len(messages) - NAMED} more" if len(messages) > NAMED else ""
    what = counted(len(messages), "image")
    if not skip:
        raise InputError(f"{what} cannot be read:\n{listed}{more}\nRepair them, or pass --bad-images skip")
    verb = "is" if len(messages) == 1 else "are"
    log.warning("%s cannot be read and %s left out:\n%s%s", what, verb, listed, more)


def _problem(path: Path) -> tuple[Path, str] | None:
    try:
        decode(path)
    except InputError as error:
        return path, str(error)
    return None
