"""What is wrong with a sample is said where it is made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.data import Dataset, LeftOut, Sample

NAN, INF = float("nan"), float("inf")


def make(**changes) -> Sample:
    made = {
        "id": "a.jpg:dog",
        "image": Image.new("RGB", (40, 30)),
        "targets": (3,),
        "label": "dog",
    } | changes
    return Sample(**made)


def mask(*shape: int, marked: bool = True) -> torch.Tensor:
    return torch.full(shape, marked)


def test_what_is_right_is_taken():
    for boxes in ([[0, 0, 40, 30]], [[-5, -5, 1, 1], [39, 29, 50, 50]], [[0.25, 0.5, 0.5, 0.75]]):
        for dtype in (torch.float64, torch.float32):
            assert make(boxes=torch.tensor(boxes, dtype=dtype)).image_size == (30, 40)
    assert make(boxes=torch.tensor([[0, 0, 1, 1]])).boxes is not None
    one = mask(30, 40, marked=False)
    one[29, 39] = True
    assert make(masks=one).masks is one
    assert make(targets=(np.int64(3), 0)).targets == (3, 0)


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ((40, 0, 50, 10), "nothing lies in its image of 40 x 30 pixels"),
        ((0, 30, 5, 35), "nothing lies in its image"),
        ((-5, 0, 0, 5), "nothing lies in its image"),
        ((5, 5, 5, 9), "has no area: expected x0 < x1"),
        ((9, 5, 5, 9), "has no area"),
        ((5, 9, 9, 5), "has no area"),
        ((0, 0, NAN, 5), "finite numbers"),
        ((0, -INF, 5, 5), "finite numbers"),
    ],
)
def test_wrong_boxes(corners, message):
    boxes = torch.tensor([(0, 0, 5, 5), corners], dtype=torch.float64)
    with pytest.raises(ValueError, match=rf"Sample a\.jpg:dog has the box .* = \(.*{message}"):
        make(boxes=boxes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": torch.zeros(0, 4)}, "an empty list of boxes"),
        ({"boxes": torch.ones(4)}, r"boxes of shape \(4,\): expected a tensor, B x 4"),
        ({"boxes": torch.ones(2, 5)}, r"boxes of shape \(2, 5\)"),
        ({"boxes": [[0, 0, 5, 5]]}, "boxes of shape list"),
        ({"boxes": torch.ones(1, 4, dtype=torch.bool)}, "boxes of torch.bool"),
        ({"masks": mask(30, 40, marked=False)}, "an empty mask"),
        ({"masks": mask(40, 30)}, r"a mask of shape \(40, 30\): expected .* H x W = 30 x 40"),
        ({"masks": mask(1, 30, 40)}, r"a mask of shape \(1, 30, 40\)"),
        ({"masks": mask(30)}, r"a mask of shape \(30,\)"),
        ({"masks": torch.ones(30, 40)}, "a mask of torch.float32: expected a boolean"),
        ({"masks": np.ones((30, 40), bool)}, "a mask of ndarray"),
        ({"masks": mask(30, 40), "boxes": torch.ones(1, 4)}, "boxes and masks, which"),
        ({"targets": ()}, "no class"),
        ({"targets": (-1,)}, "the target -1: expected the index of a class, from 0"),
        ({"targets": (True,)}, "the target True"),
        ({"targets": (1.5,)}, "the target 1.5"),
        ({"targets": (3, None)}, "the target None"),
        ({"targets": None}, "the targets None: expected a tuple"),
        ({"targets": 3}, "the targets 3: expected a tuple"),
        ({"image": Image.new("L", (40, 30))}, r"an image of mode L: .*convert\('RGB'\)"),
        ({"image": Image.new("RGBA", (40, 30))}, "an image of mode RGBA"),
        ({"image": Image.new("RGB", (0, 30))}, "an image without pixels"),
        ({"image": np.zeros((30, 40, 3))}, "a ndarray for an image"),
        ({"label": None}, "the label None: expected text"),
    ],
)
def test_wrong_samples(changes, message):
    with pytest.raises(ValueError, match=rf"Sample a\.jpg:dog has {message}"):
        make(**changes)


def test_whatever_a_loader_raises_is_of_its_sample():
    def raises(error: BaseException):
        raise error

    errors = {
        "no": PermissionError(13, "Permission denied", "a.jpg"),
        "memory": MemoryError(),
        "key": KeyError("image"),
        "box": None,
    }
    loaders = {
        name: lambda error=error: raises(error) if error else make(boxes=torch.zeros(1, 4))
        for name, error in errors.items()
    }
    dataset = Dataset({**loaders, "good": lambda: make(id="good")})
    with pytest.warns(UserWarning, match="is left out"):
        assert [one.id for one in dataset] == ["good"]
    assert list(dataset.failures) == list(errors)
    assert "Permission denied" in dataset.failures["no"]
    assert dataset.failures["memory"] == "MemoryError"
    assert "has no area" in dataset.failures["box"]


def test_a_loader_gives_the_sample_of_its_name():
    dataset = Dataset({"a": make, "b": lambda: None, "a.jpg:dog": make})
    with pytest.raises(
        ValueError, match=r"sample a gives the sample a\.jpg:dog: expected the same"
    ):
        dataset.load("a")
    with pytest.raises(ValueError, match="sample b gives a NoneType: expected a Sample"):
        dataset.load("b")
    assert dataset.load("a.jpg:dog").label == "dog"


def test_what_is_left_out_is_counted_and_some_of_it_named():
    left_out = LeftOut(n_named=3)
    for index in range(5):
        left_out.add("no image file", f"{index}.txt")
    left_out.add("crowd", "a\x1b[2J\udcff.jpg", 2)
    left_out.add("crowd", "a\x1b[2J\udcff.jpg")
    left_out.add("nothing", "b.jpg", 0)
    assert left_out == {"no image file": 5, "crowd": 3}
    assert left_out.names("no image file") == ("0.txt", "1.txt", "2.txt")
    assert left_out.lines() == [
        "5: no image file (0.txt, 1.txt, 2.txt, ...)",
        r"3: crowd (a\x1b[2J\udcff.jpg)",
    ]
    assert all(line.isprintable() and line.encode() for line in left_out.lines())
