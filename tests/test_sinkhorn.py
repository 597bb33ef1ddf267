"""sinkhorn."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import Backend
from hypothesis import strategies as st

import ccfast


def scores(rows: int, columns: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("rows, columns", [(1, 1), (5, 3), (70, 37), (200, 300)])
def test_it_is_the_reference(backend: Backend, dtype: torch.dtype, iterations: int, rows: int, columns: int) -> None:
    values = backend(scores(rows, columns, dtype))
    found = ccfast.sinkhorn(values, 0.05, iterations)
    want = ccfast.reference.sinkhorn(values.double(), 0.05, iterations)
    assert found.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    tolerance = 1e-12 if dtype is torch.float64 else 2e-6
    torch.testing.assert_close(found.double(), want, rtol=tolerance, atol=tolerance)


@hypothesis.given(rows=st.integers(1, 40), columns=st.integers(1, 20), seed=st.integers(0, 99))
def test_rows_sum_to_one_and_columns_nearly_share_them(
    backend: Backend, implementation: ModuleType, rows: int, columns: int, seed: int
) -> None:
    values = backend(scores(rows, columns, torch.float64, seed))
    found = implementation.sinkhorn(values, 0.5, 50)
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.sum(0), torch.full_like(found[0], rows / columns), rtol=1e-3, atol=1e-3)


def test_it_has_no_gradient_and_leaves_the_scores(implementation: ModuleType, backend: Backend) -> None:
    values = backend(scores(6, 4)).requires_grad_()
    before = values.detach().clone()
    assert not implementation.sinkhorn(values).requires_grad and torch.equal(values, before)


def test_no_maximum_is_subtracted(implementation: ModuleType, backend: Backend) -> None:
    assert implementation.sinkhorn(backend(torch.full((3, 4), 50.0)), 0.05).isnan().all()


def in_a_group(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    part = scores(11, 7)[:4] if rank == 0 else scores(11, 7)[4:]
    alone = dist.new_group([rank], use_local_synchronization=True)
    results = {
        f"{module.__name__} {iterations}": module.sinkhorn(part, 0.05, iterations)
        for module in (ccfast, ccfast.reference)
        for iterations in (0, 3)
    }
    torch.save(results | {"alone": ccfast.sinkhorn(part, group=alone)}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_rows_of_all_processes_are_normalised_together(tmp_path: Path) -> None:
    mp.spawn(in_a_group, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name in parts[0].keys() - {"alone"}:
        want = ccfast.reference.sinkhorn(scores(11, 7), 0.05, int(name[-1]))
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts[0]["alone"], ccfast.sinkhorn(scores(11, 7)[:4]))


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"scores": torch.rand(3)}, ValueError, "scores: expected 2 dimension"),
        ({"scores": torch.rand(0, 3)}, ValueError, "scores: expected a non-empty matrix"),
        ({"scores": torch.ones(2, 2, dtype=torch.int64)}, TypeError, "scores: expected dtype"),
        ({"scores": torch.full((2, 2), torch.inf)}, ValueError, "scores: expected finite values"),
        ({"epsilon": 0}, ValueError, "epsilon: expected a number"),
        ({"iterations": -1}, ValueError, "iterations: expected at least 0"),
    ],
)
def test_bad_arguments_are_refused(
    implementation: ModuleType, backend: Backend, arguments: dict[str, Any], error: Any, words: str
) -> None:
    if "finite" in words and implementation.__name__ == "ccfast" and backend.name != "cpu":
        pytest.skip("the CUDA kernels do not wait for a look at the data")
    with pytest.raises(error, match=words):
        implementation.sinkhorn(**({"scores": torch.rand(4, 3)} | arguments))
