"""Ghost BatchNorm: groups of a batch compute what replicas of DataParallel do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ccfast.models import build_encoder, encode_in_groups


def small():
    torch.manual_seed(0)
    return build_encoder("smallconv", channels=1, height=8, width=8, pooling="average").train()


def images(count):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_groups_are_normalised_apart():
    encoder, batch = small(), images(8)
    grouped = encode_in_groups(encoder, batch, 4)
    apart = torch.cat([encoder(batch[:4]), encoder(batch[4:])])
    torch.testing.assert_close(grouped, apart)
    assert not torch.allclose(grouped, encoder(batch), atol=1e-3)
    torch.testing.assert_close(encode_in_groups(encoder, batch, 0), encoder(batch))


def test_no_group_is_left_with_a_few_images():
    class Recorder(nn.Module):
        def forward(self, part):
            seen.append(len(part))
            return part

    seen = []
    encode_in_groups(Recorder(), torch.zeros(130, 1), 64)
    assert seen == [65, 65]


def data_parallel(encoder, batch, replicas):
    """Features, gradients and buffers after a step of DataParallel: its first replica shares the module's buffers."""
    copies = [encoder, *(copy.deepcopy(encoder) for _ in range(replicas - 1))]
    features = torch.cat([one(part) for one, part in zip(copies, batch.tensor_split(replicas), strict=True)])
    (features * torch.arange(features.numel()).view_as(features)).sum().backward()
    gradients = {
        name: sum(dict(one.named_parameters())[name].grad for one in copies)
        for name, parameter in encoder.named_parameters()
        if parameter.requires_grad
    }
    return features.detach(), gradients, dict(encoder.named_buffers())


def ours(encoder, batch, replicas):
    features = encode_in_groups(encoder, batch, len(batch) // replicas)
    (features * torch.arange(features.numel()).view_as(features)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    return features.detach(), gradients, dict(encoder.named_buffers())


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_a_step_in_groups_is_one_of_data_parallel(replicas, momentum):
    """Two steps, so that the running statistics (with no momentum: a mean over the steps) must be right as well."""
    theirs, mine = small(), small()
    for encoder in (theirs, mine):
        encoder.backbone[1].momentum = momentum
    for batch in images(32).split(16):
        expected, found = data_parallel(theirs, batch, replicas), ours(mine, batch, replicas)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        theirs.zero_grad(), mine.zero_grad()
    assert mine.backbone[1].num_batches_tracked == 2


def test_running_statistics_are_followed_again_after_a_failure():
    encoder = small()
    with pytest.raises(RuntimeError, match="channels_last"):
        encode_in_groups(FailsAtTheSecond(encoder), images(8), 4)
    before = encoder.backbone[1].running_mean.clone()
    encoder(images(8))
    assert not torch.equal(encoder.backbone[1].running_mean, before)
    assert all(layer.track_running_stats for layer in encoder.modules() if isinstance(layer, nn.BatchNorm2d))


class FailsAtTheSecond(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.calls = 0

    def forward(self, part):
        self.calls += 1
        return self.encoder(part if self.calls == 1 else part[:, :, :, None])


def test_layers_that_never_follow_statistics_stay_so():
    encoder = small()
    encoder.backbone[1] = nn.BatchNorm2d(32, track_running_stats=False)
    encode_in_groups(encoder, images(8), 4)
    assert not encoder.backbone[1].track_running_stats


def test_frozen_layers_use_their_statistics_in_every_group():
    encoder, batch = small(), images(8)
    encoder.freeze_bn = True
    encoder.train()
    encoder.neck.eval()
    torch.testing.assert_close(encode_in_groups(encoder, batch, 4), encoder(batch))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_group_has_two_images_at_least(count):
    assert encode_in_groups(small(), images(count), 2).isfinite().all()
