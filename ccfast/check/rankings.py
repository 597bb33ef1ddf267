"""Re-ranking and the metrics of a ranking."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import ccfast
from ccfast.check import eager
from ccfast.check.inputs import clustered, duplicates, retrieval_case, signs
from ccfast.check.neighbours import real_features
from ccfast.check.speed import Size, Speed
from ccfast.check.trial import Trial, short
from ccfast.ops.retrieval import rerank_in_blocks

ALLOWED = 5e-6
CAMERAS = 6


def trials() -> Iterator[Trial]:
    """All of the family."""
    rows = {"clustered": clustered(203, dim=37)[0] * 3, "ties": signs(97), "duplicates": duplicates(131)}
    for name, features in rows.items():
        for k1, k2, share in ((20, 6, 0.3), (7, 1, 0.0), (1, 1, 1.0)):
            title = f"{name}, k1={k1}, k2={k2}, lambda={share}"
            given = (features[:31], features[31:])
            yield Trial("k_reciprocal_rerank", title, _rerank(k1, k2, share), given, ALLOWED)
            yield Trial("k_reciprocal_rerank", f"{title}, in blocks", _rerank_in_blocks(k1, k2, share), given, ALLOWED)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for levels in (None, 4):
            distances, *ids = retrieval_case(levels=levels)
            name = f"{short(dtype)}, {'ties' if levels else 'no ties'}"
            for title, given, junk in (
                ("cameras", ids, None),
                ("no cameras", ids[:2], None),
                ("junk", [ids[0], ids[1].where(torch.arange(60) % 5 > 0, -1), *ids[2:]], -1),
            ):
                yield Trial(
                    "evaluate_ranking", f"{name}, {title}", _metrics(junk), (distances.to(dtype), *given), 1e-12
                )
    distances, *ids = retrieval_case()
    far = distances.masked_fill(distances > 0.9, torch.inf)
    yield Trial("evaluate_ranking", "infinite distances", _metrics(None), (far, *ids), 1e-12)


def speeds(size: Size) -> list[Speed]:
    """All of the family."""
    queries = size.images // 6
    sizes = f"Q={queries:,} G={size.images - queries:,}"

    def split(device: torch.device) -> tuple[Tensor, Tensor]:
        features = real_features(size, device)
        return features[:queries], features[queries:]

    def ranking(device: torch.device) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        distances = torch.rand(queries, size.images - queries, generator=generator)
        ids = [torch.randint(most, (count,), generator=generator)
               for most in (size.identities, CAMERAS) for count in distances.shape]  # fmt: skip
        return tuple(value.to(device) for value in (distances, *ids))

    return [
        Speed(
            "k_reciprocal_rerank", f"{sizes} D={size.dim:,} k1=20 k2=6", split,
            lambda q, g: ccfast.k_reciprocal_rerank(q, g, 20, 6), lambda q, g: eager.k_reciprocal_rerank(q, g, 20, 6),
        ),
        Speed("evaluate_ranking", sizes, ranking, _map_and_cmc, eager.evaluate_ranking),
    ]  # fmt: skip


def _map_and_cmc(*arguments: Tensor) -> tuple[float, Tensor]:
    metrics = ccfast.evaluate_ranking(*arguments)
    return metrics.mAP, metrics.cmc


def _rerank(k1: int, k2: int, share: float) -> Any:
    return lambda package, query, gallery: package.k_reciprocal_rerank(query, gallery, k1, k2, share)


def _rerank_in_blocks(k1: int, k2: int, share: float) -> Any:
    """The op as ``ccfast evaluate`` calls it, a few queries at a time; the reference has one way only."""

    def call(package: ModuleType, query: Tensor, gallery: Tensor) -> Tensor:
        if package is ccfast.reference:
            return package.k_reciprocal_rerank(query, gallery, k1, k2, share)
        return torch.cat(list(rerank_in_blocks(query, gallery, k1, k2, share, (7, len(query) - 7))))

    return call


def _metrics(junk_id: int | None) -> Any:
    def call(package: ModuleType, distances: Tensor, *ids: Tensor) -> tuple[Any, ...]:
        found = package.evaluate_ranking(distances, *ids, max_rank=20, junk_id=junk_id)
        return found.mAP, found.mINP, found.cmc

    return call
