"""``--dataset csv``: images listed in a table, with or without identity, camera and split."""

from __future__ import annotations

import pytest

from ccfast._errors import InputError
from ccfast.data import load_data
from ccfast.data.table import table
from ccfast.training import TrainConfig, train

pytest.importorskip("PIL.Image")

from image_trees import write_image

FULL = """path,identity,camera,split
a/1.jpg,7,1,train
a/2.jpg,7,2,train
b/3.jpg,9,1,query
b/4.jpg,9,2,gallery
"""


@pytest.fixture
def images(tmp_path):
    """Five images in two folders."""
    for number, name in enumerate(("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg", "b/5, six.jpg")):
        write_image(tmp_path / name, 30 * number)
    return tmp_path


def load(folder, text, encoding="utf-8", name="list.csv", **options):
    (folder / name).write_bytes(text.encode(encoding, "surrogateescape") if isinstance(text, str) else text)
    return load_data("csv", folder / name, **options)


def names(part):
    return ["/".join(path.split("/")[-2:]) for path in part.images.paths]


def refused(folder, text, *messages, **options):
    with pytest.raises(InputError) as caught:
        load(folder, text, **options)
    for message in messages:
        assert message in str(caught.value)
    return str(caught.value)


def test_all_columns(images, monkeypatch):
    data = load(images, FULL)
    assert (names(data.train), names(data.query), names(data.gallery)) == (
        ["a/1.jpg", "a/2.jpg"], ["b/3.jpg"], ["b/4.jpg"]
    )  # fmt: skip
    assert data.train.ids.tolist() == [7, 7] and data.train.cams.tolist() == [1, 2]
    assert data.query.ids.tolist() == data.gallery.ids.tolist() == [9]
    lines = [line.split() for line in table(data).splitlines()]
    assert ["train", "1", "2", "2"] in lines and ["query", "1", "1", "1"] in lines
    assert data.train.images[0].size == (8, 16)


def test_paths_alone_are_learnt_from_without_identities(images):
    data = load(images, f"path\na/1.jpg\n\n{images}/b/3.jpg\n")
    assert names(data.train) == ["a/1.jpg", "b/3.jpg"]
    assert (data.train.ids, data.train.cams, data.query, data.gallery) == (None, None, None, None)


