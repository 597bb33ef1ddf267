"""Published weights: their wrappers and other names of the same tensors. The test creates the files."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from ccfast._errors import InputError
from ccfast.models import build_encoder
from ccfast.models.weights import read_state_dict
from ccfast.pretrained import grid_of, unwrapped

SIZES = {"channels": 3, "height": 64, "width": 32, "pooling": "average"}


def saved(path, content):
    torch.save(content, path)
    return str(path)


def changed(module, by=1.0):
    """The state of a module with changed values, to see whether they are loaded."""
    return {name: value + by if value.is_floating_point() else value for name, value in module.state_dict().items()}


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def same(module, state):
    own = module.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items() if name in own)


def resnet(weights="none"):
    pytest.importorskip("torchvision")
    return build_encoder("resnet18", weights=weights, **SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["module.encoder_q.", "encoder_q."])
def test_mocos_query_encoder_as_luperson_has_it(prefix, tmp_path):
    state = changed(resnet().backbone)
    content = {
        "epoch": 200,
        "state_dict": {
            **prefixed(prefix, state),
            prefix + "fc.0.weight": torch.zeros(4, 4),
            prefix + "fc.2.bias": torch.zeros(4),
            **prefixed(prefix.replace("_q", "_k"), changed(resnet().backbone, 5.0)),
            prefix.replace("encoder_q.", "queue"): torch.zeros(4, 9),
        },
    }
    assert same(resnet(saved(tmp_path / "lup.pth", content)).backbone, state)


def test_bare_names_as_luperson_publishes_them(tmp_path):
    state = changed(resnet().backbone)
    content = {"state_dict": {**state, "fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)}}
    assert same(resnet(saved(tmp_path / "lup.pth", content)).backbone, state)


def transformer(weights="none", **sizes):
    pytest.importorskip("timm")
    return build_encoder("timm/vit_tiny_patch16_224", weights=weights, **{**SIZES, **sizes})


def of_transreid_ssl(rows=4, columns=2):
    """A transformer's state for rows x columns patches, with DINO's head."""
    state = changed(transformer().backbone.network)
    state["pos_embed"] = torch.randn(1, 1 + rows * columns, 192, generator=torch.Generator().manual_seed(0))
    return state, {**prefixed("module.backbone.", state), "module.head.mlp.0.weight": torch.zeros(2, 2)}


@pytest.mark.slow
def test_dinos_teacher_as_transreid_ssl_has_it(tmp_path):
    state, teacher = of_transreid_ssl()
    student = {name: torch.zeros_like(value) for name, value in teacher.items()}
    content = {"student": student, "teacher": teacher, "epoch": 100}
    assert same(transformer(saved(tmp_path / "lup.pth", content)).backbone.network, state)


def test_converted_files_of_transreid_ssl(tmp_path):
    state, _ = of_transreid_ssl()
    assert same(transformer(saved(tmp_path / "lup.pth", state)).backbone.network, state)


def test_position_embeddings_of_pedestrians_are_interpolated_once(tmp_path):
    timm_layers = pytest.importorskip("timm.layers")
    state, _ = of_transreid_ssl(rows=16, columns=8)
    network = transformer(saved(tmp_path / "lup.pth", state), height=96, width=48).backbone.network
    expected = timm_layers.resample_abs_pos_embed(state["pos_embed"], [6, 3], [16, 8], 1)
    torch.testing.assert_close(network.pos_embed, expected)


def test_another_stem_is_refused_by_name(tmp_path):
    state, _ = of_transreid_ssl()
    state["patch_embed.conv.0.weight"] = state.pop("patch_embed.proj.weight")
    with pytest.raises(InputError, match=r"does not fit .*missing \(patch_embed.proj.weight\).*patch_embed.conv.0"):
        transformer(saved(tmp_path / "ics.pth", state))


@pytest.mark.parametrize(
    ("tokens", "grid"), [(196, (14, 14)), (128, (16, 8)), (8, (4, 2)), (1, (1, 1)), (210, None), (12, None)]
)
def test_the_grid_of_a_number_of_patches(tokens, grid):
    assert grid_of(tokens) == grid


def test_an_encoder_of_ccfast_keeps_its_names():
    state = prefixed("backbone.", {"0.weight": torch.ones(1)}) | {"neck.weight": torch.ones(1)}
    assert unwrapped({"model": state}) == state


class OSNet(nn.Module):
    """The parts of torchreid's OSNet that are read, with its names, but smaller."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = nn.Module()
        self.conv1.conv, self.conv1.bn = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
        self.conv5 = nn.Module()
        self.conv5.conv, self.conv5.bn = nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.classifier = nn.Linear(6, num_classes)

    def featuremaps(self, images):
        return self.conv5.bn(self.conv5.conv(self.conv1.bn(self.conv1.conv(images))))


def with_torchreid(monkeypatch):
    package, models = ModuleType("torchreid"), ModuleType("torchreid.models")
    models.build_model = lambda name, num_classes, pretrained: {"osnet_x1_0": OSNet}[name](num_classes)
    package.models = models
    monkeypatch.setitem(sys.modules, "torchreid", package)


def test_osnet_by_torchreid(tmp_path, monkeypatch):
    with_torchreid(monkeypatch)
    state = changed(OSNet(1000))
    encoder = build_encoder(
        "torchreid/osnet_x1_0", weights=saved(tmp_path / "o.pth", prefixed("module.", state)), **SIZES
    )
    assert same(encoder.backbone.network, {name: value for name, value in state.items() if name.startswith("conv")})
    assert encoder(torch.rand(2, 3, 64, 32)).shape == (2, 6)
    assert not [name for name, _ in encoder.named_parameters() if "classifier" in name or ".fc." in name]


def test_what_torchreid_does_not_have_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchreid", None)
    with pytest.raises(InputError, match="--arch torchreid/osnet_x1_0 needs torchreid"):
        build_encoder("torchreid/osnet_x1_0", **SIZES)
    with_torchreid(monkeypatch)
    with pytest.raises(InputError, match="torchreid has no model 'osnet_x9'"):
        build_encoder("torchreid/osnet_x9", **SIZES)
    with pytest.raises(InputError, match="--weights: expected none or a file that exists with --arch torchreid/"):
        build_encoder("torchreid/osnet_x1_0", weights="imagenet", **SIZES)


def test_weights_in_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    state = changed(resnet().backbone)
    state = {name: value.contiguous() for name, value in state.items()}
    safetensors.save_file(prefixed("encoder_q.", state), tmp_path / "w.safetensors")
    assert same(resnet(str(tmp_path / "w.safetensors")).backbone, state)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"bad\.safetensors: not PyTorch weights, or truncated"):
        read_state_dict(tmp_path / "bad.safetensors")
