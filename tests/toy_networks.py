"""Small networks and inputs for the tests: quick, seeded, and with class rows that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from captum_groupcam import ConsensusGroupCAM, GroupCAM, ScoreCAM
from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.methods import METHODS

#: The methods that are a formula of a layer, each class once.
FORMULAS = list(
    dict.fromkeys(
        method.explain
        for method in METHODS.values()
        if isinstance(method.explain, type) and issubclass(method.explain, LayerFormula)
    )
)
#: Methods that look through masks of a layer, with few masks and all that the sum leaves.
MASKING: dict[str, Callable[[Any, nn.Module, Tensor], Tensor]] = {
    "GroupCAM": lambda net, layer, x: GroupCAM(net, layer).attribute(
        x, 2, n_groups=4, relu_attributions=False
    ),
    "GroupCAM, gradient-free": lambda net, layer, x: GroupCAM(net, layer).attribute(
        x, 2, n_groups=4, relu_attributions=False, gradient_free=True
    ),
    "ConsensusGroupCAM": lambda net, layer, x: ConsensusGroupCAM(net, layer).attribute(
        x, 2, n_groups=4
    ),
    "ScoreCAM": lambda net, layer, x: ScoreCAM(net, layer).attribute(x, 2, relu_attributions=False),
}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class Classifier(nn.Module):
    """Convolutions, then a head whose gradient differs from position to position."""

    def __init__(
        self, dims: int, in_channels: int, channels: int, classes: int, inplace: bool, pooled: int
    ):
        super().__init__()
        convolution = CONVOLUTIONS[dims]
        self.features = nn.Sequential(
            convolution(in_channels, channels, 3, padding=1),
            nn.ReLU(inplace),
            convolution(channels, channels, 3, stride=2, padding=1),
            nn.ReLU(inplace),
        )
        self.head = nn.Sequential(
            POOLS[dims](pooled), nn.Flatten(), nn.Linear(channels * pooled**dims, classes)
        )
        # Weights large enough that what a mask hides moves the scores.
        for index in (0, 2):
            nn.init.kaiming_normal_(self.features[index].weight)
        nn.init.normal_(self.head[-1].weight, std=2.0)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs))


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    """What ``make`` builds from a seed of its own; the state of the generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def classifier(
    dims: int = 2,
    in_channels: int = 3,
    channels: int = 8,
    classes: int = 5,
    inplace: bool = False,
    seed: int = 0,
    pooled: int = 2,
) -> Classifier:
    """``pooled`` positions along each axis reach the linear layer; 1 is global average pooling."""
    return seeded(
        lambda: Classifier(dims, in_channels, channels, classes, inplace, pooled), seed
    ).eval()


class SmallCNN(nn.Module):
    """Two convolutions, global average pooling and one linear layer, in double precision.

    The layer ``features`` gives K channels at a ``stride``-th of the input's resolution.
    """

    def __init__(
        self, dims: int = 2, channels: int = 6, classes: int = 5, stride: int = 3, seed: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            convolution = CONVOLUTIONS[dims]
            self.features = nn.Sequential(
                convolution(3, 8, 3, padding=1),
                nn.ReLU(),
                convolution(8, channels, stride, stride=stride),
                nn.ReLU(),
            )
            self.pooling = POOLS[dims](1)
            self.classifier = nn.Linear(channels, classes)
            # Activations and scores that tell positions, inputs and classes apart.
            for index in (0, 2):
                nn.init.kaiming_normal_(self.features[index].weight)
            nn.init.orthogonal_(self.classifier.weight, gain=5.0)
        self.double().eval()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.pooling(self.features(inputs)).flatten(1))


class TokenCNN(nn.Module):
    """A :class:`SmallCNN` on whose way lies a layer of tokens, N x T x C: ``tokens``."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SmallCNN()
        self.tokens = nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.inner.features(inputs)
        return self.inner.classifier(self.tokens(maps.flatten(2).transpose(1, 2)).mean(1))


class Attending(nn.Module):
    """A block of a transformer on N x T x C tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU())
        # Attention that tells tokens apart.
        nn.init.normal_(self.attention.in_proj_weight)

    def forward(self, tokens: Tensor) -> Tensor:
        seen = self.norm(tokens)
        tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        return tokens + self.mlp(tokens)


