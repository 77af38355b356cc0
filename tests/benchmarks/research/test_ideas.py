"""Every idea, and each of them against loops that ask the network one image at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import hadamard
from torch import Tensor
from torch.nn import Module

from benchmarks.research import RESEARCH
from benchmarks.research.choices import finer_activations
from benchmarks.research.questions import mean_effect
from benchmarks.research.regression import smoothness
from benchmarks.research.runs import run_groups
from benchmarks.research.steps import Probe
from benchmarks.run.network import Compiled, counted
from captum_groupcam import GroupCAM
from captum_groupcam.attr.maps import guided_filter
from captum_groupcam.masking.baselines import gaussian_blur
from captum_groupcam.masking.random_masks import RandomMasks
from captum_groupcam.methods import METHODS
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import SmallCNN, scaled, small_inputs

OPTIONS: dict[str, dict[str, Any]] = {"research.two_layers": {"second": "features.2"}}
#: A pass back to the input counts three, of which one is seen.
UNSEEN = {
    "research.detailed": 2,
    "research.chosen": 2,
    "research.mask": 20,
    "research.weights": 20,
}
#: Those that do with less.
CHEAPER = {"research.views": 9, "research.mask": 31, "research.weights": 31}
TARGET = 2


def explain(
    name: str, network: Module, inputs: Tensor, target: Any = TARGET, **options: Any
) -> Tensor:
    layer = getattr(network, "_orig_mod", network).features
    return METHODS[name](network, layer, **{**OPTIONS.get(name, {}), **options})(inputs, target)


def probability(network: SmallCNN, image: Tensor, mask: Tensor | float) -> float:
    """p of the class where the mask shows the image and else its blur is seen."""
    seen = image * mask + gaussian_blur(image) * (1 - mask)
    with torch.no_grad():
        return float(network(seen).softmax(1)[0, TARGET])


def layer(network: SmallCNN, image: Tensor) -> tuple[Tensor, Tensor]:
    """Activations (K x h x w) and their weights (K), by autograd."""
    activations = network.features(image).detach().requires_grad_()
    network.classifier(network.pooling(activations).flatten(1))[0, TARGET].backward()
    assert activations.grad is not None
    return activations.detach()[0], activations.grad.mean((2, 3))[0]


def resized(one: Tensor, size: int = 24) -> Tensor:
    return F.interpolate(one[None, None], (size, size), mode="bilinear", align_corners=False)


def cut(mask: Tensor, percentile: float = 70.0) -> Tensor:
    level = np.percentile(mask.numpy(), percentile)
    return scaled(torch.where(mask > level, mask, torch.zeros(()).to(mask)))


def details(network: SmallCNN, image: Tensor, sigma: float, copies: int = 1) -> Tensor:
    """Magnitudes of the input's gradient, by autograd, blurred and with a mean of one."""
    if copies == 1:
        pixels = image.clone().requires_grad_()
        network(pixels)[0, TARGET].backward()
        assert pixels.grad is not None
        magnitudes = pixels.grad.abs().sum(1, keepdim=True)
    else:
        magnitudes = METHODS["smooth_grad"](network, n_samples=copies)(image, TARGET)
    radius = int(2 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2).double()
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    padded = F.pad(magnitudes, (radius,) * 4, mode="reflect")
    blurred = F.conv2d(padded, kernel[None, None])
    return blurred / blurred.mean()


# --- what holds for all


@pytest.mark.parametrize("name", RESEARCH)
def test_at_most_34_queries(name: str, network: SmallCNN, image: Tensor) -> None:
    with counted(network) as queries:
        explain(name, network, image)
    count = queries.count + UNSEEN.get(name, 0)
    assert count == CHEAPER[name] if name in CHEAPER else 32 <= count <= 34


@pytest.mark.parametrize("name", RESEARCH)
def test_a_batch_equals_its_samples(name: str, network: SmallCNN) -> None:
    inputs = small_inputs(3)
    maps = explain(name, network, inputs, [0, TARGET, 1])
    assert maps.shape == (3, 1, 24, 24)
    one = explain(name, network, inputs[1:2], TARGET)
    assert one.amax() > 0
    torch.testing.assert_close(maps[1:2], one)


@pytest.mark.parametrize("name", RESEARCH)
def test_an_image_without_anything_to_see(name: str, network: SmallCNN) -> None:
    maps = explain(name, network, torch.zeros(1, 3, 24, 24, dtype=torch.double))
    assert maps.isfinite().all()


def test_the_other_layer_is_found_in_a_compiled_network(
    network: SmallCNN, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: compile_(*a, **k, backend="eager"))
    expected = explain("research.two_layers", network, image)
    torch.testing.assert_close(explain("research.two_layers", Compiled(network), image), expected)


