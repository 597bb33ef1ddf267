"""Training needs no evaluation: runs on data that cannot be evaluated continue, and say why."""

from __future__ import annotations

import logging

import pytest
import yaml

from ccfast._errors import InputError
from ccfast.cli import main
from ccfast.commands.evaluate.measure import evaluate_checkpoint
from ccfast.commands.extract.features import extract_features
from ccfast.report.page import write_report
from ccfast.training import TrainConfig, train
from ccfast.training.pretrain import PretrainConfig, pretrain

pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
pytest.importorskip("PIL.Image")

from test_data_training import TINY, write_photo

ONE_CAMERA = {"train": "{i:04d}_c1_{n}.png", "query": "{i:04d}_c1_{n}.png", "gallery": "{i:04d}_c1_{n}.png"}
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def write_market(root, forms, people=((0, 1, 2, 3), (8, 9), (8, 9)), shots=8):
    """Photographs in Market-1501's layout; ``forms``: the names in each part, with identity {i} and number {n}."""
    for part, identities in zip(FOLDERS, people, strict=True):
        for identity in identities if part in forms else ():
            for shot in range(shots if part == "train" else 3):
                name = forms[part].format(i=identity, n=shot)
                write_photo(root / FOLDERS[part] / name, identity, shot + 10 * (part == "gallery"))
    return str(root)


def run(data_dir, path, **options):
    given = {"dataset": "market1501", "data_dir": data_dir, "run": str(path), **TINY, **options}
    return train(TrainConfig(**given)).records


def warnings(caplog):
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


@pytest.fixture(scope="module")
def one_camera(tmp_path_factory):
    """Data of one camera, and a run on it."""
    root = tmp_path_factory.mktemp("one")
    data = write_market(root / "data", ONE_CAMERA)
    return data, root / "run", run(data, root / "run")


@pytest.mark.slow
def test_data_of_one_camera_can_be_trained_on(one_camera, tmp_path, caplog):
    data, _, records = one_camera
    assert len(records) == 2 and records[-1]["loss"] > 0
    assert not any("mAP" in name for record in records for name in record)
    run(data, tmp_path / "run")
    assert "evaluation is left out: no query has a match in the gallery" in warnings(caplog)
    assert "--ignore-cameras" in warnings(caplog)


def test_evaluate_itself_refuses_and_names_the_option(one_camera):
    with pytest.raises(InputError, match=r"cannot be evaluated: no query has a match .*--ignore-cameras"):
        evaluate_checkpoint(str(one_camera[1]))
    assert evaluate_checkpoint(str(one_camera[1]), ignore_cameras=True)["rank1"] > 0
    assert main(["evaluate", str(one_camera[1]), "--ignore-cameras", "--device", "cpu"]) == 0
    assert main(["evaluate", str(one_camera[1]), "--device", "cpu"]) == 2


