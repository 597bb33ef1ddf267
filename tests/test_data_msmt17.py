"""MSMT17 by its lists, in both versions, and in Market-1501's layout."""

from __future__ import annotations

import logging

import pytest

from ccfast._errors import InputError
from ccfast.data import load_data

pytest.importorskip("PIL.Image")

from image_trees import write_image, write_lists, write_tree

LISTS = {
    "list_train.txt": [
        "0000/0000_000_01_0303morning_0015_0.jpg 0",
        "0000/0000_001_15_0303noon_0020_1.jpg 0",
        "0001/0001_000_03_0302afternoon_0030_0_ex.jpg 1",
    ],
    "list_val.txt": ["0001/0001_002_04_0302afternoon_0031_0.jpg 1", ""],
    "list_query.txt": ["0000/0000_000_02_0303morning_0001_0.jpg 0"],
    "list_gallery.txt": ["0000/0000_003_07_0303noon_0002_0.jpg 0", "0001/0001_001_02_0303noon_0003_0.jpg 1"],
}


def write_msmt17(root, train="train", test="test", lists=LISTS):
    write_lists(root, lists)
    for name, lines in LISTS.items():
        for line in filter(None, lines):
            write_image(root / (train if name in ("list_train.txt", "list_val.txt") else test) / line.split()[0])
    return root


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_both_versions_are_read_by_their_lists(tmp_path, folders):
    data = load_data("msmt17", write_msmt17(tmp_path / "MSMT17_V", *folders).parent)
    assert data.train.ids.tolist() == [0, 0, 1, 1]
    assert data.train.cams.tolist() == [1, 15, 3, 4]
    assert (data.query.ids.tolist(), data.query.cams.tolist()) == ([0], [2])
    assert (data.gallery.ids.tolist(), data.gallery.cams.tolist()) == ([0, 1], [7, 2])
    assert data.train.images[3].size == (8, 16)
    assert list(data.protocols) == ["market1501"]


def test_images_that_no_list_names_are_left_alone(tmp_path):
    write_image(write_msmt17(tmp_path) / "train" / "0002" / "0002_000_01_0303morning_0015_0.jpg")
    assert len(load_data("msmt17", tmp_path).train) == 4


def test_the_renamed_form_is_read_too(tmp_path):
    names = {
        "bounding_box_train": ["0000_c1_0000.jpg", "0000_c15_0001.jpg"],
        "query": ["0000_c2_0000.jpg"],
        "bounding_box_test": ["0000_c3_0000.jpg"],
    }
    data = load_data("msmt17", write_tree(tmp_path / "MSMT17_V1", names).parent)
    assert data.name == "msmt17"
    assert sorted(data.train.cams.tolist()) == [1, 15]


def test_missing_lists_are_named(tmp_path):
    write_msmt17(tmp_path)
    (tmp_path / "list_val.txt").unlink()
    (tmp_path / "list_query.txt").unlink()
    with pytest.raises(InputError, match=r"list_val.txt, list_query.txt missing; expected train/ and test/"):
        load_data("msmt17", tmp_path)


def test_another_layout_is_refused(tmp_path):
    write_image(tmp_path / "images" / "0000_c1_0000.jpg")
    with pytest.raises(InputError, match=r"holds images/; expected train/ .* list_gallery.txt"):
        load_data("msmt17", tmp_path)


@pytest.mark.parametrize("line", ["0000/0000_000_01_a_0_0.jpg", "0000/0000.jpg 0", "0000/0000_000_01_a_0_0.jpg one"])
def test_an_invalid_line_of_a_list_is_named(tmp_path, line):
    write_msmt17(tmp_path, lists={**LISTS, "list_query.txt": [line]})
    with pytest.raises(InputError, match=r"list_query.txt, line 1: expected an image and its identity"):
        load_data("msmt17", tmp_path)


def test_an_empty_list_is_refused(tmp_path):
    write_msmt17(tmp_path, lists={**LISTS, "list_gallery.txt": [""]})
    with pytest.raises(InputError, match=r"list_gallery.txt: lists no image"):
        load_data("msmt17", tmp_path)


def test_listed_images_that_are_not_there_are_named(tmp_path):
    write_msmt17(tmp_path)
    (tmp_path / "train" / "0001" / "0001_002_04_0302afternoon_0031_0.jpg").unlink()
    with pytest.raises(InputError, match=r"1 listed image.*\n.*0001_002_04_0302afternoon_0031_0.jpg"):
        load_data("msmt17", tmp_path)


def test_both_training_lists_count(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="ccfast"):
        load_data("msmt17", write_msmt17(tmp_path))
    assert "msmt17: 4 train, 1 query, 2 gallery images" in caplog.text
    assert "32,621 train, 11,659 query, 82,161 gallery" in caplog.text
