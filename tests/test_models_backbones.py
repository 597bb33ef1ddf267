"""Backbones: ResNets with and without IBN, networks of timm with maps or tokens, grey images, the projection."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ccfast._errors import InputError
from ccfast.models import build_encoder, ibn


def encoder_of(arch, height=64, width=32, channels=3, **options):
    torch.manual_seed(0)
    return build_encoder(arch, channels=channels, height=height, width=width, **options)


@pytest.fixture
def torchvision_models():
    return pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError)).models


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.mark.parametrize("arch", ["resnet34", "resnet18_ibn_a"])
def test_resnets_keep_the_resolution_in_their_last_stage(torchvision_models, arch):
    encoder = encoder_of(arch)
    assert encoder.backbone(torch.rand(2, 3, 64, 32)).shape == (2, 512, 4, 2)
    assert encoder(torch.rand(2, 3, 64, 32)).shape == (2, 512)


def test_ibn_stands_first_in_every_block_of_the_first_three_layers(torchvision_models):
    backbone = encoder_of("resnet50_ibn_a").backbone
    found = [name for name, module in backbone.named_modules() if isinstance(module, ibn.IBN)]
    assert found == [
        f"layer{layer}.{block}.bn1" for layer, blocks in ((1, 3), (2, 4), (3, 6)) for block in range(blocks)
    ]
    assert isinstance(backbone.layer4[0].bn1, nn.BatchNorm2d)


def test_ibn_normalises_half_the_channels_by_image_and_half_by_batch():
    layer = ibn.IBN(6)
    maps = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 5)[:, None, None, None]
    instance, batch = layer(maps).split(3, dim=1)
    torch.testing.assert_close(instance.mean((2, 3)), torch.zeros(4, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(instance.var((2, 3), unbiased=False), torch.ones(4, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(batch.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.var((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-3, rtol=0)
    assert not torch.allclose(batch.var((2, 3)), torch.ones(4, 3), atol=0.1)


def released_names(blocks):
    """The names in the released weights of a bottleneck ResNet-IBN-a, independent of the module under test."""
    statistics = ["weight", "bias", "running_mean", "running_var"]
    names = ["conv1.weight", *(f"bn1.{name}" for name in statistics)]
    for layer, count in enumerate(blocks, start=1):
        for block in range(count):
            at = f"layer{layer}.{block}."
            first = ["IN.weight", "IN.bias", *(f"BN.{name}" for name in statistics)] if layer < 4 else statistics
            names += [at + "conv1.weight", *(f"{at}bn1.{name}" for name in first)]
            for number in (2, 3):
                names += [f"{at}conv{number}.weight", *(f"{at}bn{number}.{name}" for name in statistics)]
            if block == 0:
                names += [at + "downsample.0.weight", *(f"{at}downsample.1.{name}" for name in statistics)]
    return [*names, "fc.weight", "fc.bias"]


def released_state(encoder):
    own = encoder.backbone.state_dict()
    state = {name: own[name] + 1 if name in own else torch.zeros(1) for name in released_names((3, 4, 6, 3))}
    assert set(state) - {"fc.weight", "fc.bias"} == {name for name in own if not name.endswith("num_batches_tracked")}
    return state


@pytest.mark.slow
def test_released_ibn_weights_find_their_places(torchvision_models, tmp_path):
    """The released weights are older than BatchNorm's counters of batches, which are missing."""
    before = encoder_of("resnet50_ibn_a")
    state = released_state(before)
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "ibn.pth")
    after = encoder_of("resnet50_ibn_a", weights=str(tmp_path / "ibn.pth")).backbone.state_dict()
    for name, value in before.backbone.state_dict().items():
        assert torch.equal(after[name], value if name.endswith("num_batches_tracked") else value + 1), name


@pytest.mark.slow
def test_released_ibn_weights_are_what_imagenet_means(torchvision_models, monkeypatch):
    def download(url, **options):
        assert url.endswith("/resnet50_ibn_a-d9d0bb7b.pth") and options["check_hash"]
        return released_state(encoder_of("resnet50_ibn_a"))

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    encoder = encoder_of("resnet50_ibn_a", weights="imagenet")
    assert torch.equal(encoder.backbone.layer1[0].bn1.IN.weight, torch.full((32,), 2.0))


def test_a_download_that_fails_names_the_way_out(torchvision_models, monkeypatch):
    def download(url, **options):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    with pytest.raises(InputError, match=r"could not be downloaded \(no network\); pass a file with --weights FILE"):
        encoder_of("resnet18_ibn_a", weights="imagenet")


def test_weights_of_the_plain_resnet_do_not_fit_the_one_with_ibn(torchvision_models, tmp_path):
    torch.save(torchvision_models.resnet18().state_dict(), tmp_path / "plain.pth")
    with pytest.raises(InputError, match=r"does not fit --arch resnet18_ibn_a: .*layer1.0.bn1.BN"):
        encoder_of("resnet18_ibn_a", weights=str(tmp_path / "plain.pth"))
    with pytest.raises(InputError, match="expected none, imagenet or a file"):
        encoder_of("resnet18_ibn_a", weights="IMAGENET1K_V2")


