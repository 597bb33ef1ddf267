"""LTCC: people who change their clothes (Qian et al., ACCV 2020)."""

from __future__ import annotations

from pathlib import Path

import torch

from ccfast.data.parts import GALLERY, QUERY, TRAIN, photographs
from ccfast.data.protocol import Comparison, Protocol, everything
from ccfast.data.reid_data import Part, ReIDData
from ccfast.data.sets.three_folders import Layout, read_three_folders

LTCC = Layout(
    "ltcc",
    "train",
    "query",
    "test",
    "PID_CLOTHES_cCAMERA_..., such as 094_1_c9_015833.png",
    {TRAIN: 9_576, QUERY: 493, GALLERY: 7_050},
    ("info",),
    clothes=True,
)


def load_ltcc(data_dir: str | Path, *, bad_images: str = "refuse", workers: int = 0) -> ReIDData:
    """LTCC below ``data_dir``, evaluated in the general and in the clothes-changing setting."""
    parts, findings = read_three_folders(LTCC, data_dir, bad_images=bad_images, workers=workers)
    return photographs("ltcc", parts, findings, ltcc_protocols)


def ltcc_protocols(query: Part, gallery: Part) -> dict[str, Protocol]:
    """``general``: Market-1501's. ``clothes_changing``: the gallery is also without the query's clothes."""
    return {"general": everything(len(query), len(gallery)), "clothes_changing": clothes_changing(query, gallery)}


def clothes_changing(query: Part, gallery: Part) -> Protocol:
    """One comparison per identity and outfit, with the gallery without that identity in that outfit."""
    wearers = torch.stack([query.ids, query.clothes], dim=1)
    comparisons = [
        Comparison(
            (wearers == wearer).all(dim=1).nonzero()[:, 0],
            ((gallery.ids != wearer[0]) | (gallery.clothes != wearer[1])).nonzero()[:, 0],
        )
        for wearer in wearers.unique(dim=0)
    ]
    return Protocol((tuple(comparisons),))
