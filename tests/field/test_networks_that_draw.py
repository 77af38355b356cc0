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
