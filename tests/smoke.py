"""Whether an installed ccfast works: its metadata, its ops compared with the reference, and ``ccfast info``.

``python tests/smoke.py``, from any folder. Needs only ccfast and its dependencies.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

TESTS = Path(__file__).resolve().parent
# The source folder must not be imported instead of the installed package.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() not in (TESTS, TESTS.parent)]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import ccfast  # noqa: E402
from ccfast.check.run import ops  # noqa: E402
from ccfast.check.trial import run_trial  # noqa: E402
from ccfast.cli import main  # noqa: E402


def check_metadata() -> None:
    """The package requires the torch version that it was built with, and has py.typed."""
    needs = [need for need in metadata.requires("ccfast") if need.startswith(("torch=", "torch>"))]
    version = metadata.version("torch")
    assert needs in ([f"torch==={version}"], [f"torch=={version}"]), (needs, version)
    assert metadata.metadata("ccfast")["License-Expression"] == "Apache-2.0"
    package = Path(ccfast.__file__).parent
    assert (package / "py.typed").exists() and list((package / "report").glob("*.html")), package
    size = max(path.stat().st_size for path in package.glob("_C*.so"))
    assert size < 20e6, f"the extension has {size} bytes: not stripped?"


def check_ops() -> None:
    """Features to labels, and the loss with its gradient, are those of the reference."""
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(8, 16, generator=generator), dim=1)
    noise = torch.randn(160, 16, generator=generator)
    features = F.normalize(centres.repeat(20, 1) + 0.05 * noise, dim=1)
    distances = ccfast.jaccard_distance(features, k1=20, k2=6)
    torch.testing.assert_close(distances, ccfast.reference.jaccard_distance(features, k1=20, k2=6), atol=1e-5, rtol=0)
    labels = ccfast.dbscan(distances, eps=0.6, min_samples=4)
    assert labels.max() == 7, labels
    gradients = []
    for package in (ccfast, ccfast.reference):
        rows = features.clone().requires_grad_()
        loss = package.centroid_contrastive_loss(rows, ccfast.cluster_centroids(features, labels), labels)
        gradients.append(torch.autograd.grad(loss, rows)[0])
    torch.testing.assert_close(*gradients)
    for trial in ops()["dbscan"]:
        assert not run_trial(trial, torch.device("cpu")).faults, trial.title


if __name__ == "__main__":
    check_metadata()
    check_ops()
    assert main(["info"]) == 0
    print(f"smoke test passed: {Path(ccfast.__file__).parent}")
