"""Inputs for the tests of every op: those of ``ccfast check``, and strategies for hypothesis."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from ccfast.check.inputs import (  # noqa: F401  (for the tests)
    FEATURES,
    clustered,
    duplicates,
    identical,
    lopsided,
    memory_batch,
    neighbours_for,
    retrieval_case,
    signs,
    symmetric_distances,
    to_csr,
)


@st.composite
def sign_matrices(draw: st.DrawFn, max_rows: int = 24) -> Tensor:
    """A few unit rows of +-1/4 in 16 dimensions, only some of which vary: many ties and duplicates."""
    rows = draw(st.integers(1, max_rows))
    varying = draw(st.integers(1, 5))
    codes = draw(st.lists(st.integers(0, 2**varying - 1), min_size=rows, max_size=rows))
    bits = (np.array(codes)[:, None] >> np.arange(16)[None, :]) & 1
    return torch.from_numpy((bits * 2 - 1).astype(np.float32) / 4)


@st.composite
def wild_rows(draw: st.DrawFn, dim: int, most_rows: int) -> Tensor:
    """Finite rows of one to three magnitudes in the range of float32, small integers or random numbers, with copies."""
    rows = draw(st.integers(1, most_rows))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    if draw(st.booleans()):
        values = torch.randint(-2, 3, (rows, dim), generator=generator).double()
    else:
        values = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    exponents = torch.tensor(draw(st.lists(st.integers(-45, 38), min_size=1, max_size=3)), dtype=torch.float64)
    values = values * 10.0 ** exponents[torch.randint(len(exponents), (rows, 1), generator=generator)]
    values = values.clamp(-3.4e38, 3.4e38).float()
    if draw(st.booleans()):
        values = values[torch.randint(rows, (rows,), generator=generator)]
    return values


@st.composite
def wild_searches(draw: st.DrawFn, most_rows: int = 60, most_dims: int = 24) -> tuple[Tensor, Tensor | None, int, str]:
    """(features, queries or None, k, precision) of any finite values."""
    dim = draw(st.integers(1, most_dims))
    features = draw(wild_rows(dim, most_rows))
    queries = draw(st.none() | wild_rows(dim, most_rows))
    k = draw(st.integers(1, len(features)))
    return features, queries, k, draw(st.sampled_from(["fp32", "fp16", "bf16"]))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Memory and batch of +-1/4 rows with labels that repeat, in any order, with noise: (memory, features, labels)."""
    clusters = draw(st.integers(1, 6))
    labels = draw(st.lists(st.integers(-1, clusters - 1), min_size=1, max_size=20))
    seed = draw(st.integers(0, 2**16))
    rows = signs(clusters + len(labels), seed=seed)
    return rows[:clusters].clone(), rows[clusters:].clone(), torch.tensor(labels)
