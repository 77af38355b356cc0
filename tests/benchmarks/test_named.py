"""Measures and data sets of one's own, that nobody has registered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.data import DATASETS
from benchmarks.measures.explained import Explained
from benchmarks.measures.measure import Measure
from benchmarks.measures.registry import MEASURES
from benchmarks.named import load_dataset, load_measure, map_style
from tests.toy_networks import classifier

OWN = """
import torch
from PIL import Image

def spread(explained):
    return (explained.maps.flatten(1) > 0).double().mean(1)
spread.higher_is_better = False

def inside(explained):
    return (explained.maps * explained.objects).flatten(1).sum(1)
inside.higher_is_better, inside.needs = True, ("objects",)

def silent(explained): ...
def greedy(explained): ...
greedy.higher_is_better, greedy.needs = True, ("money",)
number = 3

class Squares(torch.utils.data.Dataset):
    def __init__(self, root=None, class_names=None):
        self.arguments = root, class_names
    def __len__(self):
        return 3
    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError
        return Image.new("RGB", (20 + index, 10)), index

instance = Squares()
def makes(): return Squares()
def of_folder(root): return Squares(root)
def of_names(root, class_names): return Squares(root, class_names)
def many(a, b, c): ...
def nothing(root): return None
def empty(): return []
def fails(): return 1 / 0
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "own.py"
    path.write_text(OWN)
    measures, datasets = dict(MEASURES), dict(DATASETS)
    yield path
    for registry, known in ((MEASURES, measures), (DATASETS, datasets)):
        registry.clear()
        registry.update(known)  # type: ignore[arg-type]


def test_a_function_with_a_direction_is_a_measure(own: Path) -> None:
    name = load_measure(f"{own}:spread")
    assert name == "own.py:spread"
    measure = MEASURES[name]
    assert (measure.higher_is_better, measure.needs) == ({name: False}, frozenset())
    maps = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(2, 1, 2, 2)
    explained = Explained(classifier(), torch.rand(2, 3, 2, 2), torch.tensor([0, 1]), maps)
    assert measure(explained)[name].tolist() == [0.25, 0.25]
    assert MEASURES[load_measure(f"{own}:inside")].needs == {"objects"}
    assert load_measure("DeletionInsertion") == "DeletionInsertion"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("silent", r"does not say which direction is better: set silent\.higher_is_better = True"),
        ("greedy", "needs money: known are model, objects and explain"),
        ("number", "is not a measure but int"),
        ("nothing_like_it", "has no 'nothing_like_it'"),
    ],
)
def test_what_is_no_measure(name: str, message: str, own: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_measure(f"{own}:{name}")


@pytest.mark.parametrize("name", ["instance", "makes", "of_folder", "of_names", "Squares"])
def test_what_gives_a_data_set_of_pytorch(name: str, own: Path, tmp_path: Path) -> None:
    name = load_dataset(f"{own}:{name}")
    data = DATASETS[name](tmp_path, ["ant", "bee", "cat"])
    assert not data.has_objects
    assert [(one.id, one.label, one.targets, one.image.width) for one in data] == [
        ("0", "ant", (0,), 20),
        ("1", "bee", (1,), 21),
        ("2", "cat", (2,), 22),
    ]
    assert load_dataset("bundled") == "bundled"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "is not a data set but int"),
        ("many", r"many must take \(root, class_names\), \(root\) or nothing, not \(a, b, c\)"),
        ("nothing", "nothing gives NoneType; expected a data set of PyTorch"),
        ("empty", "empty failed: ValueError: The data set is empty"),
        ("fails", r"fails failed: ZeroDivisionError: .*own\.py, line \d+"),
    ],
)
def test_what_is_no_data_set(name: str, message: str, own: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        DATASETS[load_dataset(f"{own}:{name}")](tmp_path, ["ant"])
    assert len(str(caught.value).splitlines()) == 1


def test_images_of_every_kind_and_where_objects_are() -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(values)
    as_tensor = torch.from_numpy(values).permute(2, 0, 1)
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[2:4] = True
    data = map_style(
        [
            (picture, {"label": 1, "boxes": [[0, 1, 3, 4]]}),
            (values, {"label": torch.tensor(1), "mask": mask[None]}),
            (as_tensor, np.int64(1)),
            (as_tensor / 255, True),
        ]
    )
    assert data.has_objects
    samples = list(data)
    assert all(np.array_equal(np.asarray(sample.image), values) for sample in samples)
    assert samples[0].boxes is not None
    assert samples[0].boxes.tolist() == [[0, 1, 3, 4]]
    assert samples[1].masks is not None
    assert torch.equal(samples[1].masks, mask)
    assert {sample.label for sample in samples} == {"1"}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("cat", r"Expected item 0 of the data set to be \(image, class\), got str"),
        ((Image.new("RGB", (2, 2)), "cat"), "an index for the class of item 0 .* got 'cat'"),
        ((Image.new("RGB", (2, 2)), {"name": 1}), "an index for the class of item 0 .* got None"),
        ((Image.new("RGB", (2, 2)), 1.5), r"an index for the class of item 0 .* got 1\.5"),
        ((Image.new("RGB", (2, 2)), float("inf")), "an index for the class of item 0 .* got inf"),
        ((Image.new("RGB", (2, 2)), "1"), "an index for the class of item 0 .* got '1'"),
        (("cat.png", 1), "Expected a PIL image in item 0 of the data set, got str"),
        ((torch.full((3, 2, 2), -1.5), 1), r"from -1\.5 to -1\.5: expected it as it is before"),
    ],
)
def test_items_of_another_form(item: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        map_style([item])


def test_a_first_item_that_cannot_be_read_is_one_failure() -> None:
    class Damaged(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            if index == 0:
                raise OSError("damaged")
            return super().__getitem__(index)

    boxes = {"label": 1, "boxes": [[0, 1, 3, 4]]}
    data = map_style(Damaged([None, (Image.new("RGB", (6, 6)), boxes)]))
    assert data.has_objects
    with pytest.raises(OSError, match="damaged"):
        data.load("0")
    assert data.load("1").label == "1"


@pytest.mark.parametrize("given", [0.5, None, [torch.ones(2)], (torch.ones(2),) * 2])
def test_a_measure_that_gives_no_tensor(given: object) -> None:
    odd = Measure("odd", "faithfulness", {"odd": True}, lambda _: given, "")
    explained = Explained(
        classifier(), torch.rand(2, 3, 2, 2), torch.tensor([0, 1]), torch.ones(2, 1, 2, 2)
    )
    with pytest.raises(TypeError, match="odd should give a tensor of a value for each sample"):
        odd(explained)
