"""Images decoded once: the batches are the same, and a cache that does not fit is refused."""

from __future__ import annotations

import math

import pytest
import torch

from ccfast._errors import InputError
from ccfast.data import ClusterSampler, Part, ReIDData, cache, free_memory, load_data
from ccfast.data.cache import ImageCache, decoded
from ccfast.data.drawings import drawing_views
from ccfast.data.loader import augmented_loader, plain_loader
from ccfast.models import build_encoder
from ccfast.training import TrainConfig, train
from ccfast.training.extract import extract_shard
from ccfast.training.precision import Precision

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_CUDA)]
CPU = torch.device("cpu")


class FakeEncoder:
    height, width = 12, 12


VIEWS = drawing_views(FakeEncoder())


def pages(count=25):
    return torch.randint(0, 256, (count, 1, 20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def data_of(count=25):
    images = pages(count)
    ids = torch.arange(count)
    parts = [Part(images[rows], ids[rows]) for rows in (slice(None), slice(5), slice(5, None))]
    return ReIDData("pages", *parts, channels=1, make_views=drawing_views)


def sampler(iters=3):
    labels = torch.arange(25) % 5
    generator = torch.Generator().manual_seed(1)
    return ClusterSampler(labels, None, num_clusters=4, num_instances=2, iters=iters, generator=generator)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_cache_holds_the_plain_views_in_order(workers):
    images = ImageCache.build(pages(), VIEWS.plain, device=CPU, workers=workers)
    assert len(images) == 25
    assert images.pixels.dtype == torch.uint8
    assert torch.equal(images.pixels, torch.stack([VIEWS.plain(image) for image in pages()]))
    assert torch.equal(images[3], images.pixels[3])


@pytest.mark.parametrize("place", DEVICES)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [range(25), range(4, 21), range(0)])
def test_plain_batches_from_a_cache_are_those_of_the_files_bit_for_bit(place, device, rows):
    images = ImageCache.build(pages(), VIEWS.plain, device=torch.device(place), workers=0)
    given = {"batch_size": 8, "workers": 0, "device": torch.device(device)}
    expected = plain_loader(pages(), VIEWS.plain, rows, **given)
    loader = plain_loader(images, VIEWS.plain, rows, **given)
    assert len(loader) == len(expected)
    batches = list(loader)
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert batch.device.type == device
        assert torch.equal(batch.cpu(), other)


@pytest.mark.parametrize("place", DEVICES)
@pytest.mark.parametrize("device", DEVICES)
def test_augmented_batches_from_a_cache_follow_the_samplers_indices_and_seeds(place, device):
    images = ImageCache.build(pages(), VIEWS.plain, device=torch.device(place), workers=0)
    loader = augmented_loader(images, VIEWS, sampler(), workers=0, device=torch.device(device))
    assert len(loader) == 3
    for (inputs, indices), batch in zip(loader, sampler(), strict=True):
        rows, seeds = torch.tensor(batch).T
        assert (inputs.device.type, indices.device.type) == (device, device)
        assert torch.equal(indices.cpu(), rows)
        expected = VIEWS.augment_batch(images.pixels.to(device)[rows.to(device)], seeds.to(device))
        assert torch.equal(inputs, expected)


def test_both_ways_draw_the_same_images():
    images = ImageCache.build(pages(), VIEWS.plain, device=CPU, workers=0)
    ways = [augmented_loader(source, VIEWS, sampler(), workers=0, device=CPU) for source in (pages(), images)]
    for (inputs, indices), (others, same) in zip(*ways, strict=True):
        assert torch.equal(indices, same)
        assert inputs.shape == others.shape
        assert inputs.dtype == others.dtype


def test_all_parts_are_decoded_and_nothing_else_changes():
    data = data_of()
    kept = decoded(data, VIEWS.plain, place="ram", device=CPU, workers=0)
    for name in ("train", "query", "gallery"):
        before, after = getattr(data, name), getattr(kept, name)
        assert isinstance(after.images, ImageCache)
        assert len(after) == len(before)
        assert after.ids is before.ids
    assert kept.protocols == data.protocols


def test_images_that_need_too_much_memory_are_an_error_before_decoding(monkeypatch):
    monkeypatch.setattr(cache, "available", lambda device: 8_000)  # 50 images of 144 bytes are 7,200: more than 80%
    monkeypatch.setattr(ImageCache, "build", None)
    with pytest.raises(InputError, match=r"--cache ram: 50 images of 1 x 12 x 12 need .* GiB.*--cache none") as error:
        decoded(data_of(), VIEWS.plain, place="ram", device=CPU, workers=0)
    assert "80% of" in str(error.value)


def test_every_process_of_a_machine_is_counted(monkeypatch):
    monkeypatch.setattr(cache, "available", lambda device: 10_000)
    decoded(data_of(), VIEWS.plain, place="ram", device=CPU, workers=0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match="in each of 2 processes"):
        decoded(data_of(), VIEWS.plain, place="ram", device=CPU, workers=0)


def test_an_unknown_amount_of_memory_refuses_nothing(monkeypatch):
    monkeypatch.setattr(cache, "available", lambda device: None)
    assert len(decoded(data_of(), VIEWS.plain, place="ram", device=CPU, workers=0).train) == 25


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    for name, text in (("max", "5000"), ("current", "3000"), ("stat", "anon 2000\ninactive_file 700\n")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(free_memory, "_CGROUPS", (tuple(str(tmp_path / name) for name in ("max", "current", "stat")),))
    assert free_memory.available(CPU) == 2700
    (tmp_path / "max").write_text("max\n")
    assert free_memory.available(CPU) > 2700


def test_an_image_that_cannot_be_decoded_stops_the_cache():
    def view(image):
        if int(image) == 7:
            raise InputError("7.jpg: cannot be read")
        return torch.zeros(1, 2, 2)

    with pytest.raises(InputError, match=r"7\.jpg"):
        ImageCache.build(torch.arange(20), view, device=CPU, workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["ram", "device"])
def test_a_run_with_a_cache_learns_and_repeats_itself(tmp_path, place):
    records = [
        train(TrainConfig(epochs=1, iters=10, cache=place, device="cpu", run=str(tmp_path / name))).records
        for name in ("one", "two")
    ]
    assert records[0][1]["loss"] == records[1][1]["loss"]
    assert records[0][0]["mAP"] == pytest.approx(0.6079, abs=1e-3)
    assert records[0][1]["mAP"] > records[0][0]["mAP"]


def smallconv():
    torch.manual_seed(0)
    return build_encoder("smallconv", channels=1, height=8, width=8, pooling="average")


def features(encoder, count=20, **options):
    images = load_data("digits").train.images[:count]
    config = TrainConfig(batch_size=8, num_instances=2, **options)
    return extract_shard(encoder, images, drawing_views(encoder).plain, config).gathered()


def test_half_precision_gives_unit_features_in_float32_near_the_full_ones():
    encoder = smallconv()
    full = features(encoder)
    half = features(encoder, amp="bf16")
    assert half.dtype == torch.float32
    assert (half.norm(dim=1) - 1).abs().max() < 1e-6
    assert 0 < (half - full).abs().max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_a_run_in_half_precision_learns(tmp_path, amp):
    records = train(TrainConfig(epochs=1, iters=10, amp=amp, device="cpu", run=str(tmp_path / amp))).records
    assert math.isfinite(records[1]["loss"])
    assert records[1]["mAP"] > records[0]["mAP"]


def test_only_fp16_scales_gradients():
    assert [Precision(amp, CPU).scaler.is_enabled() for amp in ("none", "bf16", "fp16")] == [False, False, True]


@pytest.mark.slow
def test_a_compiled_encoder_sees_whole_batches_only_and_keeps_its_names():
    """The backend "eager" generates no code but still traces every new shape."""
    encoder, reference = smallconv(), smallconv()
    names = list(encoder.state_dict())
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    encoder.compile(backend=backend)
    for count in (20, 21, 22, 16):
        assert torch.equal(features(encoder, count), features(reference, count))
    assert len(compiled) == 1
    assert list(encoder.state_dict()) == names
