"""Classifiers of Hugging Face from folders: small random networks, written as they are shared."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from captum_groupcam.models import load_model

transformers = pytest.importorskip("transformers", reason="needs transformers: the extra hf")

SIZE = 32
LABELS = {0: "ant", 1: "bee", 2: "cat"}


def save(kind: str, folder: Path) -> Any:
    """Writes a network and its processor, and gives both."""
    t = transformers
    sides = {"image_size": SIZE}
    square, shortest = {"height": SIZE, "width": SIZE}, {"shortest_edge": SIZE}
    blocks = {"num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
    stages = {"hidden_sizes": [8, 12], "depths": [1, 1]}
    made: dict[str, tuple[Any, dict[str, Any], Any]] = {
        "ViT": (
            t.ViTForImageClassification,
            {"hidden_size": 24, "intermediate_size": 24, **blocks, **sides},
            t.ViTImageProcessor(size=square),
        ),
        "Dinov2": (
            t.Dinov2ForImageClassification,
            {"hidden_size": 24, **blocks, **sides},
            t.BitImageProcessor(size=shortest, crop_size=square),
        ),
        "Swin": (
            t.SwinForImageClassification,
            {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4, **sides},
            t.ViTImageProcessor(size=square),
        ),
        "ConvNext": (
            t.ConvNextForImageClassification,
            {"num_stages": 2, **stages},
            t.ConvNextImageProcessor(size={"shortest_edge": SIZE}, crop_pct=0.8),
        ),
        "ResNet": (
            t.ResNetForImageClassification,
            {"embedding_size": 8, "layer_type": "basic", **stages},
            t.ConvNextImageProcessor(size={"shortest_edge": SIZE}),
        ),
    }
    build, options, processor = made[kind]
    torch.manual_seed(0)
    network = build(build.config_class(id2label=LABELS, **options)).eval()
    for parameter in network.parameters():  # a new head of zeros would tell nothing apart
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network, processor


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


#: Where the last positions are, in each kind of network.
LAYERS = {
    "ViT": "vit.layers.1.layernorm_before",
    "Dinov2": "dinov2.layernorm",
    "Swin": "swin.layernorm",
    "ConvNext": "convnext.encoder.stages.1",
    "ResNet": "resnet.encoder.stages.1",
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_folder_with_network_and_processor(kind: str, tmp_path: Path) -> None:
    network, processor = save(kind, tmp_path)
    model = load_model(f"hf:{tmp_path}")
    assert model.class_names == list(LABELS.values())
    assert model.layer.name == f"model.{LAYERS[kind]}"
    photo = Image.effect_noise((60, 45), 80).convert("RGB")
    inputs = model.prepare(photo)
    expected = processor(images=photo, return_tensors="pt")["pixel_values"]
    assert torch.equal(inputs, expected)
    with torch.no_grad():
        scores = network(expected).logits
    torch.testing.assert_close(model.network(inputs), scores, rtol=1e-4, atol=1e-5)
    target = int(scores.argmax())
    maps = model.explain("grad_cam", inputs, target)
    assert maps.shape == (1, 1, SIZE, SIZE)
    assert maps.any()
    # The mean and standard deviation of its processor, so that pictures show what was seen.
    assert model.mean == pytest.approx(processor.image_mean, abs=1e-5)
    assert model.std == pytest.approx(processor.image_std, abs=1e-5)


def test_other_weights_and_classes(tmp_path: Path) -> None:
    network, _ = save("ResNet", tmp_path / "folder")
    other = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(**{**network.config.to_dict(), "num_labels": 5})
    )
    torch.save({"state_dict": other.state_dict()}, tmp_path / "five.pt")
    model = load_model(f"hf:{tmp_path}/folder", tmp_path / "five.pt", class_names=list("abcde"))
    inputs = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = other.eval()(inputs).logits
    torch.testing.assert_close(model.network(inputs), expected, rtol=1e-4, atol=1e-5)
    drawn = load_model(f"hf:{tmp_path}/folder", "random")
    assert not torch.allclose(drawn.network(inputs), network(inputs).logits)


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json", "model"])
def test_what_is_missing_is_said_in_one_line(missing: str, tmp_path: Path) -> None:
    save("ResNet", tmp_path)
    for path in tmp_path.glob(f"{missing}*"):
        path.unlink()
    with pytest.raises(ValueError, match="expected an image classifier of Hugging Face") as caught:
        load_model(f"hf:{tmp_path}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_name_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise it tries again and again.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="hf:nobody/nothing: expected an image") as caught:
        load_model("hf:nobody/nothing")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["hf:nobody/nothing", "timm:resnet10t"])
def test_without_a_network_it_is_asked_once(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub").constants
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        # What follows the question, and tries again and again, is not reached.
        with pytest.raises(ValueError, match="Hugging Face does not answer") as caught:
            load_model(name)
    assert len(str(caught.value).splitlines()) == 1
