"""Activations of the accelerated copy overwrite only what nothing else reads."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam.networks import accelerate
from tests.toy_networks import images, seeded


class Activated(nn.Module):
    """A convolution, an activation and a head; `read` says what else takes its output."""

    def __init__(self, read: str = "nothing", activation: nn.Module | None = None) -> None:
        super().__init__()
        self.read = read
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.activation = activation or nn.ReLU6()
        self.head = nn.Linear(8, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        """N x 3 x H x W to N x 5."""
        made = self.norm(self.conv(inputs))
        activated = self.activation(made)
        if self.read == "what was made":
            activated = activated + made
        elif self.read == "another":
            activated = activated + self.activation(inputs.mean(1, keepdim=True)) + inputs[:, :1]
        outputs: Tensor = self.head(activated.mean((2, 3)))
        return outputs


def in_place(network: nn.Module) -> bool:
    """Whether the activation of the copy works in place."""
    copied = accelerate(network, images(1))._copied.network
    assert isinstance(copied, Activated)
    return bool(copied.activation.inplace)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.ELU(), nn.Mish()],
    ids=lambda one: type(one).__name__,
)
def test_what_a_convolution_makes_is_overwritten(activation: nn.Module) -> None:
    network = seeded(lambda: Activated(activation=activation)).eval()
    assert in_place(network)
    assert not activation.inplace  # of the network itself
    inputs = images(3)
    with torch.no_grad():
        torch.testing.assert_close(accelerate(network, inputs)(inputs), network(inputs))


def test_what_something_else_reads_is_kept() -> None:
    network = seeded(lambda: Activated("what was made")).eval()
    with pytest.warns(UserWarning, match="Activations do not work in place"):
        assert not in_place(network)
    inputs = images(3)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(accelerate(network, inputs)(inputs), network(inputs))


def test_an_activation_that_takes_something_else_too_is_left_alone() -> None:
    network = seeded(lambda: Activated("another")).eval()
    inputs = images(2)
    before = inputs.clone()
    assert not in_place(network)
    with torch.no_grad():
        accelerate(network, inputs)(inputs)
    assert torch.equal(inputs, before)
