"""Evaluation protocols: which queries are compared with which gallery images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Comparison:
    """Rows ``query`` [q] of the query part are searched for in rows ``gallery`` [g] of the gallery part: int64, CPU.

    Gallery images with a query's identity and camera are left out, as everywhere (:func:`ccfast.evaluate_ranking`).
    """

    query: Tensor
    gallery: Tensor


@dataclass(frozen=True)
class Protocol:
    """Metrics are means over ``trials``; in a trial every query has the same weight, in any comparison.

    A query is in at most one comparison of a trial. ``distinct_identities``: ranks of the CMC count identities instead
    of images, that is, only the nearest gallery image of each identity; mAP and mINP still use all images.
    """

    trials: tuple[tuple[Comparison, ...], ...]
    distinct_identities: bool = False


def everything(queries: int, gallery: int) -> Protocol:
    """All queries against the whole gallery: the Market-1501 protocol (Zheng et al., ICCV 2015)."""
    return Protocol(((Comparison(torch.arange(queries), torch.arange(gallery)),),))
