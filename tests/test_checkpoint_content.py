"""Checkpoints with entries of a wrong type: one error each, in every command that reads them."""

from __future__ import annotations

import math
import shutil

import pytest
import torch

from ccfast._errors import InputError
from ccfast.cli import main
from ccfast.training import TrainConfig, train
from ccfast.training.run_folder import checkpoint

HUGE = 10**5000


def put(*path_and_value):
    """A change: the value at a path of names and indices."""
    *path, value = path_and_value

    def change(content):
        at = content
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value
        return content

    return change


def without(*path):
    def change(content):
        at = content
        for name in path[:-1]:
            at = at[name]
        del at[path[-1]]
        return content

    return change


def instead(value):
    return lambda content: value


#: Changes to what every command reads.
ANYWHERE = {
    "a list": instead([1, 2]),
    "None": instead(None),
    "a tensor": instead(torch.zeros(3)),
    "an empty table": instead({}),
    "no model": without("model"),
    "no config": without("config"),
    "no epoch": without("epoch"),
    "a list for the model": put("model", [torch.zeros(2)]),
    "None for the model": put("model", None),
    "an empty model": put("model", {}),
    "a number in the model": put("model", "neck.weight", 3.0),
    "None in the model": put("model", "neck.weight", None),
    "a name that is a number": put("model", 3, torch.zeros(2)),
    "a tensor of another shape": put("model", "neck.weight", torch.zeros(3)),
    "a tensor without an axis": put("model", "input_mean", torch.tensor(0.5)),
    "a tensor with too many axes": put("model", "neck.weight", torch.zeros(128, 1, 1)),
    "NaN in the model": put("model", "neck.weight", torch.full((128,), math.nan)),
    "infinity in the model": put("model", "neck.weight", torch.full((128,), math.inf)),
    "complex numbers in the model": put("model", "neck.weight", torch.zeros(128, dtype=torch.complex64)),
    "a sparse tensor in the model": put("model", "neck.weight", torch.zeros(128).to_sparse()),
    "a tensor that is not there": put("model", "neck.weight", torch.zeros(128, device="meta")),
    "None for the config": put("config", None),
    "a list for the config": put("config", [("arch", "smallconv")]),
    "text for the config": put("config", "smallconv"),
    "a number as a name in the config": put("config", 5, 5),
    "an unknown option": put("config", "colour", "red"),
    "another encoder": put("config", "projection", 7),
    "a list for the architecture": put("config", "arch", ["smallconv"]),
    "an architecture that there is not": put("config", "arch", "smallcon"),
    "text for the epoch": put("epoch", "3"),
    "None for the epoch": put("epoch", None),
    "true for the epoch": put("epoch", True),
    "a tensor for the epoch": put("epoch", torch.tensor(1)),
    "half an epoch": put("epoch", 0.5),
    "NaN for the epoch": put("epoch", math.nan),
    "a negative epoch": put("epoch", -1),
    "an absurd epoch": put("epoch", 10**9),
    "an epoch of too many digits": put("epoch", HUGE),
    "text for the best": put("best", "best"),
    "a list for the best": put("best", [0.5]),
    "text in the best": put("best", {"epoch": 1, "mAP": "high"}),
    "NaN in the best": put("best", {"epoch": 1, "mAP": math.nan}),
    "half a best": put("best", {"epoch": 1}),
}

#: Changes to entries that only a resumed run reads.
OF_A_RUN = {
    "no best": without("best"),
    "no optimizer": without("optimizer"),
    "None for the optimizer": put("optimizer", None),
    "a list for the optimizer": put("optimizer", []),
    "no param_groups": without("optimizer", "param_groups"),
    "text for the param_groups": put("optimizer", "param_groups", "text"),
    "two param_groups": put("optimizer", "param_groups", [{}, {}]),
    "None among the param_groups": put("optimizer", "param_groups", [None]),
    "no parameters": put("optimizer", "param_groups", 0, "params", []),
    "text for the parameters": put("optimizer", "param_groups", 0, "params", "text"),
    "text for the rate": put("optimizer", "param_groups", 0, "lr", "high"),
    "NaN for the rate": put("optimizer", "param_groups", 0, "lr", math.nan),
    "None for the betas": put("optimizer", "param_groups", 0, "betas", None),
    "one beta": put("optimizer", "param_groups", 0, "betas", (0.9,)),
    "a list for the state": put("optimizer", "state", []),
    "a list for the moments": put("optimizer", "state", 0, []),
    "no moments": put("optimizer", "state", 0, {}),
    "moments of another shape": put("optimizer", "state", 0, "exp_avg", torch.zeros(2)),
    "moments that are NaN": put("optimizer", "state", 0, "exp_avg", torch.full((16, 1, 3, 3), math.nan)),
    "moments of one parameter too many": put("optimizer", "state", 999, {"step": torch.tensor(1.0)}),
    "text for the step": put("optimizer", "state", 0, "step", "1"),
    "None for the scheduler": put("scheduler", None),
    "text in the scheduler": put("scheduler", "last_epoch", "1"),
    "another epoch in the scheduler": put("scheduler", "last_epoch", 7),
    "text for the base rates": put("scheduler", "base_lrs", "text"),
    "no base rate": put("scheduler", "base_lrs", []),
    "None for gamma": put("scheduler", "gamma", None),
    "no random states": without("random"),
    "None for the random states": put("random", None),
    "no process": put("random", []),
    "a number for the random states": put("random", [5]),
    "no generator": put("random", [{}]),
    "text for a generator": put("random", 0, "cpu", "text"),
    "another generator": put("random", 0, "cpu", torch.zeros(3, dtype=torch.uint8)),
    "half of NumPy's generator": put("random", 0, "numpy", (torch.zeros(3),)),
    "None for Python's generator": put("random", 0, "python", None),
    "text for the first clusters": put("first_clusters", "many"),
    "negative first clusters": put("first_clusters", -3),
}


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """No page at the end of a run: it takes longer than these runs."""
    monkeypatch.setattr("ccfast.commands._page.write_page", lambda *args: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    train(TrainConfig(run=str(run), epochs=1, iters=2, device="cpu", quiet=True))
    return run


@pytest.fixture(scope="module")
def contents(whole):
    """A new copy of the content of the last checkpoint."""
    return lambda: torch.load(whole / "checkpoint.pt", weights_only=True)


def fails(capsys, *arguments):
    """The last line of the command's output; its status must be 2."""
    assert main(list(map(str, arguments))) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"ccfast {arguments[0]}: ")
    assert len(line) < 600
    return line


