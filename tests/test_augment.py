"""Augmentation of one image with a seed, and of batches with one seed per image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ccfast.data.augment import DRAWS as PHOTOGRAPH_DRAWS
from ccfast.data.augment import (
    PADDING,
    augment_photographs,
    erased_boxes,
    flip_and_crop,
    integers,
    uniform,
)
from ccfast.data.drawings import augment, augment_batch, drawing_views
from ccfast.data.sets.digits import load_digits

HEIGHT, WIDTH = 24, 16
VALUE = (152, 141, 128)
PINNED = [[1684164658, 3653269916], [4114278092, 2788919815], [72613154, 2743067840]]


def photographs(count, height=HEIGHT, width=WIDTH):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def drawings(count, dtype=torch.uint8):
    images = photographs(count)[:, :1]
    return images if dtype == torch.uint8 else images / 255


@pytest.fixture(params=["photographs", "drawings", "float drawings"])
def case(request):
    """A batch, and its augmentation."""
    if request.param == "photographs":
        return photographs(12), lambda images, seeds: augment_photographs(images, seeds, VALUE)
    dtype = torch.uint8 if request.param == "drawings" else torch.float32
    return drawings(12, dtype), augment_batch


def test_random_numbers_are_uniform_and_independent():
    draws = uniform(torch.arange(20_000), 8)
    assert draws.shape == (20_000, 8)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        shares = torch.histc(column, 10, 0, 1) / len(column)
        assert (shares - 0.1).abs().max() < 0.01
    correlations = torch.corrcoef(torch.cat([draws[:-1], draws[1:]], 1).T) - torch.eye(16)
    assert correlations.abs().max() < 0.03


def test_random_numbers_are_the_same_in_every_version():
    """Pinned: a run must not change with a new version of torch or on another device."""
    assert (uniform(torch.tensor([0, 1, 2**31 - 1]), 2) * 2**32).long().tolist() == PINNED


def test_seeds_decide_alone(case):
    images, augmented = case
    seeds = torch.arange(100, 112)
    state = torch.get_rng_state()
    whole = augmented(images, seeds)
    assert whole.shape == images.shape
    assert whole.dtype == images.dtype
    assert torch.equal(whole, augmented(images, seeds))
    assert not torch.equal(whole, augmented(images, seeds + 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_image_does_not_depend_on_the_rest_of_its_batch(case):
    images, augmented = case
    seeds = torch.arange(100, 112)
    whole = augmented(images, seeds)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augmented(images[order], seeds[order]), whole[order])
    assert torch.equal(torch.cat([augmented(images[:5], seeds[:5]), augmented(images[5:], seeds[5:])]), whole)
    assert torch.equal(augmented(images[7:8], seeds[7:8]), whole[7:8])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_photographs_are_augmented_equally_on_both_devices():
    images, seeds = photographs(256), torch.arange(256)
    on_gpu = augment_photographs(images.cuda(), seeds.cuda(), VALUE)
    assert torch.equal(on_gpu.cpu(), augment_photographs(images, seeds, VALUE))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("corner", [(0, 0), (PADDING, PADDING), (20, 3), (7, 20)])
def test_flip_and_crop_are_torchvisions(flipped, corner):
    functional = pytest.importorskip("torchvision.transforms.v2.functional", exc_type=(ImportError, RuntimeError))
    image = photographs(1)
    expected = functional.horizontal_flip(image) if flipped else image
    expected = functional.crop(functional.pad(expected, [PADDING]), *corner, HEIGHT, WIDTH)
    assert torch.equal(flip_and_crop(image, torch.tensor([flipped]), torch.tensor([corner])), expected)


def test_half_of_the_photographs_are_mirrored_and_every_corner_is_drawn():
    draws = uniform(torch.arange(20_000), PHOTOGRAPH_DRAWS)
    assert abs((draws[:, 0] < 0.5).double().mean() - 0.5) < 0.02
    for corners in integers(draws[:, 1:3], 21).T:
        counts = torch.bincount(corners, minlength=21)
        assert len(counts) == 21
        assert (counts / 20_000 - 1 / 21).abs().max() < 0.01


@pytest.mark.parametrize(("height", "width"), [(256, 128), (128, 128)])
def test_boxes_are_drawn_as_torchvision_draws_them(height, width):
    """The means of areas, sides and places agree within a few standard errors."""
    v2 = pytest.importorskip("torchvision.transforms.v2", exc_type=(ImportError, RuntimeError))
    boxes = erased_boxes(uniform(torch.arange(8_000), PHOTOGRAPH_DRAWS)[:, 3:], height, width).double()
    erased = boxes[:, 2] > 0
    assert abs(erased.double().mean() - 0.5) < 0.02
    boxes = boxes[erased]
    shares = boxes[:, 2] * boxes[:, 3] / (height * width)
    assert 0.018 < shares.min() < 0.03
    assert 0.35 < shares.max() < 0.41
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor([height, width])).all()
    torch.manual_seed(0)
    transform = v2.RandomErasing(p=1, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), value=0)
    image = torch.ones(1, height, width)
    drawn = [transform.make_params([image]) for _ in range(4_000)]
    theirs = torch.tensor([[box["i"], box["j"], box["h"], box["w"]] for box in drawn if box["v"] is not None])
    theirs = theirs.double()
    for ours, other in ((boxes, theirs), (boxes.log1p(), theirs.log1p())):
        error = (ours.var(0) / len(ours) + other.var(0) / len(other)).sqrt()
        assert ((ours.mean(0) - other.mean(0)).abs() < 4 * error).all()


def test_a_box_that_never_fits_erases_nothing():
    """In an image of one row every box is as high as the image."""
    assert (erased_boxes(uniform(torch.arange(200), PHOTOGRAPH_DRAWS)[:, 3:], 1, 40)[:, 2] == 0).all()


def test_erased_pixels_have_the_value_and_the_others_stay():
    images = torch.full((400, 3, HEIGHT, WIDTH), 7, dtype=torch.uint8)
    seeds = torch.arange(400)
    boxes = erased_boxes(uniform(seeds, PHOTOGRAPH_DRAWS)[:, 3:], HEIGHT, WIDTH)
    for image, (top, left, height, width) in zip(augment_photographs(images, seeds, VALUE), boxes, strict=True):
        inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        assert torch.equal(image[:, inside], torch.tensor(VALUE, dtype=torch.uint8)[:, None].expand(3, inside.sum()))
        assert image[:, ~inside].unique().tolist() in ([7], [0, 7])


class FakeEncoder:
    height, width = 16, 12


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_drawings_are_resized_to_the_encoder_and_keep_their_dtype(dtype):
    views = drawing_views(FakeEncoder())
    image = drawings(1, dtype)[0]
    plain = views.plain(image)
    assert plain.shape == (1, 16, 12)
    assert plain.dtype == dtype
    assert views.augmented(image, 3).shape == (1, 16, 12)
    assert views.augmented(image, 3).dtype == dtype
    assert float(plain.float().mean()) == pytest.approx(float(image.float().mean()), rel=0.05)
    assert views.plain(plain) is plain


def test_an_augmented_drawing_has_no_ink_where_nothing_was():
    views = drawing_views(FakeEncoder())
    assert not views.augmented(torch.zeros(1, 20, 20, dtype=torch.uint8), 1).any()


def test_a_turn_does_not_shear_a_drawing_that_is_not_square():
    """A disc stays a disc."""
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(32) - 15.5, indexing="ij")
    disc = ((x**2 + y**2) < 100).float().expand(200, 1, 64, 32)
    moved = augment_batch(disc, torch.arange(200))[:, 0]
    heights, widths = ((moved > 0.5).any(dim).sum(1).double() for dim in (2, 1))
    assert (heights / widths).log().abs().max() < 0.35  # the two scales are drawn separately: (1.1 / 0.9) and one pixel
    assert (heights / widths).log().mean().abs() < 0.03


def test_augmented_digits_depend_on_the_seed_only():
    image = load_digits().train.images[0]
    state = torch.get_rng_state()
    assert torch.equal(augment(image, 5), augment(image, 5))
    assert not torch.equal(augment(image, 5), augment(image, 6))
    assert torch.equal(torch.get_rng_state(), state)


def test_augmented_digits_stay_near_the_digit():
    images = load_digits().train.images[:50]
    one_by_one = torch.stack([augment(image, seed) for seed, image in enumerate(images)])
    for augmented in (one_by_one, augment_batch(images, torch.arange(50))):
        assert augmented.shape == images.shape
        near = F.cosine_similarity(augmented.flatten(1), images.flatten(1))
        assert 0.8 < near.mean() < 0.999
