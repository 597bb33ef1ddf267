"""The code of the benchmarks: a failed measurement is left out and reported; GPU paths run on a simulated GPU."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fake_cuda import FakeGraph, OnCpu, pretend_cuda

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # the benchmarks are in the repository, not in the installed package

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import bench_memory, bench_modules, differences, inputs, peaks, peers_cuda, results, table  # noqa: E402
from benchmarks.attempts import Cell  # noqa: E402
from benchmarks.case import CPU, Bench, Case, WrongAnswer  # noqa: E402
from benchmarks.limits import Limits  # noqa: E402
from benchmarks.measure import measure, plan  # noqa: E402
from benchmarks.peaks import Peaks  # noqa: E402
from ccfast import nn  # noqa: E402
from ccfast.check import clock  # noqa: E402

CUDA = torch.device("cuda")
PEAKS = Peaks({"float32": 1e11, "bfloat16": 1e12}, 1e10)
FAIL = "the second line is not told"


def double(x):
    return 2 * x


def out_of_memory(x):
    raise torch.OutOfMemoryError("no room")


def broken(x):
    raise RuntimeError(f"broken\n{FAIL}")


def small_case(**options) -> Case:
    providers = {"ccfast": double, "reference": double, **options.pop("providers", {})}
    return Case(
        op="small", name="double", sizes={"N": 3}, inputs=lambda N: (torch.arange(float(N)),), providers=providers,
        difference=differences.values, **options,
    )  # fmt: skip


def measured(case: Case, strict: bool = False, device: torch.device = CPU):
    return measure(case, 1e-3, Limits(PEAKS, device), strict)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch):
    """A simulated GPU, and small products to measure its peaks."""
    pretend_cuda(monkeypatch)
    monkeypatch.setitem(peaks.SIDE, "cuda", 64)
    monkeypatch.setitem(peaks.COPIED, "cuda", 1 << 16)
    monkeypatch.setattr(FakeGraph, "replays", 0)
    with OnCpu():
        yield
    inputs.use_device(CPU)
    clock.more_than_l2.cache_clear()
    inputs.clustered_features.cache_clear()


def test_a_provider_that_fails_is_left_out_and_the_others_are_measured():
    found = measured(small_case(providers={"broken": broken, "large": out_of_memory}))
    assert set(found.timings) == {Cell("ccfast"), Cell("reference")}
    assert found.left_out == {Cell("broken"): "RuntimeError: broken", Cell("large"): "out of memory"}
    assert found.failed == {Cell("broken")}  # a size that does not fit is no failure


def test_a_provider_that_fails_while_it_is_timed_is_left_out():
    calls = []

    def tires(x):
        calls.append(x)
        if len(calls) > 4:
            raise RuntimeError("tired")
        return 2 * x

    found = measured(small_case(providers={"tires": tires}))
    assert found.left_out == {Cell("tires"): "RuntimeError: tired"} and Cell("ccfast") in found.timings


def test_inputs_that_cannot_be_built_leave_out_the_whole_case():
    def no_room(N):
        raise torch.OutOfMemoryError("no room")

    found = measured(Case("small", "double", {"N": 3}, no_room, {"ccfast": double}, differences.values))
    assert not found.timings and found.left_out == {Cell("ccfast"): "out of memory"} and not found.failed


def test_a_wrong_answer_stops_a_quick_run_and_is_recorded_in_a_full_one():
    case = small_case(providers={"wrong": lambda x: 3 * x})
    with pytest.raises(WrongAnswer, match="by wrong: largest difference: 2, at most 0 allowed"):
        measured(case, strict=True)
    found = measured(case)
    assert found.left_out[Cell("wrong")].startswith("wrong answer: double[N=3] by wrong")
    assert found.failed == {Cell("wrong")} and Cell("ccfast") in found.timings


def test_without_the_reference_answers_are_not_compared():
    found = measured(Case("small", "double", {"N": 3}, lambda N: (torch.ones(N),),
                          {"ccfast": double, "reference": out_of_memory}, differences.values))  # fmt: skip
    assert found.timings[Cell("ccfast")].first.difference is None


def test_on_cuda_calls_and_graphs_are_timed_by_events_and_what_cannot_be_captured_says_why(cuda):
    found = measured(small_case(graph=True, uncapturable={"reference": "it waits"}), device=CUDA)
    assert set(found.timings) == {Cell("ccfast"), Cell("reference"), Cell("ccfast", "graph")}
    assert found.left_out == {Cell("reference", "graph"): "cannot be captured: it waits"}
    for timing in found.timings.values():
        assert timing.seconds == pytest.approx([2e-3] * timing.plan.rounds) and timing.plan.iterations == 1
    assert FakeGraph.replays > found.timings[Cell("ccfast", "graph")].plan.rounds
    assert found.timings[Cell("ccfast")].first.peak_memory == 1000
    assert found.timings[Cell("ccfast", "graph")].first.peak_memory is None


def test_after_a_failure_that_the_gpu_does_not_survive_the_rest_says_so_and_the_run_ends(
    cuda, tmp_path, monkeypatch, capsys
):
    def fault(x):
        def lost():
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

        monkeypatch.setattr(torch.cuda, "synchronize", lost)
        lost()

    cases = [small_case(), small_case(providers={"fault": fault, "after": double}), small_case()]
    monkeypatch.setattr(bench_memory, "cases", lambda preset: cases)
    with pytest.raises(SystemExit, match="by fault as eager: RuntimeError: CUDA error: an illegal memory access"):
        command.main(["--device", "cuda", "--op", "memory", "--output", str(tmp_path)])
    rows = {row["provider"]: row for row in results.read(next(tmp_path.iterdir()))}
    assert rows["fault"]["left_out"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert rows["after"]["left_out"].startswith("the GPU did not survive a failure before")


def test_a_capture_that_fails_says_what_failed_first_and_the_calls_stay(cuda, monkeypatch):
    capturing, chosen = [], []

    @contextmanager
    def capture(graph):
        capturing.append(graph)
        try:
            yield
        finally:
            capturing.clear()
            raise RuntimeError("the capture was invalidated")

    def waits(x):
        if capturing:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return 2 * x

    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "set_stream", chosen.append)
    found = measured(small_case(providers={"waits": waits}, graph=True), device=CUDA)
    why = "RuntimeError: operation not permitted when stream is capturing"
    assert found.left_out[Cell("waits", "graph")] == why and Cell("waits") in found.timings
    # The failed end leaves the stream of the capture current; it is reset.
    assert {*chosen} == {torch.cuda.current_stream()}


@pytest.mark.slow
def test_an_update_in_place_is_captured_from_untouched_inputs(cuda, tmp_path, capsys):
    arguments = ["--device", "cuda", "--op", "memory", "--output", str(tmp_path)]
    assert command.main(arguments) == 0
    rows = results.read(next(tmp_path.glob("nvidia-fake-*-quick.json")))
    graphs = {(row["case"], row["provider"]): row for row in rows if row["mode"] == "graph"}
    for mode in ("sequential", "hardest", "mean"):
        row = graphs[f"update_memory_ ({mode})", "ccfast"]
        assert row["median_s"] == pytest.approx(2e-3) and row["exactness"]["value"] < 1e-6
    assert "reads the labels" in graphs["update_memory_ (sequential)", "eager torch"]["left_out"]
    assert "TF32 off" in rows[0]["timing"] and rows[0]["cuda"] == "13.0"
    text = table.full_table(rows)
    assert "| update_memory_ (mean), CUDA graph |" in text and "TF32 off" in text and "CUDA 13.0" in text
    assert "ccfast, graph" in capsys.readouterr().out


def test_cases_for_which_no_time_is_left_are_named(cuda, tmp_path, capsys):
    assert command.main(["--device", "cuda", "--op", "memory", "--output", str(tmp_path), "--seconds", "-1"]) == 1
    assert "cluster_centroids[N=2000,D=256,C=100]: not started, the -1 s were over" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_failures_make_the_exit_status_1_after_the_rows_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_memory, "cases", lambda preset: [small_case(providers={"broken": broken}), small_case()])
    monkeypatch.setattr(command, "measure_peaks", lambda device: PEAKS)
    assert command.main(["--op", "memory", "--output", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error == "double[N=3] by broken as eager: RuntimeError: broken\n"
    rows = results.read(next(tmp_path.iterdir()))
    assert {row["provider"] for row in rows if "left_out" not in row} == {"ccfast", "reference"}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_started(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--device", "cuda", "--output", str(tmp_path)])
    assert stopped.value.code == 2 and "no CUDA device" in capsys.readouterr().err
    script = [ROOT / "benchmarks" / "gpu.sh", tmp_path / "log"]
    done = subprocess.run(
        script, env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert done.returncode == 1 and "no CUDA device" in done.stderr and not list((tmp_path / "log").iterdir())


def test_a_gpu_is_timed_call_by_call_and_a_cpu_for_long_enough():
    assert plan(1e-5, 0.5, CUDA).iterations == 1
    assert plan(1e-5, 0.5, CPU).iterations == 500
    assert plan(5, 0.5, CUDA) == plan(5, 0.5, CPU)


def test_calls_and_graphs_are_filed_apart_and_older_rows_are_calls(tmp_path):
    path = tmp_path / "rows.json"
    row = {"op": "o", "case": "c", "provider": "p", "pass": "forward", "dtype": "float32", "sizes": {"N": 1}}
    path.write_text(json.dumps([{**row, "median_s": 1}]), encoding="utf-8")
    results.add(path, [{**row, "mode": "graph", "median_s": 2}])
    results.add(path, [{**row, "mode": "eager", "median_s": 3}])
    assert [(found["mode"], found["median_s"]) for found in results.read(path)] == [("graph", 2), ("eager", 3)]


def test_a_case_that_ccfast_could_not_do_still_has_a_line():
    row = {"op": "o", "case": "c", "pass": "forward", "mode": "eager", "sizes": {"N": 1}, "median_s": 1e-3}
    case = {name: {**row, "provider": name} for name in ("reference", "other")}
    assert table._line(case) == "| c | N=1 | left out |  | 1 ms | other: 1 ms |  |  |"


def test_a_share_of_the_floor_is_shown_only_where_the_floor_counts():
    row = {"op": "o", "case": "c", "pass": "forward", "mode": "eager", "sizes": {"N": 1}, "median_s": 1e-3}
    row |= {"provider": "ccfast", "peak_memory_bytes": 0, "exactness": {"what": "compared", "value": None}}
    shares = {share: table._line({"ccfast": {**row, "share_of_floor": share}}).split(" | ")[3] for share in (0.26, 0.0)}
    assert shares == {0.26: "26%", 0.0: ""}


def test_the_readmes_row_shows_the_best_peer_that_was_measured():
    headline = table.Headline("what", "c", {"N": 2}, ("faiss", "eager torch", "reference"))
    row = {"case": "c", "mode": "eager", "sizes": {"N": 2, "D": 1}}
    rows = [
        {**row, "provider": "ccfast", "median_s": 1e-3},
        {**row, "provider": "faiss", "left_out": "not installed"},
        {**row, "provider": "eager torch", "median_s": 3e-3},
        {**row, "provider": "eager torch", "median_s": 9, "sizes": {"N": 3}},
        {**row, "provider": "faiss", "median_s": 9, "mode": "graph"},
        {**row, "provider": "reference", "median_s": 5e-3},
    ]
    assert table._headline(headline, rows) == "| what | 1 ms | PyTorch: 3 ms | 3.0 |"
    assert table._headline(headline, rows[1:]) is None
    assert table._headline(headline, rows[:2]) is None


def test_the_readme_has_every_headline_of_each_device():
    for _, rows in results.newest():
        assert None not in [table._headline(headline, rows) for headline in table.HEADLINES]


def test_peers_that_are_not_installed_say_how_they_would_be():
    providers, missing = peers_cuda.available(
        {"here": (double, "torch", "torch"), "not here": (double, "no_such_module", "no-such-package")}
    )
    assert list(providers) == ["here"] and missing == {"not here": "not installed (pip install no-such-package)"}


def test_differences_of_blocks_are_those_of_the_whole():
    answer = torch.rand(2500, 3)
    truth = answer.clone()
    truth[2400, 1] += 0.5
    assert differences.values(answer, truth).value == pytest.approx(0.5)
    assert differences.values((answer[0, 0], answer), (answer[0, 0] + 2, truth)).value == pytest.approx(2)
    assert differences.relative((2 * answer, answer), (answer, answer)).value == pytest.approx(1)


def test_a_partition_does_not_depend_on_the_numbers_of_its_clusters():
    truth = torch.tensor([0, 0, 0, 1, 1, -1])
    assert differences.partition(torch.tensor([4, 4, 4, 2, 2, -1]), truth).value == 0
    assert differences.partition(torch.tensor([0, 0, 1, 1, 1, -1]), truth).value == pytest.approx(1 / 6)
    assert differences.partition(torch.zeros(6, dtype=torch.int64), truth).value == pytest.approx(1 / 2)


def test_methods_are_compared_by_mean_and_deviation_over_the_seeds():
    from benchmarks.train_methods import table

    common = {"method": "cap", "before": {"mAP": 0.2, "rank1": 0.5}, "clusters": 10, "noise": 3, "cpu_seconds": 8.0}
    runs = [
        {**common, "seed": seed, "after": {"mAP": value, "rank1": value + 0.1}} for seed, value in enumerate((0.3, 0.5))
    ]
    assert table(runs).splitlines()[2] == "| cap | 20.0 | 40.0 ± 14.1 | 50.0 | 50.0 ± 14.1 | 10, 3 | 8 |"


def test_processor_time_is_measured_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(clock, "now", clock.now)  # as it was, after the test
    assert results.environment(CPU, PEAKS)["timing"] == "wall clock"
    clock.use_processor_time()
    assert clock.seconds_of(lambda: time.sleep(0.2), CPU) < 0.1
    assert results.environment(CPU, PEAKS)["timing"] == "processor time"


@pytest.mark.parametrize("case", bench_modules.cases("quick"), ids=str)
def test_a_module_does_the_same_on_plain_pytorch(case):
    bench = Bench(case)
    for provider in case.truth_first():
        bench.check(provider, bench.first_call(provider)())


def test_every_module_is_measured():
    modules = {name for name in nn.__all__ if inspect.isclass(getattr(nn, name))}
    assert {name.partition(".")[0] for name in bench_modules.KINDS} == modules
