"""``ccfast export``: files that give the encoder's features without ccfast."""

from __future__ import annotations

import sys

import pytest
import torch
from full_disk import files_of_at_most

from ccfast._errors import InputError, RunError
from ccfast.cli import main
from ccfast.commands.export import onnx as export
from ccfast.models import build_encoder
from ccfast.training import TrainConfig
from ccfast.training.run_folder import checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of an encoder with changed statistics and weights, and the encoder."""
    torch.manual_seed(0)
    encoder = build_encoder("smallconv", channels=1, height=8, width=8, pooling="gem", projection=16)
    for _ in range(3):
        encoder(torch.rand(8, 1, 8, 8))
    config = TrainConfig(pooling="gem", projection=16)
    path = tmp_path_factory.mktemp("export") / "best.pt"
    checkpoint.save({"config": config.stored(), "epoch": 3, "best": {}, "model": encoder.state_dict()}, path)
    return path, encoder.eval()


def images(count):
    return torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def onnxruntime():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnxruntime")


def test_a_pt2_file_gives_the_encoders_features_for_any_number_of_images(trained, tmp_path, capsys):
    path, encoder = trained
    assert main(["export", str(path), "-o", str(tmp_path / "encoder.pt2")]) == 0
    said = capsys.readouterr().out
    assert "images: uint8 [batch, 1, 8, 8]; features: float32 [batch, 16]" in said
    assert "largest difference from the encoder's features on random images: 0" in said
    module = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (1, 2, 7):
        torch.testing.assert_close(module(images(count)), encoder(images(count)))
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.pt2"]


@pytest.mark.slow
def test_an_onnx_file_gives_the_encoders_features_for_any_number_of_images(onnxruntime, trained, tmp_path):
    path, encoder = trained
    difference = export.export_encoder(str(path), str(tmp_path / "encoder.onnx"))
    assert difference < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        (features,) = session.run(["features"], {"images": images(count).numpy()})
        torch.testing.assert_close(torch.from_numpy(features), encoder(images(count)))


@pytest.mark.slow
def test_a_batch_size_can_be_fixed(trained, tmp_path):
    path, encoder = trained
    assert main(["export", str(path), "-o", str(tmp_path / "encoder.pt2"), "--batch", "4"]) == 0
    module = torch.export.load(tmp_path / "encoder.pt2").module()
    torch.testing.assert_close(module(images(4)), encoder(images(4)))
    with pytest.raises((AssertionError, RuntimeError)):  # torch's message differs between versions
        module(images(5))


@pytest.mark.parametrize("batch", ["0", "-1", "any"])
def test_a_batch_size_of_something_else_is_refused(trained, capsys, batch):
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(trained[0]), "-o", "encoder.pt2", "--batch", batch])
    assert f"expected dynamic or a batch size of at least 1, got '{batch}'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["resnet18_ibn_a", "timm/test_vit"])
def test_other_encoders_can_be_exported(arch):
    pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    encoder = build_encoder(arch, channels=3, height=64, width=32).eval()
    with torch.no_grad():
        module = export._exported(encoder, None).module()
        assert export._difference(encoder, module, None) < export.TOLERANCE


@pytest.mark.slow
def test_a_file_whose_features_are_others_is_not_kept(trained, tmp_path, monkeypatch):
    def write(program):
        return b"something", lambda images: torch.zeros(len(images), 16)

    monkeypatch.setitem(export._WRITERS, ".pt2", write)
    (tmp_path / "encoder.pt2").write_bytes(b"earlier")
    with pytest.raises(RunError, match=r"features differ from the encoder's by up to .*; not kept"):
        export.export_encoder(str(trained[0]), str(tmp_path / "encoder.pt2"))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"earlier"]


@pytest.mark.slow
def test_without_onnxruntime_the_file_is_kept_unchecked(onnxruntime, trained, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(__import__("logging").getLogger("ccfast"), "propagate", True)
    assert export.export_encoder(str(trained[0]), str(tmp_path / "encoder.onnx")) is None
    assert "not checked against the encoder: onnxruntime is not installed" in caplog.text
    assert (tmp_path / "encoder.onnx").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_missing_packages_are_named(trained, tmp_path, monkeypatch, package):
    if package == "onnxscript":
        pytest.importorskip("onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"--output FILE.onnx needs {package}, which is not installed"):
        export.export_encoder(str(trained[0]), str(tmp_path / "encoder.onnx"))


def test_other_endings_folders_and_checkpoints_are_refused(trained, tmp_path):
    with pytest.raises(InputError, match=r"--output: expected a file that ends in .pt2 or .onnx, got .*encoder.pth"):
        export.export_encoder(str(trained[0]), str(tmp_path / "encoder.pth"))
    with pytest.raises(InputError, match=r"--output: no such folder: .*nowhere"):
        export.export_encoder(str(trained[0]), str(tmp_path / "nowhere" / "encoder.pt2"))
    with pytest.raises(InputError, match="no such checkpoint"):
        export.export_encoder(str(tmp_path / "best.pt"), str(tmp_path / "encoder.pt2"))


@pytest.mark.slow
def test_a_disk_that_is_full_ends_the_command_in_words(trained, tmp_path, capsys):
    with files_of_at_most(1000):
        assert main(["export", str(trained[0]), "-o", str(tmp_path / "encoder.pt2")]) == 1
    assert "encoder.pt2: cannot be written (is the disk full?)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
