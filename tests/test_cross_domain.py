"""``ccfast evaluate RUN --dataset OTHER``: an encoder of one data set on another one, with its own transforms."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))

from tiny_run import tiny_run, write_pictures

import ccfast
from ccfast.cli import main
from ccfast.commands.evaluate.measure import evaluate_checkpoint
from ccfast.data import load_data
from ccfast.training.evaluate import evaluate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def other(tmp_path):
    """Query and gallery of other pictures, as a table and in Market-1501's layout."""
    lines = ["path,identity,camera,split"]
    for number, path in enumerate(write_pictures(tmp_path / "other", shots=range(50, 54))):
        kind, shot = int(path.parent.name[-1]), int(path.stem)
        split = "query" if shot == 50 else "gallery"
        lines.append(f"{path.relative_to(tmp_path)},{kind},{shot},{split}")
        folders = {"query": "query", "gallery": "bounding_box_test"}
        for folder in ("bounding_box_train", folders[split]):
            (tmp_path / "market" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "market" / folder / f"{kind:04d}_c{shot}_{number:06d}.png").write_bytes(path.read_bytes())
    (tmp_path / "other.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("name", "place"), [("csv", "other.csv"), ("market1501", "market")])
def test_other_photographs(run, other, name, place):
    metrics = evaluate_checkpoint(str(run), dataset=name, data_dir=str(other / place), device="cpu", workers=0)
    data, encoder = load_data(name, other / place), ccfast.load_encoder(run, device="cpu")
    expected = evaluate(data, *(encoder(part.images.paths) for part in (data.query, data.gallery)))
    assert metrics == pytest.approx(expected, abs=1e-6) and metrics["mAP"] > 0.3


@pytest.mark.slow
def test_drawings_by_the_transforms_of_photographs(run):
    """Digits are [1, 8, 8] floats: in RGB, bicubic, of the run's 24 x 16."""
    metrics = evaluate_checkpoint(str(run), dataset="digits", device="cpu", workers=0)
    data, encoder = load_data("digits"), ccfast.load_encoder(run, device="cpu")
    assert metrics == pytest.approx(evaluate(data, encoder(data.query.images), encoder(data.gallery.images)), abs=1e-6)
    plain = torch.nn.functional.interpolate(data.query.images, (24, 16), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert not torch.allclose(encoder._encoder(plain), encoder(data.query.images), atol=1e-3)


def test_the_command(run, other, capsys):
    place = ["--dataset", "csv", "--data-dir", str(other / "other.csv")]
    assert main(["evaluate", str(run), *place, "--device", "cpu", "--workers", "0"]) == 0
    out = capsys.readouterr().out
    assert "csv: 0 training images, 4 query, 12 gallery" in out and "best.pt (epoch" in out and "ROC AUC" in out


def test_without_its_folder_another_data_set_is_refused(run, capsys):
    assert main(["evaluate", str(run), "--dataset", "market1501"]) == 2
    message = "--data-dir: expected the folder of 'market1501', got none; the run's folder is for 'folder'"
    assert message in capsys.readouterr().err
