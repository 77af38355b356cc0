"""Parts of a network that the explained output does not depend on, or not on them alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCN, FCNHead

from captum_groupcam.networks import SelectOutput, find_layer


class SideHead(nn.Module):
    """A head that runs last, and whose output is kept or given beside the main one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.main = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
        self.fc = nn.Linear(8, 5)
        self.side = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
        self.side_fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x)
        out = self.fc(self.main(features).mean((2, 3)))
        return {"out": out, "aux": self.side_fc(self.side(features).mean((2, 3)))}


@pytest.mark.parametrize(
    ("select", "expected"),
    [("out", "main"), ("aux", "side"), (lambda output: output["out"] + output["aux"], None)],
    ids=["out", "aux", "both"],
)
def test_the_layer_is_on_the_way_to_the_selected_output(select, expected) -> None:
    net, x = SelectOutput(SideHead().eval(), select), torch.rand(1, 3, 16, 16)
    if expected:
        assert find_layer(net, x).name == f"model.{expected}"
    else:  # two heads of one grid: what both look at, of another one
        with pytest.raises(ValueError, match=r"side by side(.|\n)*model.side, (.|\n)*model.main, "):
            find_layer(net, x)


@pytest.mark.parametrize("select", ["out", "aux"])
def test_the_auxiliary_head_of_a_segmentation_network(select: str) -> None:
    net = FCN(Backbone(), FCNHead(32, 5), FCNHead(32, 5)).eval()
    found = find_layer(SelectOutput(net, select), torch.rand(1, 3, 64, 64)).name
    assert found == ("model.classifier.2" if select == "out" else "model.aux_classifier.2")


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 32, 4, stride=4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = self.first(x)
        return {"out": self.second(first), "aux": first}


class Pyramid(nn.Module):
    """Two levels of features, each with its share in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU())
        self.lateral = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        levels = [self.lateral(fine), self.coarse(fine)]
        return self.fc(torch.cat([level.mean((2, 3)) for level in levels], 1))


def test_levels_of_a_pyramid_are_listed() -> None:
    with pytest.raises(ValueError, match="lead to the output side by side") as caught:
        find_layer(Pyramid().eval(), torch.rand(1, 3, 32, 32))
    assert "coarse, 1 x 8 x 8 x 8" in str(caught.value)
    assert "The last before them is fine, 1 x 8 x 16 x 16" in str(caught.value)


class Detector(Pyramid):
    """One head over two levels, of whose scores one is selected, as those of detectors are."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level, self.head = level, nn.Conv2d(8, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        levels = [self.lateral(fine), self.coarse(fine)]
        return [self.head(level) for level in levels][self.level][:, :, 2, 3]


@pytest.mark.parametrize("level", [0, 1])
def test_a_score_of_a_detector_depends_on_few_positions(level: int) -> None:
    with pytest.raises(ValueError, match="No layer of Detector was found") as caught:
        find_layer(Detector(level).eval(), torch.rand(1, 3, 64, 64))
    name, n = ("lateral, 1 x 8 x 32 x 32", 1024) if level == 0 else ("coarse, 1 x 8 x 16 x 16", 256)
    assert f"{name}: the output depends on 9 of its {n} positions" in str(caught.value)
    assert "head (call 0), 1 x 5 x 32 x 32: the module runs 2 times" in str(caught.value)


class Residual(nn.Module):
    """A sum that no module gives: the branch is not all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc((x + self.branch(x)).mean((2, 3)))


def test_a_branch_beside_a_shortcut_is_passed_over() -> None:
    assert find_layer(Residual().eval(), torch.rand(1, 3, 16, 16)).name == "stem"


def test_a_maximum_lets_few_gradients_through_and_all_positions_count() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2, 5)
    )
    assert find_layer(net, torch.rand(1, 3, 16, 16)).name == "1"
