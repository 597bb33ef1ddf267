"""Every op on nvcc's code: the bits of the emulated kernels in any order of warps and blocks, at the recorded cost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import EMULATED
from torch import Tensor

import ccfast

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # the executor is in the repository, not in the installed package

from tests.ptx import build, cases, counters, executor, record  # noqa: E402

REASON = build.missing() or ("" if EMULATED else "CCFAST_EMULATE=1 has the extension whose launches it takes over")
if REASON:
    pytest.skip(f"runs nvcc's code on an executor: {REASON}", allow_module_level=True)

CASES = [(op, name) for op, of_op in cases.OPS.items() for name in of_op]
SMALL = [(op, name) for op, name in CASES if name not in cases.LARGE]
ROWS, SEEDS = 52, 2
#: Kernels that no case launches: the glue always allocates logits that can be read in packs.
NEVER_LAUNCHED = (
    "contrastive::softmax_cross_entropy_kernel<float, 1>",
    "contrastive::softmax_cross_entropy_kernel<double, 1>",
)
NEVER_LAUNCHED += (
    "contrastive::target_cross_entropy_kernel<float, 1>",
    "contrastive::target_cross_entropy_kernel<double, 1>",
)


@pytest.fixture(scope="module", autouse=True)
def extension() -> Iterator[Path]:
    """The extension whose launches run on the executor, after its setup."""
    executor.core()
    found = executor.emulated_extension()
    assert found is not None
    yield found
    executor.configure()


def _run(extension: Path, op: str, name: str, seed: int | None) -> list[Tensor]:
    executor.configure(seed=seed)
    with executor.installed(extension):
        return [tensor.clone() for tensor in cases.OPS[op][name](ROWS)]


@pytest.mark.parametrize(("op", "name"), SMALL)
def test_nvcc_s_code_gives_what_the_source_gives(extension: Path, op: str, name: str) -> None:
    from_source = [tensor.clone() for tensor in cases.OPS[op][name](ROWS)]
    executed = _run(extension, op, name, seed=None)
    assert len(executed) == len(from_source)
    for found, expected in zip(executed, from_source, strict=True):
        if op in cases.SAME_BITS or not found.is_floating_point():
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
        else:  # nvcc fuses multiplications with additions and has another exp
            # Errors of sums are relative to the largest value.
            scale = float(expected.abs().max()) if expected.numel() else 0.0
            torch.testing.assert_close(found, expected, rtol=0, atol=8 * torch.finfo(found.dtype).eps * scale)


@pytest.mark.parametrize(("op", "name"), SMALL)
def test_no_order_changes_a_bit_and_nothing_races(extension: Path, op: str, name: str) -> None:
    expected = _run(extension, op, name, seed=None)
    for seed in range(SEEDS):
        for found, tensor in zip(_run(extension, op, name, seed), expected, strict=True):
            torch.testing.assert_close(found, tensor, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("op", "name"), CASES)
def test_no_kernel_costs_more_than_the_file_says(extension: Path, op: str, name: str) -> None:
    kept = record.read()
    if kept["nvcc"] != record.nvcc_release():
        pytest.skip(f"counted with nvcc {kept['nvcc']}, here is {record.nvcc_release()}")
    with executor.installed(extension):
        numbers, _, _ = record.count(op, name)
    assert record.worse(kept[name], numbers) == [], "if that is meant to be: python -m tests.ptx --update"


def test_every_kernel_is_in_the_file() -> None:
    launched = set(record.read()["kernels"])
    for path in build.kernels():
        for kernel in executor.entries(executor.load_once(path)):
            short = counters.short_name(kernel)
            assert (short in launched) != (short in NEVER_LAUNCHED), f"{short}: add a case to tests/ptx/cases.py"


def test_worse_counts_are_reported() -> None:
    before = {"kernel": {"instructions": 1000, "sectors": 100}}
    assert record.worse(before, {"kernel": {"instructions": 1030, "sectors": 116}}) == []
    assert record.worse(before, {"kernel": {"instructions": 500}}) == []
    told = record.worse(before, {"kernel": {"instructions": 1031, "sectors": 117, "atomics": 17}, "other": {}})
    assert told == [
        "kernel: atomics 0 -> 17",
        "kernel: instructions 1000 -> 1031",
        "kernel: sectors 100 -> 117",
        "other: new",
    ]
    assert record.worse(before, {}) == ["kernel: gone"]


def test_a_launch_that_fails_names_the_kernel(extension: Path) -> None:
    outside = torch.from_numpy(torch.rand(8, 4).numpy().copy())  # memory that is not torch's
    with (
        executor.installed(extension),
        pytest.raises(RuntimeError, match=r"kernel similarity segment_mean: .* out of bounds"),
    ):
        ccfast.segment_mean(outside, torch.arange(4) % 2, 2)
