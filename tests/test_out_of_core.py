"""``ccfast cluster --memory-limit``: clustering by blocks, with the labels of clustering in memory."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from full_disk import small_disk
from sample_inputs import FEATURES, clustered

from ccfast.cli import main
from ccfast.training.clustering.out_of_core import stages
from ccfast.training.clustering.out_of_core.budget import Budget, parse_size
from ccfast.training.clustering.out_of_core.work_folder import WorkFolder

PARAMETERS = ["--k1", "12", "--k2", "4", "--eps", "0.55", "--min-samples", "3", "--device", "cpu"]
LIMIT = ["--memory-limit", "8G"]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, for any limit: every stage has many blocks."""
    monkeypatch.setattr(Budget, "search", lambda self: (37, 23))
    monkeypatch.setattr(Budget, "plain", lambda self: 41)
    monkeypatch.setattr(Budget, "encode", lambda self: 29)
    monkeypatch.setattr(Budget, "candidates", lambda self: 31)
    monkeypatch.setattr(Budget, "entries", lambda self: 900)


def saved(folder, rows, **options):
    path = folder / "features.npy"
    np.save(path, rows if isinstance(rows, np.ndarray) else rows.numpy(), **options)
    return path


def labels(features, output, *options):
    assert main(["cluster", str(features), "-o", str(output), *PARAMETERS, *options]) == 0
    return np.load(output)


def fails(capsys, status, message, *arguments):
    assert main(["cluster", *map(str, arguments)]) == status
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err, err


@pytest.mark.parametrize("name", [name for name in FEATURES if name not in ("one row", "tiny")])
def test_blocks_find_the_labels_of_the_whole(name, tmp_path, small_blocks):
    features = saved(tmp_path, FEATURES[name]())
    expected = labels(features, tmp_path / "whole.npy")
    found = labels(features, tmp_path / "blocks.npy", *LIMIT)
    assert found.dtype == np.int64 and found.tolist() == expected.tolist()
    assert not (tmp_path / "blocks.npy.work").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--k2", "1"], ["--eps", "0"], ["--eps", "0.97"], ["--k1", "3", "--k2", "3"]])
def test_blocks_follow_the_options(options, tmp_path, small_blocks):
    features = saved(tmp_path, clustered(400, dim=16, identities=25)[0])
    expected = labels(features, tmp_path / "whole.npy", *options)
    assert labels(features, tmp_path / "blocks.npy", *options, *LIMIT).tolist() == expected.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", "fortran"])
def test_files_of_other_kinds_are_copied_by_blocks(dtype, tmp_path, small_blocks):
    rows = clustered(200, dim=16, identities=12)[0].numpy()
    rows = np.asfortranarray(rows) if dtype == "fortran" else rows.astype(dtype)
    features = saved(tmp_path, rows)
    scale = ["--normalize"] if dtype == "float16" else []
    expected = labels(features, tmp_path / "whole.npy", *scale)
    assert labels(features, tmp_path / "blocks.npy", *scale, *LIMIT).tolist() == expected.tolist()


def test_rows_are_normalised_as_in_memory(tmp_path, small_blocks):
    features = saved(tmp_path, 3 * clustered(164, dim=16, identities=12)[0])  # blocks of 41
    expected = labels(features, tmp_path / "whole.npy", "--normalize")
    assert labels(features, tmp_path / "blocks.npy", "--normalize", *LIMIT).tolist() == expected.tolist()


@pytest.mark.slow
def test_a_search_by_faiss_goes_by_blocks_too(tmp_path, small_blocks):
    pytest.importorskip("faiss")
    features = saved(tmp_path, clustered(500, dim=16, identities=30)[0])
    options = ["--neighbours", "faiss", "--faiss-index", "IVF8,Flat", "--faiss-search", "nprobe=2"]
    expected = labels(features, tmp_path / "whole.npy", *options)
    assert labels(features, tmp_path / "blocks.npy", *options, *LIMIT).tolist() == expected.tolist()
    assert expected.max() > 0


# -- going on


