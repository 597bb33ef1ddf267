"""``ccfast bench-train``: the speed of a run's steps, with its own data and options."""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ccfast._errors import InputError
from ccfast._files import given_output, write_whole
from ccfast._progress import progress
from ccfast.commands.bench_train import table
from ccfast.commands.bench_train.table import Report, Row
from ccfast.data import ReIDData
from ccfast.data.cache import ImageCache, decoded
from ccfast.data.loader import augmented_loader
from ccfast.data.sampler import BatchSampler
from ccfast.methods import method_class
from ccfast.methods.method import prepared
from ccfast.training.clustering.pseudo_labels import Clustering
from ccfast.training.config import TrainConfig
from ccfast.training.data_of import data_of
from ccfast.training.device import choose_device
from ccfast.training.extract import extract_shard
from ccfast.training.iterate import Batches, Criterion, iterate
from ccfast.training.loop import checked_labels, first_encoder
from ccfast.training.optimizers import make_optimizer
from ccfast.training.precision import Precision
from ccfast.training.stopwatch import Stopwatch

log = logging.getLogger(__name__)

#: Number of alternating rounds, so that other load on the machine affects all measurements equally.
ROUNDS = 3
#: Steps of a pass before the clock starts: worker processes start, cuDNN chooses algorithms, torch.compile compiles.
WARM_UP = 2


def bench_train(config: TrainConfig, steps: int = 20, output: str | None = None) -> Report:
    """Measure passes of ``steps`` steps, print a table, and write it to ``output`` (JSON), if given.

    Nothing is trained (the learning rate is 0), and there is no run folder. In the cached rows, ``--cache none`` means
    ``ram``.

    Raises:
        InputError: wrong options or data.
        RunError: the features of the initial encoder give no clusters to train with.
    """
    if steps < 1:
        raise InputError(f"--steps: expected at least 1, got {steps}")
    target = None if output is None else given_output("--output", output)
    device = choose_device(config.device)
    data = data_of(config)
    report = _Bench(config, data, device, steps).report()
    log.info("%s", report)
    if target is not None:
        write_whole(target, json.dumps(report.as_dict(), indent=2) + "\n")
    return report


