"""``ccfast extract``: features of a trained encoder, with identity, camera and path of each row."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from ccfast.cli import main
from ccfast.data import Part, ReIDData, load_data
from ccfast.data.image_files import ImageFiles
from ccfast.training import TrainConfig, train
from ccfast.training.trained import load_trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("extract") / "run"
    return train(TrainConfig(run=str(path), epochs=1, iters=4, device="cpu")).run


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_features_of_all_parts_come_in_order_with_their_identities(run, tmp_path):
    assert main(["extract", str(run), "-o", str(tmp_path / "features.npy"), "--device", "cpu"]) == 0
    features, data = np.load(tmp_path / "features.npy"), load_data("digits")
    table = rows(tmp_path / "features.csv")
    assert features.shape == (1797, 128) and features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    assert [int(row["row"]) for row in table] == list(range(1797))
    parts = ("train", "query", "gallery")
    assert [row["part"] for row in table] == [name for name in parts for _ in range(len(getattr(data, name)))]
    assert [int(row["id"]) for row in table] == torch.cat([getattr(data, name).ids for name in parts]).tolist()
    assert {row["path"] for row in table} == {row["cam"] for row in table} == {""}


def test_one_part_alone_is_what_the_encoder_gives_for_it(run, tmp_path):
    assert main(["extract", str(run / "best.pt"), "-o", str(tmp_path / "query.npy"), "--part", "query"]) == 0
    trained = load_trained(run, device="cpu")
    np.testing.assert_allclose(np.load(tmp_path / "query.npy"), trained.extract(trained.data.query), atol=1e-5)


def test_features_can_be_clustered(run, tmp_path):
    main(["extract", str(run), "-o", str(tmp_path / "train.npy"), "--part", "train"])
    assert main(["cluster", str(tmp_path / "train.npy"), "-o", str(tmp_path / "labels.npy"), "--k1", "20"]) == 0
    assert np.load(tmp_path / "labels.npy").shape == (len(load_data("digits").train),)


def test_another_data_sets_images_are_resized_to_the_encoders_size(run, tmp_path):
    """Digits are 8 x 8; the encoder is from a run on drawings of 16 x 16."""
    content = torch.load(run / "best.pt", weights_only=True)
    content["config"] |= {"dataset": "omniglot", "data_dir": str(tmp_path), "height": 16, "width": 16}
    torch.save(content, tmp_path / "drawings.pt")
    arguments = ["extract", str(tmp_path / "drawings.pt"), "-o", str(tmp_path / "query.npy"), "--part", "query"]
    assert main([*arguments, "--dataset", "digits", "--device", "cpu"]) == 0
    trained = load_trained(tmp_path / "drawings.pt", device="cpu")
    with torch.no_grad():
        large = torch.nn.functional.interpolate(load_data("digits").query.images, (16, 16), mode="bilinear")
        np.testing.assert_allclose(np.load(tmp_path / "query.npy"), trained.encoder(large), atol=1e-4)


@pytest.fixture
def files(monkeypatch):
    """A data set of image files with cameras and no query."""
    digits = load_data("digits")
    images = ImageFiles(["a b.png", "c,d.png"])
    part = Part(images, torch.tensor([7, 9]), torch.tensor([1, 2]))
    data = ReIDData("files", part, None, None, 1, digits.make_views)
    monkeypatch.setattr(ImageFiles, "__getitem__", lambda self, index: digits.train.images[index])
    monkeypatch.setattr("ccfast.training.trained.data_of", lambda config: data)
    return data


def test_files_are_named_with_identity_and_camera(run, tmp_path, files):
    assert main(["extract", str(run), "-o", str(tmp_path / "features.npy")]) == 0
    assert (tmp_path / "features.csv").read_text(encoding="utf-8").splitlines() == [
        "row,part,path,id,cam",
        "0,train,a b.png,7,1",
        '1,train,"c,d.png",9,2',
    ]


def test_a_part_that_is_not_there_is_refused(run, tmp_path, files, capsys):
    assert main(["extract", str(run), "-o", str(tmp_path / "features.npy"), "--part", "query"]) == 2
    assert "--part: expected train or all, the parts of files, got query" in capsys.readouterr().err


def test_other_endings_and_places_are_refused(run, tmp_path, capsys):
    assert main(["extract", str(run), "-o", str(tmp_path / "features.npz")]) == 2
    assert "expected a file that ends in .npy" in capsys.readouterr().err
    assert main(["extract", str(run), "-o", str(tmp_path / "nowhere" / "features.npy")]) == 2
    assert "--output: no such folder" in capsys.readouterr().err


def test_a_table_that_is_not_one_of_features_is_kept(run, tmp_path, capsys):
    (tmp_path / "mine.csv").write_text("path,identity\na.png,1\n")
    arguments = ["extract", str(run), "-o", str(tmp_path / "mine.npy"), "--part", "query", "--device", "cpu"]
    assert main(arguments) == 2
    assert "would replace" in capsys.readouterr().err
    assert (tmp_path / "mine.csv").read_text() == "path,identity\na.png,1\n"
    (tmp_path / "mine.csv").unlink()
    assert main(arguments) == main(arguments) == 0  # its own table is replaced


def test_colour_images_for_an_encoder_of_grey_ones_are_refused(run, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    arguments = ["extract", str(run), "-o", str(tmp_path / "f.npy"), "--dataset", "folder", "--data-dir", str(tmp_path)]
    assert main([*arguments, "--workers", "0", "--device", "cpu"]) == 2
    assert "--dataset folder: its images have 3 channels, and the encoder of" in capsys.readouterr().err
