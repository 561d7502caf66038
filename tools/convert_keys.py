"""Weight names: this library's, which are the published ones, and those of Hugging Face's DETR.

Hugging Face stores the query, key and value projections of an attention separately, here they are stacked. It names the
backbone like timm, whose ResNets have torchvision's names as ours do, or like transformers' own ResNet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_BODY, _THEIR_BODY = "backbone.0.body.", "model.backbone.conv_encoder.model."

# (ours, theirs): prefixes of names, each up to a dot.
_PARTS = (
    ("query_embed.weight", "model.query_position_embeddings.weight"),
    ("input_proj", "model.input_projection"),
    ("class_embed", "class_labels_classifier"),
    ("bbox_embed.layers", "bbox_predictor.layers"),
    ("backbone.1.row_embed", "model.position_embedding.row_embeddings"),
    ("backbone.1.col_embed", "model.position_embedding.column_embeddings"),
    ("transformer.encoder.layers", "model.encoder.layers"),
    ("transformer.decoder.layers", "model.decoder.layers"),
    ("transformer.decoder.norm", "model.decoder.layernorm"),
)
_IN_LAYER = {
    "encoder": {"norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"},
    "decoder": {
        "multihead_attn": "encoder_attn",
        "norm1": "self_attn_layer_norm",
        "norm2": "encoder_attn_layer_norm",
        "norm3": "final_layer_norm",
    },
}
_FEED_FORWARD = {"linear1": "fc1", "linear2": "fc2"}
# Names in other versions: the learned positions before transformers 4.5x, several parts in transformers 5.
_OTHER_SPELLINGS = (
    (r"^model\.backbone\.position_embedding\.", "model.position_embedding."),
    (r"^model\.backbone\.model\.", _THEIR_BODY),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.mlp\.(fc[12])\.", r".\1."),
)


def to_huggingface(state: Mapping[str, Tensor], timm: bool) -> dict[str, Tensor]:
    """Our weights under Hugging Face's names; `timm` selects timm's names for the backbone.

    The counters of batch norms are dropped: they are not used.
    """
    theirs: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        stacked = re.fullmatch(r"(.+)\.in_proj_(weight|bias)", name)
        if stacked:
            for part, third in zip("qkv", value.chunk(3)):
                theirs[_their_name(f"{stacked[1]}.{part}_proj.{stacked[2]}", timm)] = third
        else:
            theirs[_their_name(name, timm)] = value
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in theirs.items()}


def from_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's weights, in either naming, under our names. Unknown names are kept; loading will reject them."""
    ours: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        own = _our_name(name)
        split = re.fullmatch(r"(.+)\.([qkv])_proj\.(weight|bias)", own)
        if split:
            thirds.setdefault(f"{split[1]}.in_proj_{split[3]}", {})[split[2]] = value
        else:
            ours[own] = value
    stacked = {name: torch.cat([parts[part] for part in "qkv" if part in parts]) for name, parts in thirds.items()}
    return {**ours, **stacked}


def _their_name(name: str, timm: bool) -> str:
    if name.startswith(_BODY):
        rest = name.removeprefix(_BODY)
        return _THEIR_BODY + (rest if timm else _to_resnet(rest))
    for ours, theirs in _PARTS:
        if name.startswith(ours):
            return _rename_in_layer(theirs + name.removeprefix(ours), forwards=True)
    return name


def _our_name(name: str) -> str:
    for pattern, replacement in _OTHER_SPELLINGS:
        name = re.sub(pattern, replacement, name)
    if name.startswith(_THEIR_BODY):
        return _BODY + _from_resnet(name.removeprefix(_THEIR_BODY))
    name = _rename_in_layer(name, forwards=False)
    for ours, theirs in _PARTS:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _rename_in_layer(name: str, forwards: bool) -> str:
    """Rename the part after the layer number, in a name that starts as Hugging Face's do."""
    layer = re.fullmatch(r"(model\.(encoder|decoder)\.layers\.\d+\.)(\w+)(\..+)", name)
    if layer is None:
        return name
    table = _IN_LAYER[layer[2]] | _FEED_FORWARD
    if not forwards:
        table = {theirs: ours for ours, theirs in table.items()}
    return layer[1] + table.get(layer[3], layer[3]) + layer[4]


def _to_resnet(name: str) -> str:
    """torchvision's name → the name in transformers' ResNet."""
    kinds = {"conv": "convolution", "bn": "normalization"}
    stem = re.fullmatch(r"(conv|bn)1\.(\w+)", name)
    if stem:
        return f"embedder.embedder.{kinds[stem[1]]}.{stem[2]}"
    stage, block, part, rest = re.fullmatch(r"layer(\d)\.(\d+)\.(\w+)\.(.+)", name).groups()
    place = f"encoder.stages.{int(stage) - 1}.layers.{block}."
    if part == "downsample":
        index, leaf = rest.split(".")
        return f"{place}shortcut.{('convolution', 'normalization')[int(index)]}.{leaf}"
    return f"{place}layer.{int(part[-1]) - 1}.{kinds[part[:-1]]}.{rest}"


def _from_resnet(name: str) -> str:
    """The name in transformers' ResNet → torchvision's; others, such as timm's, are kept."""
    kinds = {"convolution": "conv", "normalization": "bn"}
    stem = re.fullmatch(r"embedder\.embedder\.(\w+)\.(\w+)", name)
    if stem:
        return f"{kinds[stem[1]]}1.{stem[2]}"
    found = re.fullmatch(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(shortcut|layer\.(\d+))\.(\w+)\.(\w+)", name)
    if found is None:
        return name
    stage, block, part, number, kind, leaf = found.groups()
    place = f"layer{int(stage) + 1}.{block}."
    if part == "shortcut":
        return f"{place}downsample.{int(kind == 'normalization')}.{leaf}"
    return f"{place}{kinds[kind]}{int(number) + 1}.{leaf}"
