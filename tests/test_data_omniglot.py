"""Omniglot from an .npz file and from its folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccfast._errors import InputError
from ccfast.data import load_data

PIL_Image = pytest.importorskip("PIL.Image")

from image_trees import FakeEncoder  # noqa: E402

ALPHABETS, CHARACTERS, DRAWERS = 7, 3, 4


def arrays():
    """Seven alphabets of three characters by four drawers; a quarter of every drawing is ink (0)."""
    alphabet, character, drawer = np.indices((ALPHABETS, CHARACTERS, DRAWERS)).reshape(3, -1)
    images = np.full((len(drawer), 64, 64), 255, dtype=np.uint8)
    images[:, :32, :32] = 0
    identity = (alphabet * CHARACTERS + character).astype(np.int16)
    return {"images": images, "identity": identity, "drawer": drawer.astype(np.int8), "alphabet": alphabet}


def write_npz(path, **changes):
    np.savez(path, **{name: value for name, value in (arrays() | changes).items() if value is not None})
    return path


def write_folder(root):
    stroke = np.zeros((105, 105), dtype=bool)
    stroke[:50, :50] = True
    for alphabet in "ABCDEFG":
        for character in range(1, CHARACTERS + 1):
            folder = root / "omniglot-py" / "images_background" / alphabet / f"character{character:02d}"
            folder.mkdir(parents=True)
            for drawer in range(1, DRAWERS + 1):
                PIL_Image.fromarray(~stroke).save(folder / f"0{character}09_{drawer:02d}.png")
    return root


def check_split(data, first_drawer):
    """Alphabets 2 and 5 of seven are held out; their first two drawers are the query."""
    held_out = [6, 7, 8, 15, 16, 17]
    assert data.train.ids.unique().tolist() == [number for number in range(21) if number not in held_out]
    assert data.query.ids.unique().tolist() == data.gallery.ids.unique().tolist() == held_out
    assert data.query.cams.unique().tolist() == [first_drawer, first_drawer + 1]
    assert data.gallery.cams.unique().tolist() == [first_drawer + 2, first_drawer + 3]
    assert (len(data.train), len(data.query), len(data.gallery)) == (60, 12, 12)


def test_alphabets_and_drawers_are_split_the_same_way_always(tmp_path):
    check_split(load_data("omniglot", write_npz(tmp_path / "omniglot.npz")), first_drawer=0)


def test_the_folder_of_torchvision_gives_the_same_data(tmp_path):
    data = load_data("omniglot", write_folder(tmp_path))
    check_split(data, first_drawer=1)
    assert data.train.images.shape == (60, 1, 64, 64)
    assert (data.train.images[0, 0, 10, 10], data.train.images[0, 0, 50, 50]) == (255, 0)


def test_images_have_bright_ink_on_a_dark_ground(tmp_path):
    data = load_data("omniglot", write_npz(tmp_path / "omniglot.npz"))
    assert data.channels == 1
    assert data.train.images.dtype == torch.uint8
    assert data.train.images.shape == (60, 1, 64, 64)
    assert (data.train.images[0, 0, 0, 0], data.train.images[0, 0, 40, 40]) == (255, 0)


def test_views_have_the_encoders_size(tmp_path):
    data = load_data("omniglot", write_npz(tmp_path / "omniglot.npz"))
    views = data.make_views(FakeEncoder())
    for view in (views.plain(data.train.images[0]), views.augmented(data.train.images[0], 3)):
        assert view.shape == (1, 24, 12)
        assert view.dtype == torch.uint8
        assert view[0, 6, 3] > 100 > view[0, -1, -1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drawer": None}, "holds no drawer; expected an .npz file with the arrays images"),
        ({"images": np.zeros((84, 64, 64))}, r"images: expected uint8 \[N, H, W\], got float64"),
        ({"images": np.zeros((84, 64), dtype=np.uint8)}, r"images: expected uint8 \[N, H, W\], got uint8 \(84, 64\)"),
        ({"identity": np.zeros(3, dtype=int)}, r"identity: expected 84 integers, got int64 \(3,\)"),
        ({"alphabet": np.full(84, "Greek")}, "alphabet: expected 84 integers, got <U5"),
        ({"alphabet": np.zeros(84, dtype=int)}, "expected at least 3 alphabets, got 1"),
        ({"drawer": np.zeros(84, dtype=int)}, "expected more than 2 drawers"),
    ],
)
def test_other_arrays_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_data("omniglot", write_npz(tmp_path / "omniglot.npz", **changes))


def test_other_files_and_folders_are_refused(tmp_path):
    (tmp_path / "omniglot.npz").write_text("nothing of the kind")
    with pytest.raises(InputError, match=r"omniglot.npz: .*; expected an .npz file"):
        load_data("omniglot", tmp_path / "omniglot.npz")
    with pytest.raises(InputError, match=r"holds omniglot.npz; expected an .npz file .* images_background/"):
        load_data("omniglot", tmp_path)
