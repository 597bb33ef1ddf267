"""Data sets of three folders of images that are named after identity and camera."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ccfast._errors import InputError
from ccfast.data.folders import find_root
from ccfast.data.image_files import EXTENSIONS, list_images
from ccfast.data.parts import GALLERY, QUERY, TRAIN, Label, check_counts, read_parts
from ccfast.data.reid_data import Part, ReIDData
from ccfast.data.transforms import image_views

#: Detections that are neither an identity of the data set nor background; the protocol leaves them out.
JUNK = -1


@dataclass(frozen=True)
class Layout:
    """Where a data set has its images, and how they are named.

    ``pattern`` matches the beginning of a file name: groups ``id`` and, where there are any, ``cam`` and ``clothes``.
    ``published`` counts the images of each part without junk.
    """

    name: str
    train: str
    query: str
    gallery: str
    pattern: re.Pattern[str]
    naming: str
    published: dict[str, int]

    @property
    def folders(self) -> dict[str, str]:
        """The part's name to its folder's."""
        return {TRAIN: self.train, QUERY: self.query, GALLERY: self.gallery}

    @property
    def expected(self) -> str:
        """How an error message ends."""
        return f"expected {self.train}/, {self.query}/ and {self.gallery}/ with images named {self.naming}"

    def is_root(self, folder: Path) -> bool:
        """Whether ``folder`` holds a data set of this layout."""
        return (folder / self.train).is_dir()

    def label(self, path: Path) -> Label:
        """Identity, camera and clothes from a file's name."""
        numbers = {name: int(text) for name, text in self.pattern.match(path.name).groupdict().items() if text}  # type: ignore[union-attr]
        return Label(numbers["id"], numbers.get("cam"), numbers.get("clothes"))


def load_three_folders(
    layout: Layout, data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0
) -> ReIDData:
    """The data set of ``layout`` at or below ``data_dir``; identities are for metrics only.

    Junk (identity -1) is left out; background (0) stays in the gallery as a distractor, as the authors have it.
    Query and gallery may both be missing: then there is nothing to measure with.
    """
    parts = read_three_folders(layout, data_dir, bad_images=bad_images, workers=workers)
    return ReIDData(layout.name, parts[TRAIN], parts.get(QUERY), parts.get(GALLERY), channels=3, make_views=image_views)


def read_three_folders(layout: Layout, data_dir: str | Path, *, bad_images: str, workers: int) -> dict[str, Part]:
    """The parts of :func:`load_three_folders`."""
    root = find_root(data_dir, layout.is_root, layout.expected)
    present = {part: root / name for part, name in layout.folders.items() if (root / name).is_dir()}
    if (QUERY in present) != (GALLERY in present):
        missing = layout.gallery if QUERY in present else layout.query
        raise InputError(
            f"{root}: {missing}/ is missing; expected both {layout.query}/ and {layout.gallery}/ or neither"
        )
    files = {part: _images(layout, folder) for part, folder in present.items()}
    check_counts(layout.name, files, layout.published)
    return read_parts(files, layout.label, bad_images=bad_images, workers=workers)


def _images(layout: Layout, folder: Path) -> list[Path]:
    """The folder's images in the order of their names, junk left out."""
    paths = list_images(folder)
    strange = [path.name for path in paths if not layout.pattern.match(path.name)]
    if strange:
        raise InputError(f"{folder}: {len(strange)} image(s) with a name like {strange[0]}; {layout.expected}")
    kept = [path for path in paths if layout.label(path).id != JUNK]
    if not kept:
        raise InputError(f"{folder}: no images ({', '.join(EXTENSIONS)}); {layout.expected}")
    return kept
