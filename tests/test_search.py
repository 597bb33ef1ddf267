"""``ccfast search``: the nearest images of a folder, and the index that is stored in it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from unittest import mock

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))

from tiny_run import EACH, KINDS, picture, tiny_run, write_pictures

import ccfast
from ccfast.cli import main
from ccfast.data.image_files import unreadable
from ccfast.inference.gallery_index import Trained, indexed_gallery
from ccfast.inference.search import search
from ccfast.training.evaluate import Reranking
from ccfast.training.trained import load_trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folders(tmp_path):
    write_pictures(tmp_path / "photos", shots=range(20, 26))
    write_pictures(tmp_path / "asked", shots=[40])
    return tmp_path


def ask(run, folders, *arguments, output="r.csv", query="asked"):
    arguments = ["--gallery", folders / "photos", "--query", folders / query, "-o", folders / output, *arguments]
    return main(["search", *map(str, [run, *arguments] if run else arguments), "--device", "cpu", "--workers", "0"])


def fails(capsys, message, run, folders, *arguments, **options):
    assert ask(run, folders, *arguments, **options) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


def results(folders, name="r.csv"):
    with open(folders / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("rerank", [False, True])
def test_results_are_the_nearest_by_the_encoders_features(run, folders, rerank):
    assert ask(run, folders, "--top", 4, *(["--rerank"] if rerank else [])) == 0
    encoder = ccfast.load_encoder(run, device="cpu")
    paths = [sorted(str(path) for path in (folders / name).rglob("*.png")) for name in ("asked", "photos")]
    query, gallery = (encoder(of) for of in paths)
    scores = 1 - ccfast.k_reciprocal_rerank(query, gallery) if rerank else query @ gallery.T
    found = results(folders)
    assert list(found[0]) == ["query", "rank", "image", "score"] and len(found) == 4 * KINDS
    for number, row in enumerate(found):
        asked, rank = divmod(number, 4)
        assert row["query"] == paths[0][asked] and int(row["rank"]) == rank + 1
        of_row = float(scores[asked, paths[1].index(row["image"])])
        assert float(row["score"]) == pytest.approx(of_row, abs=1e-5)
        assert float(row["score"]) == pytest.approx(float(scores[asked].sort(descending=True)[0][rank]), abs=1e-5)


def test_a_single_query_and_a_top_beyond_the_gallery(run, folders):
    assert ask(run, folders, "--top", 1000, query="asked/kind2/40.png") == 0
    assert [int(row["rank"]) for row in results(folders)] == list(range(1, KINDS * EACH + 1))
    assert ask(run, folders, query="photos/kind1/22.png") == 0
    assert len(results(folders)) == 10
    assert results(folders)[0]["image"].endswith("photos/kind1/22.png")
    assert float(results(folders)[0]["score"]) == pytest.approx(1, abs=1e-5)


def test_equal_scores_keep_the_order_of_the_gallery():
    gallery = torch.nn.functional.normalize(torch.tensor([[1.0, 1], [1, 0], [1, 1], [1, 0]]), dim=1)
    query = torch.tensor([[1.0, 0.0]])
    found = search(query, gallery, 3)
    assert found.rows.tolist() == [[1, 3, 0]]
    torch.testing.assert_close(found.scores, torch.tensor([[1, 1, 0.5**0.5]]))
    again = search(query, gallery, 4, Reranking(k1=3, k2=1))
    expected = ccfast.k_reciprocal_rerank(query, gallery, 3, 1)
    torch.testing.assert_close(again.scores[0], 1 - expected[0].sort().values)


# -- the index


def extracted(run, folders, *arguments):
    """How many gallery images a search extracts."""
    counts = []
    extract = Trained.extract

    def counted(self, part, title="extract"):
        if title == "gallery":
            counts.append(len(part))
        return extract(self, part, title)

    with mock.patch.object(Trained, "extract", counted):
        assert ask(run, folders, *arguments) == 0
    return sum(counts)


def is_whole(run, folders, index=None):
    """The index matches the current files."""
    index = index or folders / "photos.index"
    names = [entry["name"] for entry in json.loads((index / "names.json").read_text())["images"]]
    assert names == sorted(
        path.relative_to(folders / "photos").as_posix() for path in (folders / "photos").rglob("*.*")
    )
    expected = ccfast.load_encoder(run, device="cpu")([folders / "photos" / name for name in names])
    np.testing.assert_allclose(np.load(index / "features.npy"), expected, atol=1e-5)


def test_an_index_is_kept_and_used(run, folders, capsys):
    assert extracted(run, folders) == KINDS * EACH
    is_whole(run, folders)
    first = results(folders)
    capsys.readouterr()
    assert extracted(run, folders) == 0
    assert "24 images; since it was written: no file has changed" in capsys.readouterr().out
    assert results(folders) == first


def test_new_changed_and_removed_files_are_noticed(run, folders, capsys):
    extracted(run, folders)
    photos = folders / "photos"
    (photos / "kind0" / "20.png").unlink()
    (photos / "kind0" / "21.png").rename(photos / "kind0" / "zz.png")
    picture(3, 77).save(photos / "kind1" / "20.png")
    picture(2, 78).save(photos / "a new one.png")
    assert extracted(run, folders) == 3  # renamed, changed, new
    assert "2 new, 1 changed, 2 removed" in capsys.readouterr().out
    is_whole(run, folders)
    assert extracted(run, folders) == 0


def test_a_changed_file_of_the_same_size_and_time_is_noticed(run, folders):
    """BMP files of one size: the modification times are restored, the change times are not."""
    file = folders / "photos" / "a.bmp"
    picture(0, 1).save(file)
    extracted(run, folders)
    before = file.stat()
    picture(3, 9).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert extracted(run, folders) == 1
    is_whole(run, folders)


def test_files_that_were_only_touched_are_not_extracted_again(run, folders):
    """The content is compared; the gallery may also be moved."""
    extracted(run, folders)
    for path in (folders / "photos").rglob("*.png"):
        os.utime(path)
    assert extracted(run, folders) == 0
    shutil.copytree(folders / "photos", folders / "elsewhere" / "photos")
    shutil.copytree(folders / "photos.index", folders / "elsewhere" / "photos.index")
    shutil.copytree(folders / "asked", folders / "elsewhere" / "asked")
    assert extracted(run, folders / "elsewhere") == 0


@pytest.mark.slow
def test_another_encoder_makes_the_index_again(run, folders, tmp_path_factory, capsys):
    other = tiny_run(tmp_path_factory.mktemp("other"), seed=5)
    extracted(run, folders)
    assert extracted(other, folders) == KINDS * EACH
    assert "belongs to another encoder and is made again" in capsys.readouterr().out
    is_whole(other, folders)
    assert extracted(run, folders, "--index", folders / "mine") == KINDS * EACH
    is_whole(run, folders, folders / "mine")
    assert extracted(other, folders) == extracted(run, folders, "--index", folders / "mine") == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda index: (index / "features.npy").write_bytes(b"no numbers"),
        lambda index: np.save(index / "features.npy", np.ones((3, 128), np.float32)),
        lambda index: np.save(index / "features.npy", 5 * np.load(index / "features.npy")),
        lambda index: (index / "names.json").write_text("{"),
        lambda index: (index / "names.json").write_text('{"version": 1}'),
        lambda index: (index / "features.npy").unlink(),
        lambda index: (index / "names.json").unlink(),
    ],
)
def test_a_damaged_index_is_made_again(run, folders, capsys, damage):
    extracted(run, folders)
    damage(folders / "photos.index")
    assert extracted(run, folders) == KINDS * EACH
    assert "damaged" in capsys.readouterr().err
    is_whole(run, folders)


@pytest.mark.parametrize("held", ["features.npy", "names.json", "letter.txt"])
def test_a_folder_that_is_not_an_index_is_kept(run, folders, capsys, held):
    mine = folders / "mine"
    mine.mkdir()
    (mine / held).write_text("[]")
    expected = f"--index: expected a new or empty folder, or an index of ccfast search, got {mine}, which holds {held}"
    fails(capsys, expected, run, folders, "--index", mine)
    assert [(file.name, file.read_text()) for file in mine.iterdir()] == [(held, "[]")]
    fails(capsys, "got the file", run, folders, "--index", mine / held)


def test_an_own_index_is_made_again_if_it_was_cut_off(run, folders, capsys):
    mine = folders / "mine"
    mine.mkdir()  # an empty folder
    extracted(run, folders, "--index", mine)
    whole = (mine / "names.json").read_bytes()
    (mine / "features.npy").write_bytes(b"no numbers")
    assert extracted(run, folders, "--index", mine) == KINDS * EACH
    assert "damaged (features.npy is missing or cannot be read); it is made again" in capsys.readouterr().err
    (mine / "names.json").write_bytes(whole[:200])
    assert extracted(run, folders, "--index", mine) == KINDS * EACH
    assert "damaged (names.json cannot be read); it is made again" in capsys.readouterr().err
    is_whole(run, folders, mine)


def test_an_index_that_cannot_be_written_is_no_failure(run, folders, capsys):
    (folders / "photos.index").write_text("a file of that name")
    assert ask(run, folders) == 0
    assert "cannot be written, so the next search must extract again" in capsys.readouterr().err
    assert len(results(folders)) == 10 * KINDS


def test_broken_images_of_the_gallery(run, folders, capsys):
    (folders / "photos" / "broken.jpg").write_text("")
    fails(capsys, "broken.jpg: cannot be read", run, folders)
    assert ask(run, folders, "--bad-images", "skip") == 0
    assert "left out: cannot be read as images: 1" in capsys.readouterr().out
    (folders / "photos" / "broken.jpg").unlink()
    is_whole(run, folders)


def test_broken_images_are_remembered(run, folders, capsys):
    photos, tried = folders / "photos", []
    (photos / "broken.jpg").write_text("")
    (photos / "link.jpg").symlink_to("nowhere")

    def search():
        tried.clear()
        assert ask(run, folders, "--bad-images", "skip") == 0
        return capsys.readouterr()

    with mock.patch("ccfast.inference.gallery_index.unreadable", side_effect=lambda new, **rest: (
        tried.extend(path.name for path in new), unreadable(new, **rest))[1]):  # fmt: skip
        search()
        assert len(tried) == KINDS * EACH + 2
        found = search()
        assert tried == []
        assert "24 images, 2 unreadable; since it was written: no file has changed" in found.out
        assert "2 images cannot be read and are left out:" in found.err and "broken.jpg: cannot be read" in found.err
        fails(capsys, "broken.jpg: cannot be read", run, folders)
        assert ask(run, folders, "--bad-images", "skip", "--max-image-pixels", 10**6) == 0
        assert sorted(tried) == ["broken.jpg", "link.jpg"]  # with another limit they may be readable
        picture(1, 50).save(photos / "broken.jpg")
        search()
        assert "broken.jpg" in tried
    (photos / "link.jpg").unlink()
    is_whole(run, folders)


def test_names_that_are_no_text_and_links(run, folders):
    photos = folders / "photos"
    os.link(photos / "kind0" / "20.png", photos / os.fsdecode(b"\xff.png"))
    (photos / "link.png").symlink_to(photos / "kind0" / "21.png")
    trained = load_trained(run, device="cpu", workers=0)
    for _ in range(2):
        assert len(indexed_gallery(trained, photos).paths) == KINDS * EACH + 2
    assert extracted(run, folders) == 0


# -- pages, and what is refused


def test_the_page_has_the_lists_with_names_and_images(run, folders):
    assert ask(run, folders, "--top", 3, output="r.html") == 0
    page = (folders / "r.html").read_text(encoding="utf-8").replace("<wbr>", "")
    assert page.count('class="card list"') == KINDS and page.count("<img ") == 4 * KINDS
    assert ask(run, folders, "--top", 3) == 0
    for row in results(folders):
        name = os.path.relpath(row["image"], folders / "photos")
        assert f'<b>{float(row["score"]):.3f}</b><span class="file">{name}</span></figcaption>' in page
        assert f'title="{row["image"]}"' in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_page_of_many_queries_says_what_it_leaves_out(run, folders, capsys, monkeypatch):
    monkeypatch.setattr("ccfast.commands.search.ON_A_PAGE", 2)
    assert ask(run, folders, output="r.html") == 0
    assert "shows 2 of 4 queries; a .csv file has all" in capsys.readouterr().err
    assert "The first 2 queries are shown." in (folders / "r.html").read_text()


def test_names_with_markup_are_escaped(run, folders):
    picture(0, 3).save(folders / "photos" / "<script>x.png")
    assert ask(run, folders, "--top", 99, output="r.html") == 0
    assert "<script>" not in (folders / "r.html").read_text()


def test_without_a_run(folders):
    options = ["--arch", "smallconv", "--weights", "none", "--height", "24", "--width", "16"]
    assert ask(None, folders, *options) == 0
    assert len(results(folders)) == 10 * KINDS


def test_wrong_input(run, folders, capsys):
    fails(capsys, "--top: expected at least 1, got 0", run, folders, "--top", 0)
    fails(capsys, "expected a file that ends in .csv or .html", run, folders, output="r.txt")
    fails(capsys, "--query: no such folder or file", run, folders, query="gone")
    fails(capsys, "--arch: only without a run", run, folders, "--arch", "smallconv")
    fails(capsys, "expected a run or a checkpoint, or --arch", None, folders)
    (folders / "empty").mkdir()
    fails(capsys, "--query: ", run, folders, query="empty")
    (folders / "asked" / "notes.txt").write_text("")
    fails(capsys, "notes.txt: cannot be read as an image", run, folders, query="asked/notes.txt")
