"""Proxies, one per camera of each cluster: CAP, O2CAP, TMGF, and the camera terms of PPLR and ICE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccfast import _checks as checks
from ccfast.nn import _proxies as proxies
from ccfast.nn._choice import same
from ccfast.nn._moving import MovingModule, checked_loss, resize_as_saved, wide
from ccfast.nn._softmax import mean_of_counted
from ccfast.ops.memory import normalizes, update_memory_from
from ccfast.ops.sets import set_contrastive_loss
from ccfast.ops.similarity import memory_similarity

POSITIVES = ("label", "other-cameras")
FILLS = ("none", "highest-index", "highest-similarity")
MEANS = ("cameras", "batch")


def _rules(given: dict[str, Any], **rules: Any) -> dict[str, Any]:
    """The options of a method's ``rules``, but for those that are ``given``."""
    return rules | given


class ProxyMemory(MovingModule):
    """A bank of proxies (camera, cluster), and losses of a sample against sets of them.

    With ``z = x @ M.T / temperature``, the loss is the sum of three terms against the bank before its update:

    - *intra*: softmax cross-entropy over the proxies of the sample's camera;
    - *offline*: the positives are the proxies of the sample's label, the negatives are the ``num_negatives`` others
      with the highest z (:func:`ccfast.set_contrastive_loss`);
    - *online* (O2CAP): each camera has one best proxy by ``balance * x @ M.T + (1 - balance) * M[own] @ M.T``; the
      positives are the ``num_positives`` best of these, the negatives the ``num_negatives`` best others of any label.

    The presets are :meth:`cap` (Wang et al., AAAI 2021), :meth:`o2cap` (Wang et al., TIP 2022), :meth:`tmgf` (Li et
    al., WACVW 2023), :meth:`pplr` (Cho et al., CVPR 2022) and :meth:`ice` (Chen et al., ICCV 2021).

    Args:
        num_features: D.
        temperature: above 0.
        momentum: share of the old proxy that an update keeps, in ``[0, 1]``; None: no update.
        num_negatives: of the offline and the online term.
        intra: whether to use the first term.
        offline: whether to use the second term (CAP: from epoch 5); may be changed between calls.
        online: whether to use the third term.
        num_positives: of the online term.
        balance: of the online term.
        positives: ``"label"``, or ``"other-cameras"``: without the sample's own proxy (PPLR).
        fill_up: what to do with fewer proxies of other labels than ``num_negatives``. ``"none"``: nothing. Otherwise
            proxies of the sample's own label also count as negatives, so that positives count twice: those of
            ``"highest-index"`` (CAP, ICE) or ``"highest-similarity"`` (PPLR). As in the authors' code, not the paper.
        offline_weight: factor of the offline term.
        mean: ``"cameras"``: the sum over the cameras of the batch of the mean over their samples; or ``"batch"``.
        num_parts: number of further banks, each for its own part feature (TMGF), with the weight
            ``part_weight / num_parts``.
        part_weight: weight of the parts' mean loss.
        normalize: divide the inputs by their norm; otherwise they must have unit norm if the bank is updated.
        update: when the bank is updated, as in :class:`ccfast.nn.ClusterMemory`.

    Attributes:
        features: buffer ``[P, D]`` float32, or ``[1 + num_parts, P, D]``; like the others, empty until :meth:`fill`.
        labels: buffer ``[P]`` int64, the label of each proxy.
        cameras: buffer ``[P]`` int64, its camera.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> memory = ccfast.nn.ProxyMemory.cap(num_features=2, momentum=0.0, num_negatives=1)
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> memory.fill(rows, labels=torch.tensor([0, 1, 0]), cameras=torch.tensor([0, 0, 1]))
        >>> inputs = torch.tensor([[1.0, 0.0]], requires_grad=True)
        >>> memory(inputs, targets=torch.tensor([0]), cameras=torch.tensor([1])).backward()
        >>> memory.features[2].tolist()  # the proxy of label 0, camera 1
        [1.0, 0.0]
    """

    features: Tensor
    labels: Tensor
    cameras: Tensor

    def __init__(
        self,
        num_features: int,
        temperature: float = 0.07,
        momentum: float | None = 0.2,
        num_negatives: int = 50,
        *,
        intra: bool = True,
        offline: bool = True,
        online: bool = False,
        num_positives: int = 3,
        balance: float = 0.15,
        positives: str = "label",
        fill_up: str = "none",
        offline_weight: float = 1.0,
        mean: str = "cameras",
        num_parts: int = 0,
        part_weight: float = 0.1,
        normalize: bool = False,
        update: str = "backward",
    ) -> None:
        super().__init__(update)
        self.num_features = checks.integer("num_features", num_features, low=1)
        self.temperature = checks.real("temperature", temperature, low=0, ends="(]")
        self.momentum = None if momentum is None else checks.real("momentum", momentum, low=0, high=1)
        self.num_negatives = checks.integer("num_negatives", num_negatives, low=1)
        self.intra, self.offline, self.online = bool(intra), bool(offline), bool(online)
        self.num_positives = checks.integer("num_positives", num_positives, low=1)
        self.balance = checks.real("balance", balance, low=0, high=1)
        self.positives = checks.choice("positives", positives, POSITIVES)
        self.fill_up = checks.choice("fill_up", fill_up, FILLS)
        self.offline_weight = checks.real("offline_weight", offline_weight, low=0)
        self.mean = checks.choice("mean", mean, MEANS)
        self.num_parts = checks.integer("num_parts", num_parts, low=0)
        self.part_weight = checks.real("part_weight", part_weight, low=0)
        self.normalize = bool(normalize)
        banks = (1 + self.num_parts,) if self.num_parts else ()
        self.register_buffer("features", torch.zeros(*banks, 0, self.num_features, dtype=torch.float32))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("cameras", torch.zeros(0, dtype=torch.int64))

    @classmethod
    def cap(cls, num_features: int, **options: Any) -> ProxyMemory:
        """CAP: intra term and half of the offline term; the recipe switches the latter on at epoch 5."""
        return cls(num_features, **_rules(options, fill_up="highest-index", offline_weight=0.5))

    @classmethod
    def o2cap(cls, num_features: int, **options: Any) -> ProxyMemory:
        """O2CAP: offline and online term."""
        return cls(num_features, **_rules(options, intra=False, online=True))

    @classmethod
    def tmgf(cls, num_features: int, num_parts: int = 5, **options: Any) -> ProxyMemory:
        """TMGF: O2CAP's terms over a global and several part features, averaged over the batch."""
        return cls.o2cap(num_features, **_rules(options, num_parts=num_parts, mean="batch"))

    @classmethod
    def pplr(cls, num_features: int, **options: Any) -> ProxyMemory:
        """PPLR's camera term, without its weight (0.5; MSMT17 1.0): fixed proxies, positives of other cameras."""
        rules = _rules(options, positives="other-cameras", fill_up="highest-similarity", mean="batch")
        return cls(num_features, **_rules(rules, intra=False, momentum=None, normalize=True))

    @classmethod
    def ice(cls, num_features: int, **options: Any) -> ProxyMemory:
        """ICE's camera term, including its factor of 0.5: CAP's term of the normalised query, with fixed proxies."""
        rules = _rules(options, fill_up="highest-index", offline_weight=0.5)
        return cls(num_features, **_rules(rules, intra=False, momentum=None, normalize=True))

    @torch.no_grad()
    def fill(self, features: Tensor, labels: Tensor, cameras: Tensor) -> None:
        """Set the proxies of an epoch.

        Args:
            features: ``[P, D]``, or ``[1 + num_parts, P, D]``: the unit means of the images of each proxy.
            labels: ``[P]`` integers, 0 or more.
            cameras: ``[P]`` integers. CAP sorts its proxies by camera, then label; O2CAP by label, then camera. The
                order decides between tied proxies.

        Raises:
            TypeError, ValueError: tensors of wrong dtypes, shapes or devices; two proxies of one label and camera.
        """
        features = checks.tensor("features", features, self.features.dim(), checks.SINGLE_OR_DOUBLE)
        expected = (*self.features.shape[:-2], features.shape[-2], self.num_features)
        if tuple(features.shape) != expected:
            raise ValueError(f"features: expected shape {expected}, got {tuple(features.shape)}")
        labels = checks.vector_of_integers("labels", labels, features.shape[-2], "features")
        cameras = checks.vector_of_integers("cameras", cameras, features.shape[-2], "features")
        checks.same_device(features=features, labels=labels, cameras=cameras)
        if len(torch.stack([labels, cameras]).unique(dim=1).T) < len(labels):
            raise ValueError("labels, cameras: expected one proxy per label and camera, got two of the same")
        self.features, self.labels, self.cameras = features.detach().clone(), labels.clone(), cameras.clone()

    def forward(self, inputs: Tensor, targets: Tensor, cameras: Tensor) -> Tensor:
        """Loss of a batch; ``update`` says when the proxies of its samples are updated.

        Args:
            inputs: ``[B, D]`` features, or ``[1 + num_parts, B, D]``.
            targets: ``[B]`` labels; -1 (noise) is ignored in the loss and in the update.
            cameras: ``[B]`` cameras.

        Returns:
            The scalar loss, float32 (float64 for float64 inputs). A sample without positives counts 0 in the mean.

        Raises:
            TypeError, ValueError: tensors of wrong dtypes, shapes or devices; on a CPU, a sample whose label and camera
                have no proxy; with the online term, fewer than ``num_positives + num_negatives`` proxies.
        """
        inputs = checks.tensor("inputs", inputs, self.features.dim(), checks.ANY_FLOAT)
        expected = (*self.features.shape[:-2], inputs.shape[-2], self.num_features)
        if tuple(inputs.shape) != expected or inputs.shape[-2] == 0:
            raise ValueError(f"inputs: expected shape {expected}, not empty, got {tuple(inputs.shape)}")
        targets = checks.vector_of_integers("targets", targets, inputs.shape[-2], "inputs")
        cameras = checks.vector_of_integers("cameras", cameras, inputs.shape[-2], "inputs")
        checks.same_device(inputs=inputs, targets=targets, cameras=cameras, features=self.features)
        count = self.features.shape[-2]
        if count == 0:
            raise ValueError("features: expected proxies, got none; call fill first")
        if self.online and count < self.num_positives + self.num_negatives:
            raise ValueError(
                f"features: expected at least {self.num_positives + self.num_negatives} proxies for the online term "
                f"(num_positives + num_negatives), got {count}"
            )
        batch = proxies.Batch(self.labels, self.cameras, targets, cameras)

        def loss_of(moving: bool, inputs: Tensor) -> Tensor:
            if not self.num_parts:
                return checked_loss(self._loss(inputs, self.features, batch, moving), inputs=inputs)
            losses = [self._loss(x, bank, batch, moving) for x, bank in zip(inputs, self.features, strict=True)]
            loss = losses[0] + self.part_weight * torch.stack(losses[1:]).mean()
            return checked_loss(loss, inputs=inputs)

        return self._step(loss_of, inputs, targets=[targets, cameras])

    def _loss(self, inputs: Tensor, bank: Tensor, batch: proxies.Batch, moving: bool) -> Tensor:
        momentum, normalize = self.momentum, normalizes(inputs, self.normalize)

        def move(features: Tensor) -> None:
            assert momentum is not None
            update_memory_from(bank, features.to(bank.dtype), batch.own, momentum, "sequential", normalize)

        moving = moving and momentum is not None
        similarity = memory_similarity(wide(inputs, self.normalize), bank, move if moving else None)
        z = similarity / self.temperature
        losses = torch.zeros_like(z[:, 0])
        if self.intra:
            losses = losses + set_contrastive_loss(z, batch.is_own, batch.of_own_camera)
        if self.offline:
            losses = losses + self.offline_weight * self._offline(z, batch)
        if self.online:
            losses = losses + self._online(z, similarity, bank, batch)
        return self._mean(losses, batch)

    def _offline(self, z: Tensor, batch: proxies.Batch) -> Tensor:
        positives = batch.of_label & ~batch.is_own if self.positives == "other-cameras" else batch.of_label
        negatives = proxies.negatives(z.detach(), batch.of_label, self.num_negatives, self.fill_up)
        if self.fill_up == "none":
            return set_contrastive_loss(z, positives, positives | negatives)
        return set_contrastive_loss(z, positives, multiplicity=positives.int() + negatives.int())

    def _online(self, z: Tensor, similarity: Tensor, bank: Tensor, batch: proxies.Batch) -> Tensor:
        own = bank[batch.own.clamp_min(0)].to(z.dtype)
        scores = self.balance * similarity.detach() + (1 - self.balance) * (own @ bank.to(z.dtype).T)
        positives, negatives = proxies.online_sets(scores, self.cameras, self.num_positives, self.num_negatives)
        return set_contrastive_loss(z, positives, positives | negatives)

    def _mean(self, losses: Tensor, batch: proxies.Batch) -> Tensor:
        counted = batch.own != -1
        if self.mean == "batch":
            return mean_of_counted(losses, counted)
        of_camera = same(torch.where(counted, batch.sample_cameras - batch.sample_cameras.amin(), -1)).sum(1)
        return (torch.where(counted, losses, 0) / of_camera.clamp_min(1)).sum()

    def extra_repr(self) -> str:
        """Sizes and options, for ``print(module)``."""
        terms = [name for name in ("intra", "offline", "online") if getattr(self, name)]
        return (
            f"num_features={self.num_features}, num_proxies={self.features.shape[-2]}, "
            f"temperature={self.temperature}, momentum={self.momentum}, num_negatives={self.num_negatives}, "
            f"terms={'+'.join(terms)}, num_parts={self.num_parts}, update={self.update!r}"
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        resize_as_saved(self, ("features", "labels", "cameras"), state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)
