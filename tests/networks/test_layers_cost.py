"""What the search for a layer leaves behind, and how many passes it takes."""

from __future__ import annotations

import copy
import gc
import weakref
from functools import partial
from typing import ClassVar

import pytest
import torch
import torchvision
from torch import Tensor, nn

from captum_groupcam.networks.check import check_layer
from captum_groupcam.networks.layers import find_layer
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import head, image, seeded, small_timm, small_timm_vit, small_vit


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("out of order")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["convolutional", "transformer"])
def test_leaves_no_trace(kind: str, fails: bool) -> None:
    whole = {
        "convolutional": [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), *head()],
        "transformer": [small_vit(dropout=0.1)],
    }
    net = nn.Sequential(
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(3).eval(),
        *whole[kind],
        *([Failing()] if fails else []),
    )
    inputs = torch.randn(2, 3, 32, 32)
    before = copy.deepcopy(net.state_dict()), inputs.clone(), torch.get_rng_state()
    flags = [module.training for module in net.modules()]
    if fails:
        with pytest.raises(RuntimeError, match="out of order"):
            find_layer(net, inputs)
    else:
        find_layer(net, inputs)
    assert flags == [module.training for module in net.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    torch.testing.assert_close(net.state_dict(), before[0], rtol=0, atol=0)
    assert torch.equal(inputs, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.is_grad_enabled()
    assert inputs.grad is None
    assert not inputs.requires_grad


class Marked(torch.autograd.Function):
    """An operation whose part of the graph can be seen to end."""

    seen: ClassVar[list[weakref.ref]] = []

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.marker = type("Marker", (), {})()
        Marked.seen.append(weakref.ref(ctx.marker))
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


class InGraph(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Marked.apply(x)


@pytest.mark.parametrize("refused", [False, True])
def test_no_graph_outlives_the_search(refused: bool) -> None:
    """Each of them would hold the activations of the whole network."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), InGraph(), nn.ReLU(), *head())
    if refused:
        net = nn.Sequential(nn.Conv2d(3, 4, 3), InGraph(), nn.Flatten(), nn.Linear(400, 2))
        net[0].register_forward_hook(lambda _m, _a, output: output.flip(3))
    Marked.seen.clear()
    if refused:
        with pytest.raises(ValueError, match="do not lie where"):
            find_layer(net, image())
    else:
        find_layer(net, image())
        check_layer(net, TargetLayer.of(net, "2"), image())
    gc.collect()
    assert Marked.seen
    assert not [marker for marker in Marked.seen if marker() is not None]


@pytest.mark.parametrize(
    ("build", "size", "most"),
    [
        (torchvision.models.resnet18, 128, 6),
        (partial(small_timm_vit, img_size=64), 64, 22),
        (partial(small_timm, "mixer_s32_224"), 224, 22),
    ],
    ids=["convolutional", "transformer", "mixer"],
)
def test_the_price_is_what_the_documentation_says(build, size: int, most: int) -> None:
    net, passes = build().eval(), []
    net.register_forward_pre_hook(lambda *_: passes.append(1))
    find_layer(net, image(size))
    assert len(passes) <= most


@pytest.mark.parametrize("size", [32, 64])
def test_few_positions_cost_a_few_dozen_passes(size: int) -> None:
    network = seeded(lambda: torchvision.models.mobilenet_v3_small(weights=None)).eval()
    passes: list[int] = []
    network.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    inputs = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    layer = find_layer(network, inputs)
    assert len(passes) < 48
    together, alone = len(passes), str(layer)

    class OneRow(nn.Module):
        """Refuses more than one row."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            assert len(x) == 1
            return self.network(x)

    passes.clear()
    assert str(find_layer(OneRow().eval(), inputs)) == f"network.{alone}"
    assert len(passes) > together
