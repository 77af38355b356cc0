"""The published table of layers: it is whole, nothing in it is wrong, rows can be made anew."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
import torchvision
from torch import nn

from captum_groupcam.networks import TargetLayer
from scripts.layer_table import places, reaches, read, row_of

TABLE = Path(__file__).parents[1] / "docs" / "layers.csv"

MODELS = torchvision.models


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("torchvision", MODELS),
        ("torchvision video", MODELS.video),
        ("torchvision segmentation", MODELS.segmentation),
        ("torchvision detection", MODELS.detection),
    ],
)
def test_the_table_has_every_network_of_torchvision(source: str, module: ModuleType) -> None:
    names = {row.network for row in read(TABLE) if row.source == source}
    assert set(MODELS.list_models(module=module)) <= names


@pytest.mark.parametrize(("source", "least"), [("timm", 60), ("Hugging Face", 10)])
def test_the_table_has_many_networks_of_others(source: str, least: int) -> None:
    names = [row.network for row in read(TABLE) if row.source == source]
    assert len(set(names)) == len(names) >= least


def test_no_layer_in_it_is_wrong() -> None:
    for row in read(TABLE):
        assert row.verdict in ("right", "refused"), row
        assert bool(row.layer) == (row.verdict == "right")
        assert bool(row.reason) == (row.verdict == "refused")


def test_the_page_counts_them() -> None:
    page = TABLE.with_suffix(".md").read_text(encoding="utf-8")
    rows = read(TABLE)
    for source in {row.source for row in rows}:
        verdicts = [row.verdict for row in rows if row.source == source]
        counts = (len(verdicts), *map(verdicts.count, ("right", "refused", "wrong")))
        assert f"| {source} | {' | '.join(map(str, counts))} |" in page


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("torchvision", "alexnet"),
        ("torchvision", "efficientnet_b0"),
        ("timm", "convnext_atto"),
        ("timm", "efficientvit_b0"),
    ],
)
def test_rows_can_be_made_anew(source: str, name: str) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    from scripts.layer_networks import entries

    (entry,) = (one for one in entries() if (one.source, one.name) == (source, name))
    (published,) = (row for row in read(TABLE) if (row.source, row.network) == (source, name))
    made = row_of(entry)
    for column in ("input", "layer", "grid", "verdict"):
        assert getattr(made, column) == getattr(published, column)


class Mirrored(nn.Module):
    """Its features look at the other side of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.beside = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.beside(x)
        return self.fc(self.features(x.flip(3)).mean((2, 3)))


def test_the_verdict_finds_what_is_wrong() -> None:
    net, inputs = Mirrored().eval(), (torch.rand(1, 3, 24, 24),)
    flipped = TargetLayer.of(net, "features", reshape_transform=lambda maps: maps.flip(3))
    shifted = TargetLayer.of(
        net, "features", reshape_transform=lambda maps: maps.flip(3).roll(4, 3)
    )
    assert places(net, flipped, inputs, 1).follow
    assert places(net, TargetLayer.of(net, "features"), inputs, 1).correlation[1] < -0.9
    assert not places(net, shifted, inputs, 1).follow
    assert reaches(net, flipped, inputs)
    assert not reaches(net, TargetLayer.of(net, "beside"), inputs)
