"""Image files as a sequence, and one pass over them to find those that cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ccfast._errors import InputError
from ccfast._progress import progress
from ccfast.data import formats

log = logging.getLogger(__name__)

#: How many bad images a message names.
NAMED = 5


class ImageFiles(Sequence[Any]):
    """``images[i]`` decodes file i to a PIL image in RGB."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return decode(self.paths[index])


def decode(path: str | Path) -> Any:
    """The image in ``path``, completely decoded, in RGB, upright; the first frame where there are several."""
    formats.readable()  # plugins of Pillow, in every process
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            _turn_upright(image)
            if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # Pillow would cut off at 255
            return image.convert("RGB")
    except Exception as error:  # a broken file can raise anything: OSError, SyntaxError, ValueError, ...
        raise InputError(f"{path}: cannot be read as an image: {error}{formats.hint(path)}") from error


def _turn_upright(image: Any) -> None:
    """Turn a decoded image, in place, as its EXIF orientation says that the camera was held."""
    from PIL import ImageOps

    with suppress(Exception):  # broken EXIF data can raise anything, and the pixels are sound
        ImageOps.exif_transpose(image, in_place=True)


def leave_out_bad(files: dict[str, list[Path]], *, skip: bool, workers: int) -> dict[str, list[Path]]:
    """``files`` (folder to paths) without those that cannot be read; refused unless ``skip``.

    Every file is decoded once: a truncated image looks sound until its last rows, and is better found now than in
    the middle of a run.
    """
    paths = [path for folder in files.values() for path in folder]
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        problems = [
            problem
            for problem in progress(pool.map(_problem, paths), "check images", len(paths))
            if problem is not None
        ]
    if not problems:
        return files
    listed = "\n".join(f"  {message}" for _, message in problems[:NAMED])
    more = f"\n  and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    if not skip:
        raise InputError(
            f"{len(problems)} image(s) cannot be read:\n{listed}{more}\nRepair them, or pass --bad-images skip"
        )
    log.warning("%d image(s) cannot be read and are left out:\n%s%s", len(problems), listed, more)
    bad = {path for path, _ in problems}
    return {name: [path for path in folder if path not in bad] for name, folder in files.items()}


def _problem(path: Path) -> tuple[Path, str] | None:
    try:
        decode(path)
    except InputError as error:
        return path, str(error)
    return None
