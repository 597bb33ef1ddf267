"""Cameras and identities in file names: all usual forms are read; one that cannot be read never means "no camera"."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from ccfast._errors import InputError
from ccfast.data import load_data
from ccfast.data.names import Name, parse_name
from ccfast.data.table import table

pytest.importorskip("PIL.Image")

from image_trees import write_tree
from test_data_msmt17 import LISTS, write_msmt17
from test_data_omniglot import write_folder, write_npz
from test_data_sysumm01 import IDS, write_sysumm01

LONG = "12345678901234567890"  # more than an int64 holds


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("0002_c1s1_000451_03", (2, 1)),
        ("0001_c2_f0046182", (1, 2)),
        ("0002_c002_00030600_0", (2, 2)),
        ("0001_C6_F0099_X30823", (1, 6)),
        ("0001_cam1_5", (1, 1)),
        ("0001_Cam01_5", (1, 1)),
        ("0001_CAM12s3_5", (1, 12)),
        ("0001_camera3_x", (1, 3)),
        ("0001_cam_4_x", (1, 4)),
        ("0001_Camera_10_x", (1, 10)),
        ("0001-c3-7", (1, 3)),
        ("0001 c3 7", (1, 3)),
        ("0001_7_c1s1_000151_01", (1, 1)),
        ("0001_s1c2_000151", (1, 2)),
        ("0001C1T0001F001", (1, 1)),
        ("person_0001_c2_1", (1, 2)),
        ("shop0001_cam2", (1, 2)),
        ("id7_a", (7, None)),
        ("-1_c1s1_000454_01", (-1, 1)),
        ("-1-c1-2", (-1, 1)),
        ("0000_c1s1_000001_00", (0, 1)),
        ("0001_a", (1, None)),
        ("0001_c", (1, None)),
        ("0001_campus_c4_camry", (1, 4)),
        ("0001_crop_3", (1, None)),
    ],
)
def test_what_is_meant_is_read(stem, expected):
    name = parse_name(stem)
    assert (name.id, name.cam, name.letter, name.unused, name.perhaps) == (*expected, False, None, None)


@pytest.mark.parametrize("stem", ["holiday", "IMG_1234", "0001", "cam1_person001", "", "-", "_c1", "x_c1"])
def test_names_that_begin_with_no_identity_are_none(stem):
    assert parse_name(stem) is None


def test_clothes_are_the_number_between_identity_and_camera():
    assert parse_name("094_1_c9_015833") == Name(94, 9, 1)
    assert parse_name("094_c9_015833").clothes is None
    assert parse_name("094_12_Cam9_015833") == Name(94, 9, 12)


def market(root, form, parts=("bounding_box_train", "query", "bounding_box_test")):
    """Two identities in two cameras (the query is in the first); ``form`` takes identity, camera and a number."""
    train, query, gallery = parts
    shots = [(identity, camera) for identity in (1, 2) for camera in (1, 2)]
    files = [form.format(i=i, c=c, C="AB"[c - 1], n=n) for n, (i, c) in enumerate(shots)]
    return write_tree(root, {train: files, query: files[::2], gallery: files})


@pytest.mark.parametrize(
    "form",
    [
        "{i:04d}_C{c}_F0099_X{n}.jpg", "{i:04d}_cam{c}_{n}.JPG", "{i:04d}_Cam{c}_{n}.jpg", "{i:04d}_c{C}_{n}.jpg",
        "{i:04d}_cam{C}_{n}.png", "{i:04d}_camera_{C}_{n}.png", "{i:04d}_7_c{c}s1_{n}_01.jpg", "{i:04d}-c{c}-{n}.jpg",
        "person{i}_c{c}_{n}.jpeg",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["market1501", "dukemtmcreid", "personx", "msmt17"])
def test_cameras_of_other_forms_are_read(tmp_path, name, form):
    data = load_data(name, market(tmp_path, form))
    assert data.train.ids.tolist() == [1, 1, 2, 2]
    assert data.train.cams.tolist() == data.gallery.cams.tolist() == [1, 2, 1, 2]
    assert data.query.cams.tolist() == [1, 1]
    assert ("A is 1, B is 2" in table(data)) == ("{C}" in form)


def test_cameras_of_other_forms_are_read_in_veri_and_ltcc(tmp_path):
    folders = ("image_train", "image_query", "image_test")
    assert load_data("veri776", market(tmp_path / "v", "{i:04d}_Cam{c}_{n}.jpg", folders)).query.cams.tolist() == [1, 1]
    data = load_data("ltcc", market(tmp_path / "l", "{i:03d}_1_C{c}_{n:06d}.png", ("train", "query", "test")))
    assert data.gallery.cams.tolist() == [1, 2, 1, 2] and data.train.clothes.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("part", ["c{c}x", "cam", "cam{c}b", "webcam{c}", "cam_front", "camera-front", "c1d"])
def test_what_looks_like_a_camera_and_cannot_be_read_is_refused_by_name(tmp_path, part):
    form = "{i:04d}_" + part + "_{n}z.jpg"
    with pytest.raises(InputError, match=r"0001_.*looks like a camera but cannot be read as one \(10 such name"):
        load_data("market1501", market(tmp_path, form))


@pytest.mark.parametrize("part", ["cctv{c}", "view{c}", "c_{c}", "channel{c}", "ca", "camfront", "webcam"])
def test_what_may_be_a_camera_is_warned_of(tmp_path, caplog, part):
    with caplog.at_level(logging.WARNING, logger="ccfast"):
        data = load_data("market1501", market(tmp_path, "{i:04d}_" + part + "_{n}.jpg"))
    assert data.query.cams is None
    assert "no name has a camera as _cN" in caplog.text
    assert "no cameras: ranking leaves nothing out" in table(data)


def test_two_cameras_in_a_name_are_warned_of(tmp_path, caplog):
    data = load_data("market1501", market(tmp_path, "{i:04d}_c{c}_c7_{n}.jpg"))
    assert data.train.cams.tolist() == [1, 2, 1, 2]
    assert "10 name(s) have two parts that look like a camera: 0001_c1_c7_0.jpg is read as camera 1" in caplog.text


def test_cameras_by_letter_and_by_number_are_refused(tmp_path):
    write_tree(market(tmp_path, "{i:04d}_c{c}_{n}.jpg"), {"query": ["0003_cA_1.jpg"]})
    with pytest.raises(InputError, match=r"0003_cA_1.jpg names its camera by a letter, .* by a number"):
        load_data("market1501", tmp_path)


@pytest.mark.parametrize("folder", ["bounding_box_train", "query", "bounding_box_test"])
def test_cameras_in_some_names_only_are_refused_by_name(tmp_path, folder):
    write_tree(market(tmp_path, "{i:04d}_Cam{c}_{n}.jpg"), {folder: ["0003_x.jpg"]})
    with pytest.raises(InputError, match=r"0003_x.jpg: has no camera in its name while others in its folder have"):
        load_data("market1501", tmp_path)


def test_cameras_in_query_or_gallery_only_are_refused(tmp_path):
    write_tree(tmp_path, {"bounding_box_train": ["0001_a.jpg"], "query": ["0001_a.jpg"]})
    write_tree(tmp_path, {"bounding_box_test": ["0001_c1_a.jpg"]})
    with pytest.raises(InputError, match=r"query and .*bounding_box_test: cameras .* in one of them only"):
        load_data("market1501", tmp_path)


# -- numbers that no int64 holds


@pytest.mark.parametrize("name", [f"0001_c{LONG}_1.jpg", f"{LONG}_c1_1.jpg", f"-{LONG}_c1.jpg"])
@pytest.mark.parametrize("folder", ["bounding_box_train", "query", "bounding_box_test"])
def test_numbers_that_are_too_long_are_refused_by_name(tmp_path, folder, name):
    write_tree(market(tmp_path, "{i:04d}_c{c}_{n}.jpg"), {folder: [name]})
    with pytest.raises(
        InputError, match=f"{name}: (identity|camera): expected a number of at most 9223372036854775807"
    ):
        load_data("market1501", tmp_path)


def test_the_largest_numbers_are_read(tmp_path):
    data = load_data("market1501", write_tree(tmp_path, {"bounding_box_train": [f"{2**63 - 1}_c{2**63 - 1}_1.jpg"]}))
    assert data.train.ids.tolist() == data.train.cams.tolist() == [2**63 - 1]


def test_frames_may_have_any_length(tmp_path):
    data = load_data("market1501", write_tree(tmp_path, {"bounding_box_train": [f"0001_c1s{LONG}_{LONG}_{LONG}.jpg"]}))
    assert data.train.cams.tolist() == [1]


@pytest.mark.parametrize("name", [f"{LONG}_1_c1_1.png", f"1_{LONG}_c1_1.png", f"1_1_c{LONG}_1.png"])
def test_numbers_that_are_too_long_are_refused_in_ltcc(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}: (identity|clothes|camera): expected a number"):
        load_data("ltcc", write_tree(tmp_path, {"train": ["1_1_c1_0.png", name]}))


@pytest.mark.parametrize("line", [f"0000/0000_0_01_x.jpg {LONG}", f"0000/0000_0_{LONG}_x.jpg 0"])
def test_numbers_that_are_too_long_are_refused_in_msmt17(tmp_path, line):
    write_msmt17(tmp_path, lists={**LISTS, "list_train.txt": [*LISTS["list_train.txt"], line]})
    with pytest.raises(InputError, match=r"list_train.txt, line 4: (identity|camera): expected a number of at most"):
        load_data("msmt17", tmp_path)


def test_numbers_that_are_too_long_are_refused_in_sysumm01(tmp_path):
    write_sysumm01(tmp_path, {**IDS, "exp/val_id.txt": [f"9,{LONG}"]})
    with pytest.raises(InputError, match=r"val_id.txt, line 1: identity: expected a number of at most"):
        load_data("sysumm01", tmp_path)


def test_numbers_that_are_too_long_are_refused_in_omniglot(tmp_path):
    folder = write_folder(tmp_path) / "omniglot-py" / "images_background" / "A" / "character01"
    (folder / "0109_01.png").rename(folder / f"0109_{LONG}.png")
    with pytest.raises(InputError, match=f"0109_{LONG}.png: drawer: expected a number of at most"):
        load_data("omniglot", tmp_path)
    for column in ("identity", "drawer", "alphabet"):
        path = write_npz(tmp_path / "omniglot.npz", **{column: np.full(84, 2**64 - 1, dtype=np.uint64)})
        with pytest.raises(InputError, match=f"{column}: expected numbers of at most"):
            load_data("omniglot", path)
