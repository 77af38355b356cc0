"""Methods at the layer of networks that take additional arguments."""

from __future__ import annotations

from torch import nn

from captum_groupcam import RISE, AblationCAM, GradCAM, GroupCAM, ScoreCAM
from tests.toy_networks import seeded

CONV = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Softplus()))
METHODS = {
    "GroupCAM": (
        lambda forward: GroupCAM(forward, CONV),
        {"n_groups": 4, "relu_attributions": False},
    ),
    "ScoreCAM": (lambda forward: ScoreCAM(forward, CONV), {}),
    "AblationCAM": (lambda forward: AblationCAM(forward, CONV), {}),
    "GradCAM": (lambda forward: GradCAM(forward, CONV), {}),
    "RISE": (lambda forward: RISE(forward), {"n_masks": 9}),
}
