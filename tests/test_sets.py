"""set_contrastive_loss."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import torch
from conftest import Backend
from hypothesis import strategies as st
from torch import Tensor


def case(
    rows: int, columns: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, positives (some of them not kept), kept columns, and multiplicities of 0 to 3."""
    generator = torch.Generator().manual_seed(seed)
    logits = 8 * torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(dtype)
    positives = torch.rand(rows, columns, generator=generator) < 0.15
    keep = torch.rand(rows, columns, generator=generator) < 0.6
    return logits, positives, keep, torch.randint(4, (rows, columns), generator=generator)


def losses_by_loops(logits: Tensor, positives: Tensor, keep: Tensor | None, multiplicity: Tensor | None) -> Tensor:
    """The definition, one number at a time."""
    losses = []
    for i, row in enumerate(logits.double().tolist()):
        times = [
            (1 if keep is None else int(keep[i, j])) * (1 if multiplicity is None else int(multiplicity[i, j]))
            for j in range(len(row))
        ]
        chosen = [z for j, z in enumerate(row) if positives[i, j]]
        if not chosen or not any(times):
            losses.append(0.0)
            continue
        highest = max(z for z, n in zip(row, times, strict=True) if n)
        log_sum = highest + math.log(sum(n * math.exp(z - highest) for z, n in zip(row, times, strict=True) if n))
        losses.append(-sum(z - log_sum for z in chosen) / len(chosen))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("rows, columns", [(1, 1), (5, 3), (7, 53), (3, 1500)])
@pytest.mark.parametrize("with_keep, with_multiplicity", [(False, False), (True, False), (False, True), (True, True)])
def test_losses_are_those_of_a_loop(
    implementation: ModuleType,
    backend: Backend,
    dtype: torch.dtype,
    rows: int,
    columns: int,
    with_keep: bool,
    with_multiplicity: bool,
) -> None:
    logits, positives, keep, multiplicity = case(rows, columns, dtype)
    masks = keep if with_keep else None, multiplicity if with_multiplicity else None
    found = implementation.set_contrastive_loss(*backend(logits, positives, masks[0]), multiplicity=backend(masks[1]))
    assert found.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    torch.testing.assert_close(found.cpu().double(), losses_by_loops(logits, positives, *masks), rtol=2e-6, atol=4e-6)


@pytest.mark.parametrize("with_keep, with_multiplicity", [(False, False), (True, False), (True, True)])
def test_gradients(implementation: ModuleType, backend: Backend, with_keep: bool, with_multiplicity: bool) -> None:
    logits, positives, keep, multiplicity = case(6, 11, torch.float64)
    positives[2] = False
    keep[3] = False
    logits, positives, keep, multiplicity = backend(logits / 4, positives, keep, multiplicity)
    arguments = (positives, keep if with_keep else None)

    def losses(z: Tensor) -> Tensor:
        times = multiplicity if with_multiplicity else None
        return implementation.set_contrastive_loss(z, *arguments, multiplicity=times)

    assert torch.autograd.gradcheck(losses, logits.requires_grad_())
    losses(logits)[2].backward()
    assert not logits.grad.any()


@hypothesis.given(seed=st.integers(0, 2**16), rows=st.integers(1, 5), columns=st.integers(1, 40))
def test_the_gradient_of_a_softmax_sums_to_0_and_copies_equal_multiplicity(
    backend: Backend, implementation: ModuleType, seed: int, rows: int, columns: int
) -> None:
    logits, positives, keep, _ = case(rows, columns, torch.float64, seed)
    z, positives, keep = backend(logits, positives, keep)
    z.requires_grad_()
    losses = implementation.set_contrastive_loss(z, positives, keep)
    losses.sum().backward()
    torch.testing.assert_close(z.grad.sum(1), torch.zeros_like(losses), rtol=0, atol=1e-9)
    twice = implementation.set_contrastive_loss(
        torch.cat([z, z], 1), torch.cat([positives, torch.zeros_like(positives)], 1), torch.cat([keep, keep], 1)
    )
    double = implementation.set_contrastive_loss(z, positives, multiplicity=2 * keep.int())
    torch.testing.assert_close(twice, double, rtol=1e-10, atol=1e-10)


def test_one_positive_among_all_is_cross_entropy(implementation: ModuleType, backend: Backend) -> None:
    logits, targets = backend(torch.randn(9, 20), torch.arange(9))
    positives = torch.nn.functional.one_hot(targets, 20).bool()
    found = implementation.set_contrastive_loss(logits, positives)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, targets, reduction="none"))


def test_large_logits_do_not_overflow(implementation: ModuleType, backend: Backend) -> None:
    logits = backend(torch.tensor([[9e4, -9e4, 1e4], [-9e4, -9.001e4, 9e4]]))
    positives = backend(torch.tensor([[True, False, True], [True, False, False]]))
    keep = backend(torch.tensor([[True, True, True], [True, True, False]]))
    found = implementation.set_contrastive_loss(logits, positives, keep)
    torch.testing.assert_close(found, backend(torch.tensor([4e4, 0.0])), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize(
    "change, error, words",
    [
        (
            {"positives": torch.ones(2, 4, dtype=torch.bool)},
            ValueError,
            "positives: expected shape .2, 3., got .2, 4.",
        ),
        ({"positives": torch.ones(2, 3)}, TypeError, "positives: expected dtype bool"),
        ({"keep": torch.ones(3, dtype=torch.bool)}, ValueError, "keep: expected 2 dimension"),
        ({"multiplicity": torch.ones(2, 3)}, TypeError, "multiplicity: expected dtype"),
        ({"multiplicity": torch.full((2, 3), -1)}, ValueError, "multiplicity: expected 0 or more, got -1"),
        ({"logits": torch.full((2, 3), torch.nan)}, ValueError, "logits: expected finite values"),
        ({"logits": torch.rand(0, 3)}, ValueError, "logits: expected a non-empty matrix"),
    ],
)
def test_bad_arguments_are_refused(
    implementation: ModuleType, backend: Backend, change: dict[str, Any], error: Any, words: str
) -> None:
    if ("got -1" in words or "finite" in words) and implementation.__name__ == "ccfast" and backend.name != "cpu":
        pytest.skip("the CUDA kernels do not wait for a look at the data")
    arguments = {"logits": torch.rand(2, 3), "positives": torch.ones(2, 3, dtype=torch.bool)} | change
    with pytest.raises(error, match=words):
        implementation.set_contrastive_loss(**arguments)
