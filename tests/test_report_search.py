"""What a run's page measures on query and gallery, and the pairs of the clusters that are most likely wrong."""

from __future__ import annotations

import base64
import csv
import io
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))

from tiny_run import tiny_run, write_pictures

from ccfast.data import Comparison, Part, Protocol, ReIDData
from ccfast.report import curves, write_report
from ccfast.report.embedding import POINTS, embedding_map
from ccfast.report.measures import BINS, measure
from ccfast.report.page import distance, widths
from ccfast.report.pairs import far_within, near_across
from ccfast.training.evaluate import evaluate


def data_of(queries, gallery, identities, *, cameras=3, protocols=None, seed=0):
    draw = torch.Generator().manual_seed(seed)
    ids = [torch.randint(identities, (count,), generator=draw) for count in (queries, gallery)]
    centres = torch.randn(identities, 8, generator=draw)
    features = [F.normalize(centres[of] + 1.5 * torch.randn(len(of), 8, generator=draw), dim=1) for of in ids]
    query, gallery = (
        Part([None] * len(of), of, torch.randint(cameras, (len(of),), generator=draw) if cameras else None)
        for of in ids
    )
    return ReIDData("x", query, query, gallery, 3, lambda encoder: None, protocols or {}), *features


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("cameras", [0, 3])
def test_the_curve_and_the_cameras_are_those_of_evaluation(cameras, distinct):
    halves = (
        Comparison(torch.arange(0, 20), torch.arange(0, 60)),
        Comparison(torch.arange(20, 41), torch.arange(30, 90)),
    )
    protocols = {"halves": Protocol((halves,), distinct_identities=distinct)}
    data, *features = data_of(41, 90, 12, cameras=cameras, protocols=protocols)
    metrics, found = evaluate(data, *features), measure(data, *features)
    for rank in (1, 5, 10):
        assert found.cmc[rank - 1] == pytest.approx(metrics[f"rank{rank}"])
    assert found.cmc == sorted(found.cmc) and len(found.cmc) == 20
    assert bool(found.cameras) == bool(cameras)
    if cameras:
        total = sum(camera.queries for camera in found.cameras)
        assert sum(camera.queries * camera.mAP for camera in found.cameras) / total == pytest.approx(metrics["mAP"])
        assert sum(camera.queries * camera.rank1 for camera in found.cameras) / total == pytest.approx(
            metrics["rank1"] if not distinct else found.cmc[0]
        )


