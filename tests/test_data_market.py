"""Data sets of three folders with identity and camera in the file names: Market-1501, DukeMTMC-reID, PersonX, VeRi."""

from __future__ import annotations

import logging

import pytest

from ccfast._errors import InputError
from ccfast.data import load_data as load
from ccfast.data.parts import GALLERY, QUERY, TRAIN, check_counts
from ccfast.data.sets.market import LAYOUTS
from ccfast.data.table import table

PIL_Image = pytest.importorskip("PIL.Image")

from image_trees import MARKET, write_image, write_tree  # noqa: E402


@pytest.fixture
def market(tmp_path):
    return write_tree(tmp_path / "data", MARKET)


def test_market_reads_identities_and_cameras_from_names(market):
    data = load("market1501", market)
    assert data.train.ids.tolist() == [2, 2, 7]
    assert data.train.cams.tolist() == [1, 2, 3]
    assert data.query.ids.tolist() == [1, 3]
    assert data.query.cams.tolist() == [1, 2]


def test_market_drops_junk_and_keeps_background_in_the_gallery(market):
    assert load("market1501", market).gallery.ids.tolist() == [0, 1, 3]


def test_market_decodes_to_rgb(market):
    image = load("market1501", market).train.images[1]
    assert image.mode == "RGB"
    assert image.size == (8, 16)


@pytest.mark.parametrize("below", ["", "Market-1501-v15.09.15", "zip/Market-1501-v15.09.15"])
def test_market_is_found_directly_or_nested(tmp_path, below):
    write_tree(tmp_path / below, MARKET)
    assert len(load("market1501", tmp_path).train) == 3


def test_the_error_of_another_layout_says_what_was_found_and_what_is_expected(tmp_path):
    write_image(tmp_path / "images" / "cat.jpg")
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(InputError, match=r"holds images/, labels.csv; expected .*bounding_box_train/"):
        load("market1501", tmp_path)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds nothing"):
        load("market1501", tmp_path)
    (tmp_path / "bounding_box_train").mkdir()
    with pytest.raises(InputError, match=r"bounding_box_train: no images"):
        load("market1501", tmp_path)


def test_two_data_sets_are_not_guessed_between(tmp_path):
    write_tree(tmp_path / "one", MARKET)
    write_tree(tmp_path / "two", MARKET)
    with pytest.raises(InputError, match=r"several data sets .*one.*two"):
        load("market1501", tmp_path)


def test_other_names_are_refused_with_an_example(market):
    write_image(market / "bounding_box_train" / "holiday.jpg")
    with pytest.raises(InputError, match=r"a name like holiday.jpg; expected"):
        load("market1501", market)


@pytest.mark.parametrize(("missing", "told"), [("bounding_box_test", "no gallery"), ("query", "no query")])
def test_query_or_gallery_alone_is_read_and_measures_nothing(tmp_path, missing, told):
    data = load("market1501", write_tree(tmp_path, {name: MARKET[name] for name in MARKET if name != missing}))
    assert (data.query is None) == (missing == "query") and (data.gallery is None) == (missing != "query")
    assert data.protocols == {}
    assert f"{told}: no evaluation" in table(data)


def test_query_and_gallery_may_both_be_missing(tmp_path):
    write_tree(tmp_path, {"bounding_box_train": MARKET["bounding_box_train"]})
    data = load("market1501", tmp_path)
    assert data.query is None
    assert data.gallery is None


def test_names_without_cameras_give_no_cameras(tmp_path):
    write_tree(
        tmp_path,
        {
            "bounding_box_train": ["0001_a.jpg"],
            "query": ["0001_b.jpg"],
            "bounding_box_test": ["0001_c.jpg", "0002_d.jpg"],
        },
    )
    data = load("market1501", tmp_path)
    assert data.train.cams is None
    assert data.gallery.cams is None
    assert data.gallery.ids.tolist() == [1, 2]


def test_cameras_in_some_names_only_are_refused(market):
    write_image(market / "bounding_box_train" / "0009_x.jpg")
    with pytest.raises(InputError, match=r"0009_x.jpg: has no camera"):
        load("market1501", market)


