"""What networks do with their features and their input: the layer is right, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam.networks import TargetLayer, check_layer, find_layer
from captum_groupcam.networks.transformers import channels_first


def conv(given: int, made: int, kernel: int = 3, stride: int | tuple[int, int] = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(given, made, kernel, stride, kernel // 2), nn.BatchNorm2d(made), nn.ReLU()
    )


class Toy(nn.Module):
    """Modules by name, and what is done with them: features, N x 16 x ..., then a mean."""

    def __init__(self, features: Callable[[Toy, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.features = features
        for name, module in ({"a": conv(3, 16, 3, 2), "b": conv(16, 16)} | modules).items():
            self.add_module(name, module)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(self, x).flatten(2).mean(2))


def plain(net: Toy, x: Tensor) -> Tensor:
    return net.b(net.a(x))


def u_net(net: Toy, x: Tensor) -> Tensor:
    outer = net.outer(x)
    return net.last(torch.cat([net.up(plain(net, outer)), outer], 1))


def windows(net: Toy, x: Tensor, shift: int, back: int) -> Tensor:
    """Attention in windows of 4 x 4, shifted."""
    n, h, w, c = x.shape
    parts = x.roll((-shift, -shift), (1, 2)).view(n, h // 4, 4, w // 4, 4, c)
    tokens = net.norm(parts.transpose(2, 3).reshape(-1, 16, c))
    tokens = tokens + net.attention(tokens, tokens, tokens)[0]
    whole = tokens.view(n, h // 4, w // 4, 4, 4, c).transpose(2, 3).reshape(n, h, w, c)
    return whole.roll((back, back), (1, 2))


def shifted_windows(net: Toy, x: Tensor, back: int = 2) -> Tensor:
    x = windows(net, net.patches(x).permute(0, 2, 3, 1), 0, 0)
    return net.last(windows(net, x, 2, back)).permute(0, 3, 1, 2)


def global_tokens(net: Toy, x: Tensor, *, only: bool = False) -> Tensor:
    """All patches exchange what they know through four tokens."""
    tokens = net.patches(x).flatten(2).transpose(1, 2)
    few = net.attention(net.few.weight.expand(len(x), -1, -1), tokens, tokens)[0]
    mixed = few if only else tokens + net.attention(tokens, few, few)[0]
    return net.last(mixed).transpose(1, 2)


def channels_last(net: Toy, x: Tensor) -> Tensor:
    y = net.patches(x).permute(0, 2, 3, 1)
    y = y + net.b(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return net.last(y).permute(0, 3, 1, 2)


def spectrum(net: Toy, x: Tensor) -> Tensor:
    y = net.patches(x)
    return net.last(y + torch.fft.irfft2(torch.fft.rfft2(y) * net.few.weight[0, 0]).relu())


def quarter(net: Toy, x: Tensor) -> Tensor:
    """A spatial transformer that looks at a quarter of the image."""
    theta = torch.tensor([[[0.5, 0, 0.4], [0, 0.5, 0.4]]]).expand(len(x), -1, -1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def attention() -> dict[str, nn.Module]:
    return {
        "patches": nn.Conv2d(3, 16, 4, 4),
        "norm": nn.LayerNorm(16),
        "few": nn.Embedding(4, 16),
        "attention": nn.MultiheadAttention(16, 2, batch_first=True),
        "last": nn.LayerNorm(16),
    }


def dilated() -> dict[str, nn.Module]:
    return {
        f"d{by}": nn.Sequential(nn.Conv2d(16, 16, 3, padding=by, dilation=by), nn.ReLU())
        for by in (4, 8)
    }


def circular(given: int, stride: int) -> nn.Module:
    return nn.Conv2d(given, 16, 5, stride, 2, padding_mode="circular")


def anisotropic() -> dict[str, nn.Module]:
    return {"c": nn.Sequential(conv(16, 16, 3, (2, 1)), conv(16, 16, 3, (4, 2)))}


FOUND: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], str, tuple[int, ...]]] = {
    "dilated": (
        lambda: Toy(lambda n, x: n.d8(n.d4(n.a(x))), **dilated()),
        (48, 48),
        "d8",
        (24, 24),
    ),
    "made larger": (
        lambda: Toy(lambda n, x: n.t(n.a(x)), t=nn.ConvTranspose2d(16, 16, 4, 4)),
        (48, 48),
        "t",
        (96, 96),
    ),
    "skips of a U-Net": (
        lambda: Toy(
            u_net,
            outer=conv(3, 16),
            a=conv(16, 16, 3, 2),
            up=nn.Upsample(None, 2),
            last=conv(32, 16),
        ),
        (48, 64),
        "last",
        (48, 64),
    ),
    "shifted windows": (
        lambda: Toy(shifted_windows, **attention()),
        (48, 48),
        "last",
        (12, 12),
    ),
    "global tokens": (lambda: Toy(global_tokens, **attention()), (48, 48), "last", (12, 12)),
    "strides that differ": (
        lambda: Toy(lambda n, x: n.c(n.b(n.a(x))), **anisotropic()),
        (32, 128),
        "c",
        (2, 32),
    ),
    "circular padding": (
        lambda: Toy(lambda n, x: n.b(n.a(x).relu()), a=circular(3, 2), b=circular(16, 1)),
        (48, 48),
        "input of b",
        (24, 24),
    ),
    "channels last in between": (
        lambda: Toy(channels_last, **attention()),
        (48, 48),
        "last",
        (12, 12),
    ),
    "depth to space": (
        lambda: Toy(lambda n, x: n.b(F.pixel_shuffle(n.a(x), 2)), a=conv(3, 64, 3, 4)),
        (48, 48),
        "b",
        (24, 24),
    ),
    "space to depth": (
        lambda: Toy(lambda n, x: n.b(n.a(F.pixel_unshuffle(x, 2))), a=conv(12, 16)),
        (48, 48),
        "b",
        (24, 24),
    ),
    "resized input": (
        lambda: Toy(lambda n, x: plain(n, F.interpolate(x, (30, 70), mode="bilinear"))),
        (48, 48),
        "b",
        (15, 35),
    ),
    "a little cropped": (
        lambda: Toy(lambda n, x: plain(n, x[..., 1:-1, 1:-1])),
        (48, 48),
        "b",
        (23, 23),
    ),
    # What comes after them is refused.
    "transposed features": (
        lambda: Toy(lambda n, x: n.b(n.a(x).transpose(2, 3))),
        (48, 48),
        "a",
        (24, 24),
    ),
    "windows that are not shifted back": (
        lambda: Toy(lambda n, x: shifted_windows(n, x, back=-6), **attention()),
        (48, 48),
        "patches",
        (12, 12),
    ),
    "few tokens only": (
        lambda: Toy(lambda n, x: global_tokens(n, x, only=True), **attention()),
        (48, 48),
        "patches",
        (12, 12),
    ),
}


@pytest.mark.parametrize("kind", FOUND)
def test_the_layer_is_right(kind: str) -> None:
    build, size, name, grid = FOUND[kind]
    torch.manual_seed(0)
    net, x = build().eval(), torch.rand(1, 3, *size)
    layer = find_layer(net, x)
    assert str(layer).split(".")[0] == name
    check = check_layer(net, layer, x)
    assert check.fits, str(check)
    assert check.grid == grid
    assert (layer.reshape_transform is channels_first) == (kind in LAST)


LAST = {"shifted windows", "channels last in between"}


class FlipAverage(Toy):
    """Augmentation at the time of the test: the mean over an image and its mirror image."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) + super().forward(x.flip(3))) / 2


