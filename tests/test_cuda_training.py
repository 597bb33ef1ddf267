"""The training loop on a GPU: it learns, it resumes a run from the CPU, and its steps do not synchronise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

import ccfast
from ccfast.commands.evaluate.measure import evaluate_checkpoint
from ccfast.data import ClusterSampler, load_data
from ccfast.data.cache import ImageCache
from ccfast.data.loader import augmented_loader
from ccfast.methods import method_class
from ccfast.training import TrainConfig, train
from ccfast.training.iterate import Batches, iterate
from ccfast.training.loop import make_encoder
from ccfast.training.optimizers import make_optimizer
from ccfast.training.precision import Precision

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(ccfast.build_info()["cuda"] is None, reason="ccfast was built without CUDA (CCFAST_CUDA)"),
]

GPU = torch.device("cuda")


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
@pytest.mark.parametrize("cache", ["none", "ram", "device"])
def test_a_run_learns_and_is_evaluated_as_it_was(tmp_path, cache, amp):
    options = {"cache": cache, "amp": amp, "epochs": 2, "iters": 20, "device": "cuda"}
    records = train(TrainConfig(run=str(tmp_path / "run"), **options)).records
    assert records[-1]["mAP"] > records[0]["mAP"] + 0.1
    assert records[-1]["peak_memory_mb"] > 0
    best = max(records, key=lambda record: record["mAP"])
    assert evaluate_checkpoint(str(tmp_path / "run"), device="cuda")["mAP"] == pytest.approx(best["mAP"], abs=1e-3)


@pytest.mark.parametrize("devices", [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("amp", ["none", "fp16"])
def test_a_run_goes_on_on_another_device(tmp_path, devices, amp):
    options = {"run": str(tmp_path / "run"), "iters": 5, "amp": amp}
    train(TrainConfig(epochs=1, device=devices[0], **options))
    records = train(TrainConfig(epochs=2, device=devices[1], resume=True, **options)).records
    assert records[-1]["mAP"] > records[0]["mAP"]


def no_waiting(loader: Iterator, warm_up: int = 2) -> Iterator:
    """``loader``'s batches; after the first ones any synchronisation by torch raises an error."""
    try:
        for step, batch in enumerate(loader):
            if step == warm_up:
                torch.cuda.synchronize()
                torch.cuda.set_sync_debug_mode("error")
            yield batch
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_the_steps_of_an_epoch_do_not_wait_for_the_gpu(place, amp):
    config, data = TrainConfig(amp=amp, lr=1e-6), load_data("digits")
    encoder = make_encoder(config, 1, "none").to(GPU)
    views = data.make_views(encoder)
    images = ImageCache.build(data.train.images, views.plain, device=torch.device(place), workers=0)
    labels = data.train.ids.to(GPU)
    method = method_class("cluster-contrast")(config, data, GPU)
    features = F.normalize(torch.randn(len(labels), encoder.num_features, device=GPU), dim=1)
    method.start_epoch(features, labels, epoch=0)
    sampler = ClusterSampler(
        labels, None, num_clusters=8, num_instances=4, iters=6, generator=torch.Generator().manual_seed(0)
    )
    loader = augmented_loader(images, views, sampler, workers=0, device=GPU)
    batches = Batches(no_waiting(iter(loader)), sampler.batch_size)
    optimizer = make_optimizer(encoder, config)
    assert iterate(encoder, method.criterion, optimizer, batches, labels, 16, precision=Precision(amp, GPU)) > 0