class Stop(Exception):
    """Stands for a power cut."""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["check", "search", "encode", "expand", "distances"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_second_start_goes_on_where_the_first_one_ended(stage, number, tmp_path, small_blocks, monkeypatch, caplog):
    features = saved(tmp_path, clustered(300, dim=16, identities=20)[0].double())
    expected = labels(features, tmp_path / "whole.npy")
    plain, marks = WorkFolder.mark, []

    def stopping(self, name, rows):
        if name == stage:
            marks.append(rows)
        if len(marks) == number:
            raise Stop  # the block's output is on the disk but not yet marked as finished
        plain(self, name, rows)

    monkeypatch.setattr(WorkFolder, "mark", stopping)
    with pytest.raises(Stop):
        labels(features, tmp_path / "blocks.npy", *LIMIT)
    monkeypatch.setattr(WorkFolder, "mark", plain)
    worked = []
    for name in ("_check", "_search"):
        step = getattr(stages.Stages, name)
        monkeypatch.setattr(
            stages.Stages, name, lambda *a, step=step, name=name: worked.append((name, a[1])) or step(*a)
        )
    assert labels(features, tmp_path / "blocks.npy", *LIMIT).tolist() == expected.tolist()
    done = {"check": 41, "search": 37}.get(stage, 0) * (number - 1)
    again = [begin for name, begin in worked if name == f"_{stage}"]
    if stage in ("check", "search"):
        assert again[0] == done
    else:
        assert worked == []
    assert not (tmp_path / "blocks.npy.work").exists()


def test_a_run_with_another_limit_goes_on(tmp_path, small_blocks, monkeypatch):
    features = saved(tmp_path, clustered(300, dim=16, identities=20)[0])
    expected = labels(features, tmp_path / "whole.npy")
    plain = WorkFolder.mark

    def stopping(self, name, rows):
        plain(self, name, rows)
        if name == "distances":
            raise Stop

    monkeypatch.setattr(WorkFolder, "mark", stopping)
    with pytest.raises(Stop):
        labels(features, tmp_path / "blocks.npy", *LIMIT)
    monkeypatch.setattr(WorkFolder, "mark", plain)
    monkeypatch.setattr(Budget, "entries", lambda self: 1500)
    assert labels(features, tmp_path / "blocks.npy", *LIMIT).tolist() == expected.tolist()


def interrupted(tmp_path, features, monkeypatch):
    """A work folder with all stages done except the last."""
    monkeypatch.setattr(stages.Stages, "_cluster", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["cluster", str(features), "-o", str(tmp_path / "blocks.npy"), *PARAMETERS, *LIMIT]) == 130
    monkeypatch.undo()
    return tmp_path / "blocks.npy.work"


def test_ctrl_c_says_that_a_second_start_goes_on(tmp_path, capsys, monkeypatch):
    features = saved(tmp_path, clustered(120, dim=16, identities=10)[0])
    folder = interrupted(tmp_path, features, monkeypatch)
    assert f"interrupted; finished blocks are kept in {folder}" in capsys.readouterr().err
    assert json.loads((folder / "state.json").read_text())["done"]["distances"] == 120
    assert not (folder / ".lock").exists()


def test_work_on_other_features_or_options_is_not_gone_on_with(tmp_path, capsys, monkeypatch):
    features = saved(tmp_path, clustered(120, dim=16, identities=10)[0])
    interrupted(tmp_path, features, monkeypatch)
    saved(tmp_path, clustered(120, dim=16, identities=10, seed=1)[0])
    expected = labels(features, tmp_path / "whole.npy")
    assert labels(features, tmp_path / "blocks.npy", *LIMIT).tolist() == expected.tolist()
    assert "belong to other features or options; starting again" in capsys.readouterr().err
    interrupted(tmp_path, features, monkeypatch)
    expected = labels(features, tmp_path / "whole.npy", "--k1", "5")
    assert labels(features, tmp_path / "blocks.npy", "--k1", "5", *LIMIT).tolist() == expected.tolist()


def test_other_min_samples_go_on_with_the_same_distances(tmp_path, capsys, monkeypatch):
    features = saved(tmp_path, clustered(120, dim=16, identities=10)[0])
    interrupted(tmp_path, features, monkeypatch)
    capsys.readouterr()
    expected = labels(features, tmp_path / "whole.npy", "--min-samples", "5")
    found = labels(features, tmp_path / "blocks.npy", "--min-samples", "5", *LIMIT)
    assert found.tolist() == expected.tolist()
    assert "search:" not in capsys.readouterr().out


def test_work_that_has_become_shorter_is_noticed(tmp_path, capsys, monkeypatch, small_blocks):
    features = saved(tmp_path, clustered(120, dim=16, identities=10)[0])
    plain = WorkFolder.mark

    def stopping(self, name, rows):
        plain(self, name, rows)
        if name == "search":
            raise Stop

    monkeypatch.setattr(WorkFolder, "mark", stopping)
    with pytest.raises(Stop):
        labels(features, tmp_path / "blocks.npy", *LIMIT)
    monkeypatch.setattr(WorkFolder, "mark", plain)
    os.truncate(tmp_path / "blocks.npy.work" / "neighbours.rows", 10)
    fails(capsys, 1, "bytes of finished work, got 10", features, "-o", tmp_path / "blocks.npy", *PARAMETERS, *LIMIT)


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    features = saved(tmp_path, clustered(120, dim=16, identities=10)[0])
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    arguments = [features, "-o", tmp_path / "labels.npy", *PARAMETERS, *LIMIT, "--work-dir", folder]
    fails(capsys, 2, "holds other files than those of a clustering (letter.txt)", *arguments)
    assert (folder / "letter.txt").read_text() == "dear"


@pytest.mark.slow
@pytest.mark.parametrize("size", [60_000, 250_000])
def test_a_full_disk_leaves_what_is_finished(size, tmp_path, small_blocks, capsys):
    features = saved(tmp_path, clustered(600, dim=64, identities=30)[0].double())
    expected = labels(features, tmp_path / "whole.npy")
    with small_disk(size) as disk:
        work = disk / "work"
        arguments = [features, "-o", tmp_path / "blocks.npy", *PARAMETERS, *LIMIT, "--work-dir", work]
        message = f"(is the disk full?): No space left on device; finished blocks are kept in {work}"
        fails(capsys, 1, message, *arguments)
        done = json.loads((work / "state.json").read_text())["done"]
        assert done and all(rows > 0 for rows in done.values())
        subprocess.run(["mount", "-o", "remount,size=100M", str(disk)], check=True)
        found = labels(features, tmp_path / "blocks.npy", *LIMIT, "--work-dir", str(work))
        out = capsys.readouterr().out
        assert "continuing after" in out or len(done) > 1
        assert found.tolist() == expected.tolist() and not work.exists()


# -- limits and input


@pytest.mark.parametrize(
    ("text", "size"), [("800M", 800 * 2**20), ("1.5G", 3 * 2**29), ("2g", 2**31), ("512KiB", 2**19), ("12345", 12345)]
)
def test_sizes_are_read(text, size):
    assert parse_size("--memory-limit", text) == size


@pytest.mark.parametrize("text", ["", "-1", "0", "1X", "lots", "1e9", "nan"])
def test_other_sizes_are_refused(text, tmp_path, capsys):
    features = saved(tmp_path, clustered(40, dim=8, identities=4)[0])
    fails(capsys, 2, "--memory-limit: expected a size such as 800M", features, "-o", tmp_path / "labels.npy",
          f"--memory-limit={text}")  # fmt: skip


def test_impossible_options_are_errors_at_the_start(tmp_path, capsys):
    features, output = saved(tmp_path, clustered(40, dim=8, identities=4)[0]), tmp_path / "labels.npy"
    fails(capsys, 2, "--memory-limit: expected at least", features, "-o", output, "--memory-limit", "10M")
    fails(capsys, 2, "--work-dir: only with --memory-limit", features, "-o", output, "--work-dir", tmp_path / "w")
    fails(capsys, 2, "k1: expected at most 40", features, "-o", output, *LIMIT, "--k1", "41")
    if importlib.util.find_spec("infomap"):
        fails(capsys, 2, "expected --cluster dbscan", features, "-o", output, *LIMIT, "--cluster", "infomap")
    fails(capsys, 2, "no such file", tmp_path / "x.npy", "-o", output, *LIMIT)
    fails(capsys, 2, "cannot be made", features, "-o", output, *LIMIT, "--work-dir", tmp_path / "no" / "w")
    assert not output.exists() and not (tmp_path / "labels.npy.work").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(5, np.float32), "expected a matrix of floats [N, D], got float32 of shape (5,)"),
        (np.ones((50, 2), np.int64), "expected a matrix of floats [N, D], got int64"),
        (np.full((20, 2), np.nan, np.float32), "non-finite value in row 0"),
        (np.empty((0, 2), np.float32), "non-empty"),
        (3 * clustered(60, dim=8, identities=4)[0].numpy(), "norm 3 in row 0 (--normalize scales rows to unit norm)"),
    ],
)
def test_features_that_cannot_be_clustered_end_with_status_2(tmp_path, capsys, array, message, small_blocks):
    features = saved(tmp_path, array)
    fails(capsys, 2, message, features, "-o", tmp_path / "labels.npy", "--k1", "5", "--k2", "2", *LIMIT)
    assert not (tmp_path / "labels.npy.work").exists()


