"""The small networks that decide by planted evidence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import ConvStemConfig

from captum_groupcam.models import MODELS, ImageClassifier, Loader, Preprocessing

from .scenes import CLASSES, SIZE, Variant

__all__ = ["NETWORKS", "Architecture", "PlantedNet", "model_name", "vision_transformer"]
__all__ += ["loader", "weights_file"]

#: ``residual``: convolutions with shortcuts. ``transformer``: attention over patches.
Architecture: TypeAlias = Literal["residual", "transformer"]

_MEAN = _STD = (0.5,) * 3


class _Block(nn.Module):
    """A residual block of two convolutions; it halves the resolution if it widens."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        stride = 1 if n_in == n_out else 2
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
        self.first_relu, self.last_relu = nn.ReLU(), nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H' x W'."""
        inner = self.first_relu(self.first_norm(self.first(inputs)))
        found: Tensor = self.last_relu(self.second_norm(self.second(inner)) + self.shortcut(inputs))
        return found


class PlantedNet(nn.Module):
    """A residual network of 74,000 weights: N x 3 x H x W to N x classes.

    Examples::

        >>> PlantedNet().eval()(torch.zeros(2, 3, 96, 96)).shape
        torch.Size([2, 9])
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.blocks = nn.Sequential(_Block(16, 32), _Block(32, 64))
        self.pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(64, len(CLASSES))

    def forward(self, inputs: Tensor) -> Tensor:
        """N x 3 x H x W to N x classes."""
        features = self.pooling(self.blocks(self.stem(inputs))).flatten(1)
        scores: Tensor = self.classifier(features)
        return scores


def vision_transformer() -> VisionTransformer:
    """torchvision's, with 12 x 12 tokens of a few convolutions, and 149,000 weights.

    Examples::

        >>> vision_transformer().eval()(torch.zeros(2, 3, 96, 96)).shape
        torch.Size([2, 9])
    """
    return VisionTransformer(
        image_size=SIZE,
        patch_size=8,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        num_classes=len(CLASSES),
        conv_stem_configs=[ConvStemConfig(n, 3, 2) for n in (16, 32, 64)],
    )


#: What makes a network, without weights, of each architecture.
NETWORKS: dict[Architecture, Callable[[], nn.Module]] = {
    "residual": PlantedNet,
    "transformer": vision_transformer,
}


def model_name(variant: Variant, architecture: Architecture = "residual") -> str:
    """The network of a variant, as ``--model`` takes it."""
    parts = ["planted"]
    if variant != "patch":
        parts.append(variant)
    if architecture != "residual":
        parts.append(architecture)
    return "_".join(parts)


def weights_file(variant: Variant, architecture: Architecture = "residual") -> Path:
    """Where the weights of a network are kept."""
    return Path(__file__).parent / f"{model_name(variant, architecture)}.pt"


def loader(variant: Variant, architecture: Architecture = "residual") -> Loader:
    """What loads such a network, with the weights that come along or those of a file."""

    def load(name: str, weights: str | None, n_classes: int | None) -> ImageClassifier:
        if n_classes not in (None, len(CLASSES)):
            raise ValueError(f"{name} has {len(CLASSES)} classes, not {n_classes}.")
        network = NETWORKS[architecture]()
        if weights != "random":
            path = weights_file(variant, architecture) if weights is None else Path(weights)
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        network.eval()
        layer = network.blocks if isinstance(network, PlantedNet) else None
        return ImageClassifier(network, Preprocessing(SIZE, _MEAN, _STD), list(CLASSES), layer)

    return load


# A transformer learns the marks too slowly to come along.
MODELS.update(
    {
        model_name(variant, architecture): loader(variant, architecture)
        for variant in get_args(Variant)
        for architecture in get_args(Architecture)
        if weights_file(variant, architecture).exists()
    }
)
