"""Small, seeded inputs of the ops; the name of each says what is difficult about it. The tests use them too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def clustered(
    num_rows: int = 300, dim: int = 64, identities: int = 20, noise: float = 0.7, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Unit rows scattered around unit centres, and the identity of each row, in random order."""
    generator = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(identities, dim, generator=generator), dim=1)
    ids = torch.randint(identities, (num_rows,), generator=generator)
    scatter = noise * F.normalize(torch.randn(num_rows, dim, generator=generator), dim=1)
    return F.normalize(centres[ids] + scatter, dim=1), ids


def signs(num_rows: int = 200, dim: int = 16, seed: int = 0) -> Tensor:
    """Unit rows of +-1/sqrt(dim), dim a power of 4: every product is exact, and distances take dim + 1 values."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(2, (num_rows, dim), generator=generator) * 2 - 1).float() / dim**0.5


def duplicates(num_rows: int = 200, dim: int = 32, distinct: int = 12, seed: int = 0) -> Tensor:
    """Unit rows with many exact copies of each, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(distinct, dim, generator=generator), dim=1)
    return rows[torch.randint(distinct, (num_rows,), generator=generator)].contiguous()


def lopsided(seed: int = 0) -> Tensor:
    """One cluster of 200 rows, one of 3 rows, and 20 single rows; the number of rows is not a multiple of 32."""
    generator = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(22, 24, generator=generator), dim=1)
    ids = torch.tensor([0] * 202 + [1] * 3 + list(range(2, 22)))
    scatter = 0.25 * F.normalize(torch.randn(len(ids), 24, generator=generator), dim=1)
    return F.normalize(centres[ids] + scatter, dim=1)


def identical(num_rows: int = 40, dim: int = 16) -> Tensor:
    """Copies of one unit row: every distance is 0, and for ties the lower index comes first."""
    return torch.full((num_rows, dim), dim**-0.5)


#: Unit-norm features, by name. Small enough for a literal O(N^2) reference.
FEATURES = {
    "clustered": lambda: clustered()[0],
    "ties": lambda: signs(),
    "duplicates": lambda: duplicates(),
    "lopsided": lambda: lopsided(),
    "identical": lambda: identical(),
    "tiny": lambda: clustered(num_rows=7, dim=3, identities=2)[0],
    "odd dimension": lambda: clustered(num_rows=97, dim=37, identities=9)[0],
    "one row": lambda: F.normalize(torch.ones(1, 5), dim=1),
}


def neighbours_for(features: Tensor, k1: int = 20, k2: int = 6) -> tuple[int, int]:
    """``k1`` and ``k2``, limited by the number of rows."""
    k1 = min(k1, len(features))
    return k1, min(k2, k1)


def memory_batch(
    clusters: int = 12, dim: int = 48, batch: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit memory rows, unit batch rows near their cluster's row, and labels: some are -1, and some do not occur."""
    generator = torch.Generator().manual_seed(seed)
    memory = F.normalize(torch.randn(clusters, dim, generator=generator, dtype=dtype), dim=1)
    labels = torch.randint(-1, max(1, clusters - 2), (batch,), generator=generator)
    features = F.normalize(torch.randn(batch, dim, generator=generator, dtype=dtype), dim=1)
    return memory, F.normalize(features + memory[labels.clamp_min(0)], dim=1), labels


def symmetric_distances(num_rows: int = 60, levels: int | None = None, seed: int = 0) -> Tensor:
    """Symmetric distances of points on a line with gaps; rounded to ``levels`` steps, so that many equal a step."""
    generator = torch.Generator().manual_seed(seed)
    points = 12 * torch.rand(num_rows, generator=generator).sort().values
    points = points[torch.randperm(num_rows, generator=generator)]
    distances = (points[:, None] - points[None, :]).abs()
    return distances if levels is None else (distances * levels).round() / levels


def to_csr(distances: Tensor, keep: Tensor) -> Tensor:
    """CSR of a dense matrix that stores exactly the entries where ``keep``, zeros included."""
    rows, columns = torch.nonzero(keep, as_tuple=True)
    crow = torch.cat([torch.zeros(1, dtype=torch.int64), keep.sum(1).cumsum(0)])
    return torch.sparse_csr_tensor(crow, columns, distances[rows, columns], distances.shape, check_invariants=True)


def retrieval_case(
    queries: int = 20, gallery: int = 60, identities: int = 6, levels: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Distances, identities and cameras of queries and gallery; distances tie at ``levels``; one query has no match."""
    generator = torch.Generator().manual_seed(seed)
    query_ids = torch.randint(identities, (queries,), generator=generator)
    gallery_ids = torch.randint(identities, (gallery,), generator=generator)
    query_ids[-1] = identities + 7
    query_cams = torch.randint(3, (queries,), generator=generator)
    gallery_cams = torch.randint(3, (gallery,), generator=generator)
    same = (query_ids[:, None] == gallery_ids[None, :]).double()
    distances = torch.rand(queries, gallery, generator=generator, dtype=torch.float64) - 0.3 * same + 0.5
    if levels is not None:
        distances = (distances * levels).round() / levels
    return distances, query_ids, gallery_ids, query_cams, gallery_cams


def batches_of_a_memory(dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """(memory, features, labels) of odd sizes: many clusters, one cluster, only noise, equal samples."""
    memory, features, labels = memory_batch(7, 37, 61, dtype)
    same = features[:1].repeat(len(features), 1)
    return {
        "many clusters": (memory, features, labels),
        "one cluster": (memory, features, torch.full_like(labels, 3)),
        "noise": (memory, features, torch.full_like(labels, -1)),
        "duplicates": (memory, same, labels),
    }
