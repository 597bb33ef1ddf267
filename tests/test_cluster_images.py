"""Which image is in which cluster: clusters.csv of a run, and ``ccfast cluster`` of images."""

from __future__ import annotations

import csv
import os
import re
from unittest import mock

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))

from tiny_run import EACH, KINDS, tiny_run, write_pictures

import ccfast
from ccfast.cli import main
from ccfast.commands._options import encoder_of
from ccfast.inference.image_clusters import ImageClusters, copy_clusters, told
from ccfast.training.trained import load_trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def images(tmp_path):
    """A folder with other images of the same kinds."""
    write_pictures(tmp_path / "images", shots=range(20, 26))
    return tmp_path / "images"


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cluster(*arguments):
    return main(["cluster", *map(str, arguments), "--device", "cpu", "--workers", "0"])


def fails(capsys, message, *arguments):
    assert cluster(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


def as_expected(table, trained, part, **options):
    """The table's clusters and distances are those of ccfast's functions on the encoder's features."""
    features = trained.extract(part)
    found = {**{"k1": 5, "k2": 2, "eps": 0.65}, **options}
    eps = found.pop("eps")
    labels = ccfast.dbscan(ccfast.jaccard_distance(features, **found, max_distance=eps), eps, 4)
    assert [int(row["cluster"]) for row in table] == labels.tolist()
    centres = ccfast.cluster_centroids(features, labels)
    for row, feature, label in zip(table, features, labels.tolist(), strict=True):
        if label < 0:
            assert row["distance"] == ""
        else:
            assert float(row["distance"]) == pytest.approx(float((feature - centres[label]).norm()), abs=2e-6)
    return labels


def test_a_run_leaves_its_clusters(run):
    table = rows(run / "clusters.csv")
    trained = load_trained(run, device="cpu")
    assert list(table[0]) == ["path", "cluster", "distance"]
    assert [row["path"] for row in table] == trained.data.train.images.paths
    labels = as_expected(table, trained, trained.data.train)
    assert labels.max() >= 1


@pytest.mark.slow
def test_the_page_shows_those_clusters(tmp_path):
    """The clusters are computed once, not again for the page."""
    with mock.patch("ccfast.report.page.pseudo_labels") as again:
        options = ["--epochs", "1", "--iters", "2", "--device", "cpu", "--quiet"]
        assert main(["train", "--run", str(tmp_path / "run"), *options]) == 0
    assert not again.called
    clusters = {row["cluster"] for row in rows(tmp_path / "run" / "clusters.csv")} - {"-1"}
    assert f"<td>clusters</td><td>{len(clusters)}</td>" in (tmp_path / "run" / "report.html").read_text()
    assert rows(tmp_path / "run" / "clusters.csv")[7]["path"] == "train[7]"  # the digits have no files


@pytest.mark.slow
def test_without_them_the_run_is_complete_too(tmp_path, caplog):
    with mock.patch("ccfast.inference.image_clusters.cluster_images", side_effect=OSError(28, "No space left")):
        folder = tiny_run(tmp_path, quiet=False)
    assert f"No space left; the run is complete; to write them: ccfast cluster {folder} -o" in caplog.text
    assert not (folder / "clusters.csv").exists() and (folder / "best.pt").exists()


def test_a_run_clusters_its_own_images_again(run, tmp_path):
    assert cluster(run, "-o", tmp_path / "c.csv") == 0
    assert rows(tmp_path / "c.csv") == rows(run / "clusters.csv")


@pytest.mark.parametrize("options", [{}, {"eps": 0.3}, {"k1": 8, "k2": 3}])
def test_other_images_with_the_runs_options_or_with_others(run, images, tmp_path, options, capsys):
    given = [text for name, value in options.items() for text in (f"--{name}", value)]
    assert cluster(run, "--data-dir", images, "-o", tmp_path / "c.csv", *given) == 0
    table, trained = rows(tmp_path / "c.csv"), load_trained(run, device="cpu", workers=0)
    assert [row["path"] for row in table] == sorted(str(path) for path in images.rglob("*.png"))
    labels = as_expected(table, trained, trained.read_images("--data-dir", images), **options)
    noise = int((labels < 0).sum())
    assert f"{noise} of {KINDS * EACH} images in no cluster; {tmp_path / 'c.csv'}" in capsys.readouterr().out


def test_the_eps_that_auto_chose_is_named(run, images, tmp_path, capsys):
    assert cluster(run, "--data-dir", images, "-o", tmp_path / "c.csv", "--eps", "auto") == 0
    assert re.search(r"24 images in no cluster, eps 0\.\d+ \(auto\); ", capsys.readouterr().out)


def test_every_layout_is_a_folder_of_images_unless_a_data_set_is_named(run, tmp_path):
    write_pictures(tmp_path / "m" / "bounding_box_train", kinds=[0, 1])
    for path in sorted((tmp_path / "m").rglob("*.png")):
        path.rename(path.parent.parent / f"{int(path.parent.name[-1]):04d}_c1_{path.name}")
    assert cluster(run, "--data-dir", tmp_path / "m", "-o", tmp_path / "all.csv") == 0
    named = ["--dataset", "market1501", "--data-dir", tmp_path / "m"]
    assert cluster(run, *named, "-o", tmp_path / "train.csv", "--part", "train") == 0
    assert len(rows(tmp_path / "all.csv")) == len(rows(tmp_path / "train.csv")) == 2 * EACH
    assert cluster(run, *named, "-o", tmp_path / "no.csv", "--part", "query") == 2


def test_fewer_images_than_neighbours(run, tmp_path, capsys):
    """The run's k1 is reduced with a warning; a given k1 that is too large is refused."""
    write_pictures(tmp_path / "few", shots=range(3), kinds=[0])
    assert cluster(run, "--data-dir", tmp_path / "few", "-o", tmp_path / "c.csv") == 0
    assert "k1 = 3 instead of 5: there are 3 images" in capsys.readouterr().err
    fails(capsys, "--k1: expected at most the 3 images, got 4", run, "--data-dir", tmp_path / "few",
          "-o", tmp_path / "c.csv", "--k1", 4)  # fmt: skip
    one = tmp_path / "few" / "kind0" / "0.png"
    assert cluster(run, "--data-dir", one, "-o", tmp_path / "one.csv") == 0
    assert [(row["path"], row["cluster"]) for row in rows(tmp_path / "one.csv")] == [(str(one), "-1")]


def test_numbers_of_one(run, images, tmp_path, capsys):
    one = images / "kind0" / "20.png"
    assert cluster(run, "--data-dir", one, "-o", tmp_path / "c.csv") == 0
    said = capsys.readouterr()
    assert "there is 1 image\n" in said.err and "no cluster among 1 image;" in said.out
    fails(capsys, "--k1: expected at most the 1 image, got 5", run, "--data-dir", one, "--k1", 5,
          "-o", tmp_path / "c.csv")  # fmt: skip
    found = ImageClusters(torch.tensor([0, -1]), torch.zeros(2), torch.zeros(2, 4))
    assert told(found) == "1 cluster of 1 image, 1 of 2 images in no cluster"
    write_pictures(tmp_path / "train", shots=[0], kinds=[0])
    options = ["--dataset", "folder", "--data-dir", tmp_path / "train", "--run", tmp_path / "r", "--k1", 5, "--k2", 2]
    assert main(["train", *map(str, options), "--arch", "smallconv", "--weights", "none", "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert "folder: 1 training image, " in said.out and "--k1: expected at most the 1 training image, got 5" in said.err


def test_without_training(images, tmp_path, capsys):
    """The encoder is the architecture with its weights; options that are not given have the published values."""
    options = ["--arch", "smallconv", "--weights", "none", "--height", 24, "--width", 16, "--k1", 5, "--k2", 2]
    torch.manual_seed(0)
    assert cluster("--data-dir", images, *options, "--eps", 0.65, "-o", tmp_path / "c.csv") == 0
    assert len(rows(tmp_path / "c.csv")) == KINDS * EACH
    fails(capsys, "--k1: expected at most the 24 images, got 25", "--data-dir", images, *options[:4], "--k1", 25,
          "-o", tmp_path / "c.csv")  # fmt: skip


def test_without_a_run_there_are_no_more_workers_than_processors(images, monkeypatch):
    options = {"data_dir": str(images), "arch": "smallconv", "weights": "none", "height": 24, "width": 16}
    for processors, workers in ((2, 2), (64, 4)):
        monkeypatch.setattr("ccfast.commands._options.allowed_processors", lambda count=processors: count)
        assert encoder_of(None, device="cpu", **options).config.workers == workers
        assert encoder_of(None, device="cpu", workers=7, **options).config.workers == 7


def test_each_finding_is_named_once(run, images, tmp_path, capsys):
    (images / "a.nef").write_bytes(b"raw")
    (images / "notes.txt").write_text("")
    assert cluster(run, "--data-dir", images, "-o", tmp_path / "c.csv") == 0
    said = capsys.readouterr()
    assert "a.nef" not in said.out and said.err.count("a.nef") == 1
    assert said.out.count("notes.txt") == 1 and "notes.txt" not in said.err


def test_weights_of_a_checkpoint_give_its_encoder(run, images, tmp_path):
    options = ["--arch", "smallconv", "--weights", run / "best.pt", "--pooling", "gem", "--height", 24, "--width", 16]
    same = ["--data-dir", images, "--k1", 5, "--k2", 2, "--eps", 0.65]
    assert cluster(*same, *options, "-o", tmp_path / "weights.csv") == 0
    assert cluster(run, "--data-dir", images, "-o", tmp_path / "run.csv") == 0
    labels = [[row["cluster"] for row in rows(tmp_path / name)] for name in ("weights.csv", "run.csv")]
    assert labels[0] == labels[1]


@pytest.mark.slow
@pytest.mark.parametrize("publisher", ["mask_token", "visual.trunk.", "safetensors"])
def test_image_towers_of_timm_with_the_names_of_their_publishers(images, tmp_path, publisher):
    """DINOv2's files have a mask token; open_clip's files also hold a text tower, and their names have a prefix."""
    timm = pytest.importorskip("timm")
    name = "vit_tiny_patch16_224"
    torch.manual_seed(1)
    state = timm.create_model(name, num_classes=0).state_dict()
    torch.save(state, tmp_path / "plain.pt")
    file = tmp_path / "published.pt"
    if publisher == "mask_token":
        torch.save({**state, "mask_token": torch.zeros(1, 192)}, file)
    elif publisher == "safetensors":
        file = file.with_suffix(".safetensors")
        pytest.importorskip("safetensors.torch").save_file(state, file)
    else:
        torch.save({**{publisher + key: value for key, value in state.items()}, "text.x": torch.zeros(1)}, file)
    options = ["--arch", f"timm/{name}", "--height", 32, "--width", 32, "--k1", 5, "--k2", 2, "--eps", 0.9]
    for weights, output in ((tmp_path / "plain.pt", "a.csv"), (file, "b.csv")):
        assert cluster("--data-dir", images, "--weights", weights, *options, "-o", tmp_path / output) == 0
    assert rows(tmp_path / "a.csv") == rows(tmp_path / "b.csv")
    assert any(row["distance"] for row in rows(tmp_path / "a.csv"))


@pytest.mark.slow
def test_weights_that_do_not_fit_are_refused(images, tmp_path, capsys):
    pytest.importorskip("timm")
    torch.save({"encoder.layer.weight": torch.zeros(3)}, tmp_path / "other.pt")
    fails(capsys, "the file does not fit --arch timm/vit_tiny_patch16_224", "--data-dir", images, "-o",
          tmp_path / "c.csv", "--arch", "timm/vit_tiny_patch16_224", "--weights", tmp_path / "other.pt")  # fmt: skip


# -- a folder for each cluster


@pytest.mark.parametrize("how", ["links", "copies"])
def test_a_folder_for_each_cluster(run, images, tmp_path, how, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ["--copy", how] if how == "copies" else []  # links are the default
    assert cluster(run, "--data-dir", "images", "-o", "c.csv", "--copy-to", "sorted", *named) == 0
    table = rows(tmp_path / "c.csv")
    found = sorted(path for path in (tmp_path / "sorted").rglob("*.png"))
    assert len(found) == len(table) and all(path.is_symlink() == (how == "links") for path in found)
    content = {}
    for row in table:
        folder = "no_cluster" if row["cluster"] == "-1" else f"cluster_{row['cluster']}"
        content.setdefault(folder, []).append((tmp_path / row["path"]).read_bytes())
    for folder, expected in content.items():
        assert sorted(path.read_bytes() for path in (tmp_path / "sorted" / folder).iterdir()) == sorted(expected)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".ccfast")]


def test_images_of_one_name_get_numbers(tmp_path):
    for name in ("a/1.jpg", "b/1.jpg", "b/1_2.jpg", "c/1.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    paths = [str(tmp_path / name) for name in ("b/1_2.jpg", "a/1.jpg", "b/1.jpg", "c/1.JPG")]
    copy_clusters(paths, torch.tensor([11, 11, 11, -1]), tmp_path / "out", "copies")
    assert {str(path.relative_to(tmp_path / "out")): path.read_text() for path in (tmp_path / "out").rglob("*.*")} == {
        "cluster_11/1_2.jpg": "b/1_2.jpg", "cluster_11/1.jpg": "a/1.jpg", "cluster_11/1_3.jpg": "b/1.jpg",
        "no_cluster/1.JPG": "c/1.JPG",
    }  # fmt: skip


def test_what_is_there_is_left_alone(run, images, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    (tmp_path / "empty").mkdir()
    common = [run, "--data-dir", images, "-o", tmp_path / "c.csv"]
    fails(capsys, "expected a new or empty folder", *common, "--copy-to", tmp_path / "full")
    fails(capsys, "expected a folder, got the file", *common, "--copy-to", tmp_path / "full" / "mine.txt")
    fails(capsys, "no such folder", *common, "--copy-to", tmp_path / "no" / "out")
    assert not (tmp_path / "c.csv").exists()
    assert cluster(*common, "--copy-to", tmp_path / "empty") == 0


def test_copies_that_cannot_be_made_leave_nothing(tmp_path):
    (tmp_path / "a.jpg").write_text("")
    paths = [str(tmp_path / "a.jpg"), str(tmp_path / "gone.jpg")]
    with pytest.raises(OSError, match=r"--copy-to: .* cannot be made: No such file"):
        copy_clusters(paths, torch.tensor([0, 0]), tmp_path / "out", "copies")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_copies_among_the_images_are_warned_of(run, images, tmp_path, capsys):
    assert cluster(run, "--data-dir", images, "-o", tmp_path / "c.csv", "--copy-to", images / "sorted") == 0
    assert "commands that read it will find these images twice" in capsys.readouterr().err


# -- what is refused


def test_wrong_combinations(run, images, tmp_path, capsys):
    out = ["-o", tmp_path / "c.csv"]
    features = tmp_path / "f.npy"
    np.save(features, np.eye(4, dtype=np.float32))
    fails(capsys, "expected a run or a checkpoint, or --arch and --weights", "--data-dir", images, *out)
    fails(capsys, "--arch: only without a run", run, "--data-dir", images, "--arch", "smallconv", *out)
    fails(capsys, "--data-dir: expected the folder of the images, got none", "--arch", "smallconv", *out)
    fails(capsys, "--normalize: only for FEATURES.npy", run, "--normalize", *out)
    fails(
        capsys,
        "--memory-limit, --work-dir: only for FEATURES.npy",
        run,
        "--memory-limit",
        "1G",
        "--work-dir",
        "x",
        *out,
    )
    fails(capsys, "--data-dir, --workers: only for images, not for the features", features, "--data-dir", images, *out)
    fails(capsys, "--workers, --copy-to: only for images", features, "--copy-to", tmp_path / "x", *out)
    fails(capsys, "expected a file that ends in .csv", run, "-o", tmp_path / "c.npy")
    fails(capsys, "--copy: only with --copy-to", run, "--copy", "links", *out)
    fails(capsys, "--part: only with --dataset", run, "--data-dir", images, "--part", "query", *out)
    fails(capsys, "no such checkpoint", tmp_path / "gone", "--data-dir", images, *out)
    fails(capsys, "--data-dir: no such folder or file", run, "--data-dir", tmp_path / "gone", *out)
    (tmp_path / "t.csv").write_text("path")
    fails(capsys, "is a table, not an image; add --dataset csv", run, "--data-dir", tmp_path / "t.csv", *out)
    (tmp_path / "nothing").mkdir()
    fails(capsys, "holds nothing; expected", run, "--data-dir", tmp_path / "nothing", *out)
    fails(capsys, "--k2: expected at most --k1 (1), got 2", run, "--data-dir", images, "--k1", 1, *out)


@pytest.mark.slow
def test_images_that_are_not_files_cannot_be_copied(tmp_path, capsys):
    folder = str(tmp_path / "run")
    assert main(["train", "--run", folder, "--epochs", "1", "--iters", "1", "--device", "cpu", "--quiet"]) == 0
    fails(capsys, "--copy-to: the images of digits are not files", folder, "-o", tmp_path / "c.csv", "--copy-to",
          tmp_path / "out")  # fmt: skip
    write_pictures(tmp_path / "images", shots=range(2))  # an encoder of drawings reads images in grey
    assert cluster(folder, "--data-dir", tmp_path / "images", "-o", tmp_path / "c.csv") == 0
    assert len(rows(tmp_path / "c.csv")) == 2 * KINDS


def test_broken_images_are_named_or_left_out(run, images, tmp_path, capsys):
    (images / "broken.jpg").write_text("no image")
    fails(capsys, "broken.jpg: cannot be read as an image", run, "--data-dir", images, "-o", tmp_path / "c.csv")
    assert cluster(run, "--data-dir", images, "-o", tmp_path / "c.csv", "--bad-images", "skip") == 0
    assert len(rows(tmp_path / "c.csv")) == KINDS * EACH
    assert "left out: cannot be read as images: 1, such as" in capsys.readouterr().out


def test_names_that_need_quotes_and_names_that_are_no_text(run, images, tmp_path):
    names = ['a,b "c".png', os.fsdecode(b"caf\xe9.png")]
    for name in names:
        os.link(images / "kind0" / "20.png", images / name)
    assert cluster(run, "--data-dir", images, "-o", tmp_path / "c.csv") == 0
    found = {row["path"].rpartition("/")[2] for row in rows(tmp_path / "c.csv")}
    assert {'a,b "c".png', "caf\\xe9.png"} <= found


def test_no_cluster_says_what_to_try(run, images, tmp_path, capsys):
    assert cluster(run, "--data-dir", images, "-o", tmp_path / "c.csv", "--eps", 0) == 0
    assert {row["cluster"] for row in rows(tmp_path / "c.csv")} == {"-1"}
    captured = capsys.readouterr()
    assert "no cluster among 24 images" in captured.out and "Try --eps" in captured.err


def test_distances_of_images_in_none_are_empty():
    from ccfast.inference.image_clusters import clusters_table

    found = ImageClusters(torch.tensor([0, -1]), torch.tensor([0.25, float("nan")]), torch.eye(2))
    assert clusters_table(["a", "b"], found) == "path,cluster,distance\r\na,0,0.250000\r\nb,-1,\r\n"