def test_paths_are_relative_to_the_table_in_any_working_folder(images, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert len(load(images / "a", "path\n1.jpg\n../b/3.jpg\n").train) == 2


@pytest.mark.parametrize(
    ("change", "encoding"),
    [
        (lambda text: text, "utf-8-sig"),
        (lambda text: text, "utf-16"),
        (lambda text: text.replace(",", "\t"), "utf-16"),
        (lambda text: text.replace(",", ";"), "utf-8"),
        (lambda text: "sep=|\r\n" + text.replace(",", "|"), "utf-8"),
        (lambda text: text.replace("\n", "\r\n"), "utf-8"),
        (lambda text: text.replace("\n", "\r"), "utf-8"),
        (lambda text: text.replace("path,identity", " Path , IDENTITY ").replace("train", "Train"), "utf-8"),
        (lambda text: text.replace("a/", "a\\"), "utf-8"),
        (lambda text: "\n".join('"' + line.replace(",", '","') + '"' for line in text.splitlines()), "utf-8"),
    ],
    ids=["bom", "utf-16", "tabs", "semicolons", "sep", "crlf", "cr", "case", "windows", "quoted"],
)  # fmt: skip
def test_tables_of_spreadsheets_are_read_the_same(images, change, encoding):
    plain, other = load(images, FULL), load(images, change(FULL), encoding, "other.csv")
    for part in ("train", "query", "gallery"):
        one, two = getattr(plain, part), getattr(other, part)
        assert one.images.paths == two.images.paths and one.cams.tolist() == two.cams.tolist()
        assert one.ids.tolist() == two.ids.tolist()


def test_quoted_paths_and_names_that_are_no_utf_8(images):
    write_image(images / b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    data = load(images, b'path;camera\n"b/5, six.jpg";1\ncaf\xe9.jpg;2\n')
    assert len(data.train) == 2 and data.train.cams.tolist() == [1, 2]
    named = load(images, b"path,identity\ncaf\xe9.jpg,caf\xe9\na/1.jpg,tea\n")
    assert named.train.ids.tolist() == [0, 1] and r"caf\xe9" in table(named)
    refused(images, b"path\ncaf\xe9.jpg\nth\xe9.jpg\n", r"line 3: path: ", r"th\xe9.jpg: no such file")


NAMED = """path,identity,camera,split
a/1.jpg,Milk,front,train
a/2.jpg,7,front,train
b/3.jpg,Müsli,back,query
b/4.jpg,Milk,front,gallery
"b/5, six.jpg",Müsli,front,gallery
"""


def test_names_of_identities_and_cameras_are_numbered_in_sorted_order(images):
    data = load(images, NAMED)
    assert (data.train.ids.tolist(), data.query.ids.tolist(), data.gallery.ids.tolist()) == ([1, 0], [2], [1, 2])
    assert (data.train.cams.tolist(), data.query.cams.tolist()) == ([1, 1], [0])
    printed = table(data)
    assert "identity: 3 names, numbered from 0 in sorted order, because 'Milk' in line 2 is not an integer" in printed
    assert "camera: 2 names" in printed and "names" not in table(load(images, FULL))


def test_integers_beside_names_are_names_and_empty_cells_are_unknown(images):
    data = load(images, "path,identity,camera\na/1.jpg,007,1\na/2.jpg,7,1\nb/3.jpg,x,1\n")
    assert data.train.ids.tolist() == [0, 1, 2] and data.train.cams.tolist() == [1, 1, 1]
    assert load(images, "path,identity\na/1.jpg,007\na/2.jpg,7\n").train.ids.tolist() == [7, 7]
    assert load(images, "path,identity\na/1.jpg,x\na/2.jpg,\n").train.ids is None
    junk = load(images, NAMED.replace("Milk,front,gallery", "-1,front,gallery"))
    assert len(junk.gallery) == 1 and "junk, identity -1: 1" in table(junk)


def test_the_columns_of_extract_are_read(images, caplog):
    """Their own names have precedence: beside "identity", "id" may be anything."""
    plain, other = load(images, FULL), load(images, FULL.replace("identity,camera,split", "ID,cam,part"), name="o.csv")
    for part in ("train", "query", "gallery"):
        one, two = getattr(plain, part), getattr(other, part)
        assert (one.ids.tolist(), one.cams.tolist()) == (two.ids.tolist(), two.cams.tolist())
    assert "columns that are read: id as identity, cam as camera, part as split" in table(other)
    both = load(images, "path,id,identity\na/1.jpg,3,4\n")
    assert both.train.ids.tolist() == [4] and "columns that are not read: id;" in caplog.text


@pytest.mark.parametrize("options", [{}, {"bad_images": "skip"}])
def test_a_table_in_another_encoding_is_one_error(images, options):
    for text in ("path,identity\na/1.jpg,1\na/é.jpg,2\nb/é.jpg,3\n", "path,identity\na/1.jpg,1\na/2.jpg,é\n"):
        message = refused(
            images, text.encode("latin-1"), 'list.csv, line 3: not UTF-8; save it as "CSV UTF-8"', **options
        )
        assert "\n" not in message
    assert len(load(images, "path,größe\na/1.jpg,1\n".encode("latin-1")).train) == 1  # that column is not read


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a/none.jpg,7,1,train", "path: "),
        ("a/none.jpg,7,1,train", "a/none.jpg: no such file"),
        ("a,7,1,train", "is a folder"),
        (",7,1,train", "path: expected an image, got an empty cell"),
        ("b/5.jpg,-2,1,train", "identity: expected an integer of at least 0, or -1 for junk, and at most"),
        ("b/5.jpg,-2,1,train", "got '-2'"),
        ("b/5.jpg,7,-1,train", "camera: expected an integer of at least 0 and at most"),
        ("b/5.jpg,99999999999999999999,1,train", "got '99999999999999999999'; a letter before each number makes it"),
        (f"b/5.jpg,{'9' * 5000},1,train", "identity: expected an integer"),
        ("b/5.jpg,7,1,test", "split: expected train, query or gallery, got 'test'"),
        ("b/5.jpg,7,1,", "split: expected train, query or gallery, got ''"),
        ("a/1.jpg,7,1,train", "a/1.jpg is already in line 2"),
        ("./b/../a/1.jpg,7,1,query", "is already in line 2"),
        ("a/2.jpg,7,1,train,more", "5 cells, expected 4, as the first line has"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(images, line, message):
    refused(images, f"{FULL}\n{line}\n", "list.csv, line 7: ", message)  # line 6 is empty


def test_lines_are_counted_as_an_editor_counts_them(images):
    """A quoted cell may hold the end of a line; Excel's sep= is a line too."""
    refused(images, 'path,note\na/1.jpg,"two\nlines"\nx.jpg,\n', "line 4: path: ")
    refused(images, "sep=,\npath\nx.jpg\n", "line 3: path: ")


def test_one_error_lists_all_wrong_lines(images):
    lines = "".join(f"gone{number}.jpg\n" for number in range(103))
    message = refused(images, f"path\n{lines}", "103 lines are wrong:", "line 2: ", "line 101: ", "and 3 more")
    assert "line 102" not in message
    message = refused(images, "path,split\ngone.jpg,train\na/1.jpg,test\na/1.jpg,train,7\na/1.jpg,train\n")
    assert message.index("line 2: path") < message.index("line 3: split") < message.index("line 4: 3 cells")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected a table"),
        ("image,identity\na/1.jpg,1\n", "line 1: the column path is missing, got image, identity"),
        ("path,path\na/1.jpg,a/2.jpg\n", "the column path appears 2 times"),
        ("path\n", "lists no image"),
        ('path\n"a/1.jpg\n', "line 2: not a row of a table"),
        (b"\0p\0a\0t\0h", "got zero bytes; save the file as UTF-8"),
    ],
)
def test_files_that_are_no_tables_are_refused(images, text, message):
    refused(images, text, message)


def test_a_folder_or_no_file_is_refused(images):
    for path, message in ((images, "is a folder"), (images / "no.csv", "no such folder or file")):
        with pytest.raises(InputError, match=message):
            load_data("csv", path)


def test_missing_files_can_be_left_out_with_a_count(images, caplog):
    data = load(images, "path\na/1.jpg\ngone.jpg\n", bad_images="skip")
    assert len(data.train) == 1
    assert "listed, but missing: 1, such as" in caplog.text and "line 3: " in caplog.text


def test_junk_is_left_out_with_a_count(images):
    data = load(images, FULL + '"b/5, six.jpg",-1,1,gallery\n')
    assert len(data.gallery) == 1 and "junk, identity -1: 1, such as 5, six.jpg" in table(data)


def test_partly_known_identities_and_cameras(images, caplog):
    assert load(images, "path,identity\na/1.jpg,3\na/2.jpg,\n").train.ids is None
    assert "line 3: identity is empty, as in 1 of the 2 lines of train" in caplog.text
    half = FULL + '"b/5, six.jpg",,1,query\n'
    refused(images, half, "line 6: identity is empty, and in 1 other line(s) of query it is not")
    refused(images, FULL.replace("a/2.jpg,7,2", "a/2.jpg,7,"), "line 3: camera is empty")
    refused(images, FULL.replace("9,2", "9,"), "camera is known in one of query and gallery only")


def test_columns_that_are_not_read_are_named(images, caplog):
    load(images, "path,identty\na/1.jpg,3\n")
    assert "columns that are not read: identty" in caplog.text


def test_a_table_without_a_training_part_is_for_evaluation_only(images):
    data = load(images, "\n".join(line for line in FULL.splitlines() if "train" not in line))
    assert len(data.train) == 0 and len(data.query) == 1
    config = TrainConfig(dataset="csv", data_dir=str(images / "list.csv"), arch="smallconv", weights="none",
                         run=str(images / "run"), device="cpu", workers=0)  # fmt: skip
    with pytest.raises(InputError, match="lists no training images"):
        train(config)


def test_a_run_learns_from_a_table(images):
    lines = [f"p{number % 4}/{number}.jpg,{number % 4},{number % 2},train" for number in range(24)]
    for line in lines:
        write_image(images / line.split(",")[0], 60 * int(line.split(",")[1]))
    (images / "own.csv").write_text(FULL + "\n".join(lines))
    config = TrainConfig(
        dataset="csv", data_dir=str(images / "own.csv"), arch="smallconv", weights="none", height=16, width=8, k1=6,
        k2=2, epochs=1, iters=2, batch_size=8, run=str(images / "run"), device="cpu", workers=0, eps=0.9,
    )  # fmt: skip
    assert train(config).records[-1]["mAP"] == 1.0  # one query, one image to find
