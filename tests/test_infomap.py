"""infomap: communities of the cosine kNN graph, and the graph clustering that computes them."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import Backend
from sample_inputs import clustered, identical, signs
from torch import Tensor

import ccfast
from ccfast import _infomap
from ccfast._infomap import infomap_labels


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "missing" not in request.node.name:
        pytest.importorskip("infomap", reason="the optional package infomap is not installed")


def by_lowest_member(labels: Tensor) -> list[int]:
    """First position of each cluster, in the order of the labels."""
    return [int((labels == label).nonzero()[0, 0]) for label in range(int(labels.max()) + 1)]


def test_planted_identities_come_back_numbered_by_their_lowest_member(
    implementation: ModuleType, backend: Backend
) -> None:
    features, ids = clustered(300, identities=15, noise=0.5)
    labels = implementation.infomap(backend(features))
    assert labels.dtype == torch.int64 and labels.device == backend.device
    labels = labels.cpu()
    pairs = set(zip(labels.tolist(), ids.tolist(), strict=True))
    assert len(pairs) == 15 and labels.min() == 0 and labels.max() == 14, "one label for each identity"
    assert by_lowest_member(labels) == sorted(by_lowest_member(labels))


@pytest.mark.parametrize("k1, min_similarity, min_cluster_size", [(15, 0.5, 5), (5, 0.3, 3), (20, 0.6, 8), (1, 0.5, 1)])
def test_op_and_reference_agree(backend: Backend, k1: int, min_similarity: float, min_cluster_size: int) -> None:
    for features in (clustered(250, noise=0.8)[0], signs(150)):
        found, want = (
            module.infomap(backend(features), k1, min_similarity, min_cluster_size)
            for module in (ccfast, ccfast.reference)
        )
        torch.testing.assert_close(found, want, rtol=0, atol=0)


@pytest.mark.slow
def test_two_runs_give_the_same_labels(implementation: ModuleType, backend: Backend) -> None:
    features = backend(clustered(250, noise=0.9)[0])
    assert torch.equal(implementation.infomap(features), implementation.infomap(features))


@pytest.mark.slow
def test_rows_without_links_and_small_clusters_are_noise(implementation: ModuleType, backend: Backend) -> None:
    basis = torch.eye(16)
    # Ten copies of one direction, four of another, and three single rows.
    features = backend(torch.cat([basis[5:6], basis[0:1].repeat(10, 1), basis[1:2].repeat(4, 1), basis[6:8]]))
    assert implementation.infomap(features, 15).tolist() == [-1] + [0] * 10 + [-1] * 6
    assert implementation.infomap(features, 15, min_cluster_size=4).tolist() == [-1] + [0] * 10 + [1] * 4 + [-1] * 2
    assert implementation.infomap(features, 15, min_cluster_size=11).tolist() == [-1] * 17


@pytest.mark.slow
def test_a_link_needs_the_similarity_itself_not_more(implementation: ModuleType, backend: Backend) -> None:
    # Rows of +-1/4 in 16 dimensions that differ in 4 places: the cosine is exactly 0.5.
    rows = torch.full((6, 16), 0.25)
    rows[1:, 12:] = -0.25
    rows = backend(rows)
    assert implementation.infomap(rows, 6, min_similarity=0.5, min_cluster_size=6).tolist() == [0] * 6
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert implementation.infomap(rows, 6, min_similarity=above, min_cluster_size=1).tolist() == [-1] + [0] * 5


def test_no_links_at_all_is_all_noise(implementation: ModuleType, backend: Backend) -> None:
    assert implementation.infomap(backend(torch.eye(8)), 4).tolist() == [-1] * 8
    assert implementation.infomap(backend(clustered(5)[0]), 1, min_cluster_size=1).tolist() == [-1] * 5, "only oneself"


def test_duplicates_link_to_their_lowest_copy(implementation: ModuleType, backend: Backend) -> None:
    # A row comes first in its own list, and then its lowest copy: with k1 = 1 no row has a link.
    assert implementation.infomap(backend(identical(3)), 1, min_cluster_size=1).tolist() == [-1, -1, -1]
    assert implementation.infomap(backend(identical(3)), 2, min_cluster_size=1).tolist() == [0, 0, 0]


@pytest.mark.slow
def test_graph_of_two_triangles_and_a_bridge() -> None:
    # Nodes 0, 7 and 3 have no links; the triangle that holds the lower node is cluster 0.
    links = [(5, 2), (2, 8), (8, 5), (1, 4), (4, 6), (6, 1), (5, 4)]
    sources, targets = np.array(links).T
    weights = np.array([1, 1, 1, 1, 1, 1, 0.1])
    labels = infomap_labels(sources, targets, weights, 9, 3)
    assert labels.dtype == np.int64
    assert labels.tolist() == [-1, 0, 1, -1, 0, 1, 0, -1, 1]
    assert infomap_labels(sources, targets, weights, 9, 4).tolist() == [-1] * 9


def test_graph_links_of_no_weight_and_to_oneself_are_no_links() -> None:
    nodes = np.array([0, 1, 2])
    assert infomap_labels(nodes, nodes, np.ones(3), 3, 1).tolist() == [-1] * 3
    assert infomap_labels(nodes, np.roll(nodes, 1), np.zeros(3), 3, 1).tolist() == [-1] * 3


def test_graph_clustering_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    infomap_labels(np.array([0, 1]), np.array([1, 0]), np.ones(2), 2, 1)
    assert capfd.readouterr() == ("", "")


def test_missing_package_is_an_import_error_that_says_what_to_install(
    implementation: ModuleType, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "infomap", None)
    with pytest.raises(ImportError, match=r"pip install 'ccfast\[infomap\]'"):
        implementation.infomap(backend(clustered(40)[0]))


#: Native packages that users also load.
BESIDE = ["faiss", "sklearn.cluster", "hdbscan", "lightgbm", "numba", "cv2", "cupy"]
SCRIPT = """
import importlib, sys
import torch, infomap
for name in sys.argv[1:]:
    importlib.import_module(name)
import ccfast
features = torch.nn.functional.normalize(torch.eye(4).repeat_interleave(8, 0) + 0.01)
print(ccfast.infomap(features, 8).tolist())
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BESIDE)
def test_packages_that_are_loaded_after_infomap_do_no_harm(name: str) -> None:
    pytest.importorskip(name.partition(".")[0])
    command = [sys.executable, "-c", SCRIPT, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str([label for label in range(4) for _ in range(8)])


def test_infomap_is_not_loaded_into_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two SWIG packages in one interpreter may crash each other, so infomap must never be loaded here.
    monkeypatch.delitem(sys.modules, "infomap", raising=False)
    assert infomap_labels(np.array([0, 1, 2]), np.array([1, 2, 0]), np.ones(3), 3, 1).tolist() == [0, 0, 0]
    assert "infomap" not in sys.modules


def test_a_failure_of_infomap_is_an_error_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_infomap, "_OPTIONS", "--no-such-option")
    with pytest.raises(RuntimeError, match="no-such-option"):
        infomap_labels(np.array([0, 1]), np.array([1, 0]), np.ones(2), 2, 1)
