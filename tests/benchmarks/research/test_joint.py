"""Ways of looking and optimised masks, against loops that do one thing at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_groupcam import GroupCAM
from captum_groupcam.masking.baselines import gaussian_blur
from captum_groupcam.methods import METHODS
from tests.toy_networks import SmallCNN, scaled

from .test_ideas import TARGET, cut, details, explain, layer, resized


def grad_cam(network: SmallCNN, image: Tensor) -> Tensor:
    maps = METHODS["grad_cam"](network, network.features)(image, TARGET)
    return maps / maps.amax()


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """What a window sees that is moved, by indices."""
    rows = (torch.arange(24) + down).clamp(0, 23)
    columns = (torch.arange(24) + right).clamp(0, 23)
    return image[..., rows, :][..., columns]


def test_views_are_put_back_and_averaged(network: SmallCNN, image: Tensor) -> None:
    expected = torch.zeros(1, 1, 24, 24, dtype=torch.double)
    # A cell of 3 pixels: moves of 0.75 of one, which are 2 pixels, 1 to either side.
    for down, right in ((1, 1), (-1, -1), (-1, 1), (1, -1)):
        seen = shifted(image, down, right)
        expected += shifted(grad_cam(network, seen), -down, -right)
        mirrored = grad_cam(network, seen.flip(-1)).flip(-1)
        expected += shifted(mirrored, -down, -right)
    found = explain("research.views", network, image, reach=0.75)
    torch.testing.assert_close(found, expected / 8)
    pixels = details(network, image, sigma=2.0)
    pixels = pixels + details(network, image.flip(-1), sigma=2.0).flip(-1)
    found = explain("research.views", network, image, reach=0.75, power=0.5, sigma=2.0)
    torch.testing.assert_close(found, expected / 8 * pixels**0.5)


def test_views_of_a_contrast_are_those_of_finer_cam(network: SmallCNN, image: Tensor) -> None:
    finer_cam = METHODS["finer_cam"](network, network.features, strength=0.4)

    def found(seen: Tensor) -> Tensor:
        maps = finer_cam(seen, TARGET)
        return maps / maps.amax()

    expected = (found(image) + found(image.flip(-1)).flip(-1)) / 2
    views = explain("research.views", network, image, n_shifts=1, contrast=0.4)
    torch.testing.assert_close(views, expected)


def test_views_do_not_change_when_the_image_is_mirrored(network: SmallCNN, image: Tensor) -> None:
    maps = explain("research.views", network, image)
    torch.testing.assert_close(explain("research.views", network, image.flip(-1)), maps.flip(-1))


def test_an_unknown_number_of_shifts(network: SmallCNN, image: Tensor) -> None:
    with pytest.raises(ValueError, match="n_shifts must be 1, 2 or 4, got 3"):
        explain("research.views", network, image, n_shifts=3)


def lost(network: SmallCNN, image: Tensor, shown: Tensor, hidden: Tensor) -> Tensor:
    """p of the class without what is shown, less p with it alone."""
    removed = network(image * (1 - shown) + hidden * shown).softmax(1)[0, TARGET]
    return removed - network(image * shown + hidden * (1 - shown)).softmax(1)[0, TARGET]


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mask_goes_down_the_gradient(network: SmallCNN, image: Tensor, mirrored: bool) -> None:
    start = 6 * scaled(F.adaptive_avg_pool2d(grad_cam(network, image), 6)) - 3
    logits = start.clone().requires_grad_()
    adam = torch.optim.Adam([logits], lr=0.7)
    for step in range(2):
        grid = logits.sigmoid()
        shown = resized(grid[0, 0])
        flip = mirrored and step == 1
        seen = [one.flip(-1) if flip else one for one in (image, shown, gaussian_blur(image))]
        neighbours = [(grid[:, :, 1:] - grid[:, :, :-1]), (grid[..., 1:] - grid[..., :-1])]
        variation = sum(one.abs().mean() for one in neighbours) / 2
        loss = lost(network, *seen) + 0.3 * grid.mean() + 0.2 * variation
        adam.zero_grad()
        loss.backward()
        adam.step()
    expected = scaled(resized(logits.detach().sigmoid()[0, 0]))
    options: dict[str, Any] = {"cells": 6, "n_steps": 2, "rate": 0.7, "area": 0.3}
    options |= {"variation": 0.2, "mirrored": mirrored}
    found = explain("research.mask", network, image, **options, times="nothing")
    torch.testing.assert_close(found, expected)
    found = explain("research.mask", network, image, **options, floor=0.5)
    torch.testing.assert_close(found, (expected + 0.5) * grad_cam(network, image))
    looks: dict[str, Any] = {"n_shifts": 2, "contrast": 0.4}
    found = explain("research.mask", network, image, **options, times="views", **looks)
    views = explain("research.views", network, image, **looks)
    torch.testing.assert_close(found, expected * views)


def test_weights_of_groups_go_down_the_gradient(network: SmallCNN, image: Tensor) -> None:
    activations, channels = layer(network, image)
    masks = [
        cut(resized((activations[run] * channels[run].view(-1, 1, 1)).sum(0)))
        for run in torch.arange(64).tensor_split(4)
    ]
    logits = torch.zeros(4, dtype=torch.double, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.5)

    def shown() -> Tensor:
        mean = sum(w * one for w, one in zip(logits.softmax(0), masks, strict=True))
        assert isinstance(mean, Tensor)
        return scaled(mean)

    for hidden in (gaussian_blur(image), torch.zeros_like(image)):
        loss = lost(network, image, shown(), hidden) + 0.1 * shown().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    found = explain(
        "research.weights", network, image, n_groups=4, n_steps=2, baselines="blur+zeros"
    )
    torch.testing.assert_close(found, shown().detach())


def test_noise_is_drawn_from_a_seed(network: SmallCNN, image: Tensor) -> None:
    first, again, other = (
        explain("research.mask", network, image, noise=0.3, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_unknown_factor(network: SmallCNN, image: Tensor) -> None:
    with pytest.raises(ValueError, match="one of nothing, grad_cam, views; got 'cam'"):
        explain("research.mask", network, image, times="cam")


def effect_of(network: SmallCNN, image: Tensor, scores: Tensor) -> Tensor:
    """What showing 15 and 45 % of a map's first pixels gains over hiding them, on average."""
    order, found = scores.flatten().argsort(descending=True), []
    for share in (0.15, 0.45):
        shown = torch.zeros(576, dtype=torch.double)
        shown[order[: round(share * 576)]] = 1
        found.append(-lost(network, image, shown.view(1, 1, 24, 24), gaussian_blur(image)))
    return sum(found, torch.zeros(1, dtype=torch.double)) / 2


