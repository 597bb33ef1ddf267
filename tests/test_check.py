"""``ccfast check`` covers every op, passes if all ops are right, and reports each wrong one."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import schemas
import torch
from conftest import EMULATED, Backend
from fake_cuda import FakeGraph, OnCpu, nothing, pretend_cuda
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import ccfast
from ccfast._types import RankingMetrics
from ccfast.check import clock, run, speed, table, trial
from ccfast.check.run import ops, timings
from ccfast.check.speed import Size, time_speed
from ccfast.check.trial import CPU, copied, run_trial
from ccfast.cli import main

TINY = Size(images=130, dim=24, batch=32, identities=17)
CUDA = torch.device("cuda", 0)
TRIALS, FAMILIES = ops(), run.families()
#: Public functions that are no ops.
NO_OPS = {"build_info", "load_encoder", "from_cupy", "from_scipy", "to_cupy", "to_scipy"}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "REAL", {"cpu": TINY, "cuda": TINY})
    monkeypatch.setattr(speed, "BUDGET", 0.0)


def test_every_op_is_checked_and_timed() -> None:
    public = {name for name in ccfast.__all__ if inspect.isfunction(getattr(ccfast, name))} - NO_OPS
    assert public == set(TRIALS) == set(timings(TINY)) and public >= set(ccfast.reference.__all__)


class Recorder(TorchDispatchMode):
    """The names of the ccfast ops that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        namespace, _, name = func.name().partition("::")
        if namespace == "ccfast":
            self.called.add(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(EMULATED, reason="the same calls on slower kernels")
def test_every_op_of_the_dispatcher_is_reached() -> None:
    with Recorder() as recorder:
        for trials in TRIALS.values():
            for each in trials if trials[0].op != "infomap" else ():
                each.call(ccfast, *copied(each.inputs, CPU))
    assert recorder.called == set(schemas.ops())


@pytest.mark.slow
@pytest.mark.parametrize("op", TRIALS)
def test_every_op_is_right_and_as_eager_pytorch(backend: Backend, op: str) -> None:
    if op == "infomap":
        pytest.importorskip("infomap")
    # The emulation is slow; the tests of each family run more cases on it.
    for each in TRIALS[op][:: 4 if backend.name == "emulated" else 1]:
        assert not run_trial(each, backend.device).faults, each.title
    times = time_speed(timings(TINY)[op], backend.device)
    assert times.ours and times.off <= speed.MOST_OFF
    assert (times.eager is None) == (op == "infomap")


def spoiled(answer: Any) -> Any:
    """Changes the first output, or the values of a sparse matrix, a little."""
    if isinstance(answer, RankingMetrics):
        return answer._replace(mAP=answer.mAP + 1e-6)
    if isinstance(answer, tuple):
        return (spoiled(answer[0]), *answer[1:])
    if answer.layout is torch.sparse_csr:
        return torch.sparse_csr_tensor(answer.crow_indices(), answer.col_indices(), answer.values() + 1e-4)
    return answer * 1.001 + 1e-4 if answer.is_floating_point() else answer + 1


def break_op(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    """``ccfast.<op>`` returns a wrong result, or changes its argument wrongly."""
    right = getattr(ccfast, op)

    def wrong(*arguments: Any, **options: Any) -> Any:
        answer = right(*arguments, **options)
        if answer is None:
            arguments[0].mul_(1.001).add_(1e-4)
        return answer if answer is None else spoiled(answer)

    monkeypatch.setattr(ccfast, op, wrong)


@pytest.mark.parametrize("op", TRIALS)
def test_a_wrong_answer_of_any_op_is_seen(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    if op == "infomap":
        pytest.importorskip("infomap")
    break_op(monkeypatch, op)
    (fault,) = run_trial(TRIALS[op][0], CPU).faults
    assert "differs from the reference" in fault and "where the reference has" in fault


def test_a_wrong_gradient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ccfast.centroid_contrastive_loss

    def wrong(features: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return right(features, *arguments, **options) + 1e-3 * (features - features.detach()).sum()

    monkeypatch.setattr(ccfast, "centroid_contrastive_loss", wrong)
    (fault,) = run_trial(TRIALS["centroid_contrastive_loss"][0], CPU).faults
    assert fault.startswith("differs from the reference: output 1: ")


def test_bits_that_change_from_run_to_run_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right, calls = ccfast.sinkhorn, []

    def sometimes(*arguments: Any, **options: Any) -> Tensor:
        calls.append(1)
        return right(*arguments, **options) * (1 + len(calls) * 2.0**-22)

    monkeypatch.setattr(ccfast, "sinkhorn", sometimes)
    assert run_trial(TRIALS["sinkhorn"][0], CPU).faults == ("a second run gave different bits",)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Limits the check to these ops."""
    family = SimpleNamespace(
        trials=lambda: [each for name in names for each in TRIALS[name]],
        speeds=lambda size: [each for found in FAMILIES for each in found.speeds(size) if each.op in names],
    )
    monkeypatch.setattr(run, "families", lambda: (family,))


CHEAP = ("sinkhorn", "evaluate_ranking")


def test_the_command_prints_a_table_and_writes_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, *CHEAP)
    file = tmp_path / "check.json"
    assert main(["check", "--device", backend.device.type, "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "all ops are correct" in out
    assert re.search(rf"^ccfast: {re.escape(ccfast.__version__)}\ncommit: \S+\ntorch: ", out)
    assert re.search(r"^device +op +cases +difference +repeated +graph +ccfast +eager torch +timed at$", out, re.M)
    for op in CHEAP:
        (line,) = re.findall(rf"^{backend.device.type}\S* +{op} .*$", out, re.M)
        assert "same bits" in line and ("=" in line) == (backend.name != "emulated")
    assert ("nothing is timed" in out) == (backend.name == "emulated")
    report = json.loads(file.read_text())
    assert report["wrong"] == [] and [row["op"] for row in report["rows"]] == list(run.ops())
    assert report["facts"]["torch"] == torch.__version__ and report["facts"]["commit"]
    assert all(row["cases"] == len(TRIALS[row["op"]]) for row in report["rows"])


def test_the_command_fails_with_the_name_of_the_op(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, *CHEAP)
    break_op(monkeypatch, "evaluate_ranking")
    file = tmp_path / "check.json"
    assert main(["check", "--device", "cpu", "--json", str(file)]) == 1
    out, err = capsys.readouterr()
    assert err == "ccfast check: wrong on this machine: evaluate_ranking; please report it with the output above\n"
    assert re.search(r"^cpu +evaluate_ranking +\d+ +WRONG", out, re.M)
    assert "evaluate_ranking on cpu: float32, no ties, cameras: differs from the reference: output 0: the value" in out
    assert "evaluate_ranking on cpu: and 20 others" in out and "all ops are correct" not in out
    report = json.loads(file.read_text())
    assert report["wrong"] == ["evaluate_ranking"] and len(report["rows"][1]["faults"]) == 25


def test_an_op_that_stops_with_an_error_is_named_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no kernel image is available\nfor this device")

    only(monkeypatch, *CHEAP)
    monkeypatch.setattr(ccfast, "sinkhorn", broken)
    assert main(["check", "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert "wrong on this machine: sinkhorn;" in err
    assert "float32, iterations=0: RuntimeError: no kernel image is available\n" in out
    assert re.search(r"^cpu +evaluate_ranking +25 .*same bits", out, re.M)


def test_an_answer_that_is_only_wrong_at_the_real_size_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "dbscan", "cluster_centroids")
    right = ccfast.cluster_centroids
    monkeypatch.setattr(
        ccfast, "cluster_centroids", lambda x, y: right(x, y) * (0.9 if x.shape[1] == TINY.dim else 1.0)
    )
    rows = {row.op: row.faults for row in run.check_device(CPU, TINY)}
    (fault,) = rows["cluster_centroids"]
    assert not rows["dbscan"] and "entries differ from eager PyTorch by more than 0.001 of the largest" in fault


def test_without_an_optional_package_its_op_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "infomap", "enqueue_")
    monkeypatch.setattr("ccfast._infomap.importlib.util.find_spec", lambda name: None)
    rows = {row.op: row for row in run.check_device(CPU, None)}
    assert rows["infomap"].note.startswith("left out: InfoMap clustering needs the package infomap")
    assert table.verdict(list(rows.values())) == ["all ops are correct; not checked: infomap"]


def test_without_room_for_eager_pytorch_the_op_is_timed_alone() -> None:
    def no_room(*_: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    found = time_speed(
        speed.Speed("sinkhorn", "B=1", lambda device: (torch.rand(3, 3),), ccfast.sinkhorn, no_room), CPU
    )
    assert found.ours and found.eager is None and found.note == "out of memory in eager PyTorch"


def test_an_output_file_that_cannot_be_written_is_an_error_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--json", str(tmp_path / "none" / "x.json")]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("ccfast check: --json: no such folder") and out == ""


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch):
    """Two simulated GPUs, for which ccfast was built."""
    pretend_cuda(monkeypatch)
    properties = SimpleNamespace(name="NVIDIA Fake", major=9, minor=0, total_memory=1 << 36, L2_cache_size=1 << 10)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA Fake")
    monkeypatch.setattr(torch.cuda, "device", nothing)
    built = ccfast.build_info()
    monkeypatch.setattr(ccfast, "build_info", lambda: {**built, "cuda": "13.0"})
    monkeypatch.setattr(FakeGraph, "replays", 0)
    with OnCpu():
        yield
    clock.more_than_l2.cache_clear()


def test_a_gpu_that_is_not_checked_is_named(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, "enqueue_")
    assert main(["check", "--device", "cpu"]) == 0
    assert "Not checked: 2 CUDA device(s); --device cpu was given." in capsys.readouterr().out
    built = ccfast.build_info()
    monkeypatch.setattr(ccfast, "build_info", lambda: {**built, "cuda": None})
    assert main(["check"]) == 0
    assert "this ccfast was built without CUDA kernels: build with CCFAST_CUDA=1." in capsys.readouterr().out


def test_every_gpu_is_checked_and_calls_are_replayed_as_graphs(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, "enqueue_", "dbscan")
    assert main(["check"]) == 0
    out, _ = capsys.readouterr()
    for gpu in ("cuda:0", "cuda:1"):
        assert f"{gpu}: NVIDIA Fake, compute capability 9.0, 64 GiB" in out
        assert re.search(rf"^{gpu} +enqueue_ +12 +none +same bits +12 ", out, re.M)
        assert re.search(rf"^{gpu} +dbscan +24 +none +same bits +- ", out, re.M)  # it waits for the GPU
    assert FakeGraph.replays == 2 * 12


def test_a_graph_that_replays_something_else_is_seen(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = trial.captured

    def stale(call: Any, restore: Any) -> Any:
        result = found(call, restore)
        result.answer.add_(1)
        return result

    monkeypatch.setattr(trial, "captured", stale)
    (fault,) = run_trial(TRIALS["sinkhorn"][0], CUDA).faults
    assert fault.startswith("replayed as a CUDA graph it gave a different result: ")


def test_after_a_failure_that_the_gpu_does_not_survive_the_rest_is_not_run(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*arguments: Any, **options: Any) -> None:
        def lost(device: Any = None) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr(torch.cuda, "synchronize", lost)
        lost()

    only(monkeypatch, *CHEAP)
    monkeypatch.setattr(ccfast, "sinkhorn", fault)
    first, second = run.check_device(CUDA, TINY)
    assert len(first.faults) == 1 and "illegal memory access" in first.faults[0]
    assert second.faults == ("not run: the GPU did not survive sinkhorn",)
