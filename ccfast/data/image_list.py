"""Images without labels: all in a folder, or one file."""

from __future__ import annotations

import logging
from pathlib import Path

from ccfast._errors import InputError
from ccfast._files import given_path, printable
from ccfast._words import counted
from ccfast.data import formats
from ccfast.data.findings import Findings, Reason
from ccfast.data.folders import contents
from ccfast.data.image_files import ImageFiles, leave_out_bad, pixels_at_most
from ccfast.data.listing import list_images
from ccfast.data.reid_data import Part

log = logging.getLogger(__name__)


def list_files(option: str, path: str | Path) -> tuple[list[Path], Findings]:
    """The images in the folder ``path`` and its sub-folders, sorted by name, or the file ``path``; and the findings.

    Raises:
        InputError: no such file or folder, or a folder without images.
    """
    place, findings = given_path(option, path), Findings()
    if place.suffix.lower() == ".csv" and place.is_file() and option == "--data-dir":
        raise InputError(
            f"{option}: {place} is a table, not an image; add --dataset csv to read the images that it lists"
        )
    if place.is_file():
        return [place], findings
    if not place.is_dir():
        raise InputError(f"{option}: no such folder or file: {place}")
    files = list_images(place, findings, below=True)
    if not files:
        raise InputError(
            f"{option}: {place} holds {contents(place)}{findings.summary()}; expected {formats.EXAMPLES} in it or in "
            "its sub-folders"
        )
    return files, findings


def load_images(option: str, path: str | Path, *, bad_images: str, workers: int, max_image_pixels: int) -> Part:
    """The images of :func:`list_files`, each decoded once; the log of "ccfast" says what was left out.

    Raises:
        InputError: no images, or unreadable images unless ``bad_images`` is "skip".
    """
    files, findings = list_files(option, path)
    with pixels_at_most(max_image_pixels):
        kept = leave_out_bad({option: files}, skip=bad_images == "skip", workers=workers)[option]
        images = ImageFiles(kept)
    if not kept:
        raise InputError(f"{option}: {path}: no image that can be read")
    if len(kept) < len(files):
        findings.leave_out(Reason.BAD, next(file for file in files if file not in set(kept)), len(files) - len(kept))
    say_what_was_read(path, len(kept), findings)
    return Part(images, None)


def say_what_was_read(path: str | Path, images: int, findings: Findings) -> None:
    """Log the number of images and what was left out."""
    lines = [f"{printable(str(path))}: {counted(images, 'image')}"]
    log.info("%s", "\n".join([*lines, *(f"  left out: {line}" for line in findings.lines(warns=False))]))
    left_out = (f"left out: {line}" for line in findings.lines(warns=True))
    for warning in (*findings.warnings, *left_out):
        log.warning("%s: %s", printable(str(path)), warning)
