"""Failures of the machine, of the shell and of names give one line instead of a traceback."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import files_of_at_most, small_disk
from image_trees import MARKET, write_tree
from processes import Command, ccfast_in_processes

from ccfast._errors import InputError, is_out_of_memory
from ccfast._failures import told
from ccfast.cli import COMMANDS, main
from ccfast.training import TrainConfig, train
from ccfast.training.config import PATHS, flag

QUICK = ["--epochs", "1", "--iters", "2", "--device", "cpu"]
CCFAST = [sys.executable, "-m", "ccfast"]


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """No page at the end of a run: it takes longer than these runs."""
    monkeypatch.setattr("ccfast.commands._page.write_page", lambda *args: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(TrainConfig(run=str(folder), epochs=1, iters=2, device="cpu", quiet=True))
    return folder


def fails(capsys, status, *arguments):
    """The last message of the command, whose status must be ``status``."""
    assert main(list(map(str, arguments))) == status
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


# -- memory


#: The out-of-memory messages of torch, NumPy and Python on the CPU.
TOO_MUCH = {
    "torch": lambda: torch.empty(1 << 58, dtype=torch.uint8),
    "numpy": lambda: np.empty(1 << 58, dtype=np.uint8),
    "python": lambda: bytearray(1 << 58),
}

ERRORS = [
    MemoryError(),
    MemoryError("std::bad_alloc"),
    OSError(12, "Cannot allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
    RuntimeError("Caught _ArrayMemoryError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
                 "last):\n  File\nnumpy._core._exceptions._ArrayMemoryError: Unable to allocate 7 GiB for an array"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_memory_that_runs_out_gets_the_same_advice_on_every_device(tmp_path, monkeypatch, capsys, error):
    def fail(*args):
        raise error

    monkeypatch.setattr("ccfast.training.loop.iterate", fail)
    err = fails(capsys, 1, "train", "--run", tmp_path / "run", *QUICK)
    assert err.count("\n") == 1 and err.startswith("ccfast train: out of memory: ")
    assert "Try a smaller --batch-size" in err and "enforce fail" not in err


@pytest.mark.parametrize("allocate", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_torch_numpy_and_python_say_is_understood(tmp_path, monkeypatch, capsys, allocate):
    monkeypatch.setattr("ccfast.training.loop.iterate", lambda *args: allocate())
    assert "out of memory: " in fails(capsys, 1, "train", "--run", tmp_path / "run", *QUICK)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "info"])
def test_each_command_advises_what_it_has(command, capsys):
    options = set(re.findall(r"--[a-z-]+", told(MemoryError(), command)))
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert options and all(option in text for option in options)


def test_other_errors_are_not_taken_for_memory(tmp_path):
    for error in (RuntimeError("shape mismatch"), ValueError("out of memory"), InputError("out of memory")):
        assert not is_out_of_memory(error)
    assert told(RuntimeError("shape mismatch"), "train") is None


def test_an_image_that_finds_no_memory_is_not_left_out_as_a_bad_one(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    from PIL import Image

    def fail(*args):
        raise MemoryError

    write_tree(tmp_path / "data", MARKET)
    monkeypatch.setattr(Image, "open", fail)
    options = ["--dataset", "market1501", "--data-dir", tmp_path / "data", "--bad-images", "skip"]
    assert "out of memory" in fails(capsys, 1, "train", "--run", tmp_path / "run", *options)


# -- processes


@pytest.mark.slow
def test_a_port_in_use_is_a_message(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = ["train", "--run", tmp_path / "run", *QUICK]
        done = Command(command, environment={**os.environ, **environment}).done()
    assert done.returncode == 1
    assert f"port {port} is in use; pass another one to torchrun (--master-port), or --standalone" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("environment", "status", "message"),
    [
        ({"WORLD_SIZE": "two"}, 2, "WORLD_SIZE: expected a number in the environment, as torchrun sets it, got 'two'"),
        ({"WORLD_SIZE": ""}, 2, "WORLD_SIZE: expected a number"),
        ({"WORLD_SIZE": "-2"}, 2, "WORLD_SIZE: expected a number"),
        ({"WORLD_SIZE": "2"}, 1, "RANK"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, 1, "MASTER_ADDR"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}, 1, "MASTER_PORT"),
        ({"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}, 1, "could not find each"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"}, 1, "could not find each"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999"}, 1, "could not find"),
    ],
)
def test_processes_that_cannot_come_together_are_a_message(tmp_path, monkeypatch, capsys, environment, status, message):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert message in fails(capsys, status, "train", "--run", tmp_path / "run", *QUICK)


@pytest.mark.slow
def test_several_processes_share_one_lock_and_free_it(tmp_path):
    ccfast_in_processes(2, "train", {"run": tmp_path / "run", "epochs": 1, "iters": 2, "device": "cpu"})
    assert not list((tmp_path / "run").glob(".*"))
    outputs = ccfast_in_processes(2, "train", {"run": tmp_path / "run", "device": "cpu"}, status=2)
    assert all("holds a run already" in output for output in outputs)


# -- empty paths


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_refused_wherever_there_is_one(name, path, capsys):
    """What a shell passes for a variable that is not set."""
    assert f"{flag(name)}: expected a path, got {path!r}" in fails(capsys, 2, "train", flag(name), path)


@pytest.mark.slow
def test_an_empty_path_is_refused_by_every_other_command(run, tmp_path, capsys):
    features = tmp_path / "features.npy"
    np.save(features, np.eye(4, dtype=np.float32))
    for arguments in (
        ("train", "--config", ""),
        ("pretrain", "--init", ""),
        ("bench-train", "--data-dir", ""),
        ("bench-train", "--output", ""),
        ("evaluate", ""),
        ("evaluate", run, "--data-dir", ""),
        ("extract", ""),
        ("extract", run, "-o", ""),
        ("export", ""),
        ("export", run, "-o", ""),
        ("report", ""),
        ("report", run, "-o", ""),
        ("cluster", "", "-o", tmp_path / "labels.npy"),
        ("cluster", features, "-o", ""),
    ):
        if arguments[0] in ("extract", "export") and "-o" not in arguments:
            arguments = (*arguments, "-o", tmp_path / ("x.npy" if arguments[0] == "extract" else "x.pt2"))
        assert "expected a path, got ''" in fails(capsys, 2, *arguments), arguments


@pytest.mark.slow
def test_the_home_folder_is_expanded_by_every_command(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "run")
    np.save(tmp_path / "features.npy", np.eye(30, dtype=np.float32))
    for arguments in (
        ["train", "--run=~/new", "--init=~/run", "--quiet", *QUICK],
        ["evaluate", "~/run", "--device", "cpu"],
        ["extract", "~/run", "--output=~/out.npy", "--device", "cpu"],
        ["export", "~/run/best.pt", "--output=~/out.pt2"],
        ["cluster", "~/features.npy", "--output=~/labels.npy", "--device", "cpu"],
    ):
        assert main(arguments) == 0
    made = {"new", "out.npy", "out.csv", "out.pt2", "labels.npy"}
    assert {path.name for path in tmp_path.iterdir()} == made | {"run", "features.npy"}


# -- outputs


#: A table of earlier features, which a new one may replace.
TABLE = "row,part,path,id,cam\n"


@pytest.mark.slow
def test_a_full_disk_leaves_the_older_outputs_of_every_command(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    with small_disk(64 << 10) as disk:
        names = ("page.html", "out.npy", "out.csv", "out.pt2", "labels.npy")
        for name in names:
            (disk / name).write_text("older")
        (disk / "out.csv").write_text(TABLE)
        np.save(tmp_path / "features.npy", np.eye(20_000, 8, dtype=np.float32) + 1)
        commands = (
            ["report", run, "-o", disk / "page.html", "--device", "cpu"],
            ["extract", run, "-o", disk / "out.npy", "--device", "cpu"],
            ["export", run, "-o", disk / "out.pt2"],
        )
        for arguments in commands:
            assert "cannot be written (is the disk full?)" in fails(capsys, 1, *arguments)
        expected = {**dict.fromkeys(names, "older"), "out.csv": TABLE}
        assert {path.name: path.read_text() for path in disk.iterdir()} == expected


def test_a_full_disk_leaves_older_labels(tmp_path, capsys):
    np.save(tmp_path / "features.npy", np.eye(300, dtype=np.float32))
    (tmp_path / "labels.npy").write_text("older")
    with files_of_at_most(1000):
        err = fails(capsys, 1, "cluster", tmp_path / "features.npy", "-o", tmp_path / "labels.npy", "--device", "cpu")
    assert "cannot be written (is the disk full?)" in err
    assert (tmp_path / "labels.npy").read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.fixture
def odd_data(tmp_path):
    """A data set with names that are not UTF-8 and contain control sequences of a terminal."""
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe4ta\x1b[2J"))
    rows = {"train": 3, "query": 1, "gallery": 2}
    tree = {
        f"{part}/{identity}": [os.fsdecode(b"caf\xe9-%d.png" % shot) for shot in range(count)]
        for part, count in rows.items()
        for identity in ("a", "b", "c", "d")
    }
    try:
        return write_tree(root, tree)
    except OSError:
        pytest.skip("the file system takes UTF-8 only")


@pytest.mark.slow
def test_names_that_are_not_utf_8_are_escaped_in_everything_that_is_written(odd_data, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    run = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xfcn"))
    options = ["--dataset", "folder", "--data-dir", odd_data, "--weights", "none", "--arch", "smallconv", "--k1", "4",
               "--k2", "2", "--eps", "0.9", "--min-samples", "1", "--batch-size", "4", "--num-instances", "2",
               "--height", "16", "--width", "8", "--workers", "0"]  # fmt: skip
    commands = (
        ["train", "--run", run, *options, *QUICK],
        ["train", "--run", run, "--resume", "--epochs", "2"],
        ["evaluate", run, "--device", "cpu"],
        ["extract", run, "-o", run / "features.npy", "--device", "cpu"],
        ["report", run, "--device", "cpu"],
        ["evaluate", run / "no.pt"],
    )
    for arguments in commands:
        done = Command(arguments).done()
        out, err = done.stdout, done.stderr
        assert done.returncode == (2 if "no.pt" in str(arguments[1]) else 0), err
        assert "Traceback" not in err and "Logging error" not in err
        assert "r\\xfcn" in out + err and "\x1b[2J" not in out + err
    rows = list(csv.reader((run / "features.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 1 + 24 and all("caf\\xe9-" in row[2] for row in rows[1:])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "caf\\xe9-" in page
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line)
    assert (run / "config.yaml").read_text(encoding="utf-8").isascii()


# -- | head


def closed_pipe(arguments):
    """The command with a closed stdout."""
    done = Command(arguments, nobody_reads=True).done()
    return done.returncode, done.stderr


@pytest.mark.slow
def test_every_command_ends_quietly_if_the_reader_has_ended(run, tmp_path):
    np.save(tmp_path / "features.npy", np.eye(30, dtype=np.float32))
    for arguments in (
        ["--help"],
        ["train", "--help"],
        ["info"],
        ["train", "--run", tmp_path / "new", *QUICK],
        ["evaluate", run, "--device", "cpu"],
        ["extract", run, "-o", tmp_path / "out.npy", "--device", "cpu"],
        ["cluster", tmp_path / "features.npy", "-o", tmp_path / "labels.npy", "--device", "cpu"],
    ):
        assert closed_pipe(arguments) == (141, ""), arguments


def test_a_program_ends_quietly_if_the_reader_has_ended():
    """From the start of Python to its end."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*CCFAST, "--help"], stdout=write, stderr=subprocess.PIPE, text=True, timeout=300, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_a_run_whose_reader_is_gone_leaves_no_lock(tmp_path):
    assert closed_pipe(["train", "--run", tmp_path / "run", *QUICK])[0] == 141
    assert not list((tmp_path / "run").glob(".*")) if (tmp_path / "run").exists() else True


@pytest.mark.slow
def test_quiet_commands_do_not_notice_that_the_reader_has_ended(tmp_path):
    assert closed_pipe(["train", "--run", tmp_path / "run", *QUICK, "--quiet"]) == (0, "")


@pytest.mark.slow
def test_errors_keep_their_status_if_the_reader_has_ended(tmp_path):
    status, err = closed_pipe(["evaluate", tmp_path / "no.pt"])
    assert status == 2 and "no such checkpoint" in err