@pytest.fixture
def broken(market):
    """A data set with a truncated image and a file that is no image."""
    path = market / "bounding_box_train" / MARKET["bounding_box_train"][0]
    PIL_Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-400])
    (market / "bounding_box_test" / MARKET["bounding_box_test"][2]).write_text("not an image")
    return market


def test_bad_images_are_refused_by_name(broken):
    with pytest.raises(InputError, match="2 image") as error:
        load("market1501", broken)
    assert MARKET["bounding_box_train"][0] in str(error.value)
    assert MARKET["bounding_box_test"][2] in str(error.value)
    assert "--bad-images skip" in str(error.value)


def test_bad_images_are_left_out_with_a_warning(broken, caplog):
    with caplog.at_level(logging.WARNING, logger="ccfast"):
        data = load("market1501", broken, bad_images="skip")
    assert data.train.ids.tolist() == [2, 7]
    assert data.gallery.ids.tolist() == [0, 3]
    assert MARKET["bounding_box_train"][0] in caplog.text


def test_a_folder_of_bad_images_only_is_refused(tmp_path):
    write_tree(tmp_path, {"bounding_box_train": ["0001_c1_a.jpg"]})
    (tmp_path / "bounding_box_train" / "0001_c1_a.jpg").write_text("")
    with pytest.raises(InputError, match="no image that can be read"):
        load("market1501", tmp_path, bad_images="skip")


TREES = {
    "dukemtmcreid": {
        "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c6_f0056789.jpg"],
        "query": ["0005_c2_f0046985.jpg"],
        "bounding_box_test": ["0005_c5_f0051781.jpg"],
    },
    "personx": {
        "bounding_box_train": ["0001_c3_10.jpg", "0001_c12_10.jpg"],
        "query": ["0005_c8_10.jpg"],
        "bounding_box_test": ["0005_c11_10.jpg"],
    },
    "veri776": {
        "image_train": ["0001_c001_00016450_0.jpg", "0001_c014_00020095_0.jpg"],
        "image_query": ["0005_c002_00030600_0.jpg"],
        "image_test": ["0005_c020_00065075_0.jpg"],
    },
}
CAMERAS = {"dukemtmcreid": [2, 6, 2, 5], "personx": [3, 12, 8, 11], "veri776": [1, 14, 2, 20]}


def cameras_of(data):
    return [camera for part in (data.train, data.query, data.gallery) for camera in part.cams.tolist()]


@pytest.mark.parametrize("name", TREES)
def test_data_sets_with_names_like_markets_are_read(name, tmp_path):
    data = load(name, write_tree(tmp_path / "nested" / name, TREES[name]).parent)
    assert data.name == name
    assert data.train.ids.tolist() == [1, 1]
    assert data.query.ids.tolist() == data.gallery.ids.tolist() == [5]
    assert sorted(cameras_of(data)) == sorted(CAMERAS[name])
    assert list(data.protocols) == ["market1501"]


def test_another_data_sets_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds image_query/, .*expected bounding_box_train/, query/"):
        load("market1501", write_tree(tmp_path, TREES["veri776"]))


def test_other_counts_than_the_published_ones_give_one_warning(market, caplog):
    with caplog.at_level(logging.WARNING, logger="ccfast"):
        load("market1501", market)
    assert len(caplog.records) == 1
    assert "market1501: 3 train, 2 query, 3 gallery images" in caplog.text
    assert "published data set has 12,936 train, 3,368 query, 15,913 gallery" in caplog.text
    assert "Ignore this for your own images in this layout" in caplog.text


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_the_published_counts_give_no_warning(layout, caplog):
    files = {name: [None] * layout.published[name] for name in (TRAIN, QUERY, GALLERY)}
    with caplog.at_level(logging.WARNING, logger="ccfast"):
        check_counts(layout.name, files, layout.published)
        check_counts(layout.name, {TRAIN: files[TRAIN]}, layout.published)
    assert not caplog.records
