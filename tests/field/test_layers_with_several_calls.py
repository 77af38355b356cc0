"""A module that runs several times in one pass: which call is meant is said, or asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import (
    ConsensusGroupCAM,
    GradCAM,
    GradCAMPlusPlus,
    GroupCAM,
    LayerCAM,
    ScoreCAM,
)


class Siamese(nn.Module):
    """One encoder for two images: how bright they are together, and the opposite."""

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(1, 4, 1, bias=False)
        nn.init.constant_(convolution.weight, 1.0)
        self.encoder = nn.Sequential(convolution, nn.ReLU(inplace=True))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        total = sum(self.encoder(image).mean((1, 2, 3)) for image in (a, b))
        return torch.stack([total, -total], 1) * 20


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    """A spot at the top left of one, at the bottom right of the other."""
    a, b = torch.zeros(2, 1, 1, 16, 16)
    a[..., :4, :4] = 1
    b[..., -4:, -4:] = 1
    return a, b


@pytest.mark.parametrize("method", [GroupCAM, ScoreCAM, GradCAM, LayerCAM, ConsensusGroupCAM])
def test_the_call_has_to_be_said(method, images) -> None:
    network = Siamese().eval()
    a, b = images
    explainer = method(network, network.encoder)
    with pytest.raises(ValueError, match=r"runs 2 times in one pass.*layer_call=0 to 1"):
        explainer.attribute(a, 0, additional_forward_args=b)
    with pytest.raises(ValueError, match=r"layer_call must be from 0 to 1, got 2"):
        explainer.attribute(a, 0, additional_forward_args=b, layer_call=2)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("method", [GroupCAM, ScoreCAM, GradCAM, LayerCAM])
def test_each_input_has_the_map_of_its_own_call(method, images) -> None:
    network = Siamese().eval()
    a, b = images
    explainer = method(network, network.encoder)
    options = {} if method in (GradCAM, LayerCAM) else {"baselines": 0.0}
    of_a = explainer.attribute(a, 0, additional_forward_args=b, layer_call=0, **options)
    swapped = method(lambda second, first: network(first, second), network.encoder)
    of_b = swapped.attribute(b, 0, additional_forward_args=a, layer_call=1, **options)
    assert of_a[0, 0, :4, :4].min() > 0
    assert of_a[0, 0, 5:, 5:].max() == 0
    assert of_b[0, 0, -4:, -4:].min() > 0
    assert of_b[0, 0, :-5, :-5].max() == 0


class Comparing(nn.Module):
    """A shared encoder for two images of any sizes, and a number besides."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.fc = nn.Linear(17, 5)

    def forward(self, a: Tensor, number: Tensor, b: Tensor) -> Tensor:
        a, b = (self.encoder(image).mean((2, 3)) for image in (a, b))
        return self.fc(torch.cat([a, b, number], 1))


@pytest.mark.filterwarnings("ignore:The maps of samples")
@pytest.mark.parametrize("internal_batch_size", [1, 2, None])
@pytest.mark.parametrize(
    "method", [GroupCAM, ConsensusGroupCAM, ScoreCAM, GradCAM, GradCAMPlusPlus, LayerCAM]
)
def test_one_call_gives_the_map_of_each_input(method, internal_batch_size) -> None:
    """They are those of one input after the other, the others as additional arguments."""
    torch.manual_seed(0)
    network = Comparing().eval()
    a, b, number = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 12, 20), torch.rand(3, 1)
    target = torch.tensor([0, 3, 4])
    options = {"internal_batch_size": internal_batch_size, "relu_attributions": False}
    if method is ConsensusGroupCAM:
        del options["relu_attributions"]
    explainer = method(network, network.encoder)
    maps = explainer.attribute((a, number, b), target, layer_call=(0, None, 1), **options)
    assert isinstance(maps, tuple)
    of_a = explainer.attribute(
        a, target, additional_forward_args=(number, b), layer_call=0, **options
    )
    swapped = method(lambda b, a, number: network(a, number, b), network.encoder)
    of_b = swapped.attribute(
        b, target, additional_forward_args=(a, number), layer_call=1, **options
    )
    assert of_a.shape != of_b.shape
    torch.testing.assert_close(maps, (of_a, torch.zeros(3, 1), of_b))
    # Only one of them.
    alone = explainer.attribute((a, number, b), target, layer_call=(None, None, 1), **options)
    torch.testing.assert_close(alone, (torch.zeros(3, 1), torch.zeros(3, 1), of_b))


