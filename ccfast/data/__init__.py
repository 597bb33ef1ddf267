"""Data sets for training without labels: training images, and query and gallery for the evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ccfast._errors import InputError
from ccfast._files import given_path
from ccfast._limits import MAX_IMAGE_PIXELS
from ccfast.data.image_files import pixels_at_most
from ccfast.data.protocol import Comparison, Protocol
from ccfast.data.reid_data import Part, ReIDData
from ccfast.data.sampler import ClusterSampler
from ccfast.data.sets.csv import load_csv
from ccfast.data.sets.digits import load_digits
from ccfast.data.sets.image_folder import load_image_folder
from ccfast.data.sets.ltcc import load_ltcc
from ccfast.data.sets.market import LAYOUTS
from ccfast.data.sets.msmt17 import load_msmt17
from ccfast.data.sets.omniglot import load_omniglot
from ccfast.data.sets.sysumm01 import load_sysumm01
from ccfast.data.sets.three_folders import load_three_folders
from ccfast.data.table import table

__all__ = ["DATASETS", "ClusterSampler", "Comparison", "Part", "Protocol", "ReIDData", "load_data"]

log = logging.getLogger(__name__)

#: The functions that read data sets from a folder.
LOADERS: dict[str, Callable[..., ReIDData]] = {
    **{layout.name: partial(load_three_folders, layout) for layout in LAYOUTS},
    "msmt17": load_msmt17,
    "sysumm01": load_sysumm01,
    "ltcc": load_ltcc,
    "omniglot": load_omniglot,
    "folder": load_image_folder,
    "csv": load_csv,
}

#: The data sets that :func:`load_data` knows.
DATASETS = ("digits", *LOADERS)


def load_data(
    name: str,
    data_dir: str | Path | None = None,
    *,
    bad_images: str = "refuse",
    workers: int = 0,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
) -> ReIDData:
    """Load the data set ``name`` of :data:`DATASETS`; the log of "ccfast" says what was read and what was left out.

    Args:
        data_dir: the folder of the data set (for omniglot, also an .npz file; for csv, the .csv file); not needed for
            digits.
        bad_images: "refuse" (raise an error for) unreadable image files, or "skip" them with a warning.
        workers: threads that search for unreadable images.
        max_image_pixels: images with more pixels count as unreadable, now and later.

    Raises:
        InputError: an unknown name, no such folder, a wrong layout, unreadable images.

    Examples:
        >>> from ccfast.data import load_data
        >>> data = load_data("digits")
        >>> len(data.train), len(data.query), len(data.gallery)
        (1198, 199, 400)
    """
    with pixels_at_most(max_image_pixels):
        data = _load(name, data_dir, bad_images=bad_images, workers=workers)
    log.info("%s", table(data))
    left_out = (f"left out: {line}" for line in data.findings.lines(warns=True))
    for warning in (*data.findings.warnings, *left_out):
        log.warning("%s: %s", name, warning)
    return data


def _load(name: str, data_dir: str | Path | None, *, bad_images: str, workers: int) -> ReIDData:
    if name == "digits":
        return load_digits()
    if name not in LOADERS:
        raise InputError(f"--dataset: expected one of {', '.join(DATASETS)}, got {name!r}")
    if data_dir is None:
        what = "a .csv file that lists images" if name == "csv" else f"the folder of {name}"
        raise InputError(f"--data-dir: expected {what}, got none")
    return LOADERS[name](given_path("--data-dir", data_dir), bad_images=bad_images, workers=workers)
