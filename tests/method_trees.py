"""Tiny data sets for the methods of ``ccfast train``: coloured images of several cameras, some of them infrared."""

from __future__ import annotations

import torch
from PIL import Image

#: Options with which a run on one of the trees takes a second.
QUICK = {
    "arch": "smallconv", "weights": "none", "pooling": "average", "height": 16, "width": 8, "epochs": 2, "iters": 2,
    "batch_size": 16, "num_instances": 4, "k1": 6, "k2": 2, "eps": 0.7, "min_samples": 2, "lr": 1e-3, "eval_every": 1,
    "workers": 0, "device": "cpu",
}  # fmt: skip


def _write(path, identity, camera, shot, infrared=False):
    """Three stripes whose colours depend on the identity, brighter in some cameras, with some noise."""
    generator = torch.Generator().manual_seed(identity)
    stripes = torch.randint(20, 200, (3, 3), generator=generator).repeat_interleave(torch.tensor([6, 5, 5]), 0)
    noise = torch.randint(-12, 13, (16, 8, 3), generator=generator.manual_seed(1000 * identity + 10 * camera + shot))
    pixels = (stripes[:, None] + 5 * camera + noise).clamp(0, 255)
    if infrared:
        pixels = pixels.float().mean(2, keepdim=True).expand(-1, -1, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)


def write_market(root, cameras=3):
    """Market-1501's layout: six identities to learn from, three others to search, four images by each camera."""
    for identity in range(1, 10):
        for camera in range(1, cameras + 1):
            for shot in range(4):
                part = "bounding_box_train" if identity < 7 else "bounding_box_test" if shot else "query"
                _write(root / part / f"{identity:04d}_c{camera}s1_{shot:06d}_00.png", identity, camera, shot)
    return root


def write_sysu(root):
    """SYSU-MM01's layout: six identities to learn from, two others to search, three images by each camera."""
    for identity in range(1, 9):
        for camera in range(1, 7):
            for shot in range(1, 4):
                path = root / f"cam{camera}" / f"{identity:04d}" / f"{shot:04d}.png"
                _write(path, identity, camera, shot, infrared=camera in (3, 6))
    (root / "exp").mkdir()
    for name, ids in {"train": "1,2,3,4", "val": "5,6", "test": "7,8"}.items():
        (root / "exp" / f"{name}_id.txt").write_text(ids + "\n")
    return root
