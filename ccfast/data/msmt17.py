"""MSMT17 (Wei et al., CVPR 2018), in both versions that were published."""

from __future__ import annotations

from pathlib import Path

from ccfast._errors import InputError
from ccfast.data.folders import find_root
from ccfast.data.market import MSMT17_RENAMED
from ccfast.data.parts import GALLERY, QUERY, TRAIN, Label, check_counts, read_parts
from ccfast.data.reid_data import ReIDData
from ccfast.data.three_folders import load_three_folders
from ccfast.data.transforms import image_views

#: Folders for training and test: version 1, and version 2, in which faces are blurred.
VERSIONS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))

#: Lists of each part. Unsupervised methods learn from both training lists.
LISTS = {TRAIN: ("list_train.txt", "list_val.txt"), QUERY: ("list_query.txt",), GALLERY: ("list_gallery.txt",)}

EXPECTED = (
    "expected train/ and test/ (version 1) or mask_train_v2/ and mask_test_v2/ (version 2) beside "
    f"{', '.join(name for names in LISTS.values() for name in names)}, or Market-1501's folders "
    f"{MSMT17_RENAMED.train}/, {MSMT17_RENAMED.query}/ and {MSMT17_RENAMED.gallery}/"
)


def load_msmt17(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """MSMT17 below ``data_dir``: as its lists say, or in Market-1501's layout, as it is often passed on."""
    root = find_root(data_dir, _is_root, EXPECTED)
    if MSMT17_RENAMED.is_root(root):
        return load_three_folders(MSMT17_RENAMED, root, bad_images=bad_images, workers=workers)
    missing = [name for names in LISTS.values() for name in names if not (root / name).is_file()]
    if missing:
        raise InputError(f"{root}: {', '.join(missing)} missing; {EXPECTED}")
    train, test = next(folders for folders in VERSIONS if (root / folders[0]).is_dir())
    labels: dict[str, dict[Path, Label]] = {
        part: {
            path: label
            for name in names
            for path, label in _read_list(root / name, root / (train if part == TRAIN else test)).items()
        }
        for part, names in LISTS.items()
    }
    files = {part: list(images) for part, images in labels.items()}
    check_counts("msmt17", files, MSMT17_RENAMED.published)
    known = {path: label for images in labels.values() for path, label in images.items()}
    parts = read_parts(files, known.__getitem__, bad_images=bad_images, workers=workers)
    return ReIDData("msmt17", parts[TRAIN], parts[QUERY], parts[GALLERY], channels=3, make_views=image_views)


def _is_root(folder: Path) -> bool:
    versions = any(all((folder / name).is_dir() for name in names) for names in VERSIONS)
    return versions or MSMT17_RENAMED.is_root(folder)


def _read_list(file: Path, folder: Path) -> dict[Path, Label]:
    """Lines such as ``0000/0000_000_01_0303morning_0015_0.jpg 0``: an image, its camera third in the name; identity."""
    images = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                name, identity = line.split()
                images[folder / name] = Label(int(identity), int(Path(name).name.split("_")[2]))
            except (ValueError, IndexError) as error:
                raise InputError(
                    f"{file}, line {number}: expected an image and its identity, such as "
                    f"0000/0000_000_01_0303morning_0015_0.jpg 0, got {line!r}"
                ) from error
    if not images:
        raise InputError(f"{file}: lists no image")
    return images
