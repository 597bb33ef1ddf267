"""A run on a few images of coloured patterns: it trains an encoder of photographs in a second."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ccfast.training import TrainConfig, train

#: The identities of the pictures, and how many pictures there are of each.
KINDS, EACH = 4, 6


def picture(kind, shot, size=(20, 28)):
    """A PIL image: stripes whose direction and colour depend on the kind, with noise."""
    draw = np.random.default_rng(100 * kind + shot)
    rows, columns = np.mgrid[: size[1], : size[0]]
    wave = np.sin((rows if kind % 2 else columns) * (0.5 + kind / 2))[..., None]
    colour = np.array([40 + 50 * kind, 200 - 40 * kind, 90 + 30 * kind])
    noise = draw.normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray((colour * (1 + 0.4 * wave) + noise).clip(0, 255).astype(np.uint8))


def write_pictures(folder, shots=range(EACH), kinds=range(KINDS)):
    """Writes ``folder``/kind/shot.png for each kind; returns the paths sorted by name."""
    paths = []
    for kind in kinds:
        for shot in shots:
            path = folder / f"kind{kind}" / f"{shot}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(kind, shot).save(path)
            paths.append(path)
    return sorted(paths)


def tiny_run(folder, **options):
    """A run on such pictures with ``k1`` 5 and ``eps`` 0.65; returns its folder."""
    write_pictures(folder / "train")
    config = {
        "dataset": "folder", "data_dir": str(folder / "train"), "arch": "smallconv", "weights": "none", "height": 24,
        "width": 16, "k1": 5, "k2": 2, "eps": 0.65, "epochs": 1, "iters": 2, "batch_size": 8, "num_instances": 4,
        "device": "cpu", "workers": 0, "run": str(folder / "run"), "quiet": True,
    }  # fmt: skip
    return train(TrainConfig(**{**config, **options})).run
