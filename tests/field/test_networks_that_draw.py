"""Networks whose answers depend on chance although they are in evaluation mode."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam import RISE, FullGrad, GradCAM, GroupCAM
from tests.toy_networks import classifier, images


class Dropping(nn.Module):
    """Drops activations at all times, or draws a number that it does not use."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.inner, self.rate = classifier(), rate
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.head(F.dropout(self.inner.features(x), self.rate))


EXPLAIN = {
    "GroupCAM": lambda net, x: GroupCAM(net, net.inner.features).attribute(x, 1, n_groups=4),
    "GradCAM": lambda net, x: GradCAM(net, net.inner.features).attribute(x, 1),
    "RISE": lambda net, x: RISE(net).attribute(x, target=1, n_masks=4),
    "FullGrad": lambda net, x: FullGrad(net).attribute(x, 1),
}


@pytest.mark.parametrize("name", EXPLAIN)
def test_dropout_of_a_function_is_named(name: str) -> None:
    with pytest.warns(UserWarning, match=r"draws random numbers in evaluation mode.*F\.dropout"):
        EXPLAIN[name](Dropping(0.5), images(2))


@pytest.mark.parametrize("name", EXPLAIN)
def test_numbers_that_change_nothing_are_no_alarm(name: str) -> None:
    network = Dropping(0.5)
    network.inner.features.register_forward_hook(lambda *_: torch.rand(1) and None)
    network.forward = network.inner.forward
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The maps of samples")
        EXPLAIN[name](network, images(2))
    assert not torch.equal(torch.get_rng_state(), before)


class DroppingFew(nn.Module):
    """Drops one of four pooled values now and then, so that most answers are the same."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.conv, self.fc, self.rate = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3), rate
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.conv(x).relu().mean((2, 3)), self.rate))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_it_is_chance_and_not_the_rows_beside(rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    network, x = DroppingFew(rate), images(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        GroupCAM(network, network.conv).attribute(x, 1, n_groups=4)
    messages = " ".join(str(one.message) for one in caught)
    assert "draws random numbers in evaluation mode" in messages
    assert "rows beside it" not in messages


class Counting(nn.Module):
    """Depends on the rows beside one, and draws numbers that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = DroppingFew(0.0)

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1)
        return self.inner(x) * len(x)


def test_rows_beside_are_named_where_numbers_change_nothing() -> None:
    network = Counting().eval()
    with pytest.warns(UserWarning, match="depends on the rows beside it"):
        RISE(network).attribute(images(2), target=1, n_masks=8)