class _Bench:
    """A run in its first epoch: encoder, images, pseudo-labels, memory."""

    def __init__(self, config: TrainConfig, data: ReIDData, device: torch.device, steps: int) -> None:
        self.config, self.device, self.steps = config, device, steps
        self.method = prepared(method_class(config.method), config, data, device)
        self.encoder = first_encoder(config, data.channels, device)
        head = self.method.head(self.encoder.num_features)
        self.optimizer = make_optimizer(self.encoder, config, None if head is None else head.to(device))
        for settings in self.optimizer.param_groups:
            settings["lr"] = 0.0
        self.views = data.make_views(self.encoder)
        if config.compile:
            self.encoder.compile()
        self.files = data.train.images
        self.cached = self._decoded(data)
        self.once = Stopwatch(device)
        self._first_epoch()

    def _decoded(self, data: ReIDData) -> ImageCache:
        train = ReIDData(data.name, data.train, None, None, data.channels, data.make_views)
        place = "ram" if self.config.cache == "none" else self.config.cache
        kept = decoded(train, self.views.plain, place=place, device=self.device, workers=self.config.workers)
        return kept.train.images

    def _first_epoch(self) -> None:
        features = self.method.features(lambda: self._features(self.cached))
        self.labels = checked_labels(self.method, features, Clustering(self.config, self.once), len(self.cached))
        with self.once("memory of clusters"):
            self.method.start_epoch(features, self.labels, 0)
        sampler = self._sampler()
        self.size = sampler.batch_size
        rows = torch.tensor([index for index, _ in next(iter(sampler))], device=self.device)
        self.some_features, self.some_rows = features[rows].clone(), rows

    def report(self) -> Report:
        """Measure everything in turns."""
        measured: dict[str, tuple[int, Callable[[], float]]] = {
            table.ALONE: (self.size, self._encoder_alone),
            table.CACHED: (self.size, lambda: self._training(self.cached)),
            table.LOADED: (self.size, lambda: self._training(self.files)),
            table.METHOD: (self.size, self._method_alone),
            table.EXTRACT_CACHED: (self.config.batch_size, lambda: self._extraction(self.cached)),
            table.EXTRACT_LOADED: (self.config.batch_size, lambda: self._extraction(self.files)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in measured}
        for name in progress(list(measured) * ROUNDS, "measure", ROUNDS * len(measured)):
            seconds[name].append(measured[name][1]())
        rows = {name: Row(name, size, statistics.median(seconds[name])) for name, (size, _) in measured.items()}
        return Report(rows, self._epoch(rows), self.config.iters)

    def _epoch(self, rows: dict[str, Row]) -> dict[str, float]:
        """Seconds of an epoch's stages: the clustering is timed once, the rest comes from the medians."""
        step, method = rows[table.CACHED].seconds, rows[table.METHOD].seconds
        return {
            "extract": len(self.cached) / rows[table.EXTRACT_CACHED].images_per_second,
            **self.once.seconds,
            "encoder and data": self.config.iters * max(step - method, 0.0),
            "loss and memory update": self.config.iters * method,
        }

    def _sampler(self) -> BatchSampler:
        """The batches of a pass: the same in every pass."""
        generator = torch.Generator().manual_seed(self.config.seed)
        return self.method.sampler(self.labels, self.steps + WARM_UP, generator)

    def _training(self, images: Sequence[Any]) -> float:
        """Seconds of a complete training step: batch, augmentation, encoder, loss, memory, optimiser."""
        workers = self.config.workers
        loader = augmented_loader(images, self.views, self._sampler(), workers=workers, device=self.device)
        return self._step_of(loader, self.method.criterion)

    def _encoder_alone(self) -> float:
        """Seconds of a step whose images are already on the device, with a loss that costs nothing."""
        view = self.views.plain(self.files[0])
        pixels = torch.randint(0, 256, (self.size, *view.shape), dtype=torch.uint8, device=self.device)
        inputs = pixels if view.dtype == torch.uint8 else pixels.to(view.dtype) / 255
        batch = inputs, torch.zeros(self.size, dtype=torch.int64, device=self.device)
        return self._step_of([batch] * (self.steps + WARM_UP), _sum)

    def _step_of(self, loader: Iterable[tuple[Tensor, Tensor]], criterion: Criterion) -> float:
        clock = _Clock(loader, self.device)
        batches = Batches(clock, self.size)
        bn_group, precision = self.config.bn_group, Precision(self.config.amp, self.device)
        iterate(self.encoder, criterion, self.optimizer, batches, self.labels, bn_group, precision=precision)
        return clock.seconds / self.steps

    def _method_alone(self) -> float:
        """Seconds of a step's loss, its gradient to the features, and the memory update."""
        targets = self.labels[self.some_rows]
        for _ in (clock := _Clock([None] * (self.steps + WARM_UP), self.device)):
            self.method.criterion(self.some_features.requires_grad_(), targets, self.some_rows).backward()
        return clock.seconds / self.steps

    def _extraction(self, images: Sequence[Any]) -> float:
        """Seconds per batch of an extraction, including its start and its end."""
        some = _first(images, self.steps * self.config.batch_size)
        watch = Stopwatch(self.device)
        with watch("extract"):
            self._features(some)
        return watch.seconds["extract"] * self.config.batch_size / len(some)

    def _features(self, images: Sequence[Any]) -> Tensor:
        return extract_shard(self.encoder, images, self.views.plain, self.config).gathered()


def _sum(features: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
    """Replaces the method: a loss that costs nothing."""
    return features.sum()


class _Clock:
    """``items``, and the seconds from the end of the warm-up (before the next item is fetched) to the last item."""

    def __init__(self, items: Iterable[Any], device: torch.device) -> None:
        self.items, self.device = items, device
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Any]:
        start = 0.0
        for count, item in enumerate(self.items):
            yield item
            if count == WARM_UP - 1:
                start = self._now()
        self.seconds = self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class _First(Sequence[Any]):
    """The first ``count`` of ``items``, none of them read yet."""

    def __init__(self, items: Sequence[Any], count: int) -> None:
        self.items, self.length = items, count

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


def _first(images: Sequence[Any], count: int) -> Sequence[Any]:
    if len(images) <= count:
        return images
    return ImageCache(images.pixels[:count]) if isinstance(images, ImageCache) else _First(images, count)
