"""enqueue_."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import hypothesis
import pytest
import torch
from conftest import Backend
from hypothesis import strategies as st


@hypothesis.given(size=st.integers(1, 9), batches=st.lists(st.integers(1, 9), min_size=1, max_size=6))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ring_holds_the_latest_rows(
    backend: Backend, implementation: ModuleType, dtype: torch.dtype, size: int, batches: list[int]
) -> None:
    queue, pointer = backend(torch.zeros(size, 3, dtype=dtype), torch.zeros(1, dtype=torch.int64))
    want, at, number = [0.0] * size, 0, 0
    for count in (min(batch, size) for batch in batches):
        rows = torch.arange(number + 1, number + count + 1, dtype=dtype)
        implementation.enqueue_(queue, pointer, backend(rows[:, None].expand(-1, 3)))
        for value in rows.tolist():
            want[at], at = value, (at + 1) % size
        number += count
    assert queue[:, 0].tolist() == want and queue[:, 2].tolist() == want and pointer.tolist() == [at]


@hypothesis.given(size=st.integers(1, 9), batches=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_without_a_pointer_the_newest_rows_stand_in_front(
    backend: Backend, implementation: ModuleType, size: int, batches: list[int]
) -> None:
    queue, want, number = backend(torch.zeros(size, 5)), [0.0] * size, 0
    for count in (min(batch, size) for batch in batches):
        rows = torch.arange(number + 1, number + count + 1, dtype=torch.float32)
        implementation.enqueue_(queue, None, backend(rows[:, None].expand(-1, 5).contiguous()))
        want = (rows.tolist() + want)[:size]
        number += count
    assert queue[:, 0].tolist() == want and queue[:, 4].tolist() == want


def test_a_queue_that_is_not_contiguous_and_rows_with_a_gradient(implementation: ModuleType, backend: Backend) -> None:
    whole = backend(torch.zeros(4, 6))
    pointer = backend(torch.tensor(3))
    rows = backend(torch.rand(2, 4)).requires_grad_()
    implementation.enqueue_(whole.T, pointer, rows)
    assert torch.equal(whole.T[[3, 4]], rows) and whole.T[[0, 1, 2, 5]].eq(0).all()
    assert int(pointer) == 5 and not whole.requires_grad


def test_autograd_notices_the_in_place_change(implementation: ModuleType, backend: Backend) -> None:
    queue, rows = backend(torch.rand(4, 3), torch.rand(2, 3))
    x = backend(torch.rand(5, 3)).requires_grad_()
    product = (x @ queue.T).sum()
    implementation.enqueue_(queue, None, rows)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"queue": [[1.0, 2.0]]}, TypeError, "queue: expected a torch.Tensor"),
        ({"pointer": 0}, TypeError, "pointer: expected a torch.Tensor"),
        ({"pointer": torch.zeros(1)}, TypeError, "pointer: expected dtype int64"),
        ({"pointer": torch.zeros(2, dtype=torch.int64)}, ValueError, "pointer: expected one value"),
        ({"pointer": torch.tensor(4)}, ValueError, r"pointer: expected a value in \[0, 4\), got 4"),
        ({"rows": torch.rand(5, 2)}, ValueError, "rows: expected at most 4"),
        ({"rows": torch.rand(2, 3)}, ValueError, "the same number of columns"),
        ({"rows": torch.rand(2, 2).double()}, TypeError, "expected one dtype"),
    ],
)
def test_bad_arguments_are_refused(
    implementation: ModuleType, backend: Backend, change: dict[str, Any], error: Any, words: str
) -> None:
    if "got 4" in words and implementation.__name__ == "ccfast" and backend.name != "cpu":
        pytest.skip("the CUDA kernels do not wait for a look at the pointer")
    arguments = {"queue": torch.rand(4, 2), "pointer": torch.zeros(1, dtype=torch.int64), "rows": torch.rand(2, 2)}
    with pytest.raises(error, match=words):
        implementation.enqueue_(**(arguments | change))
