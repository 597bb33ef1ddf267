"""Market-1501 and data sets with the same kind of names: DukeMTMC-reID, PersonX, VeRi-776."""

from __future__ import annotations

from ccfast.data.parts import GALLERY, QUERY, TRAIN
from ccfast.data.sets.three_folders import Layout


def _layout(
    name: str,
    folders: tuple[str, str, str],
    example: str,
    published: tuple[int, int, int],
    extras: tuple[str, ...] = (),
) -> Layout:
    counts = dict(zip((TRAIN, QUERY, GALLERY), published, strict=True))
    return Layout(name, *folders, f"PID_cCAMERA..., such as {example}", counts, extras)


_MARKET_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
_VERI_FOLDERS = ("image_train", "image_query", "image_test")

#: Zheng et al., ICCV 2015. Also the layout for own images with cameras.
MARKET1501 = _layout(
    "market1501", _MARKET_FOLDERS, "0002_c1s1_000451_03.jpg", (12_936, 3_368, 15_913), ("gt_bbox", "gt_query")
)

#: Ristani et al., ECCV Workshops 2016; Zheng et al., ICCV 2017.
DUKEMTMCREID = _layout("dukemtmcreid", _MARKET_FOLDERS, "0001_c2_f0046182.jpg", (16_522, 2_228, 17_661))

#: Sun and Zheng, CVPR 2019, in the selection that unsupervised methods use.
PERSONX = _layout("personx", _MARKET_FOLDERS, "0001_c3_1.jpg", (9_840, 5_136, 30_816))

#: Liu et al., ECCV 2016.
VERI776 = _layout("veri776", _VERI_FOLDERS, "0002_c002_00030600_0.jpg", (37_778, 1_678, 11_579))

#: Copies of MSMT17 with Market-1501's folders and names. See :mod:`ccfast.data.sets.msmt17`.
MSMT17_RENAMED = _layout("msmt17", _MARKET_FOLDERS, "0000_c1_0000.jpg", (32_621, 11_659, 82_161))

LAYOUTS = (MARKET1501, DUKEMTMCREID, PERSONX, VERI776)
