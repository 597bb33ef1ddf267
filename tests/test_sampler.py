"""Batches of P clusters x K instances."""

from __future__ import annotations

import pytest
import torch

from ccfast.data import ClusterSampler
from ccfast.data.sampler import FillingSampler


def sampler(labels, cams=None, *, clusters=2, instances=4, iters=6, seed=0):
    return ClusterSampler(
        torch.tensor(labels),
        None if cams is None else torch.tensor(cams),
        num_clusters=clusters,
        num_instances=instances,
        iters=iters,
        generator=torch.Generator().manual_seed(seed),
    )


def indices(batch):
    return [index for index, _ in batch]


LABELS = [0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2, 0, 1, 2, 0, 1]


def test_a_batch_is_p_clusters_of_k_instances_side_by_side():
    batches = list(sampler(LABELS, clusters=2, instances=4))
    assert len(batches) == 6
    for batch in batches:
        groups = [{LABELS[index] for index in indices(batch)[start : start + 4]} for start in (0, 4)]
        assert len(batch) == 8
        assert all(len(group) == 1 for group in groups)
        assert groups[0] != groups[1]


def test_noise_is_never_drawn():
    drawn = {index for batch in sampler(LABELS, iters=50) for index in indices(batch)}
    assert drawn == {index for index, label in enumerate(LABELS) if label >= 0}


def test_every_cluster_is_dealt_once_before_any_is_dealt_again():
    labels = [label for label in range(6) for _ in range(4)]
    batches = list(sampler(labels, clusters=2, instances=4, iters=3))
    assert sorted(labels[index] for batch in batches for index in indices(batch)) == sorted(labels)


def test_other_instances_come_from_other_cameras_where_there_are_any():
    labels, cams = [0] * 8 + [1] * 4, [0, 0, 0, 0, 1, 1, 1, 1, 5, 5, 5, 5]
    seen_cluster_1 = set()
    for batch in sampler(labels, cams, clusters=2, instances=4, iters=20):
        for start in (0, 4):
            first, *others = indices(batch)[start : start + 4]
            if labels[first] == 0:
                assert all(cams[other] != cams[first] for other in others)
                assert len(set(others)) == 3  # enough images: none appears twice
            else:
                assert first not in others
                seen_cluster_1.update(others)
    assert seen_cluster_1 == {8, 9, 10, 11}


def test_a_small_cluster_repeats_its_members_but_the_first():
    (batch,) = sampler([0, 0, 1, 1], clusters=2, instances=4, iters=1)
    for start in (0, 4):
        first, *others = indices(batch)[start : start + 4]
        assert set(others) == {first ^ 1}


def test_a_cluster_of_one_repeats_itself():
    (batch,) = sampler([0, 1, 1, 1], clusters=2, instances=3, iters=1)
    assert indices(batch).count(0) == 3


def test_fewer_clusters_than_a_batch_takes_give_smaller_batches_of_all_of_them():
    for batch in sampler([0, 0, 0, 1, 1, 1], clusters=16, instances=2):
        assert sorted([0, 0, 0, 1, 1, 1][index] for index in indices(batch)) == [0, 0, 1, 1]


def test_labels_need_not_be_consecutive():
    drawn = {index for batch in sampler([7, 7, -1, 3, 3], iters=4) for index in indices(batch)}
    assert drawn == {0, 1, 3, 4}


def test_same_generator_seed_gives_the_same_batches_and_augmentation_seeds():
    assert list(sampler(LABELS, seed=1)) == list(sampler(LABELS, seed=1))
    assert list(sampler(LABELS, seed=1)) != list(sampler(LABELS, seed=2))


def test_a_second_pass_draws_again():
    one = sampler(LABELS)
    assert list(one) != list(one)


def test_augmentation_seeds_differ_from_image_to_image():
    seeds = [seed for batch in sampler(LABELS, iters=20) for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


def test_only_noise_is_an_error():
    with pytest.raises(ValueError, match="at least one cluster"):
        sampler([-1, -1])


def test_filled_batches_hold_single_images_once_and_the_instances_of_clusters():
    labels = torch.cat([torch.zeros(10, dtype=torch.int64), torch.arange(1, 21), torch.tensor([-1])])
    generator = torch.Generator().manual_seed(0)
    sampler = FillingSampler(labels, None, size=12, num_clusters=3, num_instances=4, iters=6, generator=generator)
    batches = [[index for index, _ in batch] for batch in sampler]
    assert [len(batch) for batch in batches] == [sampler.batch_size] * 6 == [12] * 6
    dealt = [index for batch in batches for index in batch][:24]  # one deck: 20 single images, and 4 of the cluster
    assert sorted(index for index in dealt if index >= 10) == list(range(10, 30))
    assert len([index for index in dealt if index < 10]) == 4
    assert len({seed for batch in sampler for _, seed in batch}) == 72


def test_filled_batches_of_few_images_repeat_them():
    sampler = FillingSampler(
        torch.tensor([0, 0, 1]), None, size=8, num_clusters=2, num_instances=4, iters=2, generator=torch.Generator()
    )
    assert all(len(batch) == 8 and {index for index, _ in batch} == {0, 1, 2} for batch in sampler)