@pytest.mark.slow
def test_report_and_extract_of_a_run_that_was_not_measured(one_camera, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    page = write_report(one_camera[1], tmp_path / "a.html", device="cpu").read_text()
    assert "No ranked lists: no query has a match" in page
    page = write_report(one_camera[1], tmp_path / "b.html", device="cpu", ignore_cameras=True).read_text()
    assert 'data-query="' in page
    extract_features(str(one_camera[1]), str(tmp_path / "f.npy"), device="cpu")
    assert (tmp_path / "f.csv").read_text().splitlines()[1].endswith(",0,1")


@pytest.mark.slow
def test_a_run_that_ignores_cameras_is_measured_stored_and_resumed(one_camera, tmp_path):
    records = run(one_camera[0], tmp_path / "run", ignore_cameras=True)
    assert "mAP" in records[-1]
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["ignore_cameras"] is True
    assert main(["train", "--run", str(tmp_path / "run"), "--resume", "--epochs", "2"]) == 0
    resumed = run(one_camera[0], tmp_path / "run", ignore_cameras=True, epochs=2, resume=True)
    assert len(resumed) == 3 and all("mAP" in record for record in resumed)
    evaluated = evaluate_checkpoint(str(tmp_path / "run" / "checkpoint.pt"))
    assert evaluated == pytest.approx({name: resumed[-1][name] for name in evaluated})
    with pytest.raises(InputError, match=r"other options: --ignore-cameras False"):
        run(one_camera[0], tmp_path / "run", epochs=3, resume=True)
    extract_features(str(tmp_path / "run"), str(tmp_path / "f.npy"), part="query", device="cpu")
    assert (tmp_path / "f.csv").read_text().splitlines()[1].endswith(",8,1")


@pytest.mark.slow
def test_a_run_begun_before_the_option_existed_goes_on(one_camera, tmp_path):
    import torch

    run(one_camera[0], tmp_path / "run")
    for name in ("checkpoint.pt", "best.pt"):
        content = torch.load(tmp_path / "run" / name, weights_only=True)
        del content["config"]["ignore_cameras"]
        torch.save(content, tmp_path / "run" / name)
    assert len(run(one_camera[0], tmp_path / "run", epochs=2, resume=True)) == 3


WITHOUT = {
    "no gallery": ({"train": "{i:04d}_c1_{n}.png", "query": "{i:04d}_c2_{n}.png"}, "there is no gallery"),
    "no query": ({"train": "{i:04d}_c1_{n}.png", "gallery": "{i:04d}_c2_{n}.png"}, "there is no query"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT)
def test_query_or_gallery_alone_leave_evaluation_out(tmp_path, caplog, name):
    forms, why = WITHOUT[name]
    assert "mAP" not in run(write_market(tmp_path / "data", forms), tmp_path / "run")[-1]
    assert f"evaluation is left out: {why}" in warnings(caplog)
    with pytest.raises(InputError, match=why):
        evaluate_checkpoint(str(tmp_path / "run"))
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    assert f"No ranked lists: {why}" in write_report(tmp_path / "run", device="cpu").read_text()
    extract_features(str(tmp_path / "run"), str(tmp_path / "f.npy"), device="cpu")


@pytest.mark.slow
def test_queries_of_other_identities_than_the_gallery_leave_evaluation_out(tmp_path, caplog):
    data = write_market(tmp_path / "data", ONE_CAMERA, ((0, 1, 2, 3), (8,), (9,)))
    assert "mAP" not in run(data, tmp_path / "run")[-1]
    assert "no identity of the query is in the gallery" in warnings(caplog)
    assert "--ignore-cameras" not in warnings(caplog)


@pytest.mark.slow
def test_an_empty_query_folder_leaves_evaluation_out(tmp_path, caplog):
    data = write_market(tmp_path / "data", ONE_CAMERA, ((0, 1, 2, 3), (), (8,)))
    (tmp_path / "data" / "query").mkdir()
    assert "mAP" not in run(data, tmp_path / "run")[-1]
    assert "evaluation is left out: there is no query" in warnings(caplog)


@pytest.mark.slow
def test_a_single_identity_can_be_trained_on(tmp_path):
    forms = {"train": "0007_c1_{i}{n}.png", "query": "0007_c2_{i}{n}.png", "gallery": "0007_c1_{i}{n}.png"}
    record = run(write_market(tmp_path / "data", forms), tmp_path / "run")[-1]
    assert record["mAP"] == pytest.approx(1) and "nmi" not in record


@pytest.mark.slow
def test_query_and_gallery_without_identities_leave_evaluation_out(tmp_path, caplog):
    for identity in range(4):
        for shot in range(8):
            for part in ("train", "query", "gallery"):
                write_photo(tmp_path / "data" / part / f"{identity}{shot}.png", identity, shot)
    assert "mAP" not in run(str(tmp_path / "data"), tmp_path / "run", dataset="folder")[-1]
    assert "the identities of the query and the gallery are unknown" in warnings(caplog)
    with pytest.raises(InputError, match="are unknown"):
        evaluate_checkpoint(str(tmp_path / "run"))


@pytest.mark.slow
def test_a_further_protocol_without_a_match_is_left_out_alone(tmp_path, caplog):
    for folder, identities in (("train", range(4)), ("query", (8, 9)), ("test", (8, 9))):
        for identity in identities:
            for shot in range(8):
                camera = 1 if folder == "query" else 2
                write_photo(tmp_path / "data" / folder / f"{identity:03d}_1_c{camera}_{shot:06d}.png", identity, shot)
    record = run(str(tmp_path / "data"), tmp_path / "run", dataset="ltcc")[-1]
    assert "mAP" in record and not any("clothes" in name for name in record)
    assert "clothes_changing is left out: no query has a match" in warnings(caplog)
    assert "mAP" in evaluate_checkpoint(str(tmp_path / "run"))


@pytest.mark.slow
def test_pretraining_goes_on_without_evaluation_too(one_camera, tmp_path, caplog):
    names = ("eps", "k1", "k2")
    options = {name: value for name, value in TINY.items() if name not in names}
    config = PretrainConfig(dataset="market1501", data_dir=one_camera[0], run=str(tmp_path / "run"), **options)
    assert pretrain(config).records[-1]["loss"] > 0
    assert "evaluation is left out" in warnings(caplog)


# -- re-ranking


def test_few_images_are_re_ranked_among_as_many_as_there_are(one_camera, caplog):
    path = str(one_camera[1])
    assert "mAP" in evaluate_checkpoint(path, rerank=True, ignore_cameras=True)
    assert "re-ranking with k1 = 11 instead of 20: query and gallery have 12 images" in warnings(caplog)
    assert main(["evaluate", path, "--ignore-cameras", "--rerank", "--device", "cpu"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rerank-k1", "12"], "--rerank-k1: expected at most 11, one less than the 12 images"),
        (["--rerank-k1", "0"], "--rerank-k1: expected at least 1, got 0"),
        (["--rerank-k1", "4", "--rerank-k2", "5"], "--rerank-k2: expected at most 4"),
        (["--rerank-k2", "0"], "--rerank-k2: expected at least 1"),
        (["--rerank-lambda", "1.5"], "--rerank-lambda: expected a number in [0, 1], got 1.5"),
        (["--rerank-lambda", "nan"], "--rerank-lambda: expected a number in [0, 1], got nan"),
    ],
)
def test_options_of_re_ranking_that_are_out_of_range_are_named(one_camera, capsys, options, message):
    arguments = ["evaluate", str(one_camera[1]), "--ignore-cameras", "--rerank", "--device", "cpu", *options]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_options_of_re_ranking_need_re_ranking(one_camera, capsys):
    assert main(["evaluate", str(one_camera[1]), "--rerank-k1", "4", "--rerank-lambda", "0.2"]) == 2
    assert "--rerank-k1, --rerank-lambda: only with --rerank" in capsys.readouterr().err


def test_options_of_re_ranking_are_used(one_camera):
    path = str(one_camera[1])
    plain = evaluate_checkpoint(path, ignore_cameras=True)
    alone = evaluate_checkpoint(path, ignore_cameras=True, rerank=True, rerank_k1=3, rerank_k2=2, rerank_lambda=1.0)
    assert alone == pytest.approx(plain)  # only the original distance
    other = evaluate_checkpoint(path, ignore_cameras=True, rerank=True, rerank_k1=3, rerank_k2=1, rerank_lambda=0.0)
    assert other != alone
