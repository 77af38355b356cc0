"""Half precision: maps are finite, float32, and close to those of float32."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam import CAM, RISE, ConsensusGroupCAM, GradCAM, GroupCAM, ScoreCAM
from captum_groupcam.masking.call import prepare
from captum_groupcam.networks.layers import find_layer
from tests.toy_networks import FORMULAS, classifier, images

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

#: With 8 and 11 bits of precision.
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
#: How far a map may be from that of float32, both divided by their largest value: scores are
#: rounded, and positions pass the percentile in one precision and not in the other.
TOLERANCE = {"bfloat16": 0.25, "float16": 0.03}
#: The least rank correlation of their positions.
CORRELATION = {"bfloat16": 0.95, "float16": 0.995}

Explain = Callable[[nn.Module, nn.Module, Tensor], Tensor]

EVERY_METHOD: dict[str, Explain] = {
    "GroupCAM": lambda net, layer, x: GroupCAM(net, layer).attribute(
        x, 2, n_groups=4, relu_attributions=False
    ),
    "GroupCAM, gradient-free": lambda net, layer, x: GroupCAM(net, layer).attribute(
        x, 2, n_groups=4, relu_attributions=False, gradient_free=True
    ),
    "ScoreCAM": lambda net, layer, x: ScoreCAM(net, layer).attribute(x, 2, relu_attributions=False),
    **{
        formula.__name__: lambda net, layer, x, formula=formula: formula(net, layer).attribute(x, 2)
        for formula in FORMULAS
        if formula is not CAM  # of another network, see tests/attr/test_cam.py
    },
    "RISE": lambda net, _, x: RISE(net).attribute(x, target=2, n_masks=20),
}


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's, between all positions."""
    ranks = [each.flatten().argsort().argsort().float() for each in (first, second)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def assert_close(found: Tensor, expected: Tensor, dtype: str) -> None:
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert expected.flatten(1).std(1).min() > 0
    scaled = [each / each.abs().max() for each in (found, expected)]
    assert (scaled[0] - scaled[1]).abs().max() <= TOLERANCE[dtype]
    assert rank_correlation(found, expected) >= CORRELATION[dtype]


def in_precision(
    how: str, dtype: torch.dtype, net: nn.Module, x: Tensor
) -> tuple[nn.Module, Tensor, AbstractContextManager[Any]]:
    if how == "autocast":
        return net, x, torch.autocast(x.device.type, dtype)
    return copy.deepcopy(net).to(dtype), x.to(dtype), nullcontext()


@pytest.mark.parametrize("method", EVERY_METHOD)
@pytest.mark.parametrize("how", ["autocast", "converted"])
@pytest.mark.parametrize("dtype", HALVES)
def test_every_method_in_half_precision(method, how, dtype):
    net, x = classifier(seed=2), images(3, 14, 16)
    expected = EVERY_METHOD[method](net, net.features, x)
    net, x, context = in_precision(how, HALVES[dtype], net, x)
    with context:
        found = EVERY_METHOD[method](net, net.features, x)
    assert_close(found, expected, dtype)


@pytest.mark.parametrize("how", ["autocast", "converted"])
@pytest.mark.parametrize("dtype", HALVES)
def test_consensus_in_half_precision(how: str, dtype: str) -> None:
    net, x = classifier(seed=2), images(3, 14, 16)

    def explain(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        consensus = ConsensusGroupCAM(net, net.features)
        sizes = {"edge_radius": 8 / 14, "gradient_sigma": 6 / 14}
        return consensus.attribute(x, 2, n_groups=4, return_effects=True, **sizes)

    _, expected = explain(net, x)
    net, x, context = in_precision(how, HALVES[dtype], net, x)
    with context:
        found, effects = explain(net, x)
    assert found.dtype == effects.dtype == torch.float32
    assert found.isfinite().all()
    # Maps may differ where positions are ranked about alike.
    torch.testing.assert_close(effects, expected, rtol=0, atol=TOLERANCE[dtype])


#: Twice, it brings gradients below the least number of float16.
FAINT = 2.0**-12


class Faint(nn.Module):
    """A classifier with outputs that are a share of what they are."""

    def __init__(self, net: nn.Module, share: float, last: torch.dtype | None) -> None:
        super().__init__()
        self.features, self.head = net.features, net.head
        self.share, self.last = share, last

    def forward(self, x: Tensor) -> Tensor:
        output = self.head(self.features(x)) * self.share * self.share
        return output if self.last is None else output.to(self.last)


@pytest.mark.parametrize("method", ["GradCAM", "input"])
@pytest.mark.parametrize("how", ["autocast", "converted", "logits in float32"])
def test_small_gradients_do_not_vanish_in_float16(method: str, how: str) -> None:
    last = torch.float32 if how == "logits in float32" else None

    def explain(share: float) -> Tensor:
        faint, x = Faint(classifier(seed=2), share, last).eval(), images(3, 14, 16)
        net, x, context = in_precision(how, torch.float16, faint, x)
        with context:
            if method == "GradCAM":
                return GradCAM(net, net.features).attribute(x, 2)
            call = prepare(net, x, 2, None)
            return call.network.input_gradients(call.inputs, 0)

    assert_close(explain(FAINT), explain(1.0), "float16")


# --- a real network and a real image


@pytest.fixture(scope="module")
def cat(images) -> Tensor:
    """At half of the resolution: half precision is slow on CPUs without instructions for it."""
    return F.interpolate(images("cat"), size=(112, 112), mode="bilinear", antialias=True)


@pytest.fixture(scope="module")
def explained(lite0, cat) -> dict[str, Tensor]:
    return {
        name: explain(lite0.network, lite0.layer.module, cat) for name, explain in ON_LITE0.items()
    }


def group_cam(net: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    return GroupCAM(net, layer).attribute(
        x, 281, attribute_to_layer_input=True, n_groups=4, relu_attributions=False
    )


ON_LITE0: dict[str, Explain] = {
    "GroupCAM": group_cam,
    "RISE": lambda net, _, x: RISE(net).attribute(x, target=281, n_masks=6),
}


def assert_sees_the_same_cat(method, how, dtype, lite0, cat, explained):
    net, x, context = in_precision(how, HALVES[dtype], lite0.network, cat)
    with context:
        found = ON_LITE0[method](net, net._avg_pooling, x)
    assert_close(found.cpu(), explained[method], dtype)


@pytest.mark.parametrize(
    ("method", "how", "dtype"),
    [
        ("GroupCAM", "autocast", "bfloat16"),
        ("GroupCAM", "autocast", "float16"),
        ("GroupCAM", "converted", "bfloat16"),
        ("RISE", "autocast", "bfloat16"),
    ],
)
def test_lite0_sees_the_same_cat(method, how, dtype, lite0, cat, explained):
    assert_sees_the_same_cat(method, how, dtype, lite0, cat, explained)


@needs_cuda
@pytest.mark.parametrize("method", ON_LITE0)
@pytest.mark.parametrize("how", ["autocast", "converted"])
@pytest.mark.parametrize("dtype", HALVES)
def test_lite0_sees_the_same_cat_on_cuda(method, how, dtype, lite0, cat, explained):
    on_cuda = replace(lite0, network=copy.deepcopy(lite0.network).cuda())
    assert_sees_the_same_cat(method, how, dtype, on_cuda, cat.cuda(), explained)


def test_transformer_under_autocast():
    net = pytest.importorskip("timm").create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2
    )
    for module in net.eval().modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    x = images(2, 32, 32)
    layer = find_layer(net, x)
    explain = partial(
        GroupCAM(net, layer.module).attribute,
        x,
        1,
        n_groups=4,
        denoise_percentile=None,  # a position at the percentile is in or out by rounding
        relu_attributions=False,
        reshape_transform=layer.reshape_transform,
    )
    expected = explain()
    with torch.autocast("cpu", torch.bfloat16):
        assert find_layer(net, x).name == layer.name
        found = explain()
    assert found.dtype == torch.float32
    # Attention in bfloat16 is noisier in some versions of torch than in others.
    assert rank_correlation(found, expected) >= 0.8
