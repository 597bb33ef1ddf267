"""The four terms of ICE: class, instance, camera and consistency."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccfast import _checks as checks
from ccfast.nn._choice import argmin_of_rows, same
from ccfast.nn._moving import batch_of, checked_loss, resize_as_saved, wide
from ccfast.nn._softmax import counted_labels, cross_entropies, mean_of_counted
from ccfast.nn.proxy_memory import ProxyMemory
from ccfast.ops.sets import set_contrastive_loss

CONSISTENCY_WEIGHT = 10.0


class IceLoss(nn.Module):
    """Inter-instance contrastive encoding (ICE; Chen et al., ICCV 2021).

    With q the normalised features, and k and w those of a teacher's strong and weak view, the loss is the sum of

    - *class*: ``CE(x @ centroids.T / 0.5)`` with uniform label smoothing 0.1; as in the authors' code, x is not
      normalised;
    - *instance*: the positive of a row is the least similar key of its label, its negatives are all keys of other
      labels: ``CE([positive, negatives] / 0.1, 0)``;
    - *camera*: the term of :meth:`ccfast.nn.ProxyMemory.ice`; as in the authors' code, the proxies are normalised over
      the proxies, separately for each dimension;
    - *consistency*: ``10 / B sum t (log t - log s)`` with ``s = softmax(q @ k.T / 0.4)`` and ``t = softmax(w @ w.T /
      0.4)``.

    Args:
        num_features: D.
        num_negatives: of the camera term.
        class_temperature: above 0.
        instance_temperature: above 0.
        camera_temperature: above 0.
        consistency_temperature: above 0.
        label_smoothing: of the class term.

    Attributes:
        centroids: buffer ``[C, D]``, means of unit features, not normalised; empty until :meth:`fill`.
        proxies: the :class:`ccfast.nn.ProxyMemory` of the camera term.

    Raises:
        ValueError: an argument out of range.

    Examples:
        >>> import torch, ccfast
        >>> criterion = ccfast.nn.IceLoss(num_features=2)
        >>> labels, cameras = torch.tensor([0, 1]), torch.tensor([0, 0])
        >>> criterion.fill(torch.eye(2), proxies=torch.eye(2), labels=labels, cameras=cameras)
        >>> views = torch.eye(2)
        >>> class_, instance, camera, consistency = criterion.losses(views, views, views, labels, cameras).tolist()
        >>> consistency  # both views are equal
        0.0
    """

    centroids: Tensor

    def __init__(
        self,
        num_features: int,
        num_negatives: int = 50,
        *,
        class_temperature: float = 0.5,
        instance_temperature: float = 0.1,
        camera_temperature: float = 0.07,
        consistency_temperature: float = 0.4,
        label_smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        num_features = checks.integer("num_features", num_features, low=1)
        self.class_temperature = checks.real("class_temperature", class_temperature, low=0, ends="(]")
        self.instance_temperature = checks.real("instance_temperature", instance_temperature, low=0, ends="(]")
        self.consistency_temperature = checks.real("consistency_temperature", consistency_temperature, low=0, ends="(]")
        self.label_smoothing = checks.real("label_smoothing", label_smoothing, low=0, high=1)
        self.proxies = ProxyMemory.ice(num_features, temperature=camera_temperature, num_negatives=num_negatives)
        self.register_buffer("centroids", torch.zeros(0, num_features, dtype=torch.float32))

    @torch.no_grad()
    def fill(self, centroids: Tensor, proxies: Tensor, labels: Tensor, cameras: Tensor) -> None:
        """Set an epoch's centroids ``[C, D]`` and proxies ``[P, D]``, with their labels and cameras ``[P]``."""
        self.centroids = checks.matrix("centroids", centroids, checks.SINGLE_OR_DOUBLE).detach().clone()
        proxies = checks.matrix("proxies", proxies, checks.SINGLE_OR_DOUBLE)
        self.proxies.fill(F.normalize(proxies, dim=0), labels, cameras)

    def forward(self, inputs: Tensor, strong: Tensor, weak: Tensor, targets: Tensor, cameras: Tensor) -> Tensor:
        """The sum of :meth:`losses`; the same arguments."""
        return self.losses(inputs, strong, weak, targets, cameras).sum()

    def losses(self, inputs: Tensor, strong: Tensor, weak: Tensor, targets: Tensor, cameras: Tensor) -> Tensor:
        """The class, instance, camera and consistency term, including their weights.

        Args:
            inputs: ``[B, D]`` features of any norm.
            strong: ``[B, D]`` the teacher's features of the strong view, of any norm; without a gradient.
            weak: ``[B, D]`` those of the weak view.
            targets: ``[B]`` pseudo-labels in ``[0, C)``; -1 (noise) is ignored.
            cameras: ``[B]`` integers.

        Returns:
            ``[4]``, float32 (float64 for float64 inputs).
        """
        inputs, targets = batch_of(inputs, targets, self.centroids)
        checks.same_shape(inputs=inputs, strong=strong, weak=weak)
        targets = counted_labels("targets", targets, len(self.centroids))
        counted = targets != -1
        with torch.autocast(inputs.device.type, enabled=False):
            q, k, w = wide(inputs, True), wide(strong.detach(), True), wide(weak.detach(), True)
            classes = wide(inputs, False) @ self.centroids.to(q.dtype).T / self.class_temperature
            of_class = cross_entropies(classes, targets, self.label_smoothing, best=False)
            of_instance = self._instance(q @ k.T / self.instance_temperature, targets)
            terms = [mean_of_counted(each, counted) for each in (of_class, of_instance)]
            terms.append(self.proxies(inputs, targets, cameras))
            terms.append(self._consistency(q @ k.T, w @ w.T, counted))
            return torch.stack([checked_loss(term, inputs=inputs, strong=strong, weak=weak) for term in terms])

    def _instance(self, z: Tensor, targets: Tensor) -> Tensor:
        own = same(targets)
        hardest = argmin_of_rows(z.detach(), own)
        positive = own & (torch.arange(len(targets), device=z.device) == hardest[:, None])
        others = ~own & (targets != -1)
        return set_contrastive_loss(z, positive, positive | others)

    def _consistency(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        student, teacher = (
            torch.where(counted, each / self.consistency_temperature, -torch.inf) for each in (student, teacher)
        )
        s, t = student.log_softmax(1), teacher.log_softmax(1)
        divergence = torch.where(counted, t.exp() * (t - s), 0).sum(1)
        return CONSISTENCY_WEIGHT * mean_of_counted(divergence, counted)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        resize_as_saved(self, ("centroids",), state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Options, for ``print(module)``."""
        return (
            f"class_temperature={self.class_temperature}, instance_temperature={self.instance_temperature}, "
            f"consistency_temperature={self.consistency_temperature}, label_smoothing={self.label_smoothing}"
        )
