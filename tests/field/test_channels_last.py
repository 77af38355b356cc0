"""N x H x W x C: the layer's grid says that the channels come last."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_groupcam import GradCAM, GroupCAM
from captum_groupcam.attr.several_layers import SeveralLayers
from captum_groupcam.methods import METHODS


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.conv(x.permute(0, 3, 1, 2)).tanh().mean((2, 3)))


@pytest.mark.parametrize(
    "name", ["grad_cam", "layer_cam", "eigen_cam", "ablation_cam", "group_cam"]
)
def test_a_map_is_not_brought_to_another_shape(name):
    network = Net().eval()
    with pytest.raises(ValueError, match="looks as if its channels came last"):
        METHODS[name](network, network.conv)(torch.rand(2, 32, 48, 3), 1)


def test_in_captums_form():
    network, x = Net().eval(), torch.rand(2, 32, 48, 3)
    with pytest.raises(ValueError, match="looks as if its channels came last"):
        GroupCAM(network, network.conv).attribute(x, 1)
    with pytest.raises(ValueError, match="looks as if its channels came last"):
        SeveralLayers(GradCAM, network, [network.conv]).attribute(x, 1)
    # At the resolution of the layer there is nothing to mistake.
    assert GradCAM(network, network.conv).attribute(x, 1).shape == (2, 1, 32, 48)
