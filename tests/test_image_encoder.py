"""``ccfast.load_encoder``: the same feature for every representation of an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))

from PIL import Image
from tiny_run import picture, tiny_run, write_pictures

import ccfast
from ccfast._errors import InputError
from ccfast.data import load_data
from ccfast.training import TrainConfig, train
from ccfast.training.trained import load_trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def encoder(run):
    return ccfast.load_encoder(run, device="cpu")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "run"
    train(TrainConfig(run=str(folder), epochs=1, iters=1, device="cpu", quiet=True))
    return ccfast.load_encoder(folder / "best.pt", device="cpu")


IMAGE = picture(1, 0, (37, 52))
ARRAY = np.asarray(IMAGE)
TENSOR = torch.from_numpy(ARRAY.copy()).permute(2, 0, 1)


def test_features_are_those_of_extraction(run, encoder):
    trained = load_trained(run, device="cpu")
    expected = trained.extract(trained.data.train)
    features = encoder(trained.data.train.images.paths)
    assert features.shape == (24, encoder.num_features) and features.dtype == torch.float32
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(24), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "form",
    [
        IMAGE, ARRAY, TENSOR, ARRAY / np.float32(255), TENSOR.float() / 255, TENSOR.double() / 255,
        ARRAY[:, ::-1][:, ::-1], np.asfortranarray(ARRAY), IMAGE.convert("RGBA"), np.asarray(IMAGE.convert("RGBA")),
        TENSOR.flip(2).flip(2).requires_grad_(False),
    ],
    ids=["PIL", "array", "tensor", "float array", "float tensor", "double", "flipped", "fortran", "RGBA", "array RGBA",
         "view"],
)  # fmt: skip
def test_every_form_of_an_image_has_the_same_feature(encoder, form):
    expected = encoder([IMAGE])
    assert torch.equal(encoder(form), expected)
    assert torch.equal(encoder([form, form])[1:], encoder([IMAGE, IMAGE])[1:])


def test_paths_are_decoded_as_images_are(encoder, tmp_path):
    IMAGE.save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png"), [tmp_path / "a.png"]):
        assert torch.equal(encoder(path), encoder(IMAGE))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK", "I;16", "F"])
def test_pictures_of_any_mode(encoder, mode):
    image = Image.fromarray(np.asarray(IMAGE.convert("L")).astype(np.uint16) << 8) if mode == "I;16" else None
    image = IMAGE.convert(mode) if image is None else image
    expected = IMAGE.convert("L") if mode in ("L", "LA", "I;16") else image.convert("RGB")
    assert torch.equal(encoder(image), encoder(expected))


def test_grey_arrays_and_tensors(encoder):
    grey = np.asarray(IMAGE.convert("L"))
    forms = [grey, grey[..., None], torch.from_numpy(grey.copy()), torch.from_numpy(grey.copy())[None], grey > 300]
    expected = encoder(IMAGE.convert("L"))
    for form in forms[:-1]:
        assert torch.equal(encoder(form), expected)
    assert torch.equal(encoder(forms[-1]), encoder(np.zeros_like(grey)))


def test_crops_of_different_sizes_in_one_call(encoder):
    crops = [ARRAY[:30, :10], IMAGE.crop((5, 5, 25, 50)), TENSOR[:, 3:4, 7:], ARRAY[10:11, 10:11]]
    features = encoder(iter(crops))
    for crop, feature in zip(crops, features, strict=True):
        torch.testing.assert_close(encoder(crop)[0], feature, atol=1e-6, rtol=0)


def test_batches_are_what_their_images_are(encoder):
    images = [np.asarray(picture(kind, 0)) for kind in range(4)]
    arrays = np.stack(images)
    expected = encoder(images)
    for batch in (arrays, torch.from_numpy(arrays).permute(0, 3, 1, 2), arrays / 255.0):
        assert torch.equal(encoder(batch), expected)


def test_a_batch_of_the_encoders_size_is_taken_as_it_is(encoder):
    images = [np.asarray(picture(kind, 0, (16, 24))) for kind in range(4)]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    assert batch.shape[2:] == (encoder.height, encoder.width)
    torch.testing.assert_close(encoder(batch), encoder(images), atol=1e-6, rtol=0)


def test_the_batch_size_does_not_matter(encoder, tmp_path):
    paths = write_pictures(tmp_path)
    expected = encoder(paths)
    for size in (1, 5, 100):
        torch.testing.assert_close(encoder(paths, batch_size=size), expected, atol=1e-6, rtol=0)


def test_an_empty_input_gives_no_rows(encoder):
    for nothing in ([], (), np.empty((0, 8, 8, 3), np.uint8), torch.empty(0, 3, encoder.height, encoder.width).byte()):
        assert encoder(nothing).shape == (0, encoder.num_features)


def test_features_have_no_gradient_and_the_encoder_stays_as_it_is(encoder):
    before = {name: value.clone() for name, value in encoder._encoder.state_dict().items()}
    assert not encoder(IMAGE).requires_grad
    for name, value in encoder._encoder.state_dict().items():
        assert torch.equal(before[name], value)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (5, TypeError, "images: expected images"),
        ([IMAGE, None], TypeError, r"images\[1\]: expected an image: a path.* got NoneType"),
        ([IMAGE, 7], TypeError, r"images\[1\]: .*got int"),
        ([np.zeros((0, 30, 3), np.uint8)], ValueError, r"images\[0\]: expected at least one pixel, got shape \(0, 30"),
        (np.zeros((3, 30, 20), np.uint8), ValueError, r"images\[0\]: .*an array of shape \(3, 30, 20\)"),
        (torch.zeros(30, 20, 3), ValueError, r"a tensor of shape \(30, 20, 3\)"),
        (np.zeros((1, 2, 3, 4, 5)), ValueError, r"got shape \(1, 2, 3, 4, 5\)"),
        ([np.zeros((2, 8, 8, 3))], ValueError, r"images\[0\]: .*\(2, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.int64), TypeError, r"expected uint8, or floats in \[0, 1\], got int64"),
        (np.full((8, 8, 3), 200.0), ValueError, r"floats in \[0, 1\].* values from 200.0"),
        (np.full((8, 8, 3), np.nan), ValueError, r"floats in \[0, 1\]"),
        ("nowhere.png", ValueError, r"images\[0\]: nowhere.png: cannot be read"),
    ],
)
def test_what_is_no_image_is_named(encoder, images, error, message):
    with pytest.raises(error, match=message):
        encoder(images)


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_batch_sizes_that_are_none(encoder, size):
    with pytest.raises(ValueError, match="batch_size: expected an integer of at least 1"):
        encoder(IMAGE, batch_size=size)


@pytest.mark.slow
def test_drawings_are_taken_in_every_form(drawings):
    images = load_data("digits").query.images[:3]
    expected = drawings(images)
    assert expected.shape == (3, 128)
    torch.testing.assert_close(drawings([image for image in images]), expected, atol=1e-6, rtol=0)
    grey = [Image.fromarray((image[0] * 255).round().byte().numpy()) for image in images]
    torch.testing.assert_close(drawings(grey), expected, atol=1e-2, rtol=0)  # in bytes
    assert torch.equal(drawings([image.convert("RGB") for image in grey]), drawings(grey))
    assert drawings(np.zeros((50, 40, 3), np.uint8)).shape == (1, 128)


def test_a_missing_checkpoint_is_an_error_of_a_public_type(tmp_path):
    with pytest.raises(InputError, match="no such checkpoint") as raised:
        ccfast.load_encoder(tmp_path / "nope")
    assert raised.type is InputError


def test_a_device_or_a_run_that_is_not_there(run, tmp_path):
    with pytest.raises(ValueError, match="--device: expected cpu or cuda, got 'tpu'"):
        ccfast.load_encoder(run, device="tpu")
    with pytest.raises(ValueError, match=r"neither best\.pt nor checkpoint\.pt"):
        ccfast.load_encoder(tmp_path)
