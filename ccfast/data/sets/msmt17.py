"""MSMT17 (Wei et al., CVPR 2018), in both versions that were published."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PureWindowsPath

from ccfast._errors import InputError
from ccfast.data.findings import Findings, Reason, printable
from ccfast.data.folders import entry_named, find_root, folder_named, note_beside
from ccfast.data.listing import list_images
from ccfast.data.parts import GALLERY, QUERY, TRAIN, Label, check_counts, check_number, photographs, read_parts
from ccfast.data.reid_data import ReIDData
from ccfast.data.sets.market import MSMT17_RENAMED
from ccfast.data.sets.three_folders import load_three_folders
from ccfast.data.text import text_lines

#: Folders for training and test: version 1, and version 2, in which faces are blurred.
VERSIONS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))

#: Lists of each part. Unsupervised methods learn from both training lists.
LISTS = {TRAIN: ("list_train.txt", "list_val.txt"), QUERY: ("list_query.txt",), GALLERY: ("list_gallery.txt",)}

EXPECTED = (
    "expected train/ and test/ (version 1) or mask_train_v2/ and mask_test_v2/ (version 2) beside "
    f"{', '.join(name for names in LISTS.values() for name in names)}, or Market-1501's folders "
    f"{MSMT17_RENAMED.train}/, {MSMT17_RENAMED.query}/ and {MSMT17_RENAMED.gallery}/"
)

#: Number of missing images that a message names.
NAMED = 5

#: For each listed image its label, and the list and line that name it.
Listed = dict[Path, tuple[Label, str]]


def load_msmt17(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """MSMT17 below ``data_dir``, with its lists or in Market-1501's layout, which copies often have."""
    root, findings = find_root(data_dir, _is_root, EXPECTED), Findings()
    if folder_named(root, MSMT17_RENAMED.train) is not None:
        return load_three_folders(MSMT17_RENAMED, root, bad_images=bad_images, workers=workers)
    missing = [name for names in LISTS.values() for name in names if entry_named(root, name) is None]
    if missing:
        raise InputError(f"{root}: {', '.join(missing)} missing; {EXPECTED}")
    train, test = next(folders for folders in map(_folders, [root] * len(VERSIONS), VERSIONS) if folders)
    listed = {
        part: _read_lists(root, names, train if part == TRAIN else test, findings) for part, names in LISTS.items()
    }
    files = {part: list(images) for part, images in _there(listed, bad_images == "skip", findings).items()}
    _note_unlisted((train, test), files, findings)
    note_beside(root, (train, test), findings)
    check_counts("msmt17", files, MSMT17_RENAMED.published)
    known = {path: label for images in listed.values() for path, (label, _) in images.items()}
    parts = read_parts(files, known.__getitem__, findings, bad_images=bad_images, workers=workers)
    return photographs("msmt17", parts, findings)


def _is_root(folders: Collection[str]) -> bool:
    return any(set(names) <= set(folders) for names in VERSIONS) or MSMT17_RENAMED.is_root(folders)


def _folders(root: Path, names: tuple[str, str]) -> tuple[Path, Path] | None:
    """The folders of a version; None if one is missing."""
    train, test = (folder_named(root, name) for name in names)
    return None if train is None or test is None else (train, test)


def _read_lists(root: Path, names: tuple[str, ...], folder: Path, findings: Findings) -> Listed:
    """The images that a part's lists name."""
    images: Listed = {}
    for name in names:
        before = len(images)
        file = entry_named(root, name)
        assert file is not None
        for number, line in text_lines(file):
            place = f"{file}, line {number}"
            path, label = _read_line(line, folder, place)
            if path in images:
                if images[path][0] != label:
                    raise InputError(f"{place}: {printable(line)}: {images[path][1]} gives it another identity")
                findings.leave_out(Reason.TWICE, place)
                continue
            images[path] = label, place
        if len(images) == before:
            raise InputError(f"{file}: lists no image")
    return images


def _read_line(line: str, folder: Path, place: str) -> tuple[Path, Label]:
    """``0000/0000_000_01_0303morning_0015_0.jpg 0``: an image, its camera third in the name; its identity."""
    try:
        name, identity = line.rsplit(maxsplit=1)
        path = folder / name
        if "\\" in name and not path.exists():
            path = folder / PureWindowsPath(name).as_posix()
        label = Label(int(identity), int(path.name.split("_")[2]))
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{place}: expected an image and its identity, such as 0000/0000_000_01_0303morning_0015_0.jpg 0, "
            f"got {line[:200]!r}"
        ) from error
    check_number(place, "identity", label.id or 0)
    check_number(place, "camera", label.cam or 0)
    return path, label


def _there(listed: dict[str, Listed], skip: bool, findings: Findings) -> dict[str, list[Path]]:
    """The listed images that exist; missing ones are an error unless ``skip``."""
    missing = [(path, place) for images in listed.values() for path, (_, place) in images.items() if not path.exists()]
    if missing and not skip:
        named = "\n".join(f"  {place}: {printable(path)}" for path, place in missing[:NAMED])
        more = f"\n  and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise InputError(
            f"{len(missing)} listed image(s) do not exist:\n{named}{more}\nComplete the copy, or pass --bad-images skip"
        )
    gone = {path for path, _ in missing}
    for path, place in missing:
        findings.leave_out(Reason.MISSING, f"{place}: {path}")
    return {part: [path for path in images if path not in gone] for part, images in listed.items()}


def _note_unlisted(folders: tuple[Path, Path], files: dict[str, list[Path]], findings: Findings) -> None:
    """Count the files in the folders that are in no list."""
    listed = {path for paths in files.values() for path in paths}
    for folder in folders:
        for path in list_images(folder, findings, below=True):
            if path not in listed:
                findings.leave_out(Reason.UNLISTED, path)
