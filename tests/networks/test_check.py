from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam.networks import (
    TargetLayer,
    channels_first,
    check_layer,
    find_layer,
    tokens_to_grid,
)
from tests.toy_networks import classifier, hooks, small_timm, small_timm_vit, small_vit


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_layers_of_convolutional_networks_fit(dims: int) -> None:
    net = classifier(dims)
    x = torch.rand(2, 3, *[16] * dims)
    for name in ("features", "features.0", "features.3"):
        check = check_layer(net, TargetLayer.of(net, name), x)
        assert check.fits, str(check)
        assert check.influence == 1
        assert not check.bypassed
        assert min(check.correlation) > 0.9
        assert len(check.grid) == dims


@pytest.mark.parametrize(
    ("transform", "fits"),
    [
        (partial(tokens_to_grid, grid=(4, 6)), True),
        (lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 6)), True),
        (partial(tokens_to_grid, grid=(6, 4)), False),
        (partial(tokens_to_grid, grid=(2, 12)), False),
        (partial(tokens_to_grid, grid=(4, 6), n_prefix=0, n_suffix=1), False),
        (lambda tokens: tokens_to_grid(tokens, (4, 6)).flip(2), False),
        (lambda tokens: tokens_to_grid(tokens, (4, 6)).flip(3), False),
        (lambda tokens: tokens_to_grid(tokens, (4, 6)).roll(1, 3), False),
        (lambda tokens: tokens[:, 1:].unflatten(2, (4, 6)), False),
    ],
    ids=[
        "right",
        "right, by hand",
        "turned",
        "of other patches",
        "with the class token",
        "upside down",
        "mirrored",
        "shifted",
        "channels for positions",
    ],
)
def test_a_transform_of_ones_own(transform, fits: bool) -> None:
    net = small_timm_vit().eval()
    layer = TargetLayer.of(net, "blocks.1.norm1", reshape_transform=transform)
    check = check_layer(net, layer, torch.rand(2, 3, 32, 48))
    assert check.fits is fits, str(check)
    assert ("do not lie" in str(check)) is not fits


def test_channels_last() -> None:
    options = {"depths": (1, 1), "embed_dim": 16, "num_heads": (2, 2), "window_size": 4}
    net = small_timm("swin_tiny_patch4_window7_224", img_size=64, **options).eval()
    x = torch.rand(1, 3, 64, 64)
    assert check_layer(net, TargetLayer.of(net, "norm", reshape_transform=channels_first), x).fits
    assert not check_layer(net, TargetLayer.of(net, "norm"), x).fits


def test_positions_that_the_output_does_not_depend_on() -> None:
    net, x = small_vit().eval(), torch.rand(1, 3, 32, 32)
    found = find_layer(net, x)
    after = TargetLayer.of(net, "encoder.ln", reshape_transform=found.reshape_transform)
    check = check_layer(net, after, x)
    assert check.influence == 0
    assert "the output depends on 0 of its 16 positions" in check.problems


def test_a_branch_is_bypassed_and_its_grid_right() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return (x + self.branch(x)).mean((2, 3))

    net, x = Residual().eval(), torch.rand(1, 3, 16, 16)
    branch, stem = (check_layer(net, TargetLayer.of(net, n), x) for n in ("branch", "stem"))
    assert branch.fits
    assert stem.fits
    assert (branch.bypassed, stem.bypassed) == (True, False)


def test_a_network_without_gradients() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    net, x = nn.Sequential(classifier(), Detached()).eval(), torch.rand(1, 3, 16, 16)
    assert check_layer(net, TargetLayer.of(net, "0.features"), x).fits
    assert find_layer(net, x).name == f"0.{find_layer(net[0], x).name}"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda net: TargetLayer(nn.ReLU(), "elsewhere"),
            "elsewhere is not a module of Classifier",
        ),
        (lambda net: TargetLayer.of(net, "head.2"), r"head.2 gives \(1, 5\)"),
        (
            lambda net: TargetLayer.of(net, "features", reshape_transform=lambda m: m.flatten(2)),
            r"\(1, 8, 64\) after its reshape_transform; expected N x C x spatial with 2 spatial",
        ),
    ],
    ids=["another network's", "no positions", "a transform that leaves no grid"],
)
def test_what_cannot_be_looked_at_is_an_error(make, message: str) -> None:
    net = classifier()
    with pytest.raises(ValueError, match=message):
        check_layer(net, make(net), torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize(
    "where", ["plain", "inference mode", "frozen", "training", "channels last"]
)
def test_it_leaves_no_trace(where: str) -> None:
    net, x = classifier().train(where == "training"), torch.rand(2, 3, 16, 16)
    if where == "frozen":
        net.requires_grad_(requires_grad=False)
    if where == "channels last":
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    flags = [p.requires_grad for p in net.parameters()], [m.training for m in net.modules()]
    state, before = torch.get_rng_state(), x.clone()
    with torch.inference_mode(where == "inference mode"):
        assert check_layer(net, TargetLayer.of(net, "features"), x).fits
        assert find_layer(net, x).name == "head.0"
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before)
    assert flags == (
        [p.requires_grad for p in net.parameters()],
        [m.training for m in net.modules()],
    )
    assert all(p.grad is None for p in net.parameters())
    assert hooks(net).total() == 0
