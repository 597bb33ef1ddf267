"""ccfast.compat: the authors' names, argument order, defaults and results."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Backend
from sample_inputs import clustered, memory_batch

import ccfast
from ccfast import compat


@pytest.mark.parametrize("case", range(4))
def test_jaccard_distance_is_the_authors_array(backend: Backend, golden: Any, case: int) -> None:
    want = golden(f"jaccard_{case}")
    features = backend(torch.from_numpy(want["features"]))
    found = compat.compute_jaccard_distance(features, int(want["k1"]), int(want["k2"]), False)
    assert type(found) is np.ndarray and found.dtype == np.float32
    np.testing.assert_allclose(found, want["jaccard"], rtol=0, atol=2e-6)


def test_signatures_are_the_authors() -> None:
    names = ["target_features", "k1", "k2", "print_flag", "search_option", "use_float16"]
    parameters = inspect.signature(compat.compute_jaccard_distance).parameters
    assert list(parameters) == names
    assert [parameters[name].default for name in names[1:]] == [20, 6, True, 0, False]
    parameters = inspect.signature(compat.ClusterMemory).parameters
    assert list(parameters) == ["num_features", "num_samples", "temp", "momentum", "use_hard"]
    assert [parameter.default for parameter in list(parameters.values())[2:]] == [0.05, 0.2, False]


@pytest.mark.parametrize("search_option", [0, 1, 2, 3])
def test_every_search_option_gives_the_exact_result(search_option: int) -> None:
    features = clustered(80)[0]
    found = compat.compute_jaccard_distance(features, search_option=search_option, print_flag=False)
    np.testing.assert_array_equal(found, ccfast.jaccard_distance(features, 20, 6).numpy())


def test_float16_is_a_rounding_of_the_float32_result() -> None:
    features = clustered(80)[0]
    found = compat.compute_jaccard_distance(features, print_flag=False, use_float16=True)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, ccfast.jaccard_distance(features, 20, 6).half().numpy())


def test_print_flag_prints(capsys: pytest.CaptureFixture[str]) -> None:
    compat.compute_jaccard_distance(clustered(40)[0], 10, 3, print_flag=False)
    assert capsys.readouterr().out == ""
    compat.compute_jaccard_distance(clustered(40)[0], 10, 3)
    assert "jaccard distance" in capsys.readouterr().out.lower()


def test_numpy_features_and_labels_by_scikit_learn() -> None:
    # The three lines of the authors' training script.
    from sklearn.cluster import DBSCAN

    features, ids = clustered(150, identities=10, noise=0.4)
    distances = compat.compute_jaccard_distance(features.numpy(), k1=20, k2=6, print_flag=False)
    labels = DBSCAN(eps=0.5, min_samples=4, metric="precomputed", n_jobs=-1).fit_predict(distances)
    assert len(set(zip(labels.tolist(), ids.tolist(), strict=True))) == 10
    np.testing.assert_array_equal(labels, ccfast.dbscan(ccfast.jaccard_distance(features, 20, 6), 0.5).numpy())


@pytest.mark.parametrize("case", range(4))
def test_cluster_memory_steps_are_the_authors(backend: Backend, golden: Any, case: int) -> None:
    want = golden(f"cluster_memory_{case}")
    clusters, dim = want["memory"].shape
    temp, momentum, hard = float(want["temperature"]), float(want["momentum"]), bool(want["hard"])
    memory = compat.ClusterMemory(dim, clusters, temp=temp, momentum=momentum, use_hard=hard).to(backend.device)
    memory.features = backend(torch.from_numpy(want["memory"]))  # as the authors' script fills it
    for step in range(3):
        inputs, targets = backend(torch.from_numpy(want["inputs"][step]), torch.from_numpy(want["targets"][step]))
        inputs.requires_grad_()
        loss = memory(inputs, targets)
        loss.backward()
        np.testing.assert_allclose(loss.item(), want["loss"][step], rtol=1e-5)
        largest = np.abs(want["grad"][step]).max()
        np.testing.assert_allclose(inputs.grad.cpu().numpy(), want["grad"][step], rtol=1e-5, atol=1e-5 * largest)
        np.testing.assert_allclose(memory.features.cpu().numpy(), want["memory_after"][step], rtol=0, atol=2e-6)


def test_cluster_memory_has_the_authors_attributes_and_default_momentum(backend: Backend) -> None:
    rows, inputs, targets = memory_batch(clusters=5, dim=8, batch=10)
    memory = compat.ClusterMemory(8, 5).to(backend.device)
    memory.features = F.normalize(backend(rows), dim=1)
    assert (memory.num_features, memory.num_samples, memory.temp, memory.momentum) == (8, 5, 0.05, 0.2)
    assert memory.use_hard is False
    want = rows.clone()
    ccfast.reference.update_memory_(want, inputs, targets, 0.2)
    memory(*backend(inputs.requires_grad_(), targets)).backward()
    torch.testing.assert_close(memory.features.cpu(), want, rtol=0, atol=2e-6)
