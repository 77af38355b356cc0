from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, resnet18

from captum_groupcam import GroupCAM
from captum_groupcam.analysis.layer_advice import candidate_layers, suggest_layer
from captum_groupcam.metrics.functional import DeletionInsertionProtocol, deletion_insertion
from captum_groupcam.models import ImageClassifier
from captum_groupcam.networks.layers import find_layer
from tests.toy_networks import hooks, images, seeded


def network(*head: nn.Module) -> nn.Sequential:
    def make() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            *(head or (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))),
        )

    return seeded(make).eval()


pytestmark = pytest.mark.filterwarnings("ignore:The map")  # those of so small a net may be zero


def test_values_are_those_of_deletion_and_insertion() -> None:
    net, inputs = network(), images(3, 16, 16)
    targets = net(inputs).argmax(1)
    advice = suggest_layer(net, inputs, n_groups=4)
    assert {one.layer.name for one in advice} == {"1", "4"}
    values = {}
    for one in advice:
        assert one.layer.module is net[int(one.layer.name)]
        maps = GroupCAM(net, one.layer.module).attribute(inputs, targets, n_groups=4)
        values[one.layer.name] = deletion_insertion(
            net, maps, inputs, targets, protocol=DeletionInsertionProtocol(step=0.04)
        ).over_all
        assert one.over_all.mean == pytest.approx(float(values[one.layer.name].mean()), abs=1e-6)
        assert one.over_all.low <= one.over_all.mean <= one.over_all.high
        assert one.over_all.n == 3
    best, other = advice
    assert best.over_all.mean >= other.over_all.mean
    assert best.difference_to_best == (0.0, 0.0, 0.0, 3)
    difference = values[other.layer.name] - values[best.layer.name]
    assert other.difference_to_best.mean == pytest.approx(float(difference.mean()), abs=1e-6)
    assert (
        difference.min()
        <= other.difference_to_best.low
        <= other.difference_to_best.high
        <= difference.max()
    )


def test_named_layers_and_targets() -> None:
    net, inputs = network(), images(2, 16, 16)
    before = hooks(net)
    advice = suggest_layer(net, inputs, 3, layers=["0", "3"], n_groups=2, show_progress=False)
    assert {one.layer.name for one in advice} == {"0", "3"}
    again = suggest_layer(net, inputs, [3, 3], layers=["3", "0"], n_groups=2)
    assert {one.layer.name: one[1:] for one in advice} == {one.layer.name: one[1:] for one in again}
    assert hooks(net) == before


def test_a_network_with_one_output_needs_no_target() -> None:
    net = network(nn.AdaptiveAvgPool2d(1), nn.Flatten(0))
    with pytest.raises(ValueError, match="one row for each"):
        suggest_layer(net, images(2, 16, 16))  # 16 values for 2 images
    net = network(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1), nn.Flatten(0))
    assert len(suggest_layer(net, images(2, 16, 16), n_groups=2)) == 2


def test_additional_arguments_reach_the_network() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, inputs: Tensor, factors: Tensor) -> Tensor:
            return self.net(inputs) * factors

    inputs = images(5, 16, 16)
    scaled = suggest_layer(
        Scaled().eval(), inputs, additional_forward_args=torch.ones(5, 1), n_groups=2
    )
    plain = suggest_layer(network(), inputs, n_groups=2)
    assert [one.over_all for one in scaled] == [one.over_all for one in plain]
    named = suggest_layer(
        Scaled().eval(), inputs, 3, torch.ones(5, 1), layers=["net.4"], n_groups=2
    )
    assert [one.over_all.n for one in named] == [5]


def test_what_cannot_be_ranked_is_refused() -> None:
    net, inputs = network(), images(2, 16, 16)
    with pytest.raises(ValueError, match="no layer 'features'"):
        suggest_layer(net, inputs, layers=["features"])
    with pytest.raises(ValueError, match="at least one name"):
        suggest_layer(net, inputs, layers=[])
    with pytest.raises(ValueError, match="at least one name"):
        suggest_layer(net, inputs, layers="4")
    with pytest.raises(ValueError, match="give a target"):
        suggest_layer(network(nn.Conv2d(8, 5, 1)), inputs)


def test_candidates_are_the_stages_of_a_residual_network() -> None:
    names = [layer.name for layer in candidate_layers(resnet18().eval(), torch.rand(1, 3, 64, 64))]
    assert names == ["relu", "layer1", "layer2", "layer3", "layer4"]


def test_blocks_of_a_transformer_are_named() -> None:
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, "num_classes": 5}
    vit = seeded(lambda: VisionTransformer(image_size=32, patch_size=8, **sizes))
    nn.init.normal_(vit.heads.head.weight)
    inputs = images(1, 32, 32)
    (last,) = candidate_layers(vit.eval(), inputs)
    assert last.reshape_transform is not None
    names = ["encoder.layers.encoder_layer_0", last.name]
    advice = suggest_layer(
        vit, inputs, layers=names, n_groups=2, protocol=DeletionInsertionProtocol(step=0.5)
    )
    assert {one.layer.name for one in advice} == set(names)


def test_layer_advice_on_real_images(lite0: ImageClassifier, images: Callable[..., Tensor]) -> None:
    inputs = images("cat", "coffee")
    candidates = candidate_layers(lite0.network, inputs[:1])
    assert [layer.name for layer in candidates[1:-1]] == ["_blocks.2", "_blocks.4", "_blocks.10"]
    assert candidates[-1] == find_layer(lite0.network, inputs[:1])
    advice = suggest_layer(
        lite0.network,
        inputs,
        layers=[candidates[0], candidates[-1]],
        n_groups=8,
        protocol=DeletionInsertionProtocol(step=0.2),
    )
    # Edges and colours say little of what makes a cat.
    assert [one.layer for one in advice] == [candidates[-1], candidates[0]]
    assert advice[0].over_all.mean > 0 > advice[1].difference_to_best.mean
