"""Nearest neighbours, and the k-reciprocal encodings and Jaccard distances computed from them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

import ccfast
from ccfast._arguments import PRECISIONS
from ccfast.check import eager
from ccfast.check.inputs import FEATURES, clustered, neighbours_for, signs
from ccfast.check.speed import Size, Speed
from ccfast.check.trial import Trial, short
from ccfast.ops.jaccard import column_shift, csr_tensor, half_columns

K1, K2, EPS = 30, 6, 0.6
#: Allowed difference of the Jaccard distances and the weights of V, which are sums in float32.
ALLOWED = 3e-6
#: Norm of the noise around an identity's centre, which has norm 1; members have a similarity of about 0.2.
NOISE, IMAGES_PER_IDENTITY = 2.0, 17


def trials() -> Iterator[Trial]:
    """All of the family."""
    yield from _searches()
    yield from _refinements()
    for name, features in FEATURES.items():
        yield from _encodings(name, features())
    for dtype in (torch.float16, torch.bfloat16):
        yield from _encodings(short(dtype), F.normalize(clustered()[0].double(), dim=1).to(dtype))
    features = clustered(230, dim=32)[0]
    for k2 in (1, 4):
        yield Trial("jaccard_distance", f"rows in two parts, k2={k2}", _in_parts(k2), (features,), ALLOWED)


def speeds(size: Size) -> list[Speed]:
    """All of the family."""
    sizes = f"N={size.images:,} D={size.dim:,}"

    def features(device: torch.device) -> tuple[Tensor]:
        return (real_features(size, device),)

    def candidates(device: torch.device) -> tuple[Tensor, Tensor]:
        rows = real_features(size, device)
        return rows, eager.knn(rows, 2 * K1)

    return [
        Speed(
            "refine_neighbours", f"{sizes} K={2 * K1} k={K1}", candidates,
            lambda x, c: ccfast.refine_neighbours(x, c, K1)[0], lambda x, c: eager.refine_neighbours(x, c, K1),
        ),
        Speed("knn", f"{sizes} k={K1}", features, lambda x: ccfast.knn(x, K1)[0], lambda x: eager.knn(x, K1)),
        Speed(
            "k_reciprocal_encoding", f"{sizes} k1={K1} k2={K2}", features,
            lambda x: ccfast.k_reciprocal_encoding(x, K1, K2).to_dense(),
            lambda x: eager.k_reciprocal_encoding(x, K1, K2),
        ),
        Speed(
            "jaccard_distance", f"{sizes} k1={K1} k2={K2}", features,
            lambda x: ccfast.jaccard_distance(x, K1, K2), lambda x: eager.jaccard_distance(x, K1, K2),
        ),
    ]  # fmt: skip


def real_features(size: Size, device: torch.device) -> Tensor:
    """Unit rows around unit centres, with Market-1501's number of images per person."""
    generator = torch.Generator().manual_seed(0)
    identities = max(1, size.images // IMAGES_PER_IDENTITY)
    centres = F.normalize(torch.randn(identities, size.dim, generator=generator), dim=1)
    ids = torch.randint(identities, (size.images,), generator=generator)
    scatter = torch.randn(size.images, size.dim, generator=generator) * (NOISE / size.dim**0.5)
    return F.normalize(centres[ids] + scatter, dim=1).to(device)


def dense(matrix: Tensor, missing: float) -> tuple[Tensor, Tensor]:
    """A sparse matrix as a dense one, with ``missing`` for entries that are not stored, and the sums of its rows."""
    rows = torch.arange(len(matrix), device=matrix.device).repeat_interleave(matrix.crow_indices().diff())
    result = torch.full(matrix.shape, missing, device=matrix.device)
    result[rows, matrix.col_indices()] = matrix.values()
    ascending = (matrix.col_indices().diff() > 0) | (rows.diff() > 0)
    return result, ascending.all()


def _searches() -> Iterator[Trial]:
    for name, features in FEATURES.items():
        rows = features()
        for k in sorted({1, min(20, len(rows)), len(rows)}):
            yield Trial("knn", f"{name}, k={k}", _search(k), (rows,))
    rows = clustered(203, dim=37)[0]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for precision in PRECISIONS:
            title = f"{short(dtype)}, candidates in {precision}"
            yield Trial("knn", title, _search(20, precision), (rows.to(dtype),))
    wide = rows * torch.logspace(-18, 18, len(rows))[:, None]
    yield Trial("knn", "norms from 1e-18 to 1e18", _search(9), (wide,))
    yield Trial("knn", "columns apart in memory", _search(9), (rows.T.contiguous().T,))
    for name, queries in (("ties", signs(31)), ("duplicates", signs(130)[[5] * 31])):
        yield Trial("knn", f"queries, {name}", _search_queries, (signs(130), queries))
    yield Trial("knn", "half queries of float32 rows", _search_queries, (rows, rows[:50].bfloat16()))


def _refinements() -> Iterator[Trial]:
    for name in ("clustered", "ties", "duplicates", "odd dimension"):
        rows = FEATURES[name]()[:130]
        mixed = torch.rand(len(rows), len(rows), generator=torch.Generator().manual_seed(0)).argsort(1)
        candidates = torch.cat([mixed, mixed[:, :3], torch.full((len(rows), 2), -1)], 1)  # some twice, some none
        for k in (1, 13):
            yield Trial("refine_neighbours", f"{name}, k={k}", _refine(k), (rows, candidates))


def _refine(k: int):
    def call(package: ModuleType, features: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        if package is ccfast.reference:  # all rows are candidates
            return package.knn(features, k)
        return package.refine_neighbours(features, candidates, k)

    return call


def _search(k: int, precision: str = "fp32"):
    return lambda package, features: package.knn(features, k, precision=precision)


def _search_queries(package: ModuleType, features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    return package.knn(features, 17, queries=queries)


def _encodings(name: str, features: Tensor) -> Iterator[Trial]:
    for wanted in ((20, 6), (7, 1)):
        k1, k2 = neighbours_for(features, *wanted)
        title = f"{name}, k1={k1}, k2={k2}"
        yield Trial("k_reciprocal_encoding", title, _encoding(k1, k2), (features,), ALLOWED)
        yield Trial("jaccard_distance", title, _distance(k1, k2), (features,), ALLOWED)
        yield Trial("jaccard_distance", f"{title}, sparse", _sparse_distance(k1, k2), (features,), ALLOWED)


def _encoding(k1: int, k2: int):
    return lambda package, features: dense(package.k_reciprocal_encoding(features, k1, k2), 0.0)


def _distance(k1: int, k2: int):
    return lambda package, features: package.jaccard_distance(features, k1, k2)


def _sparse_distance(k1: int, k2: int, limit: float = 0.55):
    # If only one of the two stores a pair, its distance equals the limit within rounding.
    return lambda package, features: dense(package.jaccard_distance(features, k1, k2, max_distance=limit), limit)


def _in_parts(k2: int):
    """The op with its rows shared by several processes; the reference has one way only."""

    def call(package: ModuleType, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if package is ccfast.reference:
            sparse = package.jaccard_distance(features, 20, k2, max_distance=0.55)
            return *dense(sparse, 0.55), package.jaccard_distance(features, 20, k2)
        return *dense(_sparse_in_parts(features, 20, k2, 0.55), 0.55), _dense_in_parts(features, 20, k2)

    return call


def _parts(count: int) -> list[tuple[int, int]]:
    return [(0, count // 3), (count // 3, count)]


def _joined(parts: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of CSR matrices below each other."""
    counts = torch.cat([crow.diff() for crow, _, _ in parts])
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return crow, torch.cat([col for _, col, _ in parts]), torch.cat([values for _, _, values in parts])


def _encoded_in_parts(features: Tensor, k1: int, k2: int) -> tuple[Tensor, Tensor, Tensor]:
    ops, parts = torch.ops.ccfast, _parts(len(features))
    found = [ops.knn(features, features[begin:end], k1, "fp32", begin) for begin, end in parts]
    rank = torch.cat([indices for indices, _ in found])
    given = (half_columns(k1), None, column_shift(features))
    pieces = zip(parts, found, strict=True)
    v = _joined([ops.encode_neighbours(features, rank, near, *given, *part) for part, (_, near) in pieces])
    return v if k2 == 1 else _joined([ops.expand_queries(*v, rank[begin:end], k2) for begin, end in parts])


def _sparse_in_parts(features: Tensor, k1: int, k2: int, limit: float) -> Tensor:
    v = _encoded_in_parts(features, k1, k2)
    parts = [torch.ops.ccfast.sparse_jaccard(*v, limit, *part) for part in _parts(len(features))]
    return csr_tensor(_joined(parts), len(features))


def _dense_in_parts(features: Tensor, k1: int, k2: int) -> Tensor:
    v, parts = _encoded_in_parts(features, k1, k2), _parts(len(features))
    blocks = [[torch.ops.ccfast.dense_jaccard(*v, *rows, *columns) for columns in parts] for rows in parts]
    return torch.cat([torch.cat(row, 1) for row in blocks])