@pytest.mark.parametrize("layer_call", ["0", 0.0, True, [0, 1], (0, "1", None)])
@pytest.mark.parametrize("method", [GroupCAM, GradCAM])
def test_calls_that_are_no_numbers(method, layer_call) -> None:
    network = Comparing().eval()
    inputs = torch.rand(1, 3, 16, 16), torch.rand(1, 1), torch.rand(1, 3, 12, 20)
    with pytest.raises(TypeError, match=r"layer_call must be an int.*or a tuple of such.*got"):
        method(network, network.encoder).attribute(inputs, 0, layer_call=layer_call)


@pytest.mark.parametrize(
    ("layer_call", "message"),
    [
        ((0, 1), r"has the call of each of the 3 inputs.*got \(0, 1\)"),
        ((None, None, None), "has the call of each of the 3 inputs"),
        ((0, 1, 1), r"Input 1 has no spatial dimensions, its shape is \(2, 1\)"),
        ((0, None, 2), "must be from 0 to 1, got 2"),
    ],
)
@pytest.mark.parametrize("method", [GroupCAM, GradCAM])
def test_a_tuple_of_calls_that_does_not_fit_the_inputs(method, layer_call, message) -> None:
    network = Comparing().eval()
    inputs = torch.rand(2, 3, 16, 16), torch.rand(2, 1), torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match=message):
        method(network, network.encoder).attribute(inputs, 0, layer_call=layer_call)


def test_scores_and_masks_are_those_of_one_call() -> None:
    network = Comparing().eval()
    inputs = torch.rand(2, 3, 16, 16), torch.rand(2, 1), torch.rand(2, 3, 16, 16)
    for method, option in (
        (GroupCAM, "return_group_scores"),
        (GroupCAM, "return_group_masks"),
        (ConsensusGroupCAM, "return_effects"),
    ):
        with pytest.raises(ValueError, match="those of one call of the layer"):
            method(network, network.encoder).attribute(
                inputs, 0, layer_call=(0, None, 1), **{option: True}
            )


def test_a_call_of_a_shared_activation_is_the_layer_before_it() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
            self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.second(self.relu(self.first(x))))
            return self.head(x.mean((2, 3)))

    network, x = Shared().eval(), torch.rand(3, 3, 12, 12)
    for call, size in ((0, 10), (1, 8)):
        maps = GradCAM(network, network.relu).attribute(x, [0, 3, 4], layer_call=call)
        assert maps.shape == (3, 1, size, size)
        # By hand, from the activations on.
        with torch.no_grad():
            given = network.first(x)
            given = given if call == 0 else network.second(given.relu())
        leaf = given.relu().detach().requires_grad_()
        rest = network.second(leaf).relu() if call == 0 else leaf
        output = network.head(rest.mean((2, 3)))
        (gradients,) = torch.autograd.grad(output[range(3), [0, 3, 4]].sum(), leaf)
        expected = (gradients.mean((2, 3), keepdim=True) * leaf).sum(1, keepdim=True)
        torch.testing.assert_close(maps, expected.detach())
    before = {name: p.grad for name, p in network.named_parameters()}
    assert set(before.values()) == {None}


def test_checkpoints_run_a_layer_again_only_backwards() -> None:
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

        def forward(self, x: Tensor) -> Tensor:
            x = self.features[0](x)
            return self.head(checkpoint(self.features[1], x, use_reentrant=False))

    network, x = Checkpointed().eval(), torch.rand(1, 3, 12, 12)
    maps = GradCAM(network, network.features[0]).attribute(x, 2)
    assert maps.shape == (1, 1, 10, 10)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_reentrant_checkpoint_is_named_as_a_reason() -> None:
    from torch.utils.checkpoint import checkpoint

    class Reentrant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(checkpoint(self.features, x, use_reentrant=True))

    network, x = Reentrant().eval(), torch.rand(1, 3, 12, 12)
    with pytest.raises(ValueError, match=r"checkpoints with use_reentrant=True"):
        GradCAM(network, network.features[0]).attribute(x, 2)
