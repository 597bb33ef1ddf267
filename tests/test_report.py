"""The page of ccfast report: its content, whether it is true, and odd runs and names."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from ccfast.cli import main
from ccfast.data import Comparison, Part, Protocol, ReIDData
from ccfast.data.image_files import ImageFiles
from ccfast.data.protocol import everything
from ccfast.report import clusters, comparison, curves, history, page, thumbnails, write_report
from ccfast.report.ranked import choose, ranked_lists
from ccfast.training import TrainConfig, train
from ccfast.training.trained import load_trained

VOID = {"meta", "link", "img", "br", "wbr", "path", "use", "rect"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<script>alert(1)</script>&\"'{{ 7 * 7 }}"

#: Every test needs a page, for which a run trains first.
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """Elements in order as (tag, attributes), the text, and whether every element is closed correctly."""

    def __init__(self, file):
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.elements, self.texts, self.open = [], [], []
        self.feed(self.source)
        self.close()
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def having(self, attribute):
        return [(tag, attributes) for tag, attributes in self.elements if attribute in attributes]


def lists(parsed):
    """{query row: [(gallery row, "right" or "wrong"), ...]} of the ranked lists on the page."""
    found, query = {}, None
    for _, attributes in parsed.elements:
        if "data-query" in attributes:
            query = found.setdefault(int(attributes["data-query"]), [])
        elif "data-gallery" in attributes:
            query.append((int(attributes["data-gallery"]), attributes["class"]))
    return found


def brute_force(path, row, top=10):
    """The same for one query, one gallery image at a time."""
    trained = load_trained(path, device="cpu", workers=0)
    query, gallery = trained.data.query, trained.data.gallery
    feature, others = trained.extract(query)[row], trained.extract(gallery)
    kept = []
    for index in range(len(gallery)):
        same = int(gallery.ids[index]) == int(query.ids[row])
        if same and query.cams is not None and int(gallery.cams[index]) == int(query.cams[row]):
            continue
        distance = float((feature - others[index]).double().pow(2).sum())
        kept.append((distance, index, "right" if same else "wrong"))
    return [(index, mark) for _, index, mark in sorted(kept)[:top]]


def precision_of(path, row):
    """The average precision of one query by scikit-learn."""
    from sklearn.metrics import average_precision_score

    marks = [mark == "right" for _, mark in brute_force(path, row, top=None)]
    return average_precision_score(marks, [-rank for rank in range(len(marks))])


def run(path, **options):
    train(TrainConfig(run=str(path), **{"epochs": 2, "iters": 4, "device": "cpu", "workers": 0, **options}))
    return path


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return run(tmp_path_factory.mktemp("report") / "digits")


@pytest.fixture(scope="module")
def digits_page(digits):
    return Page(write_report(digits, device="cpu"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Market-1501's layout: 4 colours for training, 3 for search; two cameras; one hostile file name."""
    root = tmp_path_factory.mktemp("tree")
    generator = torch.Generator().manual_seed(0)
    for folder, identities, images in (("bounding_box_train", range(4), 8), ("query", range(5, 8), 2),
                                       ("bounding_box_test", range(5, 8), 6)):  # fmt: skip
        (root / folder).mkdir()
        for identity in identities:
            colour = torch.rand(3, 1, 1, generator=torch.Generator().manual_seed(identity + 1))
            for number in range(images):
                pixels = (colour + 0.25 * torch.randn(3, 96, 48, generator=generator)).clamp(0, 1)
                name = f"{identity:04d}_c{number % 2 + 1}s1_{number:06d}_00.png"
                Image.fromarray((255 * pixels).byte().permute(1, 2, 0).numpy()).save(root / folder / name)
    strange = root / "query" / "0005_c1s1_000000_00.png"
    strange.rename(strange.with_name(f"0005_c1s1_{HOSTILE.replace('/', '∕')}.png"))
    return root


