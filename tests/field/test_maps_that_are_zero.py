"""A map of zeros is a warning, whatever the method."""

from __future__ import annotations

import warnings

import pytest
import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_groupcam import RISE, GradCAM, GroupCAM, LayerCAM, ScoreCAM
from captum_groupcam.attr.several_layers import SeveralLayers
from captum_groupcam.attr.smoothed import Smoothed
from captum_groupcam.masking.network import class_probability, raw_score
from captum_groupcam.methods import METHODS
from tests.toy_networks import FORMULAS, classifier, images

ZERO = r"The maps of samples \[1\] are zero: activations or gradients"


class Gated(nn.Module):
    """Sees nothing of a dark image: its activations there are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU())
        nn.init.uniform_(self.features[0].weight, 0, 1)
        self.pooling, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)
        nn.init.uniform_(self.head.weight, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pooling(self.features(x)).flatten(1))


@pytest.fixture
def bright_and_dark() -> Tensor:
    x = images(2, 12, 12)
    x[1] = 0
    return x


@pytest.mark.parametrize("method", FORMULAS)
def test_formulas_of_a_layer(method, bright_and_dark: Tensor) -> None:
    network = Gated().eval()
    with pytest.warns(UserWarning, match=ZERO):
        maps = method(network, network.features).attribute(bright_and_dark, 1)
    assert maps[0].any()
    assert not maps[1].any()


@pytest.mark.parametrize("name", ["grad_cam", "layer_cam", "saliency", "input_x_gradient"])
def test_the_registry(name: str) -> None:
    class Dead(Gated):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * x.flatten(1).amax(1, keepdim=True).clamp(0, 1).round()

    network, x = Dead().eval(), images(2, 12, 12)
    x[1] = -x[1].abs() - 1  # below zero, where nothing is left of the output
    with pytest.warns(UserWarning, match=ZERO):
        maps = METHODS[name](network, network.features)(x, 1)
    assert maps[0].any()
    assert not maps[1].any()


def test_only_positive_ones() -> None:
    network = classifier()
    with torch.no_grad():
        network.head[-1].weight.fill_(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradCAM(network, network.features).attribute(images(1), 1)
    with pytest.warns(UserWarning, match=r"samples \[0\] are zero: .*relu_attributions=True"):
        GradCAM(network, network.features).attribute(images(1), 1, relu_attributions=True)


def test_each_input_that_has_a_call_of_its_own() -> None:
    network = Gated().eval()

    def both(a: Tensor, b: Tensor) -> Tensor:
        return network(a) + network(b)

    x = images(1, 12, 12)
    with pytest.warns(UserWarning, match=r"samples \[0\] are zero: activations or gradients"):
        maps = GradCAM(both, network.features).attribute((x, x * 0), 1, layer_call=(0, 1))
    assert maps[0].any()


def test_once_for_what_is_asked_several_times(bright_and_dark: Tensor) -> None:
    network = Gated().eval()
    asked = [
        lambda: Smoothed(GradCAM(network, network.features)).attribute(bright_and_dark, 1),
        lambda: SeveralLayers(LayerCAM, network, [network.features[1], network.features]).attribute(
            bright_and_dark, 1
        ),
        lambda: METHODS["layer_cam"](network, network.features, smooth="flips")(bright_and_dark, 1),
        lambda: Smoothed(Saliency(lambda x: network(x) * 0)).attribute(bright_and_dark, target=1),
    ]
    for ask in asked:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ask()
        said = [str(w.message) for w in caught if "are zero" in str(w.message)]
        assert len(said) == 1, said


ALONE = r"The maps of samples \[0, 1\] are the sum of their masks.*no mask moved.*raw_score"
MERGING = {
    "RISE": lambda f, x, **o: RISE(f).attribute(x, target=1, n_masks=20, **o),
    "RISE of targets": lambda f, x, **o: RISE(f).attribute(x, targets=[1, 2], n_masks=20, **o),
    "ScoreCAM": lambda f, x, **o: ScoreCAM(f, NETWORK.features).attribute(x, 1, **o),
    "ScoreCAM of noise": lambda f, x, **o: ScoreCAM(f, NETWORK.features).attribute(
        x, 1, smoothing="noise", n_samples=2, **o
    ),
}
NETWORK = classifier(seed=2)


def saturated(x: Tensor) -> Tensor:
    """The softmax of one class is 1 up to rounding, whatever is seen; logits differ."""
    return NETWORK(x).tanh() + 30 * torch.eye(5)[1]


def constant(x: Tensor) -> Tensor:
    return NETWORK(x) * 0 + torch.arange(5)


@pytest.mark.parametrize("network", [saturated, constant])
@pytest.mark.parametrize("method", MERGING)
def test_masks_that_move_no_score(method: str, network) -> None:
    score = {"score_func": class_probability} if "ScoreCAM" in method else {}
    with pytest.warns(UserWarning, match=ALONE):
        MERGING[method](network, images(2, 12, 12), **score)


@pytest.mark.parametrize("method", MERGING)
def test_masks_that_move_it_are_no_alarm(method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MERGING[method](NETWORK, images(2, 12, 12))
        # As the warning says, the output before its softmax tells masks apart.
        MERGING[method](saturated, images(2, 12, 12), score_func=raw_score)


def test_channels_that_are_all_alike_are_no_alarm() -> None:
    """Then masks are one, whose score is that of the map."""
    convolution = nn.Conv2d(3, 4, 3, bias=False)
    nn.init.constant_(convolution.weight, 0.1)
    network = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ScoreCAM(network, network[1]).attribute(images(2), 1).any()


def test_group_cam_of_a_saturated_network_is_zero() -> None:
    explainer, x = GroupCAM(saturated, NETWORK.features), images(2, 12, 12)
    options = {"n_groups": 4, "gradient_free": True}
    for relu in (True, False):
        with pytest.warns(UserWarning, match=r"\[0, 1\] are zero: no mask moved.*raw_score"):
            assert not explainer.attribute(x, 1, relu_attributions=relu, **options).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options |= {"score_func": raw_score, "relu_attributions": False}
        assert explainer.attribute(x, 1, **options).flatten(1).any(1).all()


def test_what_was_given_is_not_advised() -> None:
    def lowered(x: Tensor) -> Tensor:
        return -features(x).mean((1, 2, 3))

    features = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU())
    nn.init.constant_(features[0].weight, 0.1)
    explain = GroupCAM(lowered, features).attribute
    options = {"baselines": 0.0, "n_groups": 4, "gradient_free": True}
    with pytest.warns(UserWarning, match="signed map with relu_attributions=False"):
        explain(images(1), **options)
    with pytest.warns(UserWarning, match="no mask raised.*relu_scores=False") as seen:
        explain(images(1), relu_attributions=False, relu_scores=True, **options)
    assert "relu_attributions" not in str(seen[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert explain(images(1), relu_attributions=False, **options).any()
