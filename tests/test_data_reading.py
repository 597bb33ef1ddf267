"""No file of a data set is left out without a message: links, formats, system files, other folders, lists."""

from __future__ import annotations

import logging
import os
import shutil

import pytest

from ccfast._errors import InputError
from ccfast.data import DATASETS, formats, load_data
from ccfast.data.folders import entry_named
from ccfast.data.listing import SYSTEM_NAMES
from ccfast.data.table import table
from ccfast.data.text import text_lines

pytest.importorskip("PIL.Image")

from image_trees import MARKET, write_image, write_lists, write_tree
from test_data_msmt17 import LISTS, write_msmt17
from test_data_omniglot import write_folder
from test_data_sysumm01 import IDS, write_sysumm01

PEOPLE = {"train/anna": ["1.jpg", "2.jpg"], "train/ben": ["1.jpg"]}
MEASURED = {"query/cleo": ["1.jpg"], "gallery/cleo": ["2.jpg"], "gallery/dan": ["1.jpg"]}


@pytest.fixture(autouse=True)
def all_messages(caplog):
    caplog.set_level(logging.INFO, logger="ccfast")


def warnings(caplog):
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


def names_of(part):
    return [os.path.basename(path) for path in part.images.paths]


# -- links


def test_identity_folders_that_are_links_are_entered(tmp_path):
    write_tree(tmp_path, {**PEOPLE, "store/zoe": ["1.jpg", "2.jpg"]})
    (tmp_path / "train" / "zoe").symlink_to(tmp_path / "store" / "zoe")
    shutil.move(tmp_path / "store", tmp_path.parent / f"{tmp_path.name}-store")
    (tmp_path / "train" / "zoe").unlink()
    (tmp_path / "train" / "zoe").symlink_to(tmp_path.parent / f"{tmp_path.name}-store" / "zoe")
    assert load_data("folder", tmp_path).train.ids.tolist() == [0, 0, 1, 2, 2]


def test_a_part_that_is_a_link_is_entered(tmp_path):
    write_tree(tmp_path / "far", PEOPLE)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "far" / "train")
    assert len(load_data("folder", tmp_path / "data").train) == 3


@pytest.mark.parametrize("target", ["train", "train/anna", "."])
def test_a_link_to_a_folder_above_is_no_endless_loop(tmp_path, caplog, target):
    write_tree(tmp_path, PEOPLE | MEASURED)
    (tmp_path / "train" / "anna" / "again").symlink_to(tmp_path / target)
    assert len(load_data("folder", tmp_path).train) == 3
    assert "links to a folder that contains them: 1, such as train/anna/again" in warnings(caplog)


def test_loops_through_two_folders_end(tmp_path):
    write_tree(tmp_path, PEOPLE)
    (tmp_path / "train" / "anna" / "b").symlink_to("../ben")
    (tmp_path / "train" / "ben" / "a").symlink_to("../anna")
    assert len(load_data("folder", tmp_path).train) >= 3


def test_a_folder_that_is_read_under_two_names_gives_a_warning(tmp_path, caplog):
    write_tree(tmp_path, PEOPLE | MEASURED)
    (tmp_path / "gallery" / "anna").symlink_to(tmp_path / "train" / "anna")
    assert load_data("folder", tmp_path).gallery.ids.tolist() == [0, 0, 2, 3]
    assert "one folder is read twice, because of links" in warnings(caplog)