@pytest.mark.slow
@pytest.mark.parametrize("change", ANYWHERE.values(), ids=ANYWHERE)
def test_entries_of_other_types_are_one_error_to_every_command(tmp_path, contents, whole, change, capsys):
    file = tmp_path / "best.pt"
    torch.save(change(contents()), file)
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.copy(file, run / "checkpoint.pt")
    before = {path: path.read_bytes() for path in run.iterdir()}
    lines = [
        fails(capsys, "evaluate", file, "--device", "cpu"),
        fails(capsys, "extract", file, "-o", tmp_path / "features.npy", "--device", "cpu"),
        fails(capsys, "export", file, "-o", tmp_path / "encoder.pt2"),
        fails(capsys, "train", "--run", tmp_path / "new", "--init", file, "--device", "cpu"),
        fails(capsys, "train", "--run", run, "--resume", "--device", "cpu"),
    ]
    assert "--init: " in lines[3]
    assert all(str(file) in line for line in lines[:4]) and str(run) in lines[4]
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    assert not (tmp_path / "new").exists() and not (tmp_path / "features.npy").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a list", "a list for the model", "an absurd epoch", "NaN in the model"])
def test_reports_and_pretraining_refuse_them_as_well(tmp_path, contents, whole, name, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    run = shutil.copytree(whole, tmp_path / "run")
    torch.save(ANYWHERE[name](contents()), run / "best.pt")
    assert "best.pt: " in fails(capsys, "report", run, "--device", "cpu")
    assert "--init: " in fails(capsys, "pretrain", "--run", tmp_path / "new", "--init", run, "--device", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("change", OF_A_RUN.values(), ids=OF_A_RUN)
def test_a_run_does_not_go_on_with_states_of_other_types(tmp_path, contents, whole, change, capsys):
    run = shutil.copytree(whole, tmp_path / "run")
    torch.save(change(contents()), run / "checkpoint.pt")
    before = {path: path.read_bytes() for path in run.iterdir()}
    line = fails(capsys, "train", "--run", run, "--resume", "--epochs", "2", "--device", "cpu")
    assert "checkpoint.pt: cannot be resumed from: " in line
    assert {path: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize("size", [0, 1, 100, 10_000])
def test_a_truncated_file_is_one_error(tmp_path, whole, size, capsys):
    (tmp_path / "best.pt").write_bytes((whole / "best.pt").read_bytes()[:size])
    assert "not a checkpoint, or a truncated one" in fails(capsys, "evaluate", tmp_path / "best.pt")


def test_a_table_that_holds_itself_is_one_error(tmp_path, contents, capsys):
    content = contents()
    content["config"]["eps"] = content["best"]["mAP"] = content
    torch.save(content, tmp_path / "best.pt")
    fails(capsys, "evaluate", tmp_path / "best.pt")


def test_memory_that_runs_out_while_reading_is_not_taken_for_a_broken_file(whole, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", fail)
    assert main(["evaluate", str(whole), "--device", "cpu"]) == 1
    assert "out of memory: DefaultCPUAllocator: can't allocate memory" in capsys.readouterr().err


def test_an_epoch_that_the_run_has_is_taken(tmp_path, contents):
    torch.save(contents() | {"epoch": 0}, tmp_path / "best.pt")
    assert checkpoint.load(tmp_path / "best.pt")["epoch"] == 0
    torch.save(contents() | {"epoch": 2}, tmp_path / "best.pt")
    with pytest.raises(InputError, match=r"its epoch is 2, expected 0 to 1"):
        checkpoint.load(tmp_path / "best.pt")