def two_maps(network: SmallCNN, image: Tensor, prior: float) -> list[Tensor]:
    """Finer-CAM of the image and its mirror image, and Group-CAM of four groups with some of it."""
    views = explain("research.views", network, image, n_shifts=1, contrast=0.4)
    groups = GroupCAM(network, network.features).attribute(
        image, TARGET, n_groups=4, denoise_at="input"
    )
    groups = groups / groups.amax() + prior * views
    return [one / one.amax() for one in (views, groups)]


@pytest.mark.parametrize("sharpness", [0.0, 7.0, 1e9])
def test_judged_maps_are_weighted_by_what_is_scored(
    network: SmallCNN, image: Tensor, sharpness: float
) -> None:
    views, groups = two_maps(network, image, 0.2)
    both = views * groups
    maps = [views, groups, both / both.amax()]
    effects = torch.cat([effect_of(network, image, one) for one in maps])
    if sharpness == 1e9:
        expected = maps[int(effects.argmax())]
    else:
        shares = (sharpness * effects).softmax(0)
        expected = sum(share * one for share, one in zip(shares, maps, strict=True))
    found = explain(
        "research.judged", network, image, n_shifts=1, contrast=0.4, n_groups=4, prior=0.2, guide=0,
        sharpness=sharpness,
    )  # fmt: skip
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("exponent", [0.0, 2.0])
def test_what_two_maps_agree_on_is_their_geometric_mean(
    network: SmallCNN, image: Tensor, exponent: float
) -> None:
    maps = two_maps(network, image, 0.2)
    effects = torch.cat([effect_of(network, image, one) for one in maps]).relu()
    first, second = effects**exponent if effects.any() else torch.ones(2)
    share = first / (first + second)
    expected = (maps[0] + 0.1) ** share * (maps[1] + 0.1) ** (1 - share) - 0.1
    found = explain(
        "research.agreed", network, image, contrast=0.4, n_groups=4, prior=0.2, guide=0,
        exponent=exponent, floor=0.1, power=0.0,
    )  # fmt: skip
    torch.testing.assert_close(found, expected.detach())
