"""A network that is wrapped once explains by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from captum_groupcam import GroupCAM
from captum_groupcam.methods import Method
from captum_groupcam.models import ImageClassifier, Preprocessing
from captum_groupcam.networks import TargetLayer, find_layer
from tests.toy_networks import classifier

PREPROCESS = Preprocessing(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
NAMES = ["ant", "bee", "cat", "dog", "eel"]


def test_all_that_a_front_end_asks_of_it() -> None:
    network = classifier()
    model = ImageClassifier(network.train(), PREPROCESS, NAMES)
    assert model.network is network
    assert not network.training
    assert (model.name, model.class_names, model.source) == ("Classifier", NAMES, None)
    assert model.layer == find_layer(network, torch.zeros(1, 3, 32, 32))
    photo = Image.effect_noise((50, 40), 80).convert("RGB")
    inputs = model.prepare(photo)
    probabilities, classes = model.classify(inputs)
    assert torch.equal(probabilities, network(inputs).softmax(1).gather(1, classes))
    maps = model.explain("group_cam", inputs, 3, n_groups=4)
    layer = model.layer.module
    assert torch.equal(maps, GroupCAM(network, layer).attribute(inputs, 3, n_groups=4))


def test_an_accelerated_one_explains_alike() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    model = ImageClassifier(network, PREPROCESS, NAMES)
    fast = model.accelerated()
    assert model.network is network
    assert fast.notes == ("1 batch normalisations are folded for queries",)
    assert fast.layer.module is model.layer.module
    assert fast.at_layer("0").layer.module is network[0]
    inputs = model.prepare(Image.effect_noise((50, 40), 80).convert("RGB"))
    for method in ("rise", "group_cam", "grad_cam", "hires_cam"):
        options = {"rise": {"n_masks": 20}, "group_cam": {"n_groups": 4}}.get(method, {})
        maps = [each.explain(method, inputs, 3, **options) for each in (model, fast)]
        torch.testing.assert_close(maps[1], maps[0], rtol=1e-3, atol=1e-6)


def test_a_method_of_ones_own() -> None:
    model = ImageClassifier(classifier(), PREPROCESS)
    assert model.class_names == [f"class {index}" for index in range(5)]
    method = Method("mine", "Mine", lambda model, inputs, target, *, power=1.0: inputs[:, :1])
    inputs = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.explain(method, inputs, 0), inputs[:, :1])


def test_a_network_without_positions_can_be_explained_without_a_layer() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    model = ImageClassifier(network, PREPROCESS)
    inputs = torch.rand(1, 3, 32, 32)
    assert model.explain("input_x_gradient", inputs, 0).shape == (1, 1, 32, 32)
    with pytest.raises(ValueError, match="spatial"):
        model.explain("grad_cam", inputs, 0)


@pytest.mark.parametrize("way", ["name", "module", "layer", "layer without a name", "changed"])
def test_the_layer_is_given_in_any_way(way: str) -> None:
    network = classifier()
    inner = network.features[1]
    given: Any = {
        "name": "features.1",
        "module": inner,
        "layer": TargetLayer.of(network, "features.1"),
        "layer without a name": TargetLayer(inner),
    }
    if way == "changed":
        model = ImageClassifier(network, PREPROCESS, layer="features").at_layer("features.1")
    else:
        model = ImageClassifier(network, PREPROCESS, layer=given[way])
    assert model.layer == TargetLayer(inner, "features.1")


class Scores(NamedTuple):
    scores: Tensor
    features: Tensor


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits, self.hidden = logits, None


class Wrapped(nn.Module):
    """A network that packs what it gives."""

    def __init__(self, pack: Any) -> None:
        super().__init__()
        self.network, self.pack = classifier(), pack

    def forward(self, inputs: Tensor) -> Any:
        return self.pack(self.network(inputs), inputs)


@pytest.mark.parametrize(
    "pack",
    [
        lambda scores, inputs: {"logits": scores, "loss": None},
        lambda scores, inputs: (scores,),
        lambda scores, inputs: Scores(scores, inputs),
        lambda scores, inputs: Output(scores),
    ],
    ids=["mapping", "tuple", "named tuple", "object"],
)
def test_the_one_output_with_classes_is_taken(pack) -> None:
    model = ImageClassifier(Wrapped(pack), PREPROCESS, NAMES)
    plain = ImageClassifier(classifier(), PREPROCESS, NAMES)
    inputs = torch.rand(1, 3, 32, 32)
    expected = plain.explain("group_cam", inputs, 1, n_groups=4)
    assert torch.equal(model.explain("group_cam", inputs, 1, n_groups=4), expected)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"network": lambda x: x}, TypeError, "Expected a torch.nn.Module, got function"),
        ({"preprocess": None}, TypeError, "turns a PIL image into C x H x W, got NoneType"),
        ({"class_names": NAMES[:2]}, ValueError, "tells 5 classes apart, but there are 2 class"),
        ({"layer": "feature"}, ValueError, "no layer 'feature'; did you mean features"),
        ({"layer": nn.ReLU()}, ValueError, "The layer, a ReLU, is not part of the network"),
        ({"mean": (0, 0, 0)}, ValueError, "Give mean and std, or neither"),
        (
            {"network": Wrapped(lambda scores, inputs: (scores, scores))},
            ValueError,
            r"gives tuple with 2 tensors of N x classes \(\[0, 1\]\): .*SelectOutput",
        ),
        (
            {"network": Wrapped(lambda scores, inputs: "cat")},
            ValueError,
            "gives str with 0 tensors of N x classes",
        ),
        (
            {"network": nn.Conv2d(3, 5, 3)},
            ValueError,
            r"Expected Conv2d to give N x classes, got \(1, 5, 30, 30\)",
        ),
        (
            {"network": classifier(in_channels=1)},
            ValueError,
            r"Classifier cannot take what its preprocessing gives, \(1, 3, 32, 32\): RuntimeError",
        ),
        (
            {"preprocess": transforms.Resize(32)},
            ValueError,
            "must turn a PIL image into floating-point C x H x W; it gave Image",
        ),
        ({"preprocess": lambda image: image.nothing}, ValueError, "cannot take a picture: Attrib"),
    ],
)
def test_what_does_not_fit(arguments: dict[str, Any], kind, message: str) -> None:
    given = {"network": classifier(), "preprocess": PREPROCESS, **arguments}
    with pytest.raises(kind, match=message) as caught:
        ImageClassifier(**given)
    assert len(str(caught.value).splitlines()) == 1
