"""``ccfast search``."""

from __future__ import annotations

import argparse
import logging
from typing import Any

HELP = "find the images of a folder that are nearest to query images"

#: Ranked lists on a page; a table has all of them.
ON_A_PAGE = 200

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    from ccfast.commands._options import add_encoder, add_fields, add_images_and_device, add_trained, group

    parser.description = (
        "Search a folder of images for those that are nearest to each query image. RESULTS.csv gets query, rank, image "
        "and score; RESULTS.html is a page with the images. The features of the gallery are kept in GALLERY.index; the "
        "next search extracts only the files that are new or have changed."
    )
    add_trained(parser, optional=True)
    search = group(parser, "search")
    search.add_argument("--gallery", required=True, metavar="DIR", help="search the images in DIR and its sub-folders")
    search.add_argument("--query", required=True, metavar="FILE|DIR", help="the query image, or a folder of them")
    search.add_argument("-o", "--output", required=True, metavar="RESULTS.csv|.html", help="file to write")
    search.add_argument("--top", type=int, metavar="N", help="results per query (default: 10)")
    search.add_argument("--rerank", action="store_true", help="rank by k-reciprocal re-ranking")
    search.add_argument("--index", metavar="DIR", help="folder for the gallery's features (default: GALLERY.index)")
    add_images_and_device(parser, data_dir=False, run_optional=True)
    add_encoder(parser)
    add_fields(parser, ("bad_images",), with_run=True)


def run(options: dict[str, Any]) -> None:
    """Search."""
    search_images(options.pop("path", None), **options)


def search_images(
    path: str | None,
    *,
    gallery: str,
    query: str,
    output: str,
    top: int = 10,
    rerank: bool = False,
    index: str | None = None,
    **options: Any,
) -> None:
    """Search ``gallery`` for the images of ``query``, with a run's encoder or one given by its weights."""
    from ccfast._errors import InputError
    from ccfast._files import given_output, given_path, write_whole
    from ccfast._words import counted
    from ccfast.commands._options import encoder_of
    from ccfast.data.image_list import list_files
    from ccfast.inference.gallery_index import indexed_gallery
    from ccfast.inference.index_folder import given_index
    from ccfast.inference.search import results_table, search
    from ccfast.report.search_page import search_page
    from ccfast.training.evaluate import Reranking

    if top < 1:
        raise InputError(f"--top: expected at least 1, got {top}")
    target = given_output("--output", output, (".csv", ".html"))
    kept = None if index is None else given_index(index)
    for option, place in (("--gallery", gallery), ("--query", query)):
        list_files(option, place)  # report errors before the encoder is loaded
    trained = encoder_of(path, data_dir=None if path else gallery, **options)
    queries = trained.read_images("--query", query)
    images = indexed_gallery(trained, given_path("--gallery", gallery), kept)
    features = trained.extract(queries, "query")
    found = search(features, images.features, top, Reranking() if rerank else None)
    files: Any = queries.images
    names = list(files.paths)
    if target.suffix == ".csv":
        write_whole(target, results_table(names, images.paths, found))
    else:
        if len(names) > ON_A_PAGE:
            log.warning("%s shows %d of %d queries; a .csv file has all of them", target, ON_A_PAGE, len(names))
        write_whole(target, search_page(trained, names[:ON_A_PAGE], images.paths, found, len(names), reranked=rerank))
    log.info("%s, %s: %s", counted(len(names), "query", "queries"), counted(len(images.paths), "image"), target)