def test_they_explain_a_layer(network: SmallCNN, image: Tensor) -> None:
    with pytest.raises(ValueError, match="explains a layer: give one"):
        METHODS["research.group_cam"](network)(image, 0)


# --- other choices


@pytest.mark.parametrize("at", ["layer", "input"])
@pytest.mark.parametrize("percentile", [None, 60])
def test_without_other_choices_it_is_group_cam(
    network: SmallCNN, at: Any, percentile: float | None
) -> None:
    inputs = small_inputs(2)
    maps = explain("research.group_cam", network, inputs, percentile=percentile, denoise_at=at)
    expected = GroupCAM(network, network.features).attribute(
        inputs, TARGET, denoise_percentile=percentile, denoise_at=at
    )
    torch.testing.assert_close(maps, expected)


def test_order_score_and_baseline_reach_group_cam(network: SmallCNN, image: Tensor) -> None:
    maps = explain(
        "research.group_cam", network, image, n_groups=5, order="weight", score="logit",
        baseline="zeros",
    )  # fmt: skip
    activations, weights = layer(network, image)
    sums = activations.flatten(1).sum(1) * weights

    def by_sum(channels: Tensor, n_groups: int) -> Tensor:
        groups = torch.empty(len(sums), dtype=torch.long)
        for group, run in enumerate(sums.argsort(descending=True).tensor_split(n_groups)):
            groups[run] = group
        return groups.unsqueeze(0)

    expected = GroupCAM(network, network.features).attribute(
        image, TARGET, n_groups=5, grouping=by_sum, score_func=lambda logits: logits,
        baselines=0.0, denoise_at="input",
    )  # fmt: skip
    torch.testing.assert_close(maps, expected)


def test_soft_masks_begin_at_zero(network: SmallCNN, image: Tensor) -> None:
    maps = explain("research.group_cam", network, image, n_groups=1, soft=True)
    activations, weights = layer(network, image)
    grad_cam = (activations * weights.view(-1, 1, 1)).sum(0)
    lowered = (grad_cam - np.percentile(grad_cam.numpy(), 70)).clamp(min=0)
    torch.testing.assert_close(scaled(maps), scaled(resized(lowered)))


def test_a_small_share_of_grad_cam_breaks_ties_only(network: SmallCNN, image: Tensor) -> None:
    plain = explain("research.group_cam", network, image, n_groups=1).flatten()
    ranked = explain("research.group_cam", network, image, n_groups=1, prior=1e-6).flatten()
    assert (plain == 0).sum() > 400 > (ranked == 0).sum()
    order = ranked.argsort(descending=True)
    apart = plain[order].diff()
    assert (apart <= 1e-5 * plain.amax()).all()


def test_with_little_noise_the_solved_map_explains_the_scores(
    network: SmallCNN, image: Tensor
) -> None:
    maps = explain(
        "research.group_cam", network, image, n_groups=3, solve=1e-9, percentile=None, length=0.05
    )
    activations, weights = layer(network, image)
    hidden = probability(network, image, 0.0)
    cells = F.adaptive_avg_pool2d(maps, 8).flatten()
    for run in torch.arange(64).tensor_split(3):
        mask = scaled(resized((activations[run] * weights[run].view(-1, 1, 1)).sum(0)))
        shown = float(F.adaptive_avg_pool2d(mask, 8).flatten() @ cells)
        # Cells of the interpolated map are not quite those that were solved for.
        assert shown == pytest.approx(probability(network, image, mask) - hidden, rel=0.15)


def test_shifted_images_give_the_activations_of_half_the_stride(image: Tensor) -> None:
    coarse, fine = SmallCNN(stride=4), SmallCNN(stride=4)
    fine.features[2].stride = (2, 2)
    layer = TargetLayer(coarse.features)
    probe = Probe.ask(coarse, layer, image, TARGET)
    found = finer_activations(probe, layer)
    with torch.no_grad():
        # Cells begin at -1, 1, 3, ... pixels.
        expected = fine.features(F.pad(image, (1, 1, 1, 1), mode="replicate"))
    assert found.shape[2:] == (12, 12)
    # At the border the window sees a zero where the whole sees the image.
    torch.testing.assert_close(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])


