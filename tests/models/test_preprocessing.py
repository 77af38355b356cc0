from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torchvision import transforms

from captum_groupcam.images import sample_images
from captum_groupcam.models import IMAGENET, ImageClassifier, Preprocessing, load_model

GREY = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def photos() -> list[Image.Image]:
    cat = sample_images()["cat"]()
    return [cat, cat.rotate(90, expand=True), cat.resize((40, 35))]


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "efficientnet_b1", "swin_v2_t"])
def test_presets_of_torchvision_to_the_last_bit(name: str) -> None:
    own = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    preprocess = load_model(name, "random").preprocess
    assert isinstance(preprocess, Preprocessing)
    for photo in photos():
        assert torch.equal(preprocess(photo), own(photo))


def test_without_resize_the_shorter_side_is_as_long_as_needed() -> None:
    square, wide = Preprocessing(48, **GREY), Preprocessing((30, 60), **GREY)
    for photo in photos():
        expected = transforms.Compose([transforms.Resize(48), transforms.CenterCrop(48)])(photo)
        seen = square(photo) * 0.5 + 0.5
        assert torch.allclose(seen, transforms.functional.to_tensor(expected), atol=1e-6)
        assert wide(photo).shape == (3, 30, 60)
        assert (wide(Image.new("RGB", photo.size, "white")) == 1).all()  # nothing is padded


def test_stretched_to_the_image_size() -> None:
    stretched = Preprocessing((30, 60), **GREY, resize="stretch", interpolation="bicubic")
    photo = photos()[0]
    expected = transforms.Resize((30, 60), transforms.InterpolationMode.BICUBIC)(photo)
    seen = stretched(photo) * 0.5 + 0.5
    assert torch.allclose(seen, transforms.functional.to_tensor(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 0}, "image size is a side"),
        ({"image_size": (2, 3, 4)}, "image size is a side"),
        ({"image_size": 2.5}, "image size is a side"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean is a number for each channel"),
        ({"mean": 0.5}, "mean is a number for each channel"),
        ({"mean": (123.7, 116.3, 103.5)}, "divide by 255"),
        ({"std": (0.5, 0.0, 0.5)}, "std has a number above 0 for each channel"),
        ({"std": (0.5,)}, "std has a number above 0 for each channel"),
        ({"resize": 40}, "shorter side from which 48 x 48 pixels are cut, got 40"),
        ({"resize": "crop"}, "resize is a length or 'stretch'"),
        ({"interpolation": "cubic"}, "one of nearest, bilinear"),
    ],
)
def test_values_out_of_range(values, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{"image_size": 48, **GREY, **values})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 232)),
        ("imagenet", IMAGENET),
        ({"image_size": 448}, Preprocessing(448, IMAGENET.mean, IMAGENET.std, 464)),
        ({"resize": 300}, Preprocessing(224, IMAGENET.mean, IMAGENET.std, 300)),
        (
            {"base": "imagenet", "image_size": 64, "interpolation": "bicubic"},
            Preprocessing(64, IMAGENET.mean, IMAGENET.std, 73, "bicubic"),
        ),
    ],
)
def test_what_is_given_changes_the_networks_own(given, expected: Preprocessing) -> None:
    assert load_model("resnet50", "random", preprocess=given).preprocess == expected


def test_preprocessing_of_another_kind_is_replaced_as_a_whole() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"one of its own kind, so mean, std are missing"):
        load_model("timm:resnet18", "random", preprocess={"image_size": 64})
    whole = {"image_size": 64, "mean": [0.5] * 3, "std": [0.25] * 3}
    model = load_model("timm:resnet18", "random", preprocess=whole)
    assert model.preprocess == Preprocessing(64, (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ValueError, match="Unknown in the preprocessing: size; known are base, im"):
        load_model("timm:resnet18", "random", preprocess={"size": 64})


def test_a_transform_by_name(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "eyes.py").write_text(
        "from torchvision import transforms as t\n"
        "val = t.Compose([t.Resize((40, 40)), t.ToTensor(), t.Normalize([0.1] * 3, [0.3] * 3)])\n"
        "def make():\n    return val\n"
        "def broken():\n    return 1 / 0\n"
        "number = 3\n"
        "def flat(image):\n    return val(image).flatten()\n"
        "def pixels(image):\n    return t.functional.pil_to_tensor(image)\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("val", "make"):
        model = load_model("resnet18", "random", preprocess=f"{tmp_path}/eyes.py:{name}")
        assert model.preprocess(Image.new("RGB", (50, 60))).shape == (3, 40, 40)
        assert model.mean == (0.1, 0.1, 0.1)
        assert model.std == (0.3, 0.3, 0.3)
    for name, message in {
        "broken": "broken failed: ZeroDivisionError",
        "number": "number is int; expected what turns a PIL image",
        "flat": r"must turn a PIL image into .*; it gave Tensor \(4800,\)",
        "pixels": r"floating-point C x H x W; it gave Tensor \(3, 64, 64\), torch\.uint8",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_model("resnet18", "random", preprocess=f"{tmp_path}/eyes.py:{name}")


def test_mean_and_standard_deviation_are_found_by_asking() -> None:
    network = torchvision.models.squeezenet1_1(weights=None, num_classes=3)
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    normalize = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    model = ImageClassifier(network, transforms.Compose(normalize))
    assert model.mean == tuple(mean)
    assert model.std == tuple(std)
    photo = photos()[0]
    seen = model.denormalize(model.preprocess(photo))
    assert torch.allclose(seen, transforms.functional.to_tensor(photo), atol=1e-5)

    squared = ImageClassifier(network, lambda image: transforms.functional.to_tensor(image) ** 2)
    with pytest.raises(ValueError, match=r"more to colours than .* Give mean and std"):
        squared.denormalize(squared.preprocess(photo))
    framed = transforms.Compose([transforms.Pad(4), transforms.ToTensor()])
    with pytest.raises(ValueError, match="more to colours than"):
        _ = ImageClassifier(network, framed).std
    given = ImageClassifier(network, framed, mean=mean, std=std)
    assert given.std == tuple(std)
