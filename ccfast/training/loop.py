"""The loop: extract, pseudo-labels, memory, iterate, evaluate, checkpoint."""

from __future__ import annotations

import copy
import logging
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ccfast._allocator import keep_freed_memory
from ccfast._errors import InputError, Interrupted, RunError
from ccfast._progress import progress
from ccfast._words import counted
from ccfast.data import Part, ReIDData
from ccfast.data.joined import decoded_together, images_of
from ccfast.data.loader import augmented_loader
from ccfast.methods import Method, method_class
from ccfast.methods.method import prepared
from ccfast.methods.source import Source, class_labels
from ccfast.models import Encoder, build_encoder
from ccfast.training import messages
from ccfast.training.after_run import leave_clusters
from ccfast.training.clustering import clusterer
from ccfast.training.clustering.numbers import numbers_of
from ccfast.training.clustering.pseudo_labels import Clustering, PseudoLabels, warn_of_collapse, warn_of_giant
from ccfast.training.config import TrainConfig
from ccfast.training.config_file import check_command, check_unchanged, write_config
from ccfast.training.data_of import data_of, source_of
from ccfast.training.device import choose_device, peak_memory_mb
from ccfast.training.evaluate import agreement, evaluate, obstacles
from ccfast.training.extract import extract_shard
from ccfast.training.group import Group, SliceOfBatches, join, leave
from ccfast.training.iterate import Batches, iterate
from ccfast.training.mean_teacher import follow, teacher_of
from ccfast.training.optimizers import make_optimizer, make_scheduler
from ccfast.training.precision import Precision
from ccfast.training.run_folder.checkpoint import State, checkpoint, for_search, load_latest, restore, save
from ccfast.training.run_folder.claim import claimed
from ccfast.training.run_folder.folder import RunFolder
from ccfast.training.run_folder.safe_file import can_be_written, write_safetensors
from ccfast.training.shard import Shard
from ccfast.training.stopwatch import Stopwatch
from ccfast.training.trackers import OnRecord, trackers_of
from ccfast.training.transfer import init_encoder

if TYPE_CHECKING:
    from ccfast.inference.image_clusters import ImageClusters

log = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass(frozen=True)
class TrainResult:
    """The run folder and the records of metrics.jsonl: one per epoch, the first from before training.

    ``data`` is the data set of the run; ``clusters`` are the clusters in clusters.csv, or None if that file was not
    written.
    """

    run: Path
    records: list[Record]
    data: ReIDData = field(repr=False)
    clusters: ImageClusters | None = field(default=None, repr=False)


def train(config: TrainConfig, on_record: OnRecord | None = None) -> TrainResult:
    """Train with the options in ``config``; progress goes to the log of "ccfast", results to the run folder.

    Args:
        on_record: called after each epoch of this call, when its checkpoint is written, with its record from
            metrics.jsonl; epoch 0 is before training. If it has a method ``close()``, this is called at the end of the
            run, also after an error. With several processes, the main one calls it. An error in it ends the run, which
            can be resumed.

    Raises:
        InputError: wrong options or data; nothing was trained.
        RunError: the run cannot continue; its folder keeps the last complete epoch.

    Examples:
        >>> import tempfile
        >>> from ccfast.training import TrainConfig, train
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     config = TrainConfig(epochs=1, iters=2, device="cpu", quiet=True, run=f"{folder}/run")
        ...     result = train(config, on_record=lambda record: print(f"epoch {record['epoch']}"))
        epoch 0
        epoch 1
        >>> [record["epoch"] for record in result.records], result.run.name
        ([0, 1], 'run')
    """
    return leave_clusters(run_to_the_end(config, Run, on_record), config)


def run_to_the_end(config: TrainConfig, kind: type[Run], on_record: OnRecord | None = None) -> TrainResult:
    """All epochs of a run of ``kind``, or the remaining ones."""
    keep_freed_memory()
    group, device = join(choose_device(config.device))
    with claimed(config, group) as (folder, config):
        try:
            result = _epochs(config, kind, folder, device, group, on_record)
        except KeyboardInterrupt as error:
            raise Interrupted(_how_to_resume(folder, group, config.command)) from error
        except RuntimeError as error:
            if not group.lost(error):
                raise
            reason = str(error).splitlines()[0]
            advice = _how_to_resume(folder, group, config.command)
            raise RunError(f"another process of the run has ended ({reason}); {advice}") from error
        if group.is_main:
            messages.summary(result.records, folder)
        leave(group)
        return result