class Tokens(nn.Module):
    """N x C x spatial to N x T x C."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.flatten(2).transpose(1, 2)


class Mean(nn.Module):
    """The mean of the tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


class Attentive(nn.Module):
    """Patches of 4 x 4 pixels, two blocks of attention, the mean of the tokens."""

    def __init__(self, channels: int = 8, classes: int = 5, inplace: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, channels, 4, stride=4), nn.ReLU(inplace))
        blocks = nn.Sequential(Attending(channels), Attending(channels))
        self.head = nn.Sequential(Tokens(), blocks, Mean(), nn.Linear(channels, classes))
        nn.init.kaiming_normal_(self.features[0].weight)
        nn.init.orthogonal_(self.classifier.weight, gain=5.0)

    @property
    def blocks(self) -> nn.Module:
        return self.head[1]

    @property
    def classifier(self) -> nn.Module:
        return self.head[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs))


def head(channels: int = 4, classes: int = 3) -> list[nn.Module]:
    """The last layers of a network whose maps are averaged."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def small_vit(**options: Any) -> nn.Module:
    """A vision transformer of torchvision for 32 x 32 pixels: 4 x 4 patches and a class token."""
    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2}
    return VisionTransformer(**sizes, hidden_dim=16, mlp_dim=32, num_classes=5, **options)


def small_timm(name: str, **options: Any) -> nn.Module:
    return pytest.importorskip("timm").create_model(name, num_classes=5, **options)


def small_timm_vit(**options: Any) -> nn.Module:
    """A vision transformer of timm for 32 x 48 pixels, unless the options say otherwise."""
    sizes = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return small_timm("vit_tiny_patch16_224", **{**sizes, **options})


def image(size: int = 12) -> Tensor:
    """One random image, 1 x 3 x size x size."""
    return torch.rand(1, 3, size, size)


def images(n: int = 2, *size: int, channels: int = 3, seed: int = 0) -> Tensor:
    """N random inputs, each with a bright spot of its own, so that no two look alike."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(n, channels, *(size or (16, 16)), generator=generator)
    for sample in inputs:
        corner = [int(torch.randint(0, max(s // 2, 1), (), generator=generator)) for s in size]
        spot = tuple(slice(c, c + max(s // 2, 1)) for c, s in zip(corner, size, strict=True))
        sample[(slice(None), *spot)] += 1
    return inputs


def small_inputs(samples: int = 2, dims: int = 2, size: int = 24, seed: int = 0) -> Tensor:
    """Smooth random inputs, N x 3 x spatial."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(samples, 3, *(5,) * dims, generator=generator, dtype=torch.double)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[dims]
    return F.interpolate(coarse, size=(size,) * dims, mode=mode, align_corners=True) * 2 - 1


def real_image(size: int = 24) -> Tensor:
    """A photograph of a cat, 1 x 3 x size x size in [-1, 1]."""
    from skimage import data

    image = torch.from_numpy(data.chelsea()).permute(2, 0, 1).unsqueeze(0).double() / 127.5 - 1
    square = image[..., :, 75:375]
    return F.interpolate(square, size=(size, size), mode="bilinear", antialias=True)


def scaled(maps: Tensor) -> Tensor:
    """Each map min-max normalised."""
    flat = maps.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return ((flat - low) / (high - low)).view_as(maps)


class Recorder(nn.Module):
    """Passes calls on to a network and keeps the inputs of each."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.calls: list[tuple[Any, ...]] = []
        self.train(network.training)

    @property
    def batch_sizes(self) -> list[int]:
        return [len(args[0]) for args in self.calls]

    def forward(self, *args: Any) -> Tensor:
        self.calls.append(args)
        return self.network(*args)


def hooks(network: nn.Module) -> Counter[str]:
    """How many hooks of each kind the modules of a network carry."""
    kinds = [
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
    ]
    return Counter({kind: sum(len(getattr(m, kind)) for m in network.modules()) for kind in kinds})


class FinishedMaps:
    """Maps instead of torchcam's extractors, as far as its metrics look at those."""

    _hooks_off = staticmethod(torch.no_grad)

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model = model
        self.maps = maps

    def __call__(self, *args: object, **kwargs: object) -> list[Tensor]:
        return [self.maps[:, 0]]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]
