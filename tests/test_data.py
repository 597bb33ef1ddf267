"""Data sets: scikit-learn's digits, and folders in Market-1501's layout."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F

import ccfast
from ccfast._errors import InputError
from ccfast.data import load_data
from ccfast.data.digits import load_digits
from ccfast.data.market import GALLERY, QUERY, TRAIN, load_market

PIL_Image = pytest.importorskip("PIL.Image")

NAMES = {
    TRAIN: ["0002_c1s1_000451_03.jpg", "0002_c2s1_000452_03.jpg", "0007_c3s3_000453_01.png", "-1_c1s1_000454_01.jpg"],
    QUERY: ["0001_c1s1_000001_00.jpg", "0003_c2s1_000002_00.jpg"],
    GALLERY: ["0000_c1s1_000003_00.jpg", "-1_c1s1_000004_00.jpg", "0001_c2s1_000005_00.jpg", "0003_c6s1_000006_00.jpg"],
}


def write_image(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL_Image.new("RGB", (8, 16), (shade % 256, 100, 30)).save(path)


def write_market(root, names=NAMES):
    for folder, files in names.items():
        for shade, name in enumerate(files):
            write_image(root / folder / name, 40 * shade)
    return root


@pytest.fixture
def market(tmp_path):
    return write_market(tmp_path / "data")


def test_digits_are_split_into_thirds_that_share_no_image():
    data = load_digits()
    assert (len(data.train), len(data.query), len(data.gallery)) == (1198, 199, 400)
    rows = torch.cat([part.images.flatten(1) for part in (data.train, data.query, data.gallery)])
    assert len(rows.unique(dim=0)) == 1797
    assert data.train.images.shape == (1198, 1, 8, 8)
    assert (rows.min(), rows.max()) == (0, 1)
    assert data.train.cams is None
    for part in (data.train, data.query, data.gallery):
        assert part.ids.unique().tolist() == list(range(10))


def test_digits_are_split_the_same_way_whatever_the_seed():
    torch.manual_seed(1)
    first = load_digits()
    torch.manual_seed(2)
    second = load_digits()
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.query.ids, second.query.ids)


def test_raw_pixels_of_digits_reach_67_map():
    """What training has to beat; see docs/training.md."""
    data = load_digits()
    query, gallery = (F.normalize(part.images.flatten(1), dim=1) for part in (data.query, data.gallery))
    ranking = ccfast.evaluate_ranking(2 - 2 * query @ gallery.T, data.query.ids, data.gallery.ids, None, None)
    assert ranking.mAP == pytest.approx(0.6736, abs=1e-3)


def test_market_reads_identities_and_cameras_from_names(market):
    data = load_market(market)
    assert data.train.ids.tolist() == [2, 2, 7]
    assert data.train.cams.tolist() == [1, 2, 3]
    assert data.query.ids.tolist() == [1, 3]
    assert data.query.cams.tolist() == [1, 2]


def test_market_drops_junk_and_keeps_background_in_the_gallery(market):
    assert load_market(market).gallery.ids.tolist() == [0, 1, 3]


def test_market_decodes_to_rgb(market):
    image = load_market(market).train.images[1]
    assert image.mode == "RGB"
    assert image.size == (8, 16)


@pytest.mark.parametrize("below", ["", "Market-1501-v15.09.15", "zip/Market-1501-v15.09.15"])
def test_market_is_found_directly_or_nested(tmp_path, below):
    write_market(tmp_path / below)
    assert len(load_data("market1501", tmp_path).train) == 3


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no such folder.*nowhere"):
        load_market(tmp_path / "nowhere")


def test_another_layout_is_told_what_was_found_and_what_is_expected(tmp_path):
    write_image(tmp_path / "images" / "cat.jpg")
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(InputError, match=r"holds images/, labels.csv; expected .*bounding_box_train/"):
        load_market(tmp_path)


def test_an_empty_folder_is_told_so(tmp_path):
    with pytest.raises(InputError, match="holds nothing"):
        load_market(tmp_path)
    (tmp_path / TRAIN).mkdir()
    with pytest.raises(InputError, match=r"bounding_box_train: no images"):
        load_market(tmp_path)


def test_two_data_sets_are_not_guessed_between(tmp_path):
    write_market(tmp_path / "one")
    write_market(tmp_path / "two")
    with pytest.raises(InputError, match=r"several data sets .*one.*two"):
        load_market(tmp_path)


def test_other_names_are_refused_with_an_example(market):
    write_image(market / TRAIN / "holiday.jpg")
    with pytest.raises(InputError, match=r"a name like holiday.jpg; expected"):
        load_market(market)


def test_query_without_gallery_is_refused(tmp_path):
    write_market(tmp_path, {name: files for name, files in NAMES.items() if name != GALLERY})
    with pytest.raises(InputError, match="bounding_box_test/ is missing"):
        load_market(tmp_path)


def test_query_and_gallery_may_both_be_missing(tmp_path):
    write_market(tmp_path, {TRAIN: NAMES[TRAIN]})
    data = load_market(tmp_path)
    assert data.query is None
    assert data.gallery is None


def test_names_without_cameras_give_no_cameras(tmp_path):
    write_market(tmp_path, {TRAIN: ["0001_a.jpg"], QUERY: ["0001_b.jpg"], GALLERY: ["0001_c.jpg", "0002_d.jpg"]})
    data = load_market(tmp_path)
    assert data.train.cams is None
    assert data.gallery.cams is None
    assert data.gallery.ids.tolist() == [1, 2]


def test_cameras_in_some_names_only_are_refused(market):
    write_image(market / TRAIN / "0009_x.jpg")
    with pytest.raises(InputError, match=r"0009_x.jpg: has no camera"):
        load_market(market)


@pytest.fixture
def broken(market):
    """A data set with a truncated image and one that is none."""
    path = market / TRAIN / NAMES[TRAIN][0]
    PIL_Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-400])
    (market / GALLERY / NAMES[GALLERY][2]).write_text("not an image")
    return market


def test_bad_images_are_refused_by_name(broken):
    with pytest.raises(InputError, match="2 image") as error:
        load_market(broken)
    assert NAMES[TRAIN][0] in str(error.value)
    assert NAMES[GALLERY][2] in str(error.value)
    assert "--bad-images skip" in str(error.value)


def test_bad_images_are_left_out_with_a_warning(broken, caplog):
    with caplog.at_level(logging.WARNING, logger="ccfast"):
        data = load_market(broken, bad_images="skip")
    assert data.train.ids.tolist() == [2, 7]
    assert data.gallery.ids.tolist() == [0, 3]
    assert NAMES[TRAIN][0] in caplog.text


def test_a_folder_of_bad_images_only_is_refused(tmp_path):
    write_market(tmp_path, {TRAIN: ["0001_c1_a.jpg"]})
    (tmp_path / TRAIN / "0001_c1_a.jpg").write_text("")
    with pytest.raises(InputError, match="no image that can be read"):
        load_market(tmp_path, bad_images="skip")


class FakeEncoder:
    height, width = 24, 12
    input_mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    input_std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@pytest.fixture
def views(market):
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    return load_market(market).make_views(FakeEncoder())


def noise(seed):
    pixels = torch.randint(256, (16, 8, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return PIL_Image.fromarray(pixels.numpy())


def test_views_have_the_encoders_size(views):
    for view in (views.plain(noise(0)), views.augmented(noise(0), 3)):
        assert view.shape == (3, 24, 12)
        assert view.dtype == torch.uint8


def test_augmented_views_depend_on_the_seed_only(views):
    state = torch.get_rng_state()
    assert torch.equal(views.augmented(noise(0), 3), views.augmented(noise(0), 3))
    assert not torch.equal(views.augmented(noise(0), 3), views.augmented(noise(0), 4))
    assert torch.equal(torch.get_rng_state(), state)


def test_about_half_of_the_augmented_views_are_erased(views):
    """Erased with the authors' value: mean + std * mean = 0.596 of red, 152 of 255."""
    white = PIL_Image.new("RGB", (8, 16), (255, 255, 255))
    erased = [bool((views.augmented(white, seed)[0] == 152).any()) for seed in range(200)]
    assert 0.35 < sum(erased) / 200 < 0.65


def test_image_folders_without_torchvision_are_told_what_is_missing(market, monkeypatch):
    data = load_market(market)
    monkeypatch.setitem(__import__("sys").modules, "torchvision.transforms.v2", None)
    with pytest.raises(InputError, match="needs torchvision"):
        data.make_views(FakeEncoder())
