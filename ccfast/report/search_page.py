"""The page of ``ccfast search``: the results of each query, like the ranked lists of a run's page."""

from __future__ import annotations

from pathlib import Path

import ccfast
from ccfast._progress import progress
from ccfast.data.image_files import ImageFiles, pixels_at_most
from ccfast.inference.search import Results
from ccfast.report.page import LARGE, Picture, render
from ccfast.report.thumbnails import Thumbnail, thumbnail
from ccfast.training.trained import Trained

TEMPLATE = "search.html"


def search_page(
    trained: Trained, queries: list[str], images: list[str], found: Results, asked: int, *, reranked: bool
) -> str:
    """The page about ``queries``, the first of ``asked``, and their results among ``images``."""
    with pixels_at_most(trained.config.max_image_pixels):
        asked_for, searched = ImageFiles(map(Path, queries)), ImageFiles(map(Path, images))
    thumbnails: dict[int, Thumbnail] = {}
    lists = []
    for number in progress(range(len(queries)), "ranked lists", len(queries)):
        entries = []
        for row, score in zip(found.rows[number].tolist(), found.scores[number].tolist(), strict=True):
            if row not in thumbnails:
                thumbnails[row] = thumbnail(searched, row, LARGE)
            entries.append((score, Picture(thumbnails[row], None, None), images[row]))
        lists.append((Picture(thumbnail(asked_for, number, LARGE), None, None), queries[number], entries))
    return render(
        TEMPLATE, trained=trained, lists=lists, asked=asked, gallery=len(images), reranked=reranked,
        version=ccfast.build_info()["version"],
    )  # fmt: skip