def test_links_to_images_are_read_and_broken_ones_are_named(tmp_path, caplog):
    write_tree(tmp_path, PEOPLE)
    (tmp_path / "train" / "ben" / "2.jpg").symlink_to(tmp_path / "train" / "anna" / "1.jpg")
    assert len(load_data("folder", tmp_path).train) == 4
    (tmp_path / "train" / "ben" / "3.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match=r"1 image.*\n.*3.jpg"):
        load_data("folder", tmp_path)
    data = load_data("folder", tmp_path, bad_images="skip")
    assert len(data.train) == 4 and "cannot be read as images: 1, such as" in table(data)


def test_a_broken_link_to_a_folder_is_reported(tmp_path, caplog):
    write_tree(tmp_path, PEOPLE)
    (tmp_path / "train" / "zoe").symlink_to(tmp_path / "nowhere")
    load_data("folder", tmp_path)
    assert "links to nothing: 1, such as train/zoe" in warnings(caplog)


def test_a_pipe_with_the_name_of_an_image_is_not_waited_for(tmp_path, caplog):
    write_tree(tmp_path, PEOPLE)
    os.mkfifo(tmp_path / "train" / "ben" / "2.jpg")
    assert len(load_data("folder", tmp_path).train) == 3
    assert "neither files nor folders: 1, such as train/ben/2.jpg" in warnings(caplog)


def test_two_links_to_one_data_set_are_one_data_set(tmp_path):
    write_tree(tmp_path / "one", MARKET)
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert len(load_data("market1501", tmp_path).train) == 3


def test_characters_that_are_links_are_entered(tmp_path):
    root = write_folder(tmp_path / "o") / "omniglot-py" / "images_background"
    before = len(load_data("omniglot", tmp_path / "o").train)
    shutil.move(root / "A", tmp_path / "elsewhere")
    (root / "A").symlink_to(tmp_path / "elsewhere")
    assert len(load_data("omniglot", tmp_path / "o").train) == before


# -- formats


@pytest.mark.parametrize("extension", ["jfif", "JPG", "Jpeg", "jpe", "gif", "TIF", "bmp", "PNG", "ppm", "jp2", "tga"])
def test_what_pillow_opens_is_read(tmp_path, extension):
    from PIL import Image

    write_tree(tmp_path, PEOPLE)
    path = tmp_path / "train" / "ben" / f"2.{extension}"
    Image.new("RGB", (8, 16), (200, 10, 10)).save(path, format=Image.registered_extensions()[path.suffix.lower()])
    data = load_data("folder", tmp_path)
    assert names_of(data.train) == ["1.jpg", "2.jpg", "1.jpg", f"2.{extension}"]
    assert data.train.images[3].getpixel((4, 8))[0] > 150


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("IMG_1.HEIC", "pip install pillow-heif"),
        ("1.heif", "pip install pillow-heif"),
        ("1.jxl", "pip install pillow-jxl-plugin"),
        ("1.CR2", "convert them"),
        ("1.avif", "pip install --upgrade pillow"),
    ],
)
def test_images_of_other_formats_are_counted_with_advice(tmp_path, caplog, monkeypatch, name, advice):
    readable = formats.readable() - {".heic", ".heif", ".jxl", ".cr2", ".avif"}
    monkeypatch.setattr(formats, "readable", lambda: readable)
    write_tree(tmp_path, PEOPLE)
    (tmp_path / "train" / "ben" / name).write_bytes(b"something")
    assert len(load_data("folder", tmp_path).train) == 3
    expected = f"images of a format that Pillow does not open here: 1, such as train/ben/{name}; {advice}"
    assert expected in warnings(caplog)


def test_a_folder_with_only_unreadable_formats_says_what_to_install(tmp_path, monkeypatch):
    readable = formats.readable() - {".heic"}
    monkeypatch.setattr(formats, "readable", lambda: readable)
    (tmp_path / "bounding_box_train").mkdir()
    (tmp_path / "bounding_box_train" / "0001_c1.heic").write_bytes(b"something")
    for name, root in (("folder", tmp_path / "bounding_box_train"), ("market1501", tmp_path)):
        with pytest.raises(InputError, match=r"left out: images of a format .*: 1, such as .*pip install pillow-heif"):
            load_data(name, root)


