"""How the tests of one call of Group-CAM ask for a map."""

from __future__ import annotations

from torch import nn

from captum_groupcam import GroupCAM

OPTIONS = {"n_groups": 4, "relu_attributions": False}


def explain(forward_func, layer, x, target=2, **options):
    return GroupCAM(forward_func, layer).attribute(x, target, **{**OPTIONS, **options})


class Both(nn.Module):
    """A network with a second argument, one value a sample."""

    def __init__(self, plain):
        super().__init__()
        self.plain = plain
        self.eval()

    def forward(self, x, scale):
        return self.plain(x) * scale.unsqueeze(1)