SMALL = {
    "dataset": "market1501", "arch": "smallconv", "weights": "none", "height": 32, "width": 16, "epochs": 1,
    "iters": 1, "batch_size": 8, "num_instances": 4, "k1": 8, "k2": 2, "eps": 0.7, "min_samples": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def market(tree, tmp_path_factory):
    return run(tmp_path_factory.mktemp("report") / "market", data_dir=str(tree), **SMALL)


@pytest.fixture(scope="module")
def market_page(market):
    return Page(write_report(market, device="cpu", queries=6))


@pytest.fixture(params=["digits_page", "market_page"])
def parsed(request):
    return request.getfixturevalue(request.param)


def test_page_has_every_section_and_every_element_is_closed(parsed):
    sections = [attributes["id"] for tag, attributes in parsed.elements if tag == "section"]
    assert sections == ["curves", "ranked", "clusters", "time", "options"]
    assert parsed.open == []
    assert parsed.source.startswith("<!DOCTYPE html>")


def test_page_loads_nothing_from_elsewhere(parsed):
    loaded = [
        attributes[name] for name in ("src", "href", "xlink:href", "data") for _, attributes in parsed.having(name)
    ]
    assert loaded and all(reference.startswith(("data:", "#")) for reference in loaded)
    assert not re.search(r"https?:|@import|url\((?!#)", parsed.source)
    assert not any(tag in ("script", "iframe", "object") for tag, _ in parsed.elements)


def test_names_of_elements_are_unique_and_what_is_referred_to_is_there(parsed):
    names = [attributes["id"] for _, attributes in parsed.having("id")]
    assert len(names) == len(set(names))
    referred = {attributes["xlink:href"][1:] for _, attributes in parsed.having("xlink:href")}
    assert referred | set(re.findall(r"url\(#([^)]+)\)", parsed.source)) <= set(names)


def test_charts_have_the_colours_of_the_page(parsed):
    assert "var(--series-0)" in parsed.source and "var(--muted)" in parsed.source
    assert not re.search("#0[1-5]0[0-9]0[0-9]", parsed.source)


def test_numbers_of_the_run_are_on_the_page(digits, digits_page):
    records = [json.loads(line) for line in (digits / "metrics.jsonl").read_text().splitlines()]
    best = max(records, key=lambda record: record["mAP"])
    for value in (best["mAP"], best["rank1"], records[0]["mAP"]):
        assert f"{100 * value:.1f}" in digits_page.text
    for stage in records[-1]["seconds"]:
        assert stage in digits_page.text
    for title in ("Accuracy", "Loss", "Clusters", "Noise", "Learning rate", "Seconds per epoch", "Cluster sizes"):
        assert title in digits_page.texts


def test_options_that_differ_from_the_recipe_are_marked(digits_page):
    marked = re.findall(r'<div class="differs"><dt>(\w+)</dt><dd>(.*?)<small>recipe: (.*?)</small>', digits_page.source)
    assert marked == [("epochs", "2", "15"), ("iters", "4", "40")]


@pytest.mark.parametrize("name", ["digits", "market"])
def test_marks_and_order_are_those_of_a_brute_force_search(name, request):
    path, found = request.getfixturevalue(name), lists(request.getfixturevalue(f"{name}_page"))
    assert len(found) == (12 if name == "digits" else 6)
    for row in list(found)[:: len(found) - 1]:  # the best and the worst
        assert found[row] == brute_force(path, row)


def test_average_precision_is_scikit_learns_and_falls_down_the_page(digits, digits_page):
    shown = [float(value) for value in re.findall(r"AP (\d+\.\d) %", digits_page.text)]
    assert len(shown) == 12 and shown == sorted(shown, reverse=True)
    for position, row in ((0, next(iter(lists(digits_page)))), (-1, list(lists(digits_page))[-1])):
        assert shown[position] == pytest.approx(100 * precision_of(digits, row), abs=0.06)


def test_right_and_wrong_differ_in_more_than_their_colour(digits_page):
    marks = [mark for found in lists(digits_page).values() for _, mark in found]
    assert {"right", "wrong"} == set(marks)
    ranked = digits_page.source.partition('id="ranked"')[2].partition('id="clusters"')[0]
    assert ranked.count('<span class="sign">✗ ') - 1 == marks.count("wrong")  # one in the legend
    assert "border-style: dashed" in digits_page.source


def test_hostile_file_names_are_text(market_page):
    names = {attributes["title"] for _, attributes in market_page.having("title")}
    assert any(HOSTILE.replace("/", "∕") in name for name in names)
    assert "<script" not in market_page.source


def test_hostile_metrics_are_text(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "run")
    record = {"epoch": 3, f"{HOSTILE}/mAP": 0.5, "mAP": 0.4, "seconds": {HOSTILE: 1.0, "$\\frac{": 2.0}}
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps(record))
    parsed = Page(write_report(tmp_path / "run", device="cpu", queries=0))
    assert "<script" not in parsed.source and HOSTILE in parsed.text and parsed.open == []


