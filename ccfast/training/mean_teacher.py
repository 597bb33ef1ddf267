"""``--mean-teacher``: an average of the encoder over its steps (Tarvainen and Valpola, NeurIPS 2017, section 3)."""

from __future__ import annotations

import copy

import torch

from ccfast.models import Encoder


def teacher_of(student: Encoder) -> Encoder:
    """A copy of ``student`` in evaluation mode, which is not trained itself."""
    return copy.deepcopy(student).requires_grad_(False).eval()


@torch.no_grad()
def follow(teacher: Encoder, student: Encoder, momentum: float) -> None:
    """After a step: ``p <- m p + (1 - m) p'`` for parameters and BatchNorm's statistics; counters are copied.

    Values that the encoder does not change keep their bits.
    """
    ours, theirs = teacher.state_dict(), student.state_dict()
    averaged = [name for name, value in ours.items() if value.is_floating_point()]
    torch._foreach_lerp_([ours[name] for name in averaged], [theirs[name] for name in averaged], 1 - momentum)
    for name in ours.keys() - set(averaged):
        ours[name].copy_(theirs[name])
