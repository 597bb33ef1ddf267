"""Re-ranking and ranking evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

import ccfast
from benchmarks import differences
from benchmarks.case import Case
from benchmarks.inputs import clustered_features
from benchmarks.peaks import Work

RERANK = {
    "quick": {"Q": 100, "G": 900, "D": 256, "k1": 20, "k2": 6},
    "full": {"Q": 1000, "G": 5000, "D": 2048, "k1": 20, "k2": 6},
}
HALF = {"Q": 500, "G": 2500, "D": 2048, "k1": 20, "k2": 6}  # the reference's time at "full" is estimated from this
EVALUATE = {"quick": {"Q": 300, "G": 2000}, "full": {"Q": 3368, "G": 15913}}
IDENTITIES, CAMERAS = 750, 6  # Market-1501's test set


def _query_and_gallery(Q: int, G: int, D: int, k1: int, k2: int) -> tuple:
    features = clustered_features(Q + G, D)
    return features[:Q], features[Q:], k1, k2


def _ranking(Q: int, G: int) -> tuple:
    generator = torch.Generator().manual_seed(0)

    def draw(most: int, count: int) -> Tensor:
        return torch.randint(most, (count,), generator=generator)

    query_ids, gallery_ids = draw(IDENTITIES, Q), draw(IDENTITIES, G)
    same = query_ids[:, None] == gallery_ids[None, :]
    distances = torch.rand(Q, G, generator=generator) - 0.3 * same
    return distances, query_ids, gallery_ids, draw(CAMERAS, Q), draw(CAMERAS, G)


def _metrics(evaluate):
    """mAP, CMC and mINP in one tensor."""

    def run(*arguments) -> Tensor:
        metrics = evaluate(*arguments)
        return torch.cat([torch.tensor([metrics.mAP, metrics.mINP]), metrics.cmc.cpu()])

    return run


def _rerank_work(Q: int, G: int, D: int, **_) -> Work:
    """Half of the symmetric products, the features read, the distances written."""
    return Work(bytes=4.0 * (D * (Q + G) + Q * G), flops=float(Q + G) ** 2 * D, product="bfloat16")


def cases(preset: str) -> list[Case]:
    reranks = [HALF, RERANK[preset]] if preset == "full" else [RERANK[preset]]
    return [
        *(
            Case(
                op="retrieval",
                name="k_reciprocal_rerank",
                sizes=sizes,
                inputs=_query_and_gallery,
                providers={"ccfast": ccfast.k_reciprocal_rerank, "reference": ccfast.reference.k_reciprocal_rerank},
                difference=differences.values,
                allowed=1e-5,
                work=_rerank_work,
                growth=lambda Q, G, **_: float(Q + G) ** 2,
            )
            for sizes in reranks
        ),
        Case(
            op="retrieval",
            name="evaluate_ranking",
            sizes=EVALUATE[preset],
            inputs=_ranking,
            providers={
                "ccfast": _metrics(ccfast.evaluate_ranking),
                "reference": _metrics(ccfast.reference.evaluate_ranking),
            },
            difference=differences.values,
            allowed=1e-9,
            work=lambda Q, G: Work(bytes=4.0 * Q * G),
        ),
    ]


def test_retrieval(bench) -> None:
    bench()