def test_a_bad_row_of_a_later_block_is_named(tmp_path, capsys, small_blocks):
    rows = clustered(120, dim=8, identities=4)[0]
    rows[103, 2] = torch.nan
    fails(
        capsys, 2, "non-finite value in row 103", saved(tmp_path, rows), "-o", tmp_path / "l.npy", *PARAMETERS, *LIMIT
    )


def test_freed_memory_is_given_back(tmp_path, monkeypatch):
    """Memory that the process keeps for batches of images would count towards the limit."""
    loaded = []
    monkeypatch.setattr("ccfast._allocator.ctypes.CDLL", loaded.append)
    labels(saved(tmp_path, clustered(120, dim=16, identities=8)[0]), tmp_path / "labels.npy", *LIMIT)
    assert not loaded


def test_without_clusters_an_eps_is_suggested(tmp_path, capsys):
    features = saved(tmp_path, clustered(120, dim=16, identities=8, noise=0.3)[0])
    labels(features, tmp_path / "labels.npy", *LIMIT, "--eps", "0")
    assert "Try --eps" in capsys.readouterr().err


SCRIPT = """
import sys
from ccfast.cli import main
status = main(sys.argv[1:])
import torch
from ccfast.training.device import peak_memory_mb
print("peak", peak_memory_mb(torch.device("cpu")))
sys.exit(status)
"""


@pytest.mark.huge
def test_the_limit_is_kept(tmp_path):
    """1,200 rows of 100,000 values, 480 MB: a run in memory takes more than the limit of the run by blocks."""
    count, dim = 1_200, 100_000
    generator = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(tmp_path / "features.npy", "w+", np.float32, (count, dim))
    for begin in range(0, count, 300):
        block = np.repeat(generator.standard_normal((15, dim), np.float32), 20, axis=0)
        block += generator.standard_normal((300, dim), np.float32)
        rows[begin : begin + 300] = block / np.linalg.norm(block, axis=1, keepdims=True)
    rows.flush()
    arguments = ["cluster", str(tmp_path / "features.npy"), "-o", str(tmp_path / "labels.npy"), *PARAMETERS]

    def peak_of(*more):
        command = [sys.executable, "-c", SCRIPT, *arguments, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout.splitlines()[-1].split()[1]) << 20, np.load(tmp_path / "labels.npy")

    whole, expected = peak_of()
    limit = whole - rows.nbytes // 4
    blocks, found = peak_of("--memory-limit", str(limit))
    assert found.tolist() == expected.tolist()
    assert blocks <= limit
