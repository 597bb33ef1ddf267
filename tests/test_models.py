"""Encoders: pooling, BatchNorm, architectures and their initial weights."""

from __future__ import annotations

import re

import pytest
import torch

from ccfast._errors import InputError
from ccfast.models import build_encoder
from ccfast.models.pooling import Average, GeM
from ccfast.pretrained.efficientnet_lite import MEAN, STD, to_timm_names


def small(freeze_bn=False, pooling="average"):
    torch.manual_seed(0)
    return build_encoder("smallconv", channels=1, height=8, width=8, pooling=pooling, freeze_bn=freeze_bn)


def images(count=8, channels=1, size=8):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def test_gem_goes_from_mean_to_maximum_with_p():
    maps = images(2, 3)
    torch.testing.assert_close(GeM(p=1.0)(maps), Average()(maps))
    torch.testing.assert_close(GeM(p=200.0)(maps), maps.amax((2, 3)), rtol=0.05, atol=0)
    expected = maps.pow(3).mean((2, 3)).pow(1 / 3)
    torch.testing.assert_close(GeM()(maps), expected)


def test_gem_learns_p():
    gem = GeM()
    gem(images(2, 3)).sum().backward()
    assert gem.p.grad.abs() > 0


@pytest.mark.parametrize("pooling", ["gem", "average"])
def test_features_have_unit_norm(pooling):
    features = small(pooling=pooling)(images())
    assert features.shape == (8, 128)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(8))


def test_bytes_and_floats_give_the_same_features():
    encoder = small().eval()
    bytes_ = (images() * 255).round().to(torch.uint8)
    torch.testing.assert_close(encoder(bytes_), encoder(bytes_.float() / 255))


def test_necks_bias_is_frozen():
    assert not small().neck.bias.requires_grad
    assert small().neck.weight.requires_grad


@pytest.mark.parametrize("freeze_bn", [False, True])
def test_frozen_batch_norm_keeps_the_backbones_statistics(freeze_bn):
    encoder = small(freeze_bn).train()
    before = encoder.backbone[1].running_mean.clone()
    encoder(images()).sum().backward()
    assert torch.equal(encoder.backbone[1].running_mean, before) == freeze_bn
    assert encoder.backbone[1].weight.grad is not None


def test_encoder_of_a_batch_of_one_image_in_evaluation():
    assert small().eval()(images(1)).shape == (1, 128)


def test_unknown_architectures_are_refused():
    with pytest.raises(InputError, match=r"--arch: expected smallconv, resnet18.*got 'vgg'"):
        build_encoder("vgg", channels=3, height=8, width=8)


def test_images_of_two_channels_do_not_go_into_colour_networks():
    with pytest.raises(InputError, match="takes images of 1 or 3 channels, got 2"):
        build_encoder("resnet18", channels=2, height=8, width=8)


def test_a_checkpoint_can_be_started_from(tmp_path):
    trained = small()
    with torch.no_grad():
        trained.neck.weight += 1
    torch.save({"model": trained.state_dict(), "epoch": 3}, tmp_path / "best.pt")
    again = build_encoder(
        "smallconv", channels=1, height=8, width=8, weights=str(tmp_path / "best.pt"), pooling="average"
    )
    torch.testing.assert_close(again.eval()(images()), trained.eval()(images()))


def resnet(weights="none"):
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    return build_encoder("resnet18", channels=3, height=64, width=32, weights=str(weights))


def test_resnet_keeps_the_resolution_in_its_last_stage():
    encoder = resnet()
    assert encoder.num_features == 512
    assert encoder.backbone(torch.rand(1, 3, 64, 32)).shape == (1, 512, 4, 2)


def test_resnet_takes_torchvisions_weights_from_a_file(tmp_path):
    models = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError)).models
    network = models.resnet18()
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "weights.pth")
    encoder = resnet(tmp_path / "weights.pth")
    assert torch.equal(encoder.backbone.layer1[0].conv1.weight, network.layer1[0].conv1.weight)


def test_weights_of_another_architecture_are_refused(tmp_path):
    models = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError)).models
    torch.save(models.resnet50().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"does not fit --arch resnet18: .*unknown"):
        resnet(tmp_path / "weights.pth")


@pytest.mark.parametrize(("content", "message"), [(b"junk", "not PyTorch weights"), (None, "or a file that exists")])
def test_weights_that_cannot_be_read_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(InputError, match=message):
        resnet(tmp_path / "weights.pth")