def test_heic_under_another_name_is_explained(tmp_path, monkeypatch):
    readable = formats.readable() - {".heic"}
    monkeypatch.setattr(formats, "readable", lambda: readable)
    write_tree(tmp_path, PEOPLE)
    (tmp_path / "train" / "ben" / "2.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(InputError, match=r"2.jpg: cannot be read .*it holds HEIC: pip install pillow-heif"):
        load_data("folder", tmp_path)


# -- what systems and programs leave behind


@pytest.mark.parametrize("name", [*sorted(SYSTEM_NAMES - {"icon\r"}), ".thumbnails", ".ipynb_checkpoints", ".git"])
def test_what_systems_put_beside_images_is_not_learnt_from(tmp_path, caplog, name):
    write_tree(tmp_path, {**PEOPLE, f"train/anna/{name}": ["1.jpg", "2.jpg"], f"train/{name}": ["3.jpg"]})
    data = load_data("folder", tmp_path)
    assert names_of(data.train) == ["1.jpg", "2.jpg", "1.jpg"]
    assert data.train.ids.tolist() == [0, 0, 1]
    assert ": 3, such as" in table(data) and name in table(data)
    assert not warnings(caplog)


def test_names_of_systems_are_known_in_any_case(tmp_path):
    write_tree(tmp_path, {**PEOPLE, "train/@EADIR": ["1.jpg"], "train/Lost+Found": ["1.jpg"]})
    assert len(load_data("folder", tmp_path).train) == 3


def test_files_that_are_no_images_are_counted(tmp_path, caplog):
    write_tree(tmp_path, {**PEOPLE, "train/ben/": ["1.jpg", "._1.jpg"]})
    for name in ("notes.txt", "Thumbs.db", ".DS_Store", "clip.mp4"):
        (tmp_path / "train" / name).write_text("")
    told = table(load_data("folder", tmp_path))
    assert "left out: hidden: 2, such as train/" in told
    assert "left out: not images: 2, such as train/" in told
    assert "left out: made by a system or a program (thumbnails and the like): 1, " in told
    assert not warnings(caplog)


@pytest.mark.parametrize("name", ["market1501", "folder"])
def test_macosx_beside_the_data_set_is_no_second_one(tmp_path, name):
    tree = MARKET if name == "market1501" else PEOPLE
    write_tree(tmp_path / "data", tree)
    doubles = {folder: [f"._{file}" for file in files] for folder, files in tree.items()}
    write_tree(tmp_path / "__MACOSX" / "data", doubles)
    assert len(load_data(name, tmp_path).train) == 3


# -- folders beside those that are read


@pytest.mark.parametrize("beside", ["val", "test", "valid", "Validation", "extra"])
def test_folders_beside_train_are_not_ignored_silently(tmp_path, caplog, beside):
    write_tree(tmp_path, {**PEOPLE, **MEASURED, f"{beside}/anna": ["1.jpg", "2.jpg"]})
    assert len(load_data("folder", tmp_path).train) == 3
    assert f"beside the folders that are read: 2, such as {beside}/" in warnings(caplog)


def test_images_beside_train_are_not_ignored_silently(tmp_path, caplog):
    write_tree(tmp_path, {**PEOPLE, "": ["stray.jpg"]})
    load_data("folder", tmp_path)
    assert "beside the folders that are read: 1, such as stray.jpg" in warnings(caplog)


def test_sub_folders_named_like_parts_give_a_warning(tmp_path, caplog):
    load_data("folder", write_tree(tmp_path, {"val/anna": ["1.jpg"], "test/anna": ["2.jpg"]}))
    assert "all its sub-folders are used for training as identities, including test/, val/" in warnings(caplog)


def test_a_folder_data_set_is_found_below(tmp_path):
    data = load_data("folder", write_tree(tmp_path / "a" / "data", PEOPLE | MEASURED).parent)
    assert (len(data.train), len(data.query), len(data.gallery)) == (3, 1, 2)


def test_folders_of_the_publication_are_counted_without_a_warning(tmp_path, caplog):
    write_tree(tmp_path, {**MARKET, "gt_bbox": ["0001_c1s1_001.jpg"], "val": ["0001_c1s1_001.jpg"]})
    data = load_data("market1501", tmp_path)
    assert "left out: published with the data set, but not part of the protocol: 1, such as gt_bbox/" in table(data)
    assert "gt_bbox" not in warnings(caplog) and "such as val/" in warnings(caplog)


def test_images_in_sub_folders_of_a_flat_part_are_counted(tmp_path, caplog):
    write_tree(tmp_path, {**MARKET, "bounding_box_train/more": ["0002_c1s1_000451_03.jpg"]})
    load_data("market1501", tmp_path)
    assert "in sub-folders, where no images are expected: 1, such as bounding_box_train/more" in warnings(caplog)


def test_drawings_at_another_depth_are_counted(tmp_path, caplog):
    write_image(write_folder(tmp_path) / "omniglot-py" / "images_background" / "A" / "0709_01.png")
    load_data("omniglot", tmp_path)
    assert "not where images are expected: 1" in warnings(caplog)


RENAMED = {"Bounding_Box_Train": "bounding_box_train", "Query": "query", "BOUNDING_BOX_TEST": "bounding_box_test"}


def test_names_of_folders_may_differ_in_case(tmp_path):
    write_tree(tmp_path / "x" / "data", {new: MARKET[old] for new, old in RENAMED.items()})
    data = load_data("market1501", tmp_path / "x")
    assert (len(data.train), len(data.query), len(data.gallery)) == (3, 2, 3)
    tree = {name.capitalize(): files for name, files in (PEOPLE | MEASURED).items()}
    data = load_data("folder", write_tree(tmp_path / "y", tree))
    assert (len(data.train), len(data.query), len(data.gallery)) == (3, 1, 2)


def test_the_exact_name_goes_before_one_in_another_case(tmp_path):
    for name in ("Query", "query"):
        (tmp_path / name).mkdir()
    assert entry_named(tmp_path, "query").name == "query"
    (tmp_path / "query").rename(tmp_path / "QUERY")
    assert entry_named(tmp_path, "query") is None


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    write_tree(tmp_path, PEOPLE)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("ben"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"ben: the folder cannot be listed: Permission denied"):
        load_data("folder", tmp_path)


# -- lists


def encoded(lines, encoding, end):
    return end.join([*lines, ""]).encode(encoding)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lists_from_any_system_are_read_completely(tmp_path, encoding, end):
    write_msmt17(tmp_path)
    for name, lines in LISTS.items():
        decorated = ["# a comment", *(f"  {line} \t" if line else line for line in lines), "", "   "]
        (tmp_path / name).write_bytes(encoded(decorated, encoding, end))
    data = load_data("msmt17", tmp_path)
    assert (len(data.train), len(data.query), len(data.gallery)) == (4, 1, 2)
    write_sysumm01(tmp_path / "sysu")
    for name, lines in IDS.items():
        (tmp_path / "sysu" / name).write_bytes(encoded(["# identities", *lines], encoding, end))
    data = load_data("sysumm01", tmp_path / "sysu")
    assert data.train.ids.unique().tolist() == [2, 5, 9] and data.query.ids.unique().tolist() == [6, 10, 11]


def test_a_list_that_is_no_text_is_named(tmp_path):
    write_msmt17(tmp_path)
    (tmp_path / "list_val.txt").write_bytes("0000/x 0".encode("utf-16-le"))  # without a mark
    with pytest.raises(InputError, match=r"list_val.txt: expected text in UTF-8, got zero bytes"):
        load_data("msmt17", tmp_path)


def test_names_that_are_no_text_are_kept(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe.jpg 0\n"[1:] + b"\xe9.jpg 1")
    assert [os.fsencode(line) for _, line in text_lines(tmp_path / "list.txt")] == [b"\xfe.jpg 0", b"\xe9.jpg 1"]


def test_a_listed_image_that_is_missing_is_named_with_its_line(tmp_path, caplog):
    write_msmt17(tmp_path, lists={**LISTS, "list_val.txt": [*LISTS["list_val.txt"], "0009/0009_0_01_x.jpg 9"]})
    with pytest.raises(InputError, match=r"list_val.txt, line 3: .*0009_0_01_x.jpg\n.*--bad-images skip"):
        load_data("msmt17", tmp_path)
    assert len(load_data("msmt17", tmp_path, bad_images="skip").train) == 4
    assert "listed, but missing: 1, such as" in warnings(caplog)


def test_images_listed_twice_and_in_no_list_are_counted(tmp_path, caplog):
    write_msmt17(tmp_path, lists={**LISTS, "list_query.txt": LISTS["list_query.txt"] * 3})
    write_image(tmp_path / "train" / "0002" / "0002_000_01_0303morning_0015_0.jpg")
    data = load_data("msmt17", tmp_path)
    assert (len(data.train), len(data.query)) == (4, 1)
    assert "listed twice: 2" in warnings(caplog) and "in no list: 1" in warnings(caplog)


def test_an_image_with_two_identities_is_refused(tmp_path):
    name = LISTS["list_query.txt"][0].split()[0]
    write_msmt17(tmp_path, lists={**LISTS, "list_query.txt": [f"{name} 0", f"{name} 5"]})
    with pytest.raises(InputError, match=r"list_query.txt, line 2: .*line 1 gives it another identity"):
        load_data("msmt17", tmp_path)


def test_backslashes_of_a_list_are_read(tmp_path):
    lists = {name: [line.replace("/", "\\") for line in lines] for name, lines in LISTS.items()}
    write_lists(write_msmt17(tmp_path), lists)
    assert len(load_data("msmt17", tmp_path).train) == 4


def test_identities_in_no_list_and_without_a_folder_are_reported(tmp_path, caplog):
    write_sysumm01(tmp_path, {**IDS, "exp/val_id.txt": ["9,700"], "exp/test_id.txt": ["6,10"]})
    load_data("sysumm01", tmp_path)
    assert "in no list: 15" in warnings(caplog)
    assert "1 listed identities have no folder in any camera, such as 700" in warnings(caplog)


def test_folders_of_identities_need_no_leading_zeros(tmp_path):
    write_sysumm01(tmp_path)
    (tmp_path / "cam1" / "0002").rename(tmp_path / "cam1" / "2")
    assert len(load_data("sysumm01", tmp_path).train) == 3 * 6 * 3


# -- the table


def test_the_table_shows_what_was_read(tmp_path, caplog):
    write_tree(tmp_path, MARKET)
    data = load_data("market1501", tmp_path)
    lines = table(data).splitlines()
    assert [line.split() for line in lines[1:5]] == [
        ["part", "identities", "images", "cameras"],
        ["train", "2", "3", "3"],
        ["query", "2", "2", "2"],
        ["gallery", "3", "3", "3"],
    ]
    assert lines[5].strip() == "left out: junk, identity -1: 2, such as -1_c1s1_000454_01.jpg"
    assert table(data) in caplog.text


def test_the_table_lists_what_is_missing(tmp_path):
    told = table(load_data("folder", write_tree(tmp_path / "a", PEOPLE | MEASURED)))
    assert "no cameras: ranking leaves nothing out" in told
    told = table(load_data("folder", write_tree(tmp_path / "b", {"": ["1.jpg"]})))
    assert "unknown" in told and "no query and no gallery: no evaluation" in told
    assert "1,198" in table(load_data("digits"))


def test_names_that_are_no_text_are_printed_escaped(tmp_path):
    write_tree(tmp_path, PEOPLE)
    (tmp_path / "train" / os.fsdecode(b"\xff.txt")).write_text("")
    assert r"train/\udcff.txt" in table(load_data("folder", tmp_path))


def test_every_data_set_in_folders_counts_what_it_leaves_out():
    assert set(DATASETS) == {"digits", "market1501", "dukemtmcreid", "personx", "veri776", "msmt17", "sysumm01", "ltcc",
                             "omniglot", "folder", "csv"}  # fmt: skip  # a new one: try it on the trees above
