"""A folder as somebody has it who comes with a network: package, checkpoints, names, photos."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torchvision
from PIL import Image

MODEL = """
from torch import nn
from captum_groupcam.models import ImageClassifier, Preprocessing

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        )
        self.head = nn.Linear(12, num_classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))

def build(num_classes=1000):
    return Net(num_classes)

def described():
    preprocess = Preprocessing(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return ImageClassifier(Net(), preprocess, [f"flower {i}" for i in range(10)], "features")
"""
DATA = """
from torchvision import transforms as t
from torchvision.datasets import ImageFolder

transform = t.Compose([t.Resize((40, 40)), t.ToTensor(), t.Normalize([0.5] * 3, [0.5] * 3)])

def val(root):
    return ImageFolder(root)
"""
METHODS = """
def brightest(model, inputs, target, *, power: float = 1.0):
    return (inputs - inputs.amin()).amax(1, keepdim=True) ** power
"""
MEASURES = """
def spread(explained):
    flat = explained.maps.flatten(1)
    return (flat > 0.5 * flat.amax(1, keepdim=True)).double().mean(1)

spread.higher_is_better = False
"""
NAMES = [f"flower {index}" for index in range(10)]


def prepare(folder: Path, toml: str) -> None:
    """Writes all of it."""
    package = folder / "mypkg"
    package.mkdir()
    for name, code in {
        "__init__": "",
        "model": MODEL,
        "data": DATA,
        "methods": METHODS,
        "measures": MEASURES,
    }.items():
        (package / f"{name}.py").write_text(code)
    (folder / "nets").mkdir()
    shutil.copy(package / "model.py", folder / "nets" / "cnn.py")
    (folder / "model.toml").write_text(toml)
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n")
    (folder / "classes.json").write_text(json.dumps(dict(enumerate(NAMES))))

    namespace: dict[str, type[torch.nn.Module]] = {}
    exec(MODEL, namespace)
    torch.manual_seed(0)
    state, other = namespace["Net"]().state_dict(), namespace["Net"]().state_dict()
    torch.save({"epoch": 9, "model_state_dict": state}, folder / "best.pt")
    wrapped = {f"model._orig_mod.{name}": value for name, value in state.items()}
    torch.save(
        {"state_dict": {**wrapped, "loss.weight": torch.ones(10)}}, folder / "lightning.ckpt"
    )
    torch.save({"model": other, "ema": state}, folder / "both.pt")
    squeezenet = torchvision.models.squeezenet1_1(weights=None, num_classes=10)
    torch.save(squeezenet.state_dict(), folder / "squeezenet.pt")

    draw = torch.Generator().manual_seed(0)
    for half in ("train", "val"):
        for name in NAMES[:2]:
            for number in range(4):
                place = folder / "flowers" / half / name
                place.mkdir(parents=True, exist_ok=True)
                pixels = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8, generator=draw)
                Image.fromarray(pixels.numpy()).save(place / f"{number}.png")
    (folder / "photos").mkdir()
    shutil.copy(folder / "flowers" / "val" / NAMES[0] / "0.png", folder / "photos" / "one.png")
    shutil.copy(folder / "flowers" / "val" / NAMES[1] / "1.png", folder / "photos" / "two.png")


def prepare_others(folder: Path) -> None:
    """Writes what needs timm and transformers."""
    import timm
    import transformers
    from safetensors.torch import save_file

    network = timm.create_model("resnet10t", num_classes=10)
    save_file(network.state_dict(), folder / "timm.safetensors")
    config = transformers.ViTConfig(
        hidden_size=24,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(NAMES)),
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder / "flowers-vit")
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(folder / "flowers-vit")


@contextmanager
def forgotten() -> Iterator[None]:
    """Forgets afterwards what was imported from the folder."""
    known, path = set(sys.modules), list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - known:
            if name.partition(".")[0] == "mypkg" or name.startswith("cnn_"):
                del sys.modules[name]