def test_a_file_without_weights_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "weights.pth")
    with pytest.raises(InputError, match="no state dict"):
        resnet(tmp_path / "weights.pth")


def test_torchvision_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    with pytest.raises(InputError, match="needs torchvision"):
        build_encoder("resnet18", channels=3, height=8, width=8)


def test_timm_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(InputError, match="needs timm"):
        build_encoder("timm/resnet10t", channels=3, height=8, width=8)


def timm_encoder(name, weights="none"):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    return build_encoder(f"timm/{name}", channels=3, height=64, width=64, weights=str(weights), pooling="average")


def test_timm_models_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="has no model 'nonsense'"):
        timm_encoder("nonsense")


def names_of_efficientnet_lite_pytorch():
    """The names of that package's EfficientNet-Lite0 in its order, independent of the mapping under test."""
    parts = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]

    def layer(conv, norm):
        return [f"{conv}.weight", *(f"{norm}.{part}" for part in parts)]

    names = layer("_conv_stem", "_bn0")
    for block in range(16):
        at = f"_blocks.{block}."
        if block:  # the first block does not expand
            names += layer(f"{at}_expand_conv", f"{at}_bn0")
        names += layer(f"{at}_depthwise_conv", f"{at}_bn1") + layer(f"{at}_project_conv", f"{at}_bn2")
    return [*names, *layer("_conv_head", "_bn1"), "_fc.weight", "_fc.bias"]


def test_efficientnet_lite_pytorch_weights_find_their_places_in_timm(tmp_path):
    pytest.importorskip("timm")
    own = timm_encoder("tf_efficientnet_lite0").backbone.network.state_dict()
    values = [value + 1 for value in own.values()] + [torch.zeros(1000, 1280), torch.zeros(1000)]
    state = dict(zip(names_of_efficientnet_lite_pytorch(), values, strict=True))
    mapped = to_timm_names(state, own)
    assert [name for name in mapped if not name.startswith("_fc")] == list(own)

    torch.save(state, tmp_path / "lite0.pth")
    encoder = timm_encoder("tf_efficientnet_lite0", tmp_path / "lite0.pth")
    for name, value in encoder.backbone.network.state_dict().items():
        assert torch.equal(value, own[name] + 1), name
    torch.testing.assert_close(encoder.input_mean.flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(encoder.input_std.flatten(), torch.tensor(STD))


def test_efficientnet_lite_pytorch_weights_of_another_size_are_refused(tmp_path):
    pytest.importorskip("timm")
    own = timm_encoder("tf_efficientnet_lite0").backbone.network.state_dict()
    state = {name: value for name, value in zip(names_of_efficientnet_lite_pytorch(), own.values(), strict=False)}
    state = {re.sub(r"_blocks\.15\.", "_blocks.16.", name): value for name, value in state.items()}
    torch.save(state, tmp_path / "lite1.pth")
    with pytest.raises(InputError, match=r"does not fit .*missing .*unknown"):
        timm_encoder("tf_efficientnet_lite0", tmp_path / "lite1.pth")


def test_efficientnet_lite_gives_the_same_maps_as_the_package_the_weights_come_from(tmp_path):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("timm")
    torch.manual_seed(0)
    original = package.EfficientNet.from_name("efficientnet-lite0").eval()
    for name, buffer in original.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    torch.save(original.state_dict(), tmp_path / "lite0.pth")
    encoder = timm_encoder("tf_efficientnet_lite0", tmp_path / "lite0.pth").eval()
    pixels = torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = original.extract_features((pixels.float() - 127) / 128)
        maps = encoder.backbone((pixels.float() / 255 - encoder.input_mean) / encoder.input_std)
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.full((128,), torch.nan), "has values that are not finite"),
        (torch.zeros(128).to_sparse(), "not a dense real one"),
        (torch.zeros(128, device="meta"), "not a dense real one"),
        (torch.zeros(128, dtype=torch.complex64), "not a dense real one"),
    ],
)
def test_weights_that_cannot_be_loaded_are_refused_by_name(tmp_path, value, reason):
    options = {"channels": 1, "height": 8, "width": 8}
    state = build_encoder("smallconv", **options).state_dict()
    torch.save({**state, "neck.weight": value}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=f"--weights: .*neck.weight .*{reason}"):
        build_encoder("smallconv", weights=str(tmp_path / "weights.pt"), **options)