@pytest.mark.parametrize(
    "lines",
    [None, "", '{"epoch": 0, "mAP": 0.5, "rank1": 0.6, "loss": null, "clusters": null, "seconds": {"evaluate": 1}}',
     '{"epoch": 0, "mAP": NaN}\n{"epoch": 1, "loss": Infinity, "mAP": NaN, "lr": 0.0}\n3\n{"loss": 1}\n{"epo'],
    ids=["missing", "empty", "before training", "not finite"],
)  # fmt: skip
def test_metrics_that_say_little_still_make_a_page(digits, tmp_path, lines):
    shutil.copytree(digits, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    if lines is not None:
        (tmp_path / "run" / "metrics.jsonl").write_text(lines)
    parsed = Page(write_report(tmp_path / "run", device="cpu", queries=0))
    assert parsed.open == [] and "nan" not in parsed.text.lower().split()
    assert 'id="clusters"' in parsed.source


def test_without_query_and_gallery_or_identities_the_largest_clusters_are_left(tree, tmp_path):
    (tmp_path / "data").mkdir()
    folder = tmp_path / "data" / "bounding_box_train"
    folder.mkdir()
    for path in (tree / "bounding_box_train").iterdir():
        shutil.copy(path, folder / f"0000_{path.name}")
    parsed = Page(write_report(run(tmp_path / "run", data_dir=str(tmp_path / "data"), **SMALL), device="cpu"))
    assert "No ranked lists: there is no query and no gallery" in parsed.text
    titles = re.findall(r"<h3>(.*?)</h3>", parsed.source)
    assert titles == ["Largest"] and parsed.having("data-cluster")
    assert not lists(parsed) and "✗" not in parsed.text and "purity" not in parsed.text


def test_without_clusters_the_page_says_so(market, tmp_path, monkeypatch):
    labels = torch.full((32,), -1)
    monkeypatch.setattr(page, "pseudo_labels", lambda *args: type("Found", (), {"labels": labels})())
    parsed = Page(write_report(market, tmp_path / "page.html", device="cpu"))
    assert "No clusters among the 32 training images" in parsed.text


def test_sheets_show_each_cluster_once_and_its_purity():
    labels = torch.tensor([0] * 20 + [1] * 8 + [2] * 6 + [3] * 5 + [4] * 5 + [5] * 4 + [6] * 2 + [-1] * 3)
    ids = torch.arange(len(labels)) // 20  # cluster 0 is pure
    ids[28:30] = 7  # cluster 2: 2 of 6 belong to another identity
    largest, mixed, purest = clusters.sheets(labels, ids, smallest=4)
    assert [cluster.size for cluster in largest.clusters] == [20, 8, 6, 5]
    assert largest.clusters[0].purity == 1 and largest.clusters[2].purity == pytest.approx(4 / 6)
    assert len(largest.clusters[0].members) == clusters.IMAGES
    shown = [cluster.label for sheet in (largest, mixed, purest) for cluster in sheet.clusters]
    assert len(shown) == len(set(shown)) and 6 not in shown  # of two images only


def test_members_shown_are_in_proportion_and_of_the_majority_first():
    ids = torch.tensor([1] * 8 + [0] * 24)
    (sheet, *_) = clusters.sheets(torch.zeros(32, dtype=torch.int64), ids, smallest=1)
    (cluster,) = sheet.clusters
    assert cluster.majority == 0 and cluster.purity == 0.75 and cluster.identities == 2
    assert [int(ids[row]) for row in cluster.members] == [0] * 12 + [1] * 4


def test_queries_are_chosen_from_both_ends_with_different_identities():
    precision = torch.tensor([1.0, 1.0, 0.9, 0.5, math.nan, 0.4, 0.2, 0.1, 0.1])
    ids = torch.tensor([1, 1, 2, 3, 3, 4, 5, 6, 6])
    assert choose(precision, ids, 6) == [
        (0, "best"), (2, "best"), (3, "in between"), (5, "in between"), (6, "worst"), (8, "worst")
    ]  # fmt: skip
    assert len(choose(precision, ids, 100)) == 8 and choose(precision, ids, 0) == []


def test_a_list_holds_what_the_main_protocol_compares_its_query_with():
    features = torch.nn.functional.normalize(torch.randn(24, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    query = Part([None] * 6, torch.tensor([0, 1, 2, 0, 1, 9]), torch.tensor([1] * 6))
    gallery = Part([None] * 18, torch.arange(18) % 3, torch.tensor([1, 2, 2] * 6))
    halves = (Comparison(torch.arange(3), torch.arange(9)), Comparison(torch.arange(3, 6), torch.arange(9, 18)))
    protocols = {"halves": Protocol((halves,)), "all": everything(6, 18)}
    data = ReIDData("x", query, query, gallery, 3, lambda encoder: None, protocols)
    found = ranked_lists(data, features[:6], features[6:], 6)
    assert sorted(one.query for one in found) == [1, 2, 4]  # identity 0 only in the query's camera, identity 9 nowhere
    for one in found:
        rows = torch.arange(9) if one.query < 3 else torch.arange(9, 18)
        distances = (features[one.query] - features[6:][rows]).pow(2).sum(1)
        assert [entry.index for entry in one.entries] == rows[distances.argsort()].tolist()
        assert [entry.right for entry in one.entries] == (gallery.ids[rows] == query.ids[one.query])[
            distances.argsort()
        ].tolist()
        assert one.matches == 3


def test_tensors_and_pictures_of_any_kind_become_thumbnails():
    images = [
        torch.rand(1, 8, 8), torch.rand(3, 40, 20), torch.zeros(1, 60, 60, dtype=torch.uint8),
        Image.new("1", (30, 30)), Image.new("RGBA", (300, 100)), torch.full((1, 8, 8), math.nan),
    ]  # fmt: skip
    made = [thumbnails.thumbnail(images, index, 64) for index in range(len(images))]
    assert [one.pixelated for one in made] == [True, True, False, True, False, True]
    assert all(one.uri.startswith("data:image/") and one.name == one.path == "" for one in made)


def test_names_are_those_below_the_folder_of_all_images(tmp_path):
    files = [tmp_path / name for name in ("a/0.png", "b/0.png")]
    for file in files:
        file.parent.mkdir()
        Image.new("RGB", (4, 4)).save(file)
    for chosen, names in ((files, ["a/0.png", "b/0.png"]), (files[:1], ["0.png"])):
        images = ImageFiles(chosen)
        made = [thumbnails.thumbnail(images, index, 64) for index in range(len(images))]
        assert [one.name for one in made] == names and [one.path for one in made] == [str(file) for file in chosen]
    assert thumbnails.shorten("a" * 30 + "/0.png", 16) == "aaaaa…aaaa/0.png"
    assert thumbnails.shorten("a/0.png", 7) == "a/0.png"


def test_further_protocols_have_a_tile_and_a_chart_of_their_own():
    records = history.readable([{"epoch": 1, "mAP": 0.5, "rank1": 0.6, "other/mAP": 0.3, "other/rank1": 0.4}])
    assert {tile.name: tile.value for tile in history.tiles(records, 10)} == {
        "mAP": "50.0", "rank-1": "60.0", "mAP (other)": "30.0", "rank-1 (other)": "40.0"
    }  # fmt: skip
    assert [chart.title for chart in curves.charts(records)] == ["Accuracy", "Accuracy: other"]


def test_a_rate_that_falls_by_tens_has_readable_ticks():
    records = [{"epoch": epoch, "lr": 0.01 * 0.1 ** (epoch // 10)} for epoch in range(1, 41)]
    (chart,) = curves.charts(records)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)
    assert {"0.001", "0.0001", "epoch", "learning rate"} <= set(texts) and not any("$" in text for text in texts)


def test_times_add_up_by_stage():
    records = [{"epoch": 0, "seconds": {"evaluate": 1.0}}, {"epoch": 1, "seconds": {"train": 5.0, "evaluate": 2.0}}]
    assert [(stage.stage, stage.total, stage.mean, stage.share) for stage in history.stages(records)] == [
        ("train", 5.0, 5.0, 0.625), ("evaluate", 3.0, 1.5, 0.375)
    ]  # fmt: skip
    assert [history.duration(value) for value in (0.42, 18.44, 200, 7500)] == [
        "0.42 s",
        "18.4 s",
        "3 min 20 s",
        "2 h 05 min",
    ]


def test_the_command_writes_to_the_given_file(digits, tmp_path):
    assert main(["report", str(digits), "-o", str(tmp_path / "page.html"), "--queries", "2", "--device", "cpu"]) == 0
    assert len(lists(Page(tmp_path / "page.html"))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["missing"], "RUN: expected a run folder, got missing, which does not exist"),
        (["."], "not a run folder: it has neither best.pt nor checkpoint.pt"),
        ([".", "--queries", "-1"], "--queries: expected at least 0, got -1"),
        ([".", "-o", "no/such/page.html"], "--output: no such folder"),
    ],
)
def test_wrong_arguments_end_with_status_2(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
@pytest.mark.parametrize("width", [1280, 520])
def test_a_browser_draws_the_page(market, market_page, tmp_path, width):
    picture = tmp_path / "page.png"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1500", f"--screenshot={picture}",
               (market / "report.html").resolve().as_uri()]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with Image.open(picture) as image:
        assert image.size == (width, 1500)
        assert len(image.convert("RGB").getcolors(1 << 24)) > 100  # something was drawn


def test_a_comparison_names_the_metrics_as_the_page_does():
    before = {"epoch": 0, "mAP": 0.145, "rank1": 0.331, "loss": None, "clusters": None, "noise": None}
    after = {"epoch": 1, "mAP": 0.192, "rank1": 0.38, "rank5": 0.6, "loss": 2.0, "clusters": 142, "noise": 1260}
    results = comparison._results(history.readable([before, after]))
    assert results["rank-1"] == "38.0" and results["rank-5"] == "60.0"
    assert (results["mAP before training"], results["rank-1 before training"]) == ("14.5", "33.1")
    assert (results["clusters, last epoch"], results["noise, last epoch"]) == ("142", "1,260")
