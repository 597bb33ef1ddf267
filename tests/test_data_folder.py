"""Any folder of images: flat, nested, by identity, with and without query and gallery."""

from __future__ import annotations

import base64
import io
import logging

import numpy as np
import pytest

from ccfast._errors import InputError
from ccfast.data import load_data
from ccfast.data.image_files import decode
from ccfast.training.evaluate import agreement

pytest.importorskip("PIL.Image")

from image_trees import MARKET, FakeEncoder, write_image, write_tree
from PIL import Image

from ccfast.report.thumbnails import thumbnail

BY_IDENTITY = {"train/anna": ["1.jpg", "2.png"], "train/ben/2023": ["1.jpg"], "train/ben/2024": ["1.jpeg"]}
TO_MEASURE = {"query/cleo": ["1.jpg"], "query/dan": ["1.jpg"], "gallery/cleo": ["2.jpg"], "gallery/dan": ["2.jpg"]}


def names_of(part):
    return [path.rsplit("/", 1)[1] for path in part.images.paths]


def test_a_flat_folder_has_unknown_identities(tmp_path):
    write_tree(tmp_path, {"": ["b.jpg", "a.png", "c.webp"]})
    (tmp_path / "notes.txt").write_text("")
    data = load_data("folder", tmp_path)
    assert names_of(data.train) == ["a.png", "b.jpg", "c.webp"]
    assert data.train.ids is None
    assert data.train.cams is None
    assert (data.query, data.gallery, data.protocols) == (None, None, {})


def test_without_identities_there_is_no_agreement(tmp_path):
    import torch

    data = load_data("folder", write_tree(tmp_path, {"": ["a.jpg", "b.jpg"]}))
    assert agreement(torch.tensor([0, 0]), data.train.ids) == {}


def test_the_first_sub_folder_is_the_identity(tmp_path):
    tree = {name.removeprefix("train/"): files for name, files in BY_IDENTITY.items()}
    data = load_data("folder", write_tree(tmp_path, tree))
    assert data.train.ids.tolist() == [0, 0, 1, 1]
    assert data.query is None


def test_images_beside_sub_folders_leave_identities_unknown(tmp_path):
    write_image(write_tree(tmp_path, BY_IDENTITY) / "train" / "someone.jpg")
    data = load_data("folder", tmp_path)
    assert data.train.ids is None
    assert len(data.train) == 5


def test_query_and_gallery_share_their_identities(tmp_path):
    data = load_data("folder", write_tree(tmp_path, BY_IDENTITY | TO_MEASURE))
    assert data.train.ids.tolist() == [0, 0, 1, 1]
    assert data.query.ids.tolist() == data.gallery.ids.tolist() == [2, 3]
    assert data.gallery.cams is None
    assert list(data.protocols) == ["market1501"]


def test_training_images_need_no_identities_beside_query_and_gallery(tmp_path):
    data = load_data("folder", write_tree(tmp_path, {"train": ["1.jpg", "2.jpg"]} | TO_MEASURE))
    assert data.train.ids is None
    assert data.query.ids.tolist() == data.gallery.ids.tolist() == [0, 1]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    write_tree(tmp_path, {"train": ["1.jpg", "._1.jpg"], "train/.cache": ["2.jpg"]})
    assert names_of(load_data("folder", tmp_path).train) == ["1.jpg"]


def test_a_folder_with_any_number_of_images_gives_no_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="ccfast"):
        load_data("folder", write_tree(tmp_path, BY_IDENTITY | TO_MEASURE))
    assert not caplog.records


def test_bad_images_are_refused_or_left_out(tmp_path):
    (write_tree(tmp_path, BY_IDENTITY) / "train" / "anna" / "1.jpg").write_text("")
    with pytest.raises(InputError, match=r"1 image.* cannot be read"):
        load_data("folder", tmp_path)
    assert load_data("folder", tmp_path, bad_images="skip").train.ids.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "holds nothing; expected images"),
        (
            {"train": [], "query/a": ["1.jpg"], "gallery/a": ["1.jpg"]},
            r"expected train/, or train/, query/ and gallery/",
        ),
        ({"query/a": ["1.jpg"], "gallery/a": ["1.jpg"]}, r"holds query/, gallery/; expected train/, or train/, query/"),
        (MARKET, "holds bounding_box_train/; try --dataset market1501"),
    ],
)
def test_other_layouts_are_refused(tmp_path, tree, message):
    with pytest.raises(InputError, match=message):
        load_data("folder", write_tree(tmp_path, tree))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_images_of_16_bits_keep_their_shades(tmp_path, name):
    shades = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(shades).save(tmp_path / name)
    assert np.asarray(decode(tmp_path / name))[0, :, 0].tolist() == [0, 1, 128, 255]


def write_turned(path, orientation):
    """A photograph of 24 x 16 pixels as a camera stores it: red on the left, blue on the right."""
    image = Image.new("RGB", (24, 16), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 12, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, quality=95)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_a_photograph_is_turned_upright(tmp_path, name):
    write_turned(tmp_path / name, orientation=6)  # rotated clockwise: the left side is on top
    image = np.asarray(decode(tmp_path / name))
    assert image.shape == (24, 16, 3)
    assert image[4, 8, 0] > 200 > 60 > image[4, 8, 2]
    assert image[20, 8, 2] > 200 > 60 > image[20, 8, 0]


def test_inputs_cache_and_thumbnails_show_a_photograph_upright(tmp_path):
    import torch

    from ccfast.data.cache import decoded

    write_turned(tmp_path / "a.jpg", orientation=6)
    data = load_data("folder", tmp_path)
    views = data.make_views(FakeEncoder())
    kept = decoded(data, views.plain, place="ram", device=torch.device("cpu"), workers=0)
    for pixels in (views.plain(data.train.images[0]), views.augmented(data.train.images[0], 3), kept.train.images[0]):
        assert pixels.shape == (3, 24, 12)
    assert torch.equal(views.plain(data.train.images[0]), kept.train.images[0])
    assert (kept.train.images[0][0, 4] > 200).all() and (kept.train.images[0][2, 20] > 200).all()
    shown = thumbnail(data.train.images, 0, 24)
    with Image.open(io.BytesIO(base64.b64decode(shown.uri.partition(",")[2]))) as picture:
        assert picture.size == (16, 24)
        assert not picture.getexif()


def test_broken_exif_data_make_no_bad_image(tmp_path, monkeypatch):
    """Pillow may fail to write EXIF data that it can read only in part."""

    def fail(*args, **kwargs):
        raise ValueError("EXIF")

    write_turned(tmp_path / "a.jpg", orientation=6)
    monkeypatch.setattr(Image.Exif, "tobytes", fail)
    assert decode(tmp_path / "a.jpg").size == (16, 24)
    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert decode(tmp_path / "a.jpg").size == (24, 16)
