"""Networks that give more than a tensor say so, and how one is selected."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam.networks import SelectOutput, TargetLayer, check_layer, find_layer
from tests.toy_networks import classifier


class ModelOutput(OrderedDict):
    """As Hugging Face's: a mapping whose entries are attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Named(NamedTuple):
    logits: Tensor
    loss: None


class Giving(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.network, self.make = classifier(), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.network(x))


@pytest.mark.parametrize(
    ("make", "says", "select"),
    [
        (
            lambda y: ModelOutput(logits=y),
            r"ModelOutput with the tensors 'logits' \(1 x 5\)",
            "logits",
        ),
        (lambda y: {"out": y, "aux": y}, r"dict with the tensors 'out' \(1 x 5\), 'aux'", "out"),
        (lambda y: (y, [y]), r"tuple with the tensors 0 \(1 x 5\)", 0),
        (lambda y: Named(y, None), r"Named with the tensors 0 \(1 x 5\)", 0),
        (lambda y: [{"scores": y}], r"gives a list\.", lambda found: found[0]["scores"]),
    ],
    ids=["ModelOutput", "dict", "tuple", "named tuple", "list of dicts"],
)
def test_the_error_names_the_tensors_and_the_adapter(make, says, select) -> None:
    net, x = Giving(make).eval(), torch.rand(1, 3, 16, 16)
    with pytest.raises(
        TypeError, match=rf"Giving gives a {says.removeprefix('gives a ')}"
    ) as caught:
        find_layer(net, x)
    assert "SelectOutput(model, " in str(caught.value)
    with pytest.raises(TypeError, match="Say which tensor is explained"):
        check_layer(net, TargetLayer.of(net, "network.features"), x)
    inner = find_layer(net.network, x).name
    assert find_layer(SelectOutput(net, select), x).name == f"model.network.{inner}"


def test_hugging_face() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=5,
    )
    net, x = transformers.ViTForImageClassification(config).eval(), torch.rand(1, 3, 32, 32)
    with pytest.raises(TypeError, match=r"SelectOutput\(model, 'logits'\)"):
        find_layer(net, x)
    layer = find_layer(SelectOutput(net, "logits"), x)
    assert layer.name.endswith("layers.1.layernorm_before")
    assert layer.reshape_transform.keywords == {"grid": (4, 4), "n_prefix": 1}