def test_the_histograms_are_those_of_all_pairs():
    data, query, gallery = data_of(30, 200, 6)
    same = data.query.ids[:, None] == data.gallery.ids
    kept = ~(same & (data.query.cams[:, None] == data.gallery.cams))
    distances = torch.cdist(query, gallery).square()
    found = measure(data, query, gallery)
    for shares, chosen in ((found.same, same & kept), (found.different, ~same)):
        expected, _ = np.histogram(distances[chosen].numpy(), bins=50, range=(0, 4))
        coarse = np.reshape(shares, (50, BINS // 50)).sum(1)
        np.testing.assert_allclose(coarse, expected / expected.sum(), atol=2 / chosen.sum())
        assert sum(shares) == pytest.approx(1)


def clustered(seed=0):
    draw = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(5, 6, generator=draw), dim=1)
    labels = torch.randint(-1, 5, (80,), generator=draw)
    features = F.normalize(centres[labels.clamp(min=0)] + 0.5 * torch.randn(80, 6, generator=draw), dim=1)
    return features, labels


def test_near_pairs_of_two_clusters_come_first():
    features, labels = clustered()
    distances = torch.cdist(features, features).square()
    across = (labels[:, None] != labels) & (labels[:, None] >= 0) & (labels >= 0)
    pairs = near_across(features, labels)
    assert pairs[0].distance == pytest.approx(float(distances[across].min()), abs=1e-5)
    assert [pair.distance for pair in pairs] == sorted(pair.distance for pair in pairs)
    rows = [row for pair in pairs for row in (pair.first, pair.second)]
    assert len(rows) == len(set(rows)) and len({tuple(sorted(pair.clusters)) for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert pair.clusters == (int(labels[pair.first]), int(labels[pair.second]))
        assert pair.distance == pytest.approx(float(distances[pair.first, pair.second]), abs=1e-5)
    assert near_across(features, torch.zeros(80, dtype=torch.int64)) == []


def test_far_pairs_of_one_cluster_come_first():
    from ccfast.inference.image_clusters import with_distances

    features, labels = clustered()
    found = with_distances(features, labels)
    pairs = far_within(features, labels, found.distances)
    assert len(pairs) == 5 and [pair.distance for pair in pairs] == sorted((p.distance for p in pairs), reverse=True)
    for pair in pairs:
        members = (labels == pair.clusters[0]).nonzero()[:, 0]
        assert {int(labels[pair.first]), int(labels[pair.second])} == {pair.clusters[0]}
        assert found.distances[pair.first] == found.distances[members].max()
        farthest = (features[members] - features[pair.first]).square().sum(1).max()
        assert pair.distance == pytest.approx(float(farthest), abs=1e-5)


def test_the_map_by_pca_is_scikit_learns():
    from sklearn.decomposition import PCA

    features, labels = clustered()
    found = embedding_map(features, labels)
    assert found.method == "PCA" and [point.cluster for point in found.points] == labels.tolist()
    places = np.array([(point.x, point.y) for point in found.points])
    assert places.min() == 0 and places.max() == 1
    expected = PCA(2).fit_transform(features.double().numpy())
    for axis in range(2):
        assert abs(np.corrcoef(places[:, axis], expected[:, axis])[0, 1]) == pytest.approx(1, abs=1e-9)


def test_maps_of_many_few_and_equal_images():
    features = F.normalize(torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    assert len(embedding_map(features, torch.zeros(1000, dtype=torch.int64)).points) == 250 <= POINTS
    assert embedding_map(features[:2], torch.tensor([0, 0])) is None
    for same in (torch.ones(5, 3), torch.ones(5, 1)):
        assert all(0 <= point.x <= 1 for point in embedding_map(same, torch.zeros(5, dtype=torch.int64)).points)


def test_umap_is_used_where_it_is_installed(monkeypatch):
    def umap(**options):
        return SimpleNamespace(fit_transform=lambda array: np.arange(2.0 * len(array)).reshape(-1, 2))

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=umap))
    features, labels = clustered()
    found = embedding_map(features, labels)
    assert found.method == "UMAP" and found.points[-1].x == 1


@pytest.mark.slow
def test_charts_without_points_are_left_out():
    """A constant rate is a sentence instead of a chart; a chart starts at its first value."""
    records = [{"epoch": 0, "mAP": 0.5}, *({"epoch": epoch, "lr": 0.1, "loss": 1.0, "mAP": 0.5} for epoch in (1, 2))]
    assert [chart.title for chart in curves.charts(records)] == ["Accuracy", "Loss"]
    assert curves.constant_rate(records) == 0.1 and curves.constant_rate(records[:1]) is None
    accuracy, loss = (re.findall(r"<text[^>]*>(\d+)</text>", chart.svg) for chart in curves.charts(records))
    assert "0" in accuracy and "0" not in loss
    records[-1]["lr"] = 0.05
    assert "Learning rate" in [chart.title for chart in curves.charts(records)]
    assert curves.constant_rate(records) is None


def test_no_chart_is_alone_in_its_row():
    """Every row is full: three thirds or two halves."""
    for charts in range(2, 30):
        found = widths(charts)
        assert len(found) == charts and found.count("third") % 3 == 0 and found.count("half") % 2 == 0
        assert found == sorted(found, reverse=True)
    assert widths(7) == ["third"] * 3 + ["half"] * 4 and widths(1) == ["half"] and widths(0) == []


def test_small_distances_keep_three_digits():
    assert [distance(value) for value in (1.23456, 0.5, 0.000123456, 2e-5, 2e-7, -1e-7)] == [
        "1.23", "0.500", "0.000123", "2.00e-5", "0", "0"
    ]  # fmt: skip


def ticks(chart):
    return [float(text) for text in re.findall(r"<text[^>]*>(\d+(?:\.\d+)?)</text>", chart.svg)]


@pytest.mark.slow
def test_axes_of_shares_end_at_the_whole():
    records = [{"epoch": epoch, "mAP": 0.9 + epoch / 20, "nmi": 0.96 + epoch / 50} for epoch in (0, 1, 2)]
    accuracy, agreement = curves.charts(records)
    assert max(ticks(accuracy)) == 100 and max(value for value in ticks(agreement) if value != 2) == 1
    for value in (0.0, 1.0):
        (chart,) = curves.comparison_charts([{"epoch": 0, "mAP": value}], [{"epoch": 0, "mAP": value}])
        assert max(ticks(chart)) <= 100


@pytest.mark.slow
def test_numbers_without_identities_have_charts():
    records = [{"epoch": epoch, "silhouette": 0.1 * epoch, "last_ari": 0.5, "eps": 0.4} for epoch in (1, 2)]
    assert [chart.title for chart in curves.charts(records)] == ["Clusters without identities"]
    assert "ARI with the last epoch" in curves.charts(records)[0].svg
    records[-1]["eps"] = 0.5
    assert [chart.title for chart in curves.charts(records)] == ["Clusters without identities", "eps of the clustering"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_pictures(folder / "train", shots=range(30, 32), kinds=[8, 9, 7])  # too few of each to make a cluster
    return tiny_run(folder, eps=0.4)


@pytest.mark.slow
def test_the_page_has_names_images_in_none_and_the_clusters_to_download(run):
    page = write_report(run, device="cpu").read_text(encoding="utf-8")
    (table,) = re.findall(r'download="clusters.csv" href="data:text/csv;base64,([^"]*)"', page)
    found = base64.b64decode(table).decode()
    assert found == (run / "clusters.csv").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(found)))
    none = [row for row in rows if row["cluster"] == "-1"]
    assert none and f"{len(none)} images" in page.partition('class="in-none"')[2]
    shown = re.findall(r'<span class="file">(.*?)</span>', page.partition('class="in-none"')[2].replace("<wbr>", ""))
    assert shown == ["/".join(row["path"].split("/")[-2:]) for row in none]
    assert all(f'title="{row["path"]}"' in page and f"<title>{row['path']}</title>" in page for row in none)
    assert page.count('<g class="point"') == len(rows) and "Nearest images of two clusters" in page
    assert "Ranked lists" not in page and "<h2>Search</h2>" not in page


@pytest.mark.slow
def test_another_run_beside_this_one(run, tmp_path, caplog):
    other = tiny_run(tmp_path, seed=3, eps=0.5, iters=3)
    page = write_report(run, tmp_path / "p.html", compare_with=other, device="cpu").read_text(encoding="utf-8")
    section = page.partition('id="comparison"')[2].partition("</section>")[0]
    rows = {
        cells[0]: cells[1:] for cells in re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", section)
    }
    assert {name: values for name, values in rows.items() if name in ("seed", "eps", "iters")} == {
        "seed": ("0", "3"), "eps": ("0.4", "0.5"), "iters": ("2", "3")
    }  # fmt: skip
    assert "data_dir" not in rows and "clusters, last epoch" in rows and "Clusters of both runs" in section
    assert f"--compare: {other} learnt from folder ({tmp_path / 'train'}), and {run} from folder (" in caplog.text
    caplog.clear()
    write_report(run, tmp_path / "p.html", compare_with=run, device="cpu")
    assert "--compare" not in caplog.text
    with pytest.raises(ValueError, match="--compare: expected a run folder"):
        write_report(run, tmp_path / "p.html", compare_with=tmp_path, device="cpu")


def test_the_histogram_shows_the_distances_that_there_are():
    """For any distance: an encoder that has learnt nothing gives nearly equal features."""
    same, different = ([0.0] * BINS for _ in range(2))
    same[7], different[9] = 1.0, 1.0
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", curves.distance_chart(same, different).svg)
    ticks = [float(text) for text in texts if re.fullmatch(r"0?\.\d+", text)]
    assert max(ticks) <= 0.02 and "same identity" in texts
