"""A small network whose classes differ, and a real image at its size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLINGS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


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
            self.pooling = POOLINGS[dims](1)
            self.classifier = nn.Linear(channels, classes)
            # Activations and scores that tell positions, inputs and classes apart.
            for index in (0, 2):
                nn.init.kaiming_normal_(self.features[index].weight)
            nn.init.orthogonal_(self.classifier.weight, gain=5.0)
        self.double().eval()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.pooling(self.features(inputs)).flatten(1))


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