def _epochs(
    config: TrainConfig,
    kind: type[Run],
    folder: RunFolder,
    device: torch.device,
    group: Group,
    on_record: OnRecord | None,
) -> TrainResult:
    data = group.from_main(lambda: data_of(config))  # it decodes every image once, so only one process does it
    source = group.from_main(lambda: source_of(config, data))
    run = kind(config, data, folder, device, group, source)
    if group.is_main:
        run.listeners = [*trackers_of(config, folder.path), *([] if on_record is None else [on_record])]
    try:
        run.resume() if config.resume else run.start()
        for _ in range(run.state.epoch, config.epochs):
            run.epoch()
    finally:
        run.close()
    return TrainResult(folder.path, run.records, data)


class Run:
    """A run: its constant parts, and the state that changes from epoch to epoch."""

    def __init__(
        self,
        config: TrainConfig,
        data: ReIDData,
        folder: RunFolder,
        device: torch.device,
        group: Group,
        source: Part | None = None,
    ) -> None:
        self.check(config, data)
        data = data.ignoring_cameras() if config.ignore_cameras else data
        self.config, self.data, self.folder, self.device, self.group = config, data, folder, device, group
        self.source, self.images = source, images_of(data.train, source)
        self.method = prepared(self.method_class(), config, data, device, self._source())
        self.measured = self._measured()
        self.records: list[Record] = []
        self.warned_of_giant = False
        self.learner = first_encoder(config, data.channels, device)
        self.encoder = teacher_of(self.learner) if config.mean_teacher else self.learner
        self.views = data.make_views(self.encoder)
        if config.cache != "none":
            options = {"place": config.cache, "device": device, "workers": config.workers}
            self.data, self.source, self.images = decoded_together(data, source, self.views.plain, **options)
        self.precision = Precision(config.amp, device)
        if config.compile:
            for each in self.encoders:
                each.compile()
        self.state = new_state(self.learner, config, self.precision.scaler, self._head(), self.method)
        if config.mean_teacher:
            self.state.encoder, self.state.student = self.encoder, self.learner
        self.listeners: list[OnRecord] = []

    def _measured(self) -> bool:
        """Whether there is an evaluation; training does not need one, so this only warns if there is none."""
        against = obstacles(self.data)
        main = next(iter(self.data.protocols), "")
        for protocol in against:
            if self.data.query is not None or self.data.gallery is not None:
                what = "evaluation" if protocol in ("", main) else protocol
                log.warning("%s is left out: %s", what, against[protocol])
        return main not in against

    def check(self, config: TrainConfig, data: ReIDData) -> None:
        """Refuse options that do not fit the data."""
        if not len(data.train):  # a table may list only query and gallery
            raise InputError(f"--data-dir: {config.data_dir}: lists no training images")
        if config.k1 > len(data.train) and "k1" in clusterer(config.cluster).uses:
            raise InputError(
                f"--k1: expected at most the {counted(len(data.train), 'training image')}, got {config.k1}"
            )

    def method_class(self) -> type[Method]:
        """The training method."""
        return method_class(self.config.method)

    @property
    def encoders(self) -> tuple[Encoder, ...]:
        """The encoder that is trained, and the mean teacher, if any."""
        return (self.learner, self.encoder) if self.config.mean_teacher else (self.learner,)

    def _source(self) -> Source | None:
        """The labelled source for the method; None without one."""
        if self.source is None:
            return None
        name = f"--source-dir: {self.config.source_dir or self.config.source}"
        labels, cameras = class_labels(self.source.ids, name), self.source.cams
        return Source(labels.to(self.device), cameras, lambda: self.extract(self.source, "source"))

    def _head(self) -> nn.Module | None:
        """The module that the method trains together with the encoder.

        Every process has the loss of the whole batch times the number of processes. This is right for the encoder,
        whose gradients are averaged over the processes. The gradients of the head are not averaged, because they are
        equal in all processes, so they are divided by this number.
        """
        head = self.method.head(self.encoder.num_features)
        if head is None:
            return None
        for parameter in head.to(self.device).parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient: gradient / self.group.size)
        return head

    def start(self) -> None:
        """Evaluate the untrained encoder: epoch 0."""
        self.group.from_main(lambda: write_config(self.folder.config, self.config))  # for a run that is killed early
        messages.beginning(self.data, self.encoder, self.config, self.device, self.folder, self.measured)
        watch = Stopwatch(self.device)
        try:
            metrics = self.evaluate(watch)
        except InputError:  # there will be no such run
            if self.group.is_main:
                self.folder.config.unlink(missing_ok=True)
            raise
        self.finish({"epoch": 0, "loss": None, "clusters": None, "noise": None, **metrics}, watch)

    def resume(self) -> None:
        """Load the last complete epoch."""
        content, path = load_latest(self.folder.checkpoint, self.folder.previous)
        check_command(content["config"], type(self.config), self.folder.path)
        check_unchanged(content["config"], self.config.stored(), self.folder.path)
        restore(self.state, content, path, self.group.rank)
        self.records = self.group.from_main(lambda: self.folder.take_up(self.state.epoch))
        if self.group.is_main:
            write_config(self.folder.config, self.config)
        messages.beginning(self.data, self.encoder, self.config, self.device, self.folder, self.measured)
        log.info("resumed after epoch %d of %d", self.state.epoch, self.config.epochs)
        if self.state.epoch >= self.config.epochs:
            log.info("the run is complete; pass a larger --epochs to continue")

    def epoch(self) -> None:
        """One epoch of the method: features, pseudo-labels, memory, iterations."""
        state, method, watch = self.state, self.method, Stopwatch(self.device)
        with watch("extract"):
            features = method.features(lambda: self.extract(self.data.train, "extract", gather=not method.shards))
        cluster = Clustering(self.config, watch, self.group, state.first_clusters)
        labels = checked_labels(method, features, cluster, len(self.data.train))
        found = PseudoLabels(labels, cluster.eps)
        found = found.clusters_alone() if self.config.noise == "single" else found
        self._warn(found, features)
        with watch("memory"):
            method.start_epoch(features, labels, state.epoch)
        numbers = numbers_of(found, features, state.labels)  # some methods move the rows that were clustered
        record = {"epoch": state.epoch + 1, "loss": self.learn(labels, watch), **numbers}
        state.labels = found.labels.cpu()
        self.end_epoch(record | agreement(found.labels, self.data.train.ids), watch)

    def _warn(self, found: PseudoLabels, features: Tensor | Shard) -> None:
        """Warn about lost clusters, and once about a giant cluster."""
        self.state.first_clusters = self.state.first_clusters or found.clusters
        warn_of_collapse(found, self.state.first_clusters)
        self.warned_of_giant = self.warned_of_giant or warn_of_giant(found, features, self.config)

    def learn(self, labels: Tensor, watch: Stopwatch) -> float:
        """Train with the method's criterion on the images' ``labels`` [N]; returns the mean loss."""
        config, state = self.config, self.state
        with watch("train"):
            batches = self.batches(labels)
            if state.head is not None:
                state.head.train()
            if self.method.source is not None:
                labels = torch.cat([labels, self.method.source.labels])
            loss = iterate(
                self.learner,
                self.method.criterion,
                state.optimizer,
                batches,
                labels,
                config.bn_group,
                self.group,
                self.precision,
                self._follow if config.mean_teacher else None,
            )
            for each in self.encoders:
                self.group.share_buffers(each)
        return loss

    def _follow(self) -> None:
        """The mean teacher follows a step of the encoder."""
        follow(self.encoder, self.learner, self.config.teacher_momentum)

    def end_epoch(self, record: Record, watch: Stopwatch) -> None:
        """Step the schedule, evaluate if due, and save the epoch."""
        config, state = self.config, self.state
        record = record | {"lr": state.optimizer.param_groups[0]["lr"]}
        state.scheduler.step()
        state.epoch += 1
        if state.epoch % config.eval_every == 0 or state.epoch == config.epochs:
            record |= self.evaluate(watch)
        self.finish(record, watch)

    def extract(self, part: Part, title: str, gather: bool = True) -> Tensor | Shard:
        """Features of a part's images, [N, D]; with several processes, this one's share of them."""
        features = extract_shard(self.encoder, part.images, self.views.plain, self.config, self.group, title)
        return features.gathered() if gather or self.group.size == 1 else features

    def batches(self, labels: Tensor) -> Batches:
        """The epoch's batches; their random numbers depend only on the seed and the epoch."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.state.epoch)
        sampler = self.method.sampler(labels, config.iters, generator)
        if sampler.batch_size < 2 * self.group.size:  # BatchNorm needs two
            raise RunError(
                f"batches of {sampler.batch_size} images, {config.num_instances} per cluster, are too small for "
                f"{self.group.size} processes, which need two images each; resume with fewer processes"
            )
        own = SliceOfBatches(sampler, self.group)
        loader = augmented_loader(self.images, self.views, own, workers=config.workers, device=self.device)
        return Batches(progress(loader, f"epoch {self.state.epoch + 1}", config.iters), sampler.batch_size)

    def evaluate(self, watch: Stopwatch) -> dict[str, float]:
        """Ranking metrics, or none without an evaluation."""
        query, gallery = self.data.query, self.data.gallery
        if query is None or gallery is None or not self.measured:
            return {}
        with watch("evaluate"):
            features = self.extract(query, "query"), self.extract(gallery, "gallery")
            return self.group.from_main(lambda: evaluate(self.data, *features))

    def finish(self, record: Record, watch: Stopwatch) -> None:
        """Save the epoch: first its metrics, then the checkpoint that completes it."""
        state, folder = self.state, self.folder
        record["seconds"] = watch.rounded()
        record["peak_memory_mb"] = peak_memory_mb(self.device)
        self.records.append(record)
        best = record.get("mAP", -1.0) > state.best.get("mAP", -1.0)
        if best:
            state.best = {"epoch": record["epoch"], "mAP": record["mAP"]}
        content = checkpoint(state, self.config, self.group)
        if not self.group.is_main:
            return
        folder.append(record)
        if best or not self.measured:  # without evaluation the last one is the best
            self._save_best()
        save(content, folder.checkpoint, folder.previous)
        messages.epoch(record, self.config)
        for listener in self.listeners:
            listener(copy.deepcopy(record))

    def _save_best(self) -> None:
        """Write best.pt, and best.safetensors if that package is installed."""
        content = for_search(self.state, self.config)
        save(content, self.folder.best)
        if can_be_written():
            write_safetensors(content, self.folder.best_safe)

    def close(self) -> None:
        """Close the callbacks."""
        for listener in self.listeners:
            close = getattr(listener, "close", None)
            if close is not None:
                close()


def make_encoder(config: TrainConfig, channels: int, weights: str) -> Encoder:
    """The encoder of ``config``, from ``weights``."""
    return build_encoder(
        config.arch,
        channels=channels,
        height=config.height,
        width=config.width,
        weights=weights,
        pooling=config.pooling,
        projection=config.projection,
        freeze_bn=config.freeze_bn,
        freeze_patch_embed=config.freeze_patch_embed,
    )


def first_encoder(config: TrainConfig, channels: int, device: torch.device) -> Encoder:
    """The initial encoder of a run; later random numbers depend only on the run's seed."""
    torch.manual_seed(config.seed)
    own = config.resume or config.init is not None  # a checkpoint brings its own weights
    encoder = make_encoder(config, channels, "none" if own else config.weights)
    if config.init is not None and not config.resume:
        init_encoder(encoder, config)
    return encoder.to(device)


