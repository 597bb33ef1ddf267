"""Tiny data sets on disk, each in its own layout, with real image files of 8 x 16 pixels."""

from __future__ import annotations

import torch
from PIL import Image

#: Market-1501's layout, with junk (-1) and background (0000).
MARKET = {
    "bounding_box_train": [
        "0002_c1s1_000451_03.jpg",
        "0002_c2s1_000452_03.jpg",
        "0007_c3s3_000453_01.png",
        "-1_c1s1_000454_01.jpg",
    ],
    "query": ["0001_c1s1_000001_00.jpg", "0003_c2s1_000002_00.jpg"],
    "bounding_box_test": [
        "0000_c1s1_000003_00.jpg",
        "-1_c1s1_000004_00.jpg",
        "0001_c2s1_000005_00.jpg",
        "0003_c6s1_000006_00.jpg",
    ],
}


def write_image(path, shade=0):
    """An image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 16), (shade % 256, 100, 30)).save(path)


def write_tree(root, names):
    """``names``: folder to file names; returns ``root``."""
    for folder, files in names.items():
        for shade, name in enumerate(files):
            write_image(root / folder / name, 40 * shade)
    return root


def write_lists(root, lists):
    """``lists``: file name to lines; returns ``root``."""
    for name, lines in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join(lines) + "\n")
    return root


class FakeEncoder:
    """What views need from an encoder."""

    height, width = 24, 12
    input_mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    input_std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