class Branches(nn.Module):
    """Two networks side by side, the second for an image of half the size."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.one, self.two = Toy(plain), Toy(plain)

    def forward(self, x: Tensor) -> Tensor:
        small = F.interpolate(x, scale_factor=self.scale)
        return self.one(x).softmax(1) + self.two(small).softmax(1)


class Crops(Toy):
    """Three crops of the image among the samples."""

    def forward(self, x: Tensor) -> Tensor:
        crops = [x[..., :32, :32], x[..., -32:, -32:], x[..., 8:40, 8:40]]
        features = plain(self, torch.cat(crops)).mean((2, 3))
        return self.fc(features.unflatten(0, (3, -1)).mean(0))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "rolled": (lambda: Toy(lambda n, x: plain(n, x.roll(24, 3))), "do not lie where"),
    "mirrored": (lambda: Toy(lambda n, x: plain(n, x.flip(3))), "do not lie where"),
    "turned": (lambda: Toy(lambda n, x: plain(n, x.rot90(1, (2, 3)))), "do not lie where"),
    "mirrored and not": (lambda: FlipAverage(plain), "runs 2 times in one pass"),
    "the middle": (lambda: Toy(lambda n, x: plain(n, x[..., 12:36, 12:36])), "a part of the input"),
    "one side": (lambda: Toy(lambda n, x: plain(n, x[..., :40])), "a part of the input"),
    "half of the features": (
        lambda: Toy(lambda n, x: plain(n, x)[..., :12]),
        "depends on 288 of its 576 positions",
    ),
    "padded": (lambda: Toy(lambda n, x: plain(n, F.pad(x, [24] * 4))), "larger than the input"),
    "padded on one side": (
        lambda: Toy(lambda n, x: plain(n, F.pad(x, [0, 16, 0, 0]))),
        "larger than the input",
    ),
    "a quarter, by a grid": (
        lambda: Toy(lambda n, x: plain(n, quarter(n, x))),
        "a part of the input|do not lie where",
    ),
    "frequencies": (
        lambda: Toy(lambda n, x: plain(n, torch.fft.fft2(x).real)),
        "do not lie where",
    ),
    "two scales": (lambda: Branches(0.5), "side by side"),
    "an ensemble": (lambda: Branches(1.0), "side by side"),
    "crops": (lambda: Crops(plain), "has an output with 2 spatial dimensions"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_the_network_is_refused_with_the_reason(kind: str) -> None:
    build, reason = REFUSED[kind]
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=reason):
        find_layer(build().eval(), torch.rand(1, 3, 48, 48))


def test_the_check_agrees_about_what_is_refused() -> None:
    net, x = Toy(lambda n, x: plain(n, x.flip(3))).eval(), torch.rand(1, 3, 48, 48)
    flipped = TargetLayer.of(net, "b", reshape_transform=lambda maps: maps.flip(3))
    assert not check_layer(net, TargetLayer.of(net, "b"), x).fits
    assert check_layer(net, flipped, x).fits