def checked_labels(method: Method, features: Tensor, cluster: Clustering, images: int) -> Tensor:
    """The pseudo-labels that ``method`` returns, checked because it may be the user's own."""
    labels = method.pseudo_labels(features, cluster)
    name = f"{type(method).__name__}.pseudo_labels"
    if not isinstance(labels, Tensor) or labels.dtype is not torch.int64 or tuple(labels.shape) != (images,):
        got = f"{labels.dtype} of shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise RunError(f"{name}: expected an int64 tensor [{images}], one label per training image, got {got}")
    if labels.min() < -1 or labels.max() < 0:
        raise RunError(f"{name}: expected labels from 0, or -1 for noise, got {labels.min()} to {labels.max()}")
    return labels.to(features.device)


def new_state(
    encoder: Encoder,
    config: TrainConfig,
    scaler: torch.amp.GradScaler,
    head: nn.Module | None = None,
    method: Method | None = None,
) -> State:
    """The state before the first epoch."""
    optimizer = make_optimizer(encoder, config, head)
    return State(encoder, optimizer, make_scheduler(optimizer, config), scaler, head=head, method=method)


def _how_to_resume(folder: RunFolder, group: Group, command: str) -> str:
    program = "ccfast" if group.size == 1 else "torchrun ... -m ccfast --"
    if folder.config.exists():
        return f"interrupted; go on with: {program} {command} --run {shlex.quote(str(folder.path))} --resume"
    return "interrupted before anything was written; run the same command again"
