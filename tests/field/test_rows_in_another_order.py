"""Networks that sort their samples before the layer, and give them back in order."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from captum_groupcam import GradCAM, GroupCAM, LayerCAM
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
}


def rising(n: int) -> Tensor:
    """Images of which each is brighter than the one before."""
    return images(n, 12, 12) + torch.arange(float(n)).view(n, 1, 1, 1)


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
