"""scikit-learn's digits, the table of data sets, and the views of photographs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import ccfast
from ccfast._errors import InputError
from ccfast.data import DATASETS, load_data
from ccfast.data.sets.digits import load_digits

PIL_Image = pytest.importorskip("PIL.Image")

from image_trees import MARKET, FakeEncoder, write_tree  # noqa: E402


def test_digits_are_split_into_thirds_that_share_no_image():
    data = load_digits()
    assert (len(data.train), len(data.query), len(data.gallery)) == (1198, 199, 400)
    rows = torch.cat([part.images.flatten(1) for part in (data.train, data.query, data.gallery)])
    assert len(rows.unique(dim=0)) == 1797
    assert data.train.images.shape == (1198, 1, 8, 8)
    assert (rows.min(), rows.max()) == (0, 1)
    assert data.train.cams is None
    for part in (data.train, data.query, data.gallery):
        assert part.ids.unique().tolist() == list(range(10))


def test_the_split_of_digits_does_not_depend_on_the_seed():
    torch.manual_seed(1)
    first = load_digits()
    torch.manual_seed(2)
    second = load_digits()
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.query.ids, second.query.ids)


def test_raw_pixels_of_digits_reach_67_map():
    """The result without training; see docs/training.md."""
    data = load_digits()
    query, gallery = (F.normalize(part.images.flatten(1), dim=1) for part in (data.query, data.gallery))
    ranking = ccfast.evaluate_ranking(2 - 2 * query @ gallery.T, data.query.ids, data.gallery.ids, None, None)
    assert ranking.mAP == pytest.approx(0.6736, abs=1e-3)


def test_every_data_set_with_a_recipe_is_known():
    from ccfast.training.recipes import RECIPES

    assert set(DATASETS) == set(RECIPES)


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"--dataset: expected one of digits, market1501, .*, got 'cifar'"):
        load_data("cifar", "x")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_every_other_data_set_needs_a_folder_that_is_there(name, tmp_path):
    what = "a .csv file that lists images" if name == "csv" else f"the folder of {name}"
    with pytest.raises(InputError, match=f"--data-dir: expected {what}, got none"):
        load_data(name)
    with pytest.raises(InputError, match=r"--data-dir: no such folder.*nowhere"):
        load_data(name, tmp_path / "nowhere")


@pytest.fixture
def views(tmp_path):
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    return load_data("market1501", write_tree(tmp_path, MARKET)).make_views(FakeEncoder())


def noise(seed):
    pixels = torch.randint(256, (16, 8, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return PIL_Image.fromarray(pixels.numpy())


def test_views_have_the_encoders_size(views):
    for view in (views.plain(noise(0)), views.augmented(noise(0), 3)):
        assert view.shape == (3, 24, 12)
        assert view.dtype == torch.uint8


def test_augmented_views_depend_on_the_seed_only(views):
    state = torch.get_rng_state()
    assert torch.equal(views.augmented(noise(0), 3), views.augmented(noise(0), 3))
    assert not torch.equal(views.augmented(noise(0), 3), views.augmented(noise(0), 4))
    assert torch.equal(torch.get_rng_state(), state)


def test_about_half_of_the_augmented_views_are_erased(views):
    """Erased with the authors' value: mean + std * mean = 0.596 of red, 152 of 255."""
    white = PIL_Image.new("RGB", (8, 16), (255, 255, 255))
    erased = [bool((views.augmented(white, seed)[0] == 152).any()) for seed in range(200)]
    assert 0.35 < sum(erased) / 200 < 0.65


def test_image_folders_without_torchvision_say_what_is_missing(tmp_path, monkeypatch):
    data = load_data("market1501", write_tree(tmp_path, MARKET))
    monkeypatch.setitem(__import__("sys").modules, "torchvision.transforms.v2", None)
    with pytest.raises(InputError, match="needs torchvision"):
        data.make_views(FakeEncoder())
