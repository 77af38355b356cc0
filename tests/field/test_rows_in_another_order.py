"""Networks that sort their samples before the layer, and give them back in order."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from captum_groupcam import AblationCAM, GradCAM, GroupCAM, LayerCAM, ScoreCAM
from tests.toy_networks import Recorder, classifier, images

NETWORK = classifier(seed=2)
LAYER = NETWORK.features


def sorting(x: Tensor) -> Tensor:
    order = x.mean((1, 2, 3)).argsort(descending=True)
    return NETWORK.head(LAYER(x[order]))[order.argsort()]


def turning(x: Tensor) -> Tensor:
    return NETWORK.head(LAYER(x.flip(0))).flip(0)


def after_the_layer(x: Tensor) -> Tensor:
    order = x.mean((1, 2, 3)).argsort(descending=True)
    return NETWORK.head(LAYER(x)[order])[order.argsort()]


METHODS: dict[str, Callable[..., Tensor]] = {
    "GradCAM": lambda f, x, **o: GradCAM(f, LAYER).attribute(x, 1, **o),
    "LayerCAM": lambda f, x, **o: LayerCAM(f, LAYER).attribute(x, 1, **o),
    "GroupCAM": lambda f, x, **o: GroupCAM(f, LAYER).attribute(x, 1, n_groups=4, **o),
    "GroupCAM without gradients": lambda f, x, **o: GroupCAM(f, LAYER).attribute(
        x, 1, n_groups=4, gradient_free=True, relu_attributions=False, **o
    ),
    "ScoreCAM": lambda f, x, **o: ScoreCAM(f, LAYER).attribute(x, 1, **o),
    "AblationCAM": lambda f, x, **o: AblationCAM(f, LAYER).attribute(x, 1, **o),
}


def rising(n: int) -> Tensor:
    """Images of which each is brighter than the one before."""
    return images(n, 12, 12) + torch.arange(float(n)).view(n, 1, 1, 1)


# A channel that is taken from another sample than was meant is a warning of its own.
@pytest.mark.filterwarnings("ignore:The network's answer for a row depends on the rows beside it")
@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("network", [sorting, turning])
@pytest.mark.parametrize("method", METHODS)
def test_it_is_named_and_one_row_at_a_time_is_right(method, network, n: int) -> None:
    explain, x = METHODS[method], rising(n)
    with pytest.warns(UserWarning, match="not in the order of the samples.*batch_size=1"):
        explain(network, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explain(network, x, internal_batch_size=1)
        expected = explain(NETWORK, x, internal_batch_size=1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_another_order_after_the_layer_is_no_alarm(method) -> None:
    x = rising(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The maps of samples")
        found = METHODS[method](after_the_layer, x)
        torch.testing.assert_close(found, METHODS[method](NETWORK, x))


@pytest.mark.parametrize("how", ["bfloat16", "float16", "float64", "autocast"])
def test_rounding_is_no_alarm(how: str) -> None:
    dtype = torch.float32 if how == "autocast" else getattr(torch, how)
    network = classifier(seed=2).to(dtype)
    x = images(8, 12, 12).to(dtype)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast")
    with warnings.catch_warnings(), autocast:
        warnings.simplefilter("error")
        GradCAM(network, network.features).attribute(x, 1)
        ScoreCAM(network, network.features).attribute(x, 1)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_every_order_but_that_of_the_samples_is_noticed_without_gradients(n: int) -> None:
    """A network that sorts, whichever samples stay in place."""
    x = rising(n)
    for order in itertools.permutations(range(n)):
        given = x[list(order)]
        in_order = list(order) == sorted(order, reverse=True)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            METHODS["ScoreCAM"](sorting, given)
        said = [one for one in seen if "not in the order" in str(one.message)]
        assert said or in_order, order


def test_samples_that_are_the_same_are_no_alarm() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        METHODS["ScoreCAM"](NETWORK, images(1, 12, 12).expand(4, -1, -1, -1))


def test_samples_without_gradients_are_no_alarm() -> None:
    def saturated(x: Tensor) -> Tensor:
        return NETWORK(x) * torch.tensor([1.0, 0.0, 0.0, 1.0]).view(4, 1)

    for forward in (saturated, lambda x: NETWORK(x) * 0):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            GradCAM(forward, LAYER).attribute(images(4, 12, 12), 1)
        assert not [one for one in seen if "in the order" in str(one.message)]


def test_tokens_first_are_no_alarm_and_cost_no_pass() -> None:
    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = torch.nn.Linear(3, 8), torch.nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(x.flatten(2).permute(2, 0, 1)).relu().mean(0))

    network = Tokens().eval()
    recorder = Recorder(network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradCAM(recorder, network.first).attribute(
            images(4, 4, 4),
            1,
            reshape_transform=lambda tokens: tokens.permute(1, 2, 0).unflatten(2, (4, 4)),
        )
    assert recorder.batch_sizes[-1] == 4