def test_images_too_small_for_ibn_are_refused(torchvision_models):
    with pytest.raises(InputError, match="--height, --width: expected at least 17"):
        encoder_of("resnet18_ibn_a", 16, 8)
    assert encoder_of("resnet18_ibn_a", 17, 8)(torch.rand(2, 3, 17, 8)).shape == (2, 512)


def test_transformers_take_the_inputs_size_and_give_their_class_token(timm):
    encoder = encoder_of("timm/test_vit", 96, 48).eval()
    network, pixels = encoder.backbone.network, torch.rand(2, 3, 96, 48)
    assert network.patch_embed.grid_size == (6, 3)
    tokens = network.forward_features((pixels - encoder.input_mean) / encoder.input_std)
    assert network.global_pool == "token"
    torch.testing.assert_close(encoder(pixels), nn.functional.normalize(encoder.neck(tokens[:, 0]), dim=1))


def test_transformers_without_a_class_token_give_the_mean_of_their_patches(timm):
    encoder = encoder_of("timm/test_vit3", 96, 48).eval()
    assert encoder.backbone.network.global_pool in ("avg", "map")
    assert encoder(torch.rand(2, 3, 96, 48)).shape == (2, encoder.num_features)


def test_transformers_weights_are_interpolated_from_their_own_size(timm, tmp_path):
    original = timm.create_model("test_vit")
    torch.save(original.state_dict(), tmp_path / "vit.pth")
    network = encoder_of("timm/test_vit", 96, 48, weights=str(tmp_path / "vit.pth")).backbone.network
    assert torch.equal(network.blocks[0].attn.qkv.weight, original.blocks[0].attn.qkv.weight)
    assert torch.equal(network.pos_embed[:, 0], original.pos_embed[:, 0])
    assert network.pos_embed.shape[1] == 1 + 6 * 3


def test_a_transformers_checkpoint_can_be_started_from(timm, tmp_path):
    trained = encoder_of("timm/test_vit", 96, 48)
    torch.save({"model": trained.state_dict()}, tmp_path / "best.pt")
    again = encoder_of("timm/test_vit", 96, 48, weights=str(tmp_path / "best.pt"))
    pixels = torch.rand(2, 3, 96, 48)
    torch.testing.assert_close(again.eval()(pixels), trained.eval()(pixels))


def test_maps_with_channels_last_are_turned(timm):
    network = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=0, depths=(1, 1), num_heads=(1, 2), embed_dim=8, img_size=64
    )
    from ccfast.models.timm_backbone import _at_size

    module = _at_size(network, "timm/swin", (64, 32))
    assert module(torch.rand(2, 3, 64, 32)).shape == (2, 16, 8, 4)


def test_sizes_that_a_network_does_not_take_are_refused(timm):
    with pytest.raises(InputError, match=r"--arch timm/mixer_s32_224: expected --height .* got 64 x 32"):
        encoder_of("timm/mixer_s32_224", 64, 32)


def test_convolutional_networks_whose_head_has_a_norm_take_their_weights(timm, tmp_path):
    original = timm.create_model("test_convnext")
    torch.save(original.state_dict(), tmp_path / "convnext.pth")
    encoder = encoder_of("timm/test_convnext", 64, 32, weights=str(tmp_path / "convnext.pth"))
    assert torch.equal(encoder.backbone.network.stem[0].weight, original.stem[0].weight)
    assert encoder(torch.rand(2, 3, 64, 32)).shape == (2, encoder.num_features)


@pytest.mark.parametrize(
    ("name", "idle"), [("mobilenetv3_small_050", {"conv_head.weight", "conv_head.bias"}), ("test_vit", set())]
)
def test_every_parameter_that_learns_gets_a_gradient(timm, name, idle):
    encoder = encoder_of(f"timm/{name}", 64, 32)
    encoder(torch.rand(4, 3, 64, 32))[:, 0].sum().backward()
    own = dict(encoder.backbone.network.named_parameters())
    assert {parameter for parameter in own if not own[parameter].requires_grad} == idle
    assert all(parameter.grad is not None for parameter in encoder.parameters() if parameter.requires_grad)


def test_grey_images_are_repeated_for_colour_networks(torchvision_models):
    encoder = encoder_of("resnet18", channels=1).eval()
    grey = torch.randint(256, (2, 1, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(grey), encoder(grey.repeat(1, 3, 1, 1)))


def test_a_projection_shortens_the_features():
    encoder = encoder_of("smallconv", 8, 8, 1, projection=16)
    assert encoder.num_features == 16 and encoder.neck.num_features == 16
    features = encoder(torch.rand(4, 1, 8, 8))
    assert features.shape == (4, 16)
    features[:, 0].sum().backward()
    assert encoder.projection.weight.grad.abs().sum() > 0


def test_without_a_projection_the_checkpoint_has_none():
    assert not any("projection" in name for name in encoder_of("smallconv", 8, 8, 1).state_dict())
