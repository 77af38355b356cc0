"""Patches that are no squares or cubes, and tubelets in time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam.networks import find_layer


class Patches(nn.Module):
    """A transformer block over patches that a convolution, or a linear layer, embeds."""

    def __init__(self, patch: tuple[int, ...], *, by_convolution: bool) -> None:
        super().__init__()
        self.patch = patch
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(patch) - 1]
        self.embed = (
            convolution(3, 16, patch, stride=patch)
            if by_convolution
            else nn.Linear(3 * torch.Size(patch).numel(), 16)
        )
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.embed, nn.Linear):
            tokens = self.embed(x).flatten(2).transpose(1, 2)
        else:
            for axis, side in enumerate(self.patch):
                x = x.unfold(2 + axis, side, side)
            d = len(self.patch)
            grid, patch = range(2, 2 + d), range(2 + d, 2 + 2 * d)
            tokens = self.embed(x.permute(0, *grid, 1, *patch).flatten(1, d).flatten(2))
        return self.head(self.block(tokens).mean(1))


@pytest.mark.parametrize("by_convolution", [True, False], ids=["traced", "not traced"])
@pytest.mark.parametrize(
    ("patch", "size", "grid"),
    [
        ((2, 8, 8), (16, 32, 32), (8, 4, 4)),  # cubes of 8 would be 2 x 8 x 8 of as many
        ((4, 8), (32, 32), (8, 4)),
        ((8, 4), (32, 32), (4, 8)),
        ((4, 4), (16, 64), (4, 16)),
        ((8,), (128,), (16,)),
    ],
    ids=["tubelets", "wide", "high", "wide image", "signal"],
)
def test_the_grid_is_that_of_the_patches(patch, size, grid, by_convolution) -> None:
    net = Patches(patch, by_convolution=by_convolution).eval()
    layer = find_layer(net, torch.rand(1, 3, *size))
    assert layer.name == "block"
    assert layer.reshape_transform.keywords == {"grid": grid, "n_prefix": 0}
    for place in [(0,) * len(grid), tuple(n // 2 for n in grid), tuple(n - 1 for n in grid)]:
        assert changed(net, layer, patch, size, place) == place


def test_tubelets_of_torchvisions_mvit() -> None:
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    def block(before: int, after: int, stride: int, stride_of_keys: int) -> MSBlockConfig:
        strides = ([1, stride, stride], [1, stride_of_keys, stride_of_keys])
        return MSBlockConfig(1, before, after, [3, 3, 3], [3, 3, 3], *strides)

    torch.manual_seed(0)
    net = MViT(
        (64, 64),
        8,
        [block(16, 16, 1, 2), block(16, 32, 2, 2), block(32, 32, 1, 1)],
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
        num_classes=5,
    ).eval()
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    layer = find_layer(net, torch.rand(1, 3, 8, 64, 64))
    assert layer.name == "blocks.2.norm1"
    # 256 tokens: also 16 x 16, or 16 x 4 x 4
    assert layer.reshape_transform.keywords == {"grid": (4, 8, 8), "n_prefix": 1}


def changed(net, layer, patch, size, place) -> tuple[int, ...]:
    """Where on the grid the layer changes most if one patch does."""
    before = torch.zeros(1, 3, *size)
    after = before.clone()
    after[(..., *(slice(i * p, i * p + p) for i, p in zip(place, patch, strict=True)))] = 3
    found = []
    handle = layer.module.register_forward_hook(lambda _module, _args, out: found.append(out))
    with torch.no_grad():
        net(before), net(after)
    handle.remove()
    change = (layer.to_grid(found[1]) - layer.to_grid(found[0])).square().sum(1)[0]
    return tuple(int(i) for i in torch.unravel_index(change.argmax(), change.shape))
