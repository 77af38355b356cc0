"""Shapes that admit a grid on which the positions do not lie."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam.networks import find_layer, find_reshape_transform


class Ordered(nn.Module):
    """Patches in some order, a block, and their mean; ``order`` gets N x C x h x w."""

    def __init__(self, order, tokens: int = 0) -> None:
        super().__init__()
        self.embed, self.order = nn.Conv2d(3, 16, 4, stride=4), order
        self.others = nn.Parameter(torch.randn(1, tokens, 16)) if tokens else None
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.order(self.embed(x))
        if self.others is not None:
            patches = self.order.join(patches, self.others.expand(len(x), -1, -1))
        return self.head(self.block(patches).mean(1))


def rows(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


def columns(maps: Tensor) -> Tensor:
    return rows(maps.mT)


def upside_down(maps: Tensor) -> Tensor:
    return rows(maps.flip(2))


def mirrored(maps: Tensor) -> Tensor:
    return rows(maps.flip(3))


def shuffled(maps: Tensor) -> Tensor:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    return rows(maps)[:, order]


def windows(maps: Tensor) -> Tensor:
    """Window by window, as Swin's attention wants them."""
    blocks = maps.unflatten(3, (2, 4)).unflatten(2, (2, 4)).permute(0, 2, 4, 3, 5, 1)
    return blocks.flatten(1, 4)


def snake(maps: Tensor) -> Tensor:
    """Every other row backwards, as scans of state-space models go."""
    there, back = maps[:, :, ::2], maps[:, :, 1::2].flip(3)
    return rows(torch.stack([there, back], 3).flatten(2, 3))


@pytest.mark.parametrize("order", [columns, upside_down, mirrored, shuffled, windows, snake])
def test_tokens_in_another_order_are_refused(order) -> None:
    net, x = Ordered(order).eval(), torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match="1 x 64 x 16: its positions do not lie"):
        find_reshape_transform(net, net.block, x)
    # The map before them is where it seems to be.
    assert find_layer(net, x).name == "embed"


def test_the_same_in_rows_is_found() -> None:
    net, x = Ordered(rows).eval(), torch.rand(1, 3, 32, 32)
    assert find_reshape_transform(net, net.block, x).keywords == {"grid": (8, 8), "n_prefix": 0}


class Joined:
    """Rows of patches, and other tokens put among them."""

    def __init__(self, at: int) -> None:
        self.at = at

    __call__ = staticmethod(rows)

    def join(self, patches: Tensor, others: Tensor) -> Tensor:
        return torch.cat([patches[:, : self.at], others, patches[:, self.at :]], 1)


@pytest.mark.parametrize("n_others", [1, 3, 20])
def test_other_tokens_before_or_behind(n_others: int) -> None:
    x = torch.rand(1, 3, 32, 32)
    before = Ordered(Joined(0), n_others).eval()
    found = find_reshape_transform(before, before.block, x)
    assert found.keywords == {"grid": (8, 8), "n_prefix": n_others}
    behind = Ordered(Joined(64), n_others).eval()
    found = find_reshape_transform(behind, behind.block, x)
    assert found.keywords == {"grid": (8, 8), "n_prefix": 0, "n_suffix": n_others}
    tokens = torch.arange(64.0 + n_others).view(1, -1, 1)
    assert torch.equal(found(tokens).flatten(), torch.arange(64.0))


def test_a_class_token_in_the_middle_is_refused() -> None:
    net, x = Ordered(Joined(32), 1).eval(), torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"parts of a grid of 8 x 8|may lie on|do not lie"):
        find_reshape_transform(net, net.block, x)


class Kept(nn.Module):
    """Patches that score highest go on, others are dropped: a square number of them."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.embed, self.n = nn.Conv2d(3, 16, 4, stride=4), n
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = rows(self.embed(x))
        best = tokens[..., 0].topk(self.n, dim=1).indices.sort(dim=1).values
        return self.head(self.block(tokens.gather(1, best[..., None].expand(-1, -1, 16))).mean(1))


def test_tokens_that_remain_are_no_grid() -> None:
    net, x = Kept(16).eval(), torch.rand(1, 3, 32, 32)
    assert find_layer(net, x).name == "embed"


class Seen(nn.Module):
    """A network that turns, crops or pads its image first."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change
        self.features = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.change(x)).mean((2, 3)))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.flip(3),
        lambda x: x.mT,
        lambda x: x[..., 8:24, 8:24],
        lambda x: F.pad(x, (0, 0, 0, 16)),
        lambda x: F.pad(x, (16, 16, 16, 16)),
    ],
    ids=["mirrored", "turned", "cropped", "padded below", "padded around"],
)
def test_maps_of_an_image_that_is_changed_first_are_refused(change) -> None:
    with pytest.raises(ValueError, match="No layer of Seen was found"):
        find_layer(Seen(change).eval(), torch.rand(1, 3, 32, 32))


def test_maps_of_the_whole_image_are_found() -> None:
    net = Seen(lambda x: F.interpolate(x, (48, 48)) - 0.5).eval()
    assert find_layer(net, torch.rand(1, 3, 32, 32)).name == "features"


class Heads(nn.Module):
    """Keys of a head, as many as their channels, look like a map of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 64, 8, stride=8)
        self.keys, self.norm = nn.Linear(64, 64), nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        keys = self.keys(rows(self.embed(x))).unflatten(2, (4, 16)).transpose(1, 2)
        return self.head(self.norm(keys).mean((1, 2)))


def test_keys_in_their_heads_are_no_map() -> None:
    net, x = Heads().eval(), torch.rand(1, 3, 32, 32)
    assert net.norm(torch.rand(1, 4, 16, 16)).shape == (1, 4, 16, 16)
    layer = find_layer(net, x)
    assert layer.name in ("embed", "keys")
    with pytest.raises(ValueError, match="norm gives 1 x 4 x 16 x 16"):
        find_reshape_transform(net, net.norm, x)


class TimeLast(nn.Module):
    """Tubelets in the order of rows, columns, time, as in TimeSformer; or time first."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.embed = nn.Conv3d(3, 16, (2, 8, 8), (2, 8, 8))
        self.norm, self.head, self.last = nn.LayerNorm(16), nn.Linear(16, 5), last

    def forward(self, clip: Tensor) -> Tensor:
        maps = self.embed(clip)
        maps = maps.permute(0, 1, 3, 4, 2) if self.last else maps
        return self.head(self.norm(maps.flatten(2).transpose(1, 2)).mean(1))


def test_steps_of_time_are_no_columns() -> None:
    clip = torch.rand(1, 3, 8, 32, 32)
    assert find_layer(TimeLast(last=False), clip).reshape_transform.keywords["grid"] == (4, 4, 4)
    layer = find_layer(TimeLast(last=True), clip)
    assert layer.name == "embed"  # tokens in this order lie on no grid
    net = TimeLast(last=True)
    with pytest.raises(ValueError, match="do not lie where the parts of the input are"):
        find_reshape_transform(net, net.norm, clip)
