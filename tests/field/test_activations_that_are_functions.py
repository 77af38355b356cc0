"""Guided methods see modules of ReLU only: what else there is they refuse, or name."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam.attr import guided_methods
from captum_groupcam.methods import METHODS
from tests.toy_networks import SmallCNN, hooks, images

GUIDED = ["guided_backprop", "deconvolution", "guided_grad_cam"]


class Mixed(nn.Module):
    """A ReLU module, then any activation."""

    def __init__(self, activation: Callable[[Tensor], Tensor], *, called: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.relu, self.head = nn.ReLU(), nn.Linear(6, 5)
        self.called = called
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.activation(self.second(self.relu(x) if self.called else x))
        return self.head(x.mean((2, 3)))


def explain(name: str, network: nn.Module) -> Tensor:
    return METHODS[name](network.eval(), getattr(network, "second", None))(images(2, 12, 12), 1)


FUNCTIONS = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu_(x),
    "relu6": F.relu6,
    "threshold": lambda x: F.threshold(x, 0, 0),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
}


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_relu_that_is_no_module_is_an_error(name, function) -> None:
    network = Mixed(FUNCTIONS[function])
    with pytest.raises(ValueError, match=r"pass over the 1 .* functions .* nn\.ReLU or nn\.ReLU6"):
        explain(name, network)
    assert not hooks(network).total()


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize(
    ("activation", "title"),
    [(nn.GELU(), "GELU"), (F.silu, "SiLU"), (nn.Hardtanh(), "Hardtanh"), (nn.LeakyReLU(), "Leaky")],
)
def test_other_activations_are_named(name, activation, title) -> None:
    with pytest.warns(UserWarning, match=f"pass back plain gradients: {title}"):
        explain(name, Mixed(activation))


def test_a_module_that_is_not_called_does_not_count() -> None:
    for activation in (nn.GELU(), F.relu):
        with pytest.raises(ValueError, match="none that it calls"):
            explain("guided_backprop", Mixed(activation, called=False))


class Beside(nn.Module):
    """Functions that are not on the way from the input to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.second = SmallCNN().float()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        F.relu(x)
        return self.second(x.clamp(0, 1)) * F.relu(self.weight)


def test_what_is_not_on_the_way_or_keeps_a_picture_in_its_range_does_not_count() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", r"\s*Setting backward hooks")
        guided_methods.guided_backprop(Beside().eval(), images(2, 12, 12).requires_grad_(), 1)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6()])
def test_modules_are_guided_as_before(activation) -> None:
    network = Mixed(activation)
    assert explain("guided_backprop", network).std() > 0
    assert not hooks(network).total()


@pytest.mark.parametrize(("name", "ends_in_function"), [("resnet18", False), ("densenet121", True)])
def test_networks_of_torchvision(name, ends_in_function) -> None:
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    method = METHODS["guided_backprop"](network)
    if ends_in_function:
        with pytest.raises(ValueError, match="pass over the 1"):
            method(images(1, 64, 64), 1)
    else:
        assert method(images(1, 64, 64), 1).std() > 0
