"""Data sets with three folders of images whose names have identity and camera."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ccfast._errors import InputError
from ccfast.data import formats
from ccfast.data.findings import Findings, Reason, printable
from ccfast.data.folders import find_root, folder_named, note_beside
from ccfast.data.listing import list_images
from ccfast.data.names import Name, parse_name
from ccfast.data.parts import GALLERY, QUERY, TRAIN, Label, check_counts, photographs, read_parts
from ccfast.data.reid_data import Part, ReIDData

#: Detections that are neither an identity nor background; the protocol leaves them out.
JUNK = -1


@dataclass(frozen=True)
class Layout:
    """The folders of a data set, and the names of its images.

    ``published`` counts the images of each part without junk; ``extras`` are further published folders with images.
    ``clothes``: names have clothes, and always a camera.
    """

    name: str
    train: str
    query: str
    gallery: str
    naming: str
    published: dict[str, int]
    extras: tuple[str, ...] = ()
    clothes: bool = field(default=False, kw_only=True)

    @property
    def folders(self) -> dict[str, str]:
        """Maps the name of a part to that of its folder."""
        return {TRAIN: self.train, QUERY: self.query, GALLERY: self.gallery}

    @property
    def expected(self) -> str:
        """The end of error messages."""
        return f"expected {self.train}/, {self.query}/ and {self.gallery}/ with images named {self.naming}"

    def is_root(self, folders: Collection[str]) -> bool:
        """Whether a folder with sub-folders of these lower-case names is a data set of this layout."""
        return self.train in folders

    def parse(self, path: Path) -> Name | None:
        """The content of a file name; None if it is not a name of this layout."""
        name = parse_name(path.stem)
        if name is not None and self.clothes and (name.cam is None or name.clothes is None):
            return None
        return name


def load_three_folders(
    layout: Layout, data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0
) -> ReIDData:
    """The data set of ``layout`` at or below ``data_dir``; identities are for metrics only.

    Junk (identity -1) is left out; background (0) stays in the gallery as a distractor, as in the authors' protocol.
    If query or gallery is missing, there is no evaluation.
    """
    parts, findings = read_three_folders(layout, data_dir, bad_images=bad_images, workers=workers)
    return photographs(layout.name, parts, findings)


def read_three_folders(
    layout: Layout, data_dir: str | Path, *, bad_images: str, workers: int
) -> tuple[dict[str, Part], Findings]:
    """The parts of :func:`load_three_folders`, and the findings."""
    root, findings = find_root(data_dir, layout.is_root, layout.expected), Findings()
    present = {part: folder for part, name in layout.folders.items() if (folder := folder_named(root, name))}
    names: dict[Path, Name] = {}
    files: dict[str, list[Path]] = {}
    for part, folder in present.items():
        images = _images(layout, folder, findings)
        kept = {path: name for path, name in images.items() if name.id != JUNK}
        if not kept and part == TRAIN:
            raise InputError(f"{folder}: no {formats.EXAMPLES}{findings.summary()}; {layout.expected}")
        for path in images:
            if path not in kept:
                findings.leave_out(Reason.JUNK, path.name)
        if kept:
            names |= kept
            files[part] = list(kept)
    note_beside(root, present.values(), findings, layout.extras)
    _check_cameras(names, findings)
    check_counts(layout.name, files, layout.published)
    labels = {path: Label(name.id, name.cam, name.clothes if layout.clothes else None) for path, name in names.items()}
    return read_parts(files, labels.__getitem__, findings, bad_images=bad_images, workers=workers), findings


def _images(layout: Layout, folder: Path, findings: Findings) -> dict[Path, Name]:
    """The folder's images, sorted by name, and the content of the names."""
    names = {path: layout.parse(path) for path in list_images(folder, findings)}
    unmatched = [path.name for path, name in names.items() if name is None]
    if unmatched:
        raise InputError(
            f"{folder}: {len(unmatched)} image(s) with a name like {printable(unmatched[0])}; {layout.expected}"
        )
    return {path: name for path, name in names.items() if name is not None}


def _check_cameras(names: dict[Path, Name], findings: Findings) -> None:
    """Refuse names whose camera cannot be read, and report how unusual names were read."""
    letters = [path for path, name in names.items() if name.letter]
    numbers = [path for path, name in names.items() if name.cam is not None and not name.letter]
    unread = [path for path, name in names.items() if name.cam is None and name.unused is not None]
    if unread:
        raise InputError(
            f"{printable(unread[0])}: {names[unread[0]].unused!r} looks like a camera but cannot be read as one "
            f"({len(unread)} such name(s)); expected a number or a letter, as in 0002_c1_... or 0002_camB_..."
        )
    if letters and numbers:
        raise InputError(
            f"{printable(letters[0])} names its camera by a letter, {printable(numbers[0])} by a number; expected one "
            "kind of names"
        )
    if letters:
        findings.notes.append(f"cameras are letters, such as in {printable(letters[0].name)}: A is 1, B is 2, ...")
    if unused := [path for path, name in names.items() if name.unused is not None]:
        name = names[unused[0]]
        findings.warnings.append(
            f"{len(unused)} name(s) have two parts that look like a camera: {printable(unused[0].name)} is read as "
            f"camera {name.cam}, and {name.unused!r} is not used"
        )
    if not letters and not numbers and (perhaps := [path for path, name in names.items() if name.perhaps]):
        findings.warnings.append(
            f"no name has a camera as _cN; if {names[perhaps[0]].perhaps!r} in {printable(perhaps[0].name)} is one, "
            "rename the images, or images of the query's own camera will count as matches"
        )