def test_two_layers_are_two_maps(network: SmallCNN, image: Tensor) -> None:
    maps = [
        GroupCAM(network, part).attribute(image, TARGET, n_groups=4, denoise_at="input")
        for part in (network.features, network.features[2])
    ]
    first, second = (one / one.amax() for one in maps)
    found = explain("research.two_layers", network, image, n_groups=4)
    torch.testing.assert_close(found, first * (0.1 + second))
    found = explain("research.two_layers", network, image, n_groups=4, product=False)
    torch.testing.assert_close(found, first + second)

    with_priors = []
    for one, part in zip((first, second), (network.features, network.features[2]), strict=True):
        grad_cam = METHODS["grad_cam"](network, part)(image, TARGET)
        with_prior = one + grad_cam / grad_cam.amax()
        with_priors.append(with_prior / with_prior.amax())
    found = explain("research.two_layers", network, image, n_groups=4, prior=1.0, guide=3)
    expected = guided_filter(with_priors[0] * (0.1 + with_priors[1]), image, 3)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("copies", [1, 3])
def test_details_are_the_gradients_of_the_input(
    network: SmallCNN, image: Tensor, copies: int
) -> None:
    options = {"n_groups": 4, "prior": 0.0, "sigma": 2.0, "power": 0.7, "copies": copies}
    found = explain("research.detailed", network, image, **options)
    plain = explain("research.group_cam", network, image, n_groups=4)
    expected = plain * details(network, image, sigma=2.0, copies=copies) ** 0.7
    torch.testing.assert_close(found, expected)
    found = explain("research.detailed", network, image, **options, guide=3)
    pixels = details(network, image, sigma=2.0, copies=copies)
    torch.testing.assert_close(found, guided_filter(plain, image, 3) * pixels**0.7)


# --- other questions


def test_what_is_kept_and_what_is_removed(network: SmallCNN, image: Tensor) -> None:
    activations, weights = layer(network, image)
    hidden, whole = probability(network, image, 0.0), probability(network, image, 1.0)
    expected = torch.zeros(1, 1, 24, 24, dtype=torch.double)
    for run in torch.arange(64).tensor_split(4):
        mask = cut(resized((activations[run] * weights[run].view(-1, 1, 1)).sum(0)))
        kept = probability(network, image, mask) - hidden
        lost = whole - probability(network, image, 1 - mask)
        expected += (kept + lost) * mask
    found = explain("research.kept_and_removed", network, image, n_groups=4)
    torch.testing.assert_close(found, expected.clamp(min=0))


