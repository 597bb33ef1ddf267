"""Training on data sets with protocols of their own, and without any identities."""

from __future__ import annotations

import numpy as np
import pytest

from ccfast.commands.evaluate.measure import evaluate_checkpoint
from ccfast.commands.extract.features import extract_features
from ccfast.training import TrainConfig, train

pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
Image = pytest.importorskip("PIL.Image")

TINY = {
    "arch": "smallconv", "weights": "none", "height": 32, "width": 16, "batch_size": 16, "num_instances": 4, "k1": 8,
    "k2": 2, "epochs": 1, "iters": 2, "bn_group": 8, "eval_every": 1, "device": "cpu", "workers": 0, "eps": 0.7,
}  # fmt: skip


def write_photo(path, identity, shot):
    """A colour for each identity, and some noise."""
    colour = np.random.default_rng(identity).integers(30, 200, size=3)
    noise = np.random.default_rng(1000 * identity + shot).integers(-20, 20, size=(32, 16, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(path)


@pytest.mark.slow
def test_a_run_measures_every_protocol_and_so_does_evaluate(tmp_path):
    for folder, identities in (("train", range(6)), ("query", (8, 9)), ("test", (8, 9))):
        for identity in identities:
            for shot in range(8):
                camera = shot % 4 + (5 if folder == "query" else 1)
                name = f"{identity:03d}_{shot % 2 + 1}_c{camera}_{shot:06d}.png"
                write_photo(tmp_path / "LTCC_ReID" / folder / name, identity, shot)
    config = TrainConfig(dataset="ltcc", data_dir=str(tmp_path), run=str(tmp_path / "run"), **TINY)
    record = train(config).records[-1]
    assert {"mAP", "clothes_changing/mAP", "clothes_changing/rank1", "purity"} <= record.keys()
    again = evaluate_checkpoint(str(tmp_path / "run" / "checkpoint.pt"))
    assert again == pytest.approx({name: record[name] for name in again})


@pytest.mark.slow
def test_images_of_unknown_identity_are_enough_to_train_on(tmp_path):
    for identity in range(6):
        for shot in range(8):
            write_photo(tmp_path / "photos" / f"{identity}-{shot}.png", identity, shot)
    config = TrainConfig(dataset="folder", data_dir=str(tmp_path / "photos"), run=str(tmp_path / "run"), **TINY)
    record = train(config).records[-1]
    assert record["clusters"] >= 2
    assert not {"mAP", "nmi", "purity"} & record.keys()
    extract_features(str(tmp_path / "run"), str(tmp_path / "features.npy"), part="train", device="cpu")
    assert np.load(tmp_path / "features.npy").shape == (48, 128)
