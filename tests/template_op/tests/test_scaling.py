"""scale_rows."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from conftest import Backend

import ccfast


@pytest.mark.parametrize("rows, dim", [(1, 1), (97, 37)])
def test_each_row_is_multiplied_by_its_factor(
    implementation: ModuleType, backend: Backend, rows: int, dim: int
) -> None:
    features, factors = backend(torch.rand(rows, dim), torch.rand(rows))
    found = implementation.scale_rows(features, factors)
    want = [[factor * value for value in row] for row, factor in zip(features.tolist(), factors.tolist(), strict=True)]
    torch.testing.assert_close(found.cpu(), torch.tensor(want))


def test_rows_need_not_be_contiguous(implementation: ModuleType, backend: Backend) -> None:
    features, factors = backend(torch.rand(5, 3).T, torch.rand(6)[::2])
    assert torch.equal(implementation.scale_rows(features, factors), factors[:, None] * features)


def test_gradient_and_its_gradient(backend: Backend) -> None:
    features, factors = backend(torch.rand(5, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64))
    inputs = (features.requires_grad_(), factors.requires_grad_())
    assert torch.autograd.gradcheck(ccfast.scale_rows, inputs)
    assert torch.autograd.gradgradcheck(ccfast.scale_rows, inputs)


def test_any_number_of_threads_gives_the_same_bits(backend: Backend, two_threads: None) -> None:
    features, factors = backend(torch.rand(300, 512), torch.rand(300))
    with_two = ccfast.scale_rows(features, factors)
    torch.set_num_threads(1)
    assert torch.equal(ccfast.scale_rows(features, factors), with_two)


def test_factors_of_another_length_are_refused(implementation: ModuleType, backend: Backend) -> None:
    with pytest.raises(ValueError, match="factors: expected length 4"):
        implementation.scale_rows(*backend(torch.rand(4, 2), torch.rand(3)))


def test_factors_of_another_dtype_are_refused(implementation: ModuleType, backend: Backend) -> None:
    with pytest.raises(TypeError, match="features, factors: expected one dtype"):
        implementation.scale_rows(*backend(torch.rand(4, 2), torch.rand(4).double()))
