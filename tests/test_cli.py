"""The command line: what it prints, and its exit status."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch

from ccfast import cli
from ccfast.cli import main
from ccfast.commands import _options
from ccfast.commands._page import write_page
from ccfast.commands.evaluate.measure import evaluate_checkpoint
from ccfast.training import TrainConfig, TrainResult, train
from ccfast.training.config import FIELDS
from ccfast.training.config_file import config_from_options

COMMANDS_BY_NAME = cli._parser()._subparsers._group_actions[0].choices


def options_of(command):
    return [action for action in command._actions if action.option_strings and action.dest != "help"]


QUICK = ["--epochs", "1", "--iters", "3", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "--run", str(folder), *QUICK, "--quiet"]) == 0
    return folder


@pytest.mark.parametrize("name", [name for name, command in COMMANDS_BY_NAME.items() if len(options_of(command)) > 10])
def test_help_of_a_command_with_many_options_is_in_groups(name):
    groups = {group.title: group._group_actions for group in COMMANDS_BY_NAME[name]._action_groups}
    assert [action.dest for action in groups["options"]] == ["help"]
    assert all(len(actions) <= 12 for actions in groups.values())
    text = COMMANDS_BY_NAME[name].format_help()
    assert len(groups) >= 4 and all(f"\n{title}:\n" in text for title, actions in groups.items() if actions)


def test_the_long_commands_are_known():
    long = {name for name, command in COMMANDS_BY_NAME.items() if len(options_of(command)) > 10}
    assert long == {"train", "pretrain", "bench-train", "cluster", "search"}


def test_every_option_of_a_run_is_in_one_group_of_the_help():
    names = [name for fields in _options.GROUPS.values() for name in fields]
    assert sorted(names) == sorted(FIELDS)
    in_help = {action.dest for action in options_of(COMMANDS_BY_NAME["train"])}
    assert in_help == {*FIELDS, "preset", "config"}


@pytest.mark.slow
def test_train_prints_before_and_after_and_time_by_stage(tmp_path, capsys):
    assert main(["train", "--run", str(tmp_path / "run"), *QUICK]) == 0
    out, err = capsys.readouterr()
    for text in (
        "1,198 training images", "random weights", "in percent", f"run folder {tmp_path / 'run'}",
        "images in no cluster",
        "before: mAP 60.8  rank-1", "after:  mAP", "NMI", "ARI", "clusters", "train",
    ):  # fmt: skip
        assert text in out
    assert err == ""


@pytest.mark.slow
def test_training_ends_with_its_page(tmp_path, capsys):
    """The page is written once, from the data that the run has read, and the last line names it."""
    folder = tmp_path / "run"
    with mock.patch("ccfast.training.trained.data_of") as read_again:
        assert main(["train", "--run", str(folder), *QUICK]) == 0
    out, err = capsys.readouterr()
    assert f"page about the run, to open in a browser: {folder / 'report.html'}" in out.splitlines()[-1]
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    assert not read_again.called and err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (OSError(28, "No space left on device"), 0, "WARNING: no report.html: [Errno 28] No space left on device"),
        (ImportError("No module named 'matplotlib'"), 0, "WARNING: no report.html: No module named 'matplotlib'"),
        (AssertionError(), 0, "WARNING: no report.html: AssertionError"),
        (KeyboardInterrupt(), 130, "ccfast train: interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_page_that_cannot_be_written_is_no_failure_of_the_run(tmp_path, capsys, monkeypatch, error, status, message):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr("ccfast.commands._page.write_report", fail)
    folder = tmp_path / "run"
    assert main(["train", "--run", str(folder), *QUICK]) == status
    err = capsys.readouterr().err
    assert err == f"{message}; the run is complete; to write its page: ccfast report {folder}\n"
    assert (folder / "best.pt").exists()


def test_only_the_main_process_writes_the_page(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("ccfast.commands._page.write_report", lambda *args, **options: written.append(args))
    result = TrainResult(tmp_path, [], None)
    for rank, size in ((0, 4), (1, 4), (3, 4), (2, 1)):  # WORLD_SIZE 1: no group, for any RANK
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(size))
        write_page(result, TrainConfig())
    assert written == [(tmp_path,)] * 2


@pytest.mark.slow
def test_quiet_training_prints_nothing(tmp_path, capsys):
    assert main(["train", "--run", str(tmp_path / "run"), *QUICK, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_digits_train_without_torchvision(tmp_path, monkeypatch):
    for name in ("torchvision", "torchvision.models", "torchvision.transforms"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["train", "--run", str(tmp_path / "run"), *QUICK, "--quiet"]) == 0


@pytest.mark.slow
def test_without_run_the_folder_is_named_after_data_set_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *QUICK, "--quiet"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-20")


@pytest.mark.slow
def test_resume_needs_no_other_option(run, capsys):
    assert main(["train", "--run", str(run), "--resume", "--epochs", "2"]) == 0
    assert "resumed after epoch 1 of 2" in capsys.readouterr().out
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3


def test_evaluate_gives_the_runs_best_map(run, capsys):
    best = max(json.loads(line)["mAP"] for line in (run / "metrics.jsonl").read_text().splitlines())
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    assert f"mAP {100 * best:.1f}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_evaluate_measures_what_the_run_did(tmp_path, amp):
    """In the precision of the run: the metrics are those of metrics.jsonl."""
    records = train(TrainConfig(run=str(tmp_path / amp), amp=amp, epochs=1, iters=3, device="cpu")).records
    best = max(records, key=lambda record: record["mAP"])
    metrics = evaluate_checkpoint(str(tmp_path / amp), device="cpu")
    assert metrics == {name: best[name] for name in metrics}


def test_evaluate_with_re_ranking_and_of_a_checkpoint(run, capsys):
    assert main(["evaluate", str(run / "checkpoint.pt"), "--rerank", "--device", "cpu"]) == 0
    assert "re-ranked: mAP" in capsys.readouterr().out


def fails(capsys, status, message, *arguments):
    assert main(list(map(str, arguments))) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_wrong_values_end_with_status_2(capsys, tmp_path, run):
    fails(capsys, 2, "--eps: expected a number in [0, 1), got 1.0", "train", "--eps", "1")
    fails(capsys, 2, "--batch-size: expected a multiple", "train", "--batch-size", "30")
    fails(capsys, 2, "--data-dir: expected the folder", "train", "--dataset", "market1501")
    fails(capsys, 2, "no such folder", "train", "--dataset", "market1501", "--data-dir", tmp_path / "x")
    fails(capsys, 2, "holds a run already", "train", "--run", run)
    fails(capsys, 2, "expected the run folder in --run", "train", "--resume")
    fails(capsys, 2, "--seed 9 (the run has 0)", "train", "--resume", "--run", run, "--seed", 9)
    fails(capsys, 2, "no such checkpoint", "evaluate", tmp_path / "x.pt")
    fails(capsys, 2, "neither best.pt nor checkpoint.pt", "evaluate", tmp_path)


def test_arguments_that_do_not_parse_end_with_status_2(capsys):
    for arguments in (
        [],
        ["fly"],
        ["train", "--nonsense"],
        ["train", "--epochs", "few"],
        ["train", "--optimizer", "none"],
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
    assert "usage: ccfast" in capsys.readouterr().err
    fails(
        capsys, 2, "--memory: expected one of 'sequential', 'hardest', 'mean', got 'none'", "train", "--memory", "none"
    )


def test_a_run_without_clusters_ends_with_status_1(capsys, tmp_path):
    fails(capsys, 1, "Try --eps 0.6", "train", "--run", tmp_path / "run", *QUICK, "--eps", "0.001")


def test_a_checkpoint_of_another_architecture_ends_with_status_2(capsys, run, tmp_path):
    content = torch.load(run / "best.pt", weights_only=True)
    del content["model"]["neck.weight"]
    torch.save(content, tmp_path / "other.pt")
    fails(capsys, 2, "a checkpoint of another architecture", "evaluate", tmp_path / "other.pt", "--device", "cpu")


def test_an_interrupted_run_ends_with_status_130(capsys, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ccfast.training.loop.iterate", interrupt)
    fails(capsys, 130, "--resume", "train", "--run", tmp_path / "run", *QUICK)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RuntimeError("CUDA out of memory. Tried"), "Try a smaller --batch-size"),
        (RuntimeError("DataLoader worker (pid 7) is killed"), "Try --workers 0"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_failures_of_the_machine_end_with_status_1(capsys, tmp_path, monkeypatch, error, advice):
    def fail(*args):
        raise error

    monkeypatch.setattr("ccfast.training.loop.iterate", fail)
    fails(capsys, 1, advice, "train", "--run", tmp_path / "run", *QUICK)


def test_an_image_that_breaks_during_a_run_is_named_without_a_traceback(capsys, tmp_path, monkeypatch):
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (tmp_path / folder).mkdir()
        for shot in range(9):
            (tmp_path / folder / f"0001_c{shot}_broken.jpg").write_text("")
    monkeypatch.setattr("ccfast.data.parts.leave_out_bad", lambda files, **_: files)
    options = [
        "--dataset",
        "market1501",
        "--data-dir",
        tmp_path,
        "--arch",
        "smallconv",
        "--weights",
        "none",
        "--k1",
        "6",
    ]
    fails(capsys, 2, "broken.jpg: cannot be read as an image", "train", *options, *QUICK, "--workers", "1")


# -- ccfast cluster


@pytest.fixture
def features(tmp_path):
    """Five planted clusters of ten."""
    generator = np.random.default_rng(0)
    rows = np.repeat(np.eye(5, 16), 10, axis=0) + 0.1 * generator.standard_normal((50, 16))
    path = tmp_path / "features.npy"
    np.save(path, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    return path


OPTIONS = ["--k1", "10", "--k2", "3", "--device", "cpu"]


@pytest.mark.slow
def test_cluster_writes_labels_and_prints_counts(features, tmp_path, capsys):
    labels = tmp_path / "labels"
    assert main(["cluster", str(features), "-o", str(labels), *OPTIONS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("features.npy: 50 rows of 16 values; device cpu")
    assert [line.split()[0] for line in lines[1:3]] == ["searching", "finding"]
    assert lines[3].startswith("50 rows: 5 clusters, 0 noise")
    found = np.load(labels)
    assert found.dtype == np.int64
    assert found.tolist() == np.repeat(np.arange(5), 10).tolist()


@pytest.mark.slow
def test_cluster_with_infomap(features, tmp_path, capsys):
    pytest.importorskip("infomap")
    options = ["--cluster", "infomap", "--k1", "10", "--device", "cpu"]
    assert main(["cluster", str(features), "-o", str(tmp_path / "labels.npy"), *options]) == 0
    assert "5 clusters" in capsys.readouterr().out


@pytest.mark.slow
def test_cluster_without_clusters_says_what_to_try(features, tmp_path, capsys):
    assert main(["cluster", str(features), "-o", str(tmp_path / "labels.npy"), *OPTIONS, "--eps", "0"]) == 0
    captured = capsys.readouterr()
    assert "Try --eps 0.6" in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-clusters", "3"], "--num-clusters has no effect with --cluster dbscan, only with kmeans"),
        (["--cluster", "kmeans", "--num-clusters", "3", "--eps", "0.5"],
         "--eps has no effect with --cluster kmeans, only with dbscan"),
        (["--cluster", "kmeans", "--num-clusters", "3", "--min-samples", "2"],
         "--min-samples has no effect with --cluster kmeans, only with dbscan or hdbscan"),
        (["--min-similarity", "0.5"], "--min-similarity has no effect with --cluster dbscan, only with infomap"),
    ],
)  # fmt: skip
def test_options_of_other_clusterings_are_warned_of(features, tmp_path, capsys, options, message):
    small = ["--k1", "5", "--k2", "2"] if "kmeans" not in options else []
    assert main([str(each) for each in ("cluster", features, "-o", tmp_path / "labels.npy", *small, *options)]) == 0
    assert message in "".join(capsys.readouterr())


def test_the_help_of_a_command_speaks_of_that_command(capsys):
    def helped(command):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        return " ".join(capsys.readouterr().out.split())

    assert "temperature of the classification loss (default: 0.05)" in helped("pretrain")
    cluster = helped("cluster")
    assert "epoch" not in cluster and "--noise {drop,single} only for FEATURES.npy" in cluster
    assert "or auto: chosen from the features (default: the run's, or 0.6)" in cluster
    for text in (cluster, helped("search")):
        assert "(default: the run's, or refuse)" in text and "that load images (default: the run's, or " in text
    assert "--eval-every" not in helped("bench-train")


def test_options_of_a_run_without_effect_are_warned_of(caplog):
    config_from_options({"schedule": "cosine", "step_size": 3, "num_clusters": 3})
    config_from_options({"warmup": 2, "epochs": 1})
    assert [record.getMessage() for record in caplog.records] == [
        "--num-clusters has no effect with --cluster dbscan, only with kmeans",
        "--step-size has no effect with --schedule cosine",
        "--warmup 2: the run has 1 epoch, so the learning rate does not reach --lr",
    ]
    caplog.clear()
    config_from_options({"preset": "cap-market1501", "data_dir": ".", "epochs": 2})  # its warm-up is not the user's
    config_from_options({"preset": "small", "epochs": 2})
    assert not caplog.records


def test_what_a_command_reads_is_not_overwritten(features, tmp_path, capsys):
    before = features.read_bytes()
    for limit in ([], ["--memory-limit", "1G"]):
        fails(capsys, 2, "expected another file than FEATURES.npy", "cluster", features, "-o", features, *limit)
    assert features.read_bytes() == before
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 1")
    config = tmp_path / "run" / "config.yaml"
    fails(capsys, 2, "expected another file than the run's config.yaml", "report", tmp_path / "run", "-o", config)
    assert config.read_text() == "seed: 1"


def test_cluster_normalises_when_asked_to(features, tmp_path, capsys):
    np.save(features, 3 * np.load(features).astype(np.float64))
    output = tmp_path / "labels.npy"
    fails(capsys, 2, "--normalize scales rows", "cluster", features, "-o", output, *OPTIONS)
    assert not output.exists()
    assert main(["cluster", str(features), "-o", str(output), "--normalize", *OPTIONS]) == 0
    assert len(set(np.load(output).tolist())) == 5


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(5, np.float32), "expected a matrix of floats [N, D], got float32 of shape (5,)"),
        (np.ones((5, 2), np.int64), "expected a matrix of floats [N, D], got int64"),
        (np.full((20, 2), np.nan, np.float32), "non-finite value in row 0"),
        (np.tile(np.float32([1, 0]), (9, 1)), "k1: expected at most 9"),
        (np.empty((0, 2), np.float32), "non-empty"),
    ],
)
def test_features_that_cannot_be_clustered_end_with_status_2(tmp_path, capsys, array, message):
    np.save(tmp_path / "features.npy", array)
    fails(capsys, 2, message, "cluster", tmp_path / "features.npy", "-o", tmp_path / "labels.npy", *OPTIONS)


def test_files_that_are_no_features_end_with_status_2(tmp_path, capsys, features):
    (tmp_path / "text.npy").write_text("not numpy")
    np.savez(tmp_path / "archive.npz", a=np.eye(2))
    fails(capsys, 2, "no such file", "cluster", tmp_path / "x.npy", "-o", tmp_path / "labels.npy")
    fails(capsys, 2, "cannot be read", "cluster", tmp_path / "text.npy", "-o", tmp_path / "labels.npy")
    for content in (b"PK\x03\x04" + bytes(99), b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, b"\x93NUMPY\x09\x00", b""):
        (tmp_path / "damaged.npy").write_bytes(content)
        fails(capsys, 2, "cannot be read", "cluster", tmp_path / "damaged.npy", "-o", tmp_path / "labels.npy")
    fails(capsys, 2, "got an archive", "cluster", tmp_path / "archive.npz", "-o", tmp_path / "labels.npy")
    fails(capsys, 2, "cannot be written", "cluster", features, "-o", tmp_path / "no" / "labels.npy", *OPTIONS)
    fails(capsys, 2, "got the folder", "cluster", features, "-o", tmp_path, *OPTIONS)


def test_info_names_versions_and_optional_packages(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    found = dict(line.split(": ", 1) for line in out.splitlines())
    assert found["torch"] == torch.__version__
    assert found["python"].split()[0] == platform.python_version()
    assert platform.release() in found["system"]
    assert int(found["threads"].partition(",")[0]) == torch.get_num_threads()
    assert "processors" in found["processor"]
    assert found["numpy"] == np.__version__
    for package in ("scipy", "matplotlib", "torchvision", "timm", "infomap", "tensorboard", "onnx", "onnxruntime"):
        assert found[package] == "not installed" or found[package][0].isdigit()
    assert {found["cuda"], found["arch_list"]} != {"None", "[]"}  # said in words


def test_module_is_the_same_program_and_help_loads_no_optional_package():
    script = (
        "import runpy, sys; sys.argv = ['ccfast', 'train', '--help']\n"
        "try: runpy.run_module('ccfast', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "slow = {'torchvision', 'timm', 'sklearn', 'matplotlib', 'infomap', 'PIL'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--num-instances" in done.stdout