def test_adaptive_groups_split_the_best(network: SmallCNN, image: Tensor) -> None:
    activations, weights = layer(network, image)
    hidden = probability(network, image, 0.0)
    left: list[tuple[float, Tensor, list[int]]] = []

    def ask(channels: list[int]) -> tuple[float, Tensor, list[int]]:
        mask = cut(resized((activations[channels] * weights[channels].view(-1, 1, 1)).sum(0)))
        return probability(network, image, mask) - hidden, mask, channels

    asked = [ask(list(range(start, start + 16))) for start in range(0, 64, 16)]
    for _ in range(2):
        asked.sort(key=lambda group: -group[0])
        left += asked[2:]
        halves = [half for _, _, c in asked[:2] for half in (c[: len(c) // 2], c[len(c) // 2 :])]
        asked = [ask(half) for half in halves]
    expected = sum(alpha * mask for alpha, mask, _ in left + asked)
    found = explain(
        "research.adaptive", network, image, first=4, best=2, parts=2, rounds=2, order="channel"
    )
    torch.testing.assert_close(found, expected.clamp(min=0))


def test_coalitions_give_the_effects_of_a_foldover_design(network: SmallCNN, image: Tensor) -> None:
    activations, weights = layer(network, image)
    contributions = (activations * weights.view(-1, 1, 1)).unsqueeze(0)
    groups = run_groups(contributions, 4, order="place", balanced=True)[0]
    single = [cut(contributions[0, groups == g].sum(0)[None, None])[0, 0] for g in range(4)]
    design, differences = hadamard(4), []
    for row in design:
        sides = []
        for sign in (1, -1):
            union = torch.zeros(8, 8, dtype=torch.double)
            for member, mask in zip(row == sign, single, strict=True):
                union = torch.maximum(union, mask) if member else union
            sides.append(probability(network, image, scaled_or_zero(resized(union))))
        differences.append(sides[0] - sides[1])
    effects, *_ = np.linalg.lstsq(design, np.array(differences), rcond=None)
    masks = [scaled(resized(mask)) for mask in single]
    expected = sum(effect * mask for effect, mask in zip(effects, masks, strict=True))
    found = explain("research.coalitions", network, image, n_groups=4)
    torch.testing.assert_close(found, expected.clamp(min=0))


def scaled_or_zero(mask: Tensor) -> Tensor:
    return scaled(mask) if mask.any() else mask


def test_random_masks_correct_grad_cam(network: SmallCNN, image: Tensor) -> None:
    found = explain("research.random_masks", network, image, n_pairs=3, cells=4, grid_size=3)
    activations, weights = layer(network, image)
    grad_cam = resized((activations * weights.view(-1, 1, 1)).sum(0).clamp(min=0))
    prior = F.adaptive_avg_pool2d(grad_cam, 4).flatten().numpy()
    masks = RandomMasks.draw(
        3, (3, 3), 0.5, torch.Generator().manual_seed(0), n_samples=1, like=image
    )
    rows, differences = [], []
    for index in range(3):
        mask = masks.render(torch.tensor([0]), torch.tensor([index]), (24, 24))
        shown = probability(network, image, mask)
        differences.append(shown - probability(network, image, 1 - mask))
        rows.append((2 * F.adaptive_avg_pool2d(mask, 4) - 1).flatten().numpy())
    shown_, scores = np.array(rows), np.array(differences)
    factor = max(np.linalg.lstsq((shown_ @ prior)[:, None], scores, rcond=None)[0][0], 0)
    covariance = smoothness((4, 4), 0.15, image).numpy()
    gram = shown_ @ covariance @ shown_.T
    gram += np.trace(gram) / 3 * np.eye(3)
    surprise = scores - factor * shown_ @ prior
    cells = factor * prior + covariance @ shown_.T @ np.linalg.solve(gram, surprise)
    torch.testing.assert_close(found, resized(torch.from_numpy(cells).view(4, 4)))


def effect(network: SmallCNN, image: Tensor, ranked: Tensor, counts: list[int]) -> float:
    """The mean over counts of what the first pixels do, shown and hidden."""
    effects = []
    order = ranked.flatten().argsort(descending=True)
    for count in counts:
        first = torch.zeros(576, dtype=torch.double)
        first[order[:count]] = 1
        first = first.view(1, 1, 24, 24)
        effects.append(probability(network, image, first) - probability(network, image, 1 - first))
    return sum(effects) / len(effects)


def test_the_mean_effect_is_that_of_the_first_pixels(network: SmallCNN, image: Tensor) -> None:
    maps = torch.rand(1, 2, 24, 24, dtype=torch.double)
    probe = Probe.ask(network, TargetLayer(network.features), image, TARGET)
    found = mean_effect(probe, maps, [0.25, 0.5])
    for index in range(2):
        expected = effect(network, image, maps[0, index], [144, 288])
        assert float(found[0, index]) == pytest.approx(expected)


@pytest.mark.parametrize("n_groups", [0, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_map_is_chosen(network: SmallCNN, n_groups: int, seed: int) -> None:
    image = small_inputs(1, seed=seed)
    bases = [explain("grad_cam", network, image)]
    if n_groups:
        options = {"n_groups": n_groups, "prior": 0.1}
        bases.append(explain("research.group_cam", network, image, **options))
    pixels = details(network, image, sigma=2.0)
    candidates = [base * power for power in (pixels**0.8, 1) for base in bases]
    counts = [round(share * 576) for share in (0.1, 0.3, 0.5)]
    best = max(candidates, key=lambda one: effect(network, image, one, counts))
    found = explain(
        "research.chosen", network, image, n_groups=n_groups, n_powers=2, n_shares=3, sigma=2.0
    )
    torch.testing.assert_close(found, best)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_map_with_another_layer_is_chosen(network: SmallCNN, seed: int) -> None:
    image = small_inputs(1, seed=seed)
    bases = [
        explain("grad_cam", network, image),
        explain("research.group_cam", network, image, n_groups=4, prior=0.1),
    ]
    other = METHODS["grad_cam"](network, network.features[1])(image, TARGET)
    sharp = 0.1 + other / other.amax()
    candidates = [base * factor for factor in (sharp, 1) for base in bases]
    best = max(candidates, key=lambda one: effect(network, image, one, [86, 259]))
    options = {"n_groups": 4, "n_powers": 2, "n_shares": 2, "power": 1.0, "second": "features.1"}
    torch.testing.assert_close(explain("research.chosen", network, image, **options), best)


@pytest.mark.parametrize("which", [0, 1])
def test_the_winner_is_in_the_package(which: int) -> None:
    # Positions that a map leaves level are ranked in another order there: two samples without.
    images, target = small_inputs(4, 2, 224)[2 + which :][:1], (3, 0)[which]
    network = SmallCNN(channels=24, seed=1)
    ours = explain("research.agreed", network, images, target, prior=0.5)
    theirs = explain("group_cam_consensus", network, images, target)
    torch.testing.assert_close(*(one / one.amax((1, 2, 3), keepdim=True) for one in (ours, theirs)))
