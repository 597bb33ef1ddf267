"""Run folders: restart after a kill, damaged records, and locks."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from full_disk import files_of_at_most, small_disk
from hypothesis import given
from hypothesis import strategies as st
from processes import Command, ccfast_in_processes, without_costs

from ccfast._errors import InputError
from ccfast.cli import main
from ccfast.training import TrainConfig, train
from ccfast.training.config_file import write_config
from ccfast.training.run_folder import checkpoint, lock
from ccfast.training.run_folder.folder import RunFolder
from ccfast.training.run_folder.lock import FolderLock
from ccfast.training.run_folder.records import as_text, read_records

QUICK = {"epochs": 1, "iters": 2, "device": "cpu", "quiet": True}
FLAGS = ["--epochs", "1", "--iters", "2", "--device", "cpu"]


def read(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """No page at the end of a run: it takes longer than these runs."""
    monkeypatch.setattr("ccfast.commands._page.write_page", lambda *args: None)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of one epoch."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("runs") / "run"
    train(TrainConfig(run=str(run), **QUICK))
    return run


# -- before the first checkpoint


def nothing(run, whole):
    pass


def an_empty_folder(run, whole):
    run.mkdir()


def a_config(run, whole):
    run.mkdir()
    shutil.copy(whole / "config.yaml", run)


def an_empty_config(run, whole):
    run.mkdir()
    (run / "config.yaml").touch()


def the_first_metrics(run, whole):
    a_config(run, whole)
    (run / "metrics.jsonl").write_text((whole / "metrics.jsonl").read_text().splitlines(keepends=True)[0])


def half_of_the_first_metrics(run, whole):
    a_config(run, whole)
    (run / "metrics.jsonl").write_text((whole / "metrics.jsonl").read_text()[:20])


def empty_metrics(run, whole):
    a_config(run, whole)
    (run / "metrics.jsonl").touch()


def the_first_best(run, whole):
    the_first_metrics(run, whole)
    content = torch.load(whole / "best.pt", weights_only=True)
    torch.save({**content, "epoch": 0}, run / "best.pt")


def unfinished_files(run, whole):
    a_config(run, whole)
    (run / ".ccfast-0123456789abcdef.tmp").write_bytes(b"half")
    (run / ".lock").write_text("")


STAGES = [nothing, an_empty_folder, a_config, an_empty_config, the_first_metrics, half_of_the_first_metrics,
          empty_metrics, the_first_best, unfinished_files]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_resume_begins_a_run_that_ended_before_its_first_checkpoint(tmp_path, whole, stage, capsys):
    """For any progress: a job that is queued again runs the same command with --resume."""
    run = tmp_path / "run"
    stage(run, whole)
    assert main(["train", "--run", str(run), *FLAGS, "--resume"]) == 0
    assert f"WARNING: --resume: {run} has no checkpoint yet; the run starts" in capsys.readouterr().err
    assert without_costs(read(run)) == without_costs(read(whole))
    assert not list(run.glob(".*"))
    assert main(["train", "--run", str(run), *FLAGS, "--resume"]) == 0
    assert "the run is complete" in capsys.readouterr().out


@pytest.mark.slow
def test_resume_takes_the_options_of_the_config_that_is_there(tmp_path):
    write_config(tmp_path / "config.yaml", TrainConfig(epochs=1, iters=3, seed=4, device="cpu"))
    assert main(["train", "--run", str(tmp_path), "--resume", "--quiet", "--iters", "2"]) == 0
    options = (tmp_path / "config.yaml").read_text()
    assert "seed: 4" in options and "iters: 2" in options


@pytest.mark.slow
def test_the_options_of_another_data_set_are_not_mixed_into_a_run_that_begins(tmp_path):
    write_config(tmp_path / "config.yaml", TrainConfig(dataset="folder", data_dir=str(tmp_path), device="cpu"))
    assert main(["train", "--run", str(tmp_path), "--resume", "--quiet", "--dataset", "digits", *FLAGS]) == 0
    assert "arch: smallconv" in (tmp_path / "config.yaml").read_text()


@pytest.mark.slow
def test_several_processes_begin_a_run_that_has_no_checkpoint(tmp_path):
    outputs = ccfast_in_processes(2, "train", {"run": tmp_path / "run", "epochs": 1, "iters": 2, "device": "cpu",
                                               "config": resuming(tmp_path)})  # fmt: skip
    assert "has no checkpoint yet" in outputs[0] and "has no checkpoint" not in outputs[1]
    assert len(read(tmp_path / "run")) == 2


def resuming(folder):
    (folder / "resume.yaml").write_text("resume: true")
    return folder / "resume.yaml"


@pytest.mark.parametrize("lost", ["checkpoints", "checkpoints and metrics"])
def test_a_trained_run_that_lost_its_checkpoints_is_not_overwritten(tmp_path, whole, lost, capsys):
    run = shutil.copytree(whole, tmp_path / "run")
    for file in run.glob("checkpoint*"):
        file.unlink()
    if "metrics" in lost:
        (run / "metrics.jsonl").unlink()
    before = {file: file.read_bytes() for file in run.iterdir()}
    assert main(["train", "--run", str(run), "--resume"]) == 2
    assert "has 1 epoch(s) of a run, but no checkpoint.pt" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in run.iterdir()} == before


@pytest.mark.parametrize("file", ["config.yaml", "metrics.jsonl", "checkpoint.pt", "checkpoint.previous.pt", "best.pt"])
def test_without_resume_nothing_of_a_run_is_overwritten(tmp_path, file, capsys):
    (tmp_path / file).write_text("something")
    assert main(["train", "--run", str(tmp_path), *FLAGS]) == 2
    assert f"holds a run already ({file}); pass --resume" in capsys.readouterr().err
    assert [item.read_text() for item in tmp_path.iterdir()] == ["something"]


@pytest.mark.parametrize("file", ["curves.png", "clusters.csv", "report.html"])
def test_files_that_only_the_end_of_a_run_would_replace_are_kept(tmp_path, file, capsys):
    (tmp_path / file).write_text("something")
    assert main(["train", "--run", str(tmp_path), *FLAGS]) == 2
    assert f"holds {file}, which a run would replace; pass another folder" in capsys.readouterr().err
    assert [item.read_text() for item in tmp_path.iterdir()] == ["something"]


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "a: [", "colour: red", "\xff"])
def test_where_the_config_cannot_be_read_the_checkpoint_has_the_options(tmp_path, whole, content, capsys):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "config.yaml").unlink()
    if content is not None:
        (run / "config.yaml").write_text(content, encoding="latin-1")
    assert main(["train", "--run", str(run), "--resume"]) == 0
    assert "Using the options in checkpoint.pt" in capsys.readouterr().err
    assert (run / "config.yaml").read_text() == (whole / "config.yaml").read_text()


@pytest.mark.slow
def test_a_run_that_is_interrupted_before_its_first_checkpoint_says_how_to_begin_again(tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    run = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr("ccfast.training.loop.evaluate", interrupt)
        assert main(["train", "--run", str(run), *FLAGS]) == 130
    assert f"go on with: ccfast train --run '{run}' --resume" in capsys.readouterr().err
    assert main(["train", "--run", str(run), "--resume"]) == 0
    assert len(read(run)) == 2


def test_a_run_on_wrong_data_leaves_no_folder_behind(tmp_path, capsys):
    options = ["--dataset", "folder", "--data-dir", str(tmp_path / "no"), "--weights", "none"]
    assert main(["train", "--run", str(tmp_path / "some" / "run"), *options]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("limit", [100, 2000, 200_000, 395_000])
def test_a_run_can_resume_after_the_disk_was_full_at_any_file(tmp_path, whole, limit, capsys):
    run = tmp_path / "run"
    arguments = ["train", "--run", str(run), *FLAGS, "--resume"]
    with files_of_at_most(limit):
        assert main(arguments) == 1
    assert "cannot be written (is the disk full?)" in capsys.readouterr().err
    assert not list(run.glob(".*"))
    assert main(arguments) == 0
    assert without_costs(read(run)) == without_costs(read(whole))


# -- a folder that cannot be used


def test_a_folder_that_cannot_be_written_to_is_noticed_at_the_start(capsys, monkeypatch):
    monkeypatch.setattr("ccfast.training.loop.data_of", lambda config: pytest.fail("too late"))
    with small_disk(64 << 10, read_only=True) as folder:
        assert main(["train", "--run", str(folder), *FLAGS]) == 2
        assert f"--run: {folder} cannot be written to: Read-only file system" in capsys.readouterr().err
        assert main(["train", "--run", str(folder / "run"), *FLAGS]) == 2
        assert f"--run: {folder}/run cannot be made: Read-only file system" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["file", "file/run", "file/a/run"])
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_file_in_the_way_of_the_folder_is_named(tmp_path, where, resume, capsys):
    (tmp_path / "file").touch()
    assert main(["train", "--run", str(tmp_path / where), *FLAGS, *resume]) == 2
    err = capsys.readouterr().err
    assert f"--run: {tmp_path / where} cannot be made: " in err and "Traceback" not in err
    assert (tmp_path / "file").is_file()


@pytest.mark.slow
def test_two_runs_without_a_name_that_begin_in_one_second_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda text: "now")
    runs = [train(TrainConfig(**QUICK)).run.name for _ in range(2)]
    assert runs == ["digits-now", "digits-now-2"]


# -- metrics.jsonl

GOOD = [{"epoch": epoch, "loss": 1.0, "mAP": 0.5, "seconds": {"train": 1.0}} for epoch in range(4)]

DAMAGED = {
    "a number": b"5",
    "null": b"null",
    "a list": b"[]",
    "text": b'"epoch"',
    "true": b"true",
    "no epoch": b'{"loss": 1}',
    "an epoch of text": b'{"epoch": "1"}',
    "an epoch that is true": b'{"epoch": true}',
    "an epoch that is NaN": b'{"epoch": NaN}',
    "an epoch of 1.5": b'{"epoch": 1.5}',
    "a negative epoch": b'{"epoch": -1}',
    "a huge epoch": b'{"epoch": 1' + b"0" * 400 + b"}",
    "an epoch of too many digits": b'{"epoch": 1' + b"0" * 5000 + b"}",
    "a huge number": b'{"epoch": 9, "loss": 1' + b"0" * 400 + b"}",
    "text for a number": b'{"epoch": 9, "mAP": "high"}',
    "a list for a number": b'{"epoch": 9, "x/rank1": [1]}',
    "seconds that are none": b'{"epoch": 9, "seconds": 3}',
    "seconds of text": b'{"epoch": 9, "seconds": {"train": "long"}}',
    "half a line": b'{"epoch": 9, "lo',
    "not UTF-8": b'{"epoch": 9, "x": "\xff"}',
    "zeros": b"\0" * 100,
    "deep nesting": b"[" * 100_000,
    "two records": b'{"epoch": 9}{"epoch": 8}',
    "an epoch again": b'{"epoch": 1, "loss": 2.0, "mAP": 0.5}',
}  # fmt: skip


def with_damage(path, line, place):
    lines = [json.dumps(record).encode() for record in GOOD]
    lines.insert(place, line)
    path.write_bytes(b"\n".join(lines))


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_is_named_and_the_others_are_kept(tmp_path, line, place):
    with_damage(tmp_path / "metrics.jsonl", line, place)
    found = read_records(tmp_path / "metrics.jsonl")
    if b'"epoch": 1,' in line:
        assert [record["epoch"] for record in found.records] == [0, 1, 2, 3] and "repeats epoch 1" in found.told()
        assert found.records[1]["loss"] == (1.0 if place == 0 else 2.0)  # the later one counts
    else:
        assert found.records == GOOD
        assert len(found.faults) == 1 and found.told().startswith(f"line {place + 1} ")


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_resuming_a_run_reports_damaged_metrics_and_keeps_the_file(tmp_path, line, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ccfast"), "propagate", True)
    folder = RunFolder(tmp_path)
    for number in (1, 2):
        caplog.clear()
        with_damage(folder.metrics, line, 2)
        damaged = folder.metrics.read_bytes()
        assert [record["epoch"] for record in folder.take_up(2)] == [0, 1, 2]
        aside = tmp_path / f"metrics.damaged-{number}.jsonl"
        assert aside.read_bytes() == damaged
        assert "line 3 " in caplog.text and f"the original file is now {aside.name}" in caplog.text
        assert [record["epoch"] for record in read(tmp_path)] == [0, 1, 2]
    caplog.clear()
    folder.take_up(2)
    assert caplog.text == "" and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xef\xbb\xbf"])
def test_metrics_that_are_not_there_are_missed(tmp_path, content, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ccfast"), "propagate", True)
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    assert RunFolder(tmp_path).take_up(5) == []
    assert "has no record of epoch 0, 1, 2, ..." in caplog.text


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_metrics_that_are_no_file_are_put_aside(tmp_path, make, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ccfast"), "propagate", True)
    make(tmp_path / "metrics.jsonl")
    assert RunFolder(tmp_path).take_up(0) == []
    assert "metrics.jsonl is not a file" in caplog.text
    assert {item.name for item in tmp_path.iterdir()} == {"metrics.jsonl", "metrics.damaged-1.jsonl"}


def test_records_survive_their_file(tmp_path):
    records = [*GOOD, {"epoch": 7, "loss": None, "lr": 1e-5, "clothes/mAP": 0.1, "remark": ["kept"]}]
    (tmp_path / "metrics.jsonl").write_text(as_text(records))
    assert read_records(tmp_path / "metrics.jsonl") == (records, [])


@given(st.binary(max_size=300) | st.lists(st.sampled_from(list(DAMAGED.values())), max_size=5).map(b"\n".join))
def test_no_bytes_make_reading_metrics_fail(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "metrics.jsonl"
    path.write_bytes(content)
    found = read_records(path)
    assert all(isinstance(record["epoch"], int) for record in found.records)
    path.write_text(as_text(found.records))
    assert read_records(path).faults == [] and len(read_records(path).records) == len(found.records)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a number", "text for a number", "not UTF-8", "half a line", "a huge number"])
def test_resume_and_report_go_on_with_damaged_metrics(tmp_path, whole, name, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    run = shutil.copytree(whole, tmp_path / "run")
    lines = (run / "metrics.jsonl").read_bytes().splitlines()
    (run / "metrics.jsonl").write_bytes(b"\n".join([lines[0], DAMAGED[name], lines[1]]))
    assert main(["report", str(run), "--device", "cpu", "--queries", "0"]) == 0
    assert "metrics.jsonl: line 2 " in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_bytes().splitlines()[1] == DAMAGED[name]  # the report does not repair it
    assert main(["train", "--run", str(run), "--resume", "--epochs", "2"]) == 0
    assert "metrics.damaged-1.jsonl" in capsys.readouterr().err
    assert [record["epoch"] for record in read(run)] == [0, 1, 2]


def test_a_line_that_does_not_fit_on_the_disk_leaves_those_before_it(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append(GOOD[0])
    with files_of_at_most(100), pytest.raises(OSError, match="cannot be written"):
        folder.append(GOOD[1])
    folder.append(GOOD[2])
    assert read_records(folder.metrics) == ([GOOD[0], GOOD[2]], [])


# -- locks


def hold(folder, ready):
    held = FolderLock(folder)
    ready.set()
    time.sleep(600)
    held.release()


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock on ``tmp_path``."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_folder_in_use_is_refused_with_the_name_of_the_other_process(tmp_path, holder, resume, capsys):
    before = sorted(tmp_path.iterdir())
    assert main(["train", "--run", str(tmp_path), *FLAGS, *resume]) == 2
    who = f"another process (pid {holder.pid} on {socket.gethostname()})"
    assert f"--run: {tmp_path} is in use by {who}; wait until that ends" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_the_lock_of_a_killed_process_does_not_block_others(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert (tmp_path / ".lock").exists()
    with FolderLock(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


@pytest.mark.slow
def test_children_of_a_process_that_was_killed_do_not_hold_its_lock(tmp_path):
    """Worker processes that load images stay alive for some seconds."""
    script = (
        "import os, time, pathlib\n"
        "from ccfast.training.run_folder.lock import FolderLock\n"
        f"lock = FolderLock(pathlib.Path({str(tmp_path)!r}))\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(60)\n"
        "print(child, flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    with pytest.raises(InputError, match=f"in use by another process .pid {process.pid} on"):
        FolderLock(tmp_path)
    process.kill()
    process.wait()
    try:
        FolderLock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_two_runs_of_one_process_cannot_share_a_folder_but_follow_each_other(tmp_path):
    with FolderLock(tmp_path), pytest.raises(InputError, match="is in use by another process"):
        FolderLock(tmp_path)
    FolderLock(tmp_path).release()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"pid": "x"}', b"\xff"])
def test_a_lock_that_does_not_say_whose_it_is_still_holds(tmp_path, content):
    with FolderLock(tmp_path):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(InputError, match="is in use by another process;"):
            FolderLock(tmp_path)


def test_a_file_of_that_name_that_is_not_a_lock_is_kept(tmp_path):
    (tmp_path / ".lock").write_text("mine")
    with pytest.raises(InputError, match=r"\.lock is not a file of ccfast; remove it, or pass another folder"):
        FolderLock(tmp_path)
    assert (tmp_path / ".lock").read_text() == "mine"


@pytest.mark.slow
def test_where_there_are_no_locks_a_run_goes_on_under_a_warning(tmp_path, monkeypatch, capsys):
    def no_locks(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    assert main(["train", "--run", str(tmp_path), *FLAGS]) == 0
    assert "its file system has no locks" in capsys.readouterr().err


def test_the_lock_is_free_after_a_run_however_it_ends(tmp_path, whole, monkeypatch):
    assert not list(whole.glob(".*"))
    monkeypatch.setattr("ccfast.training.loop.iterate", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(TrainConfig(run=str(tmp_path), **QUICK))
    FolderLock(tmp_path).release()


@pytest.mark.slow
def test_a_second_training_of_a_folder_is_refused_while_the_first_goes_on(tmp_path):
    run = tmp_path / "run"
    command = ["train", "--run", run, "--iters", "30", "--device", "cpu"]
    first = Command([*command, "--epochs", "50"])
    try:
        deadline = time.monotonic() + 120
        while not (run / "checkpoint.pt").exists():
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        second = Command([*command, "--resume"]).done()
        assert second.returncode == 2 and f"(pid {first.pid} on " in second.stderr
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    assert checkpoint.load(run / "checkpoint.pt")["epoch"] >= 0
