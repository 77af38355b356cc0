"""ConsensusGroupCAM, against a naive loop written from its steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from captum_groupcam import ConsensusGroupCAM, GradCAM
from captum_groupcam.attr.maps import divide_by_maximum, guided_filter
from captum_groupcam.masking.baselines import GaussianBlur
from captum_groupcam.masking.masks import upsample
from captum_groupcam.masking.ranks import RankMasks
from captum_groupcam.methods import find_method
from tests.toy_networks import Recorder, SmallCNN, classifier, images, small_inputs

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
BLUR = GaussianBlur(7, 3.0)
#: Two pixels, and one and a half, of 24.
OPTIONS = {"baselines": BLUR, "n_groups": 3, "edge_radius": 2 / 24, "gradient_sigma": 1.5 / 24}


def naive_filter(
    image: np.ndarray, values: np.ndarray, radius: int, epsilon: float = 0.01
) -> np.ndarray:
    """Equations 5, 6 and 8 of the paper on guided filtering, window by window."""
    guide = image.mean(0)
    guide = (guide - guide.mean()) / (guide.std(ddof=1) or 1)
    slopes, offsets = np.empty_like(values), np.empty_like(values)
    windows = {
        index: tuple(slice(max(i - radius, 0), i + radius + 1) for i in index)
        for index in np.ndindex(values.shape)
    }
    for index, window in windows.items():
        inside, seen = values[window], guide[window]
        covariance = (inside * seen).mean() - inside.mean() * seen.mean()
        slopes[index] = covariance / (seen.var() + epsilon)
        offsets[index] = inside.mean() - slopes[index] * seen.mean()
    filtered = np.empty_like(values)
    for index, window in windows.items():
        filtered[index] = slopes[window].mean() * guide[index] + offsets[window].mean()
    return np.maximum(filtered, 0)


def naive_finer_cam(network: nn.Module, sample: Tensor, target: int) -> np.ndarray:
    """Finer-CAM at the input's resolution (eqs. 3 and 4 of its paper), with a maximum of one."""
    activations = network.features(sample)
    outputs = network.classifier(network.pooling(activations).flatten(1))[0]
    values = outputs.tolist()
    others = [label for label in range(len(outputs)) if label != target]
    others.sort(key=lambda label: abs(values[label] - values[target]))
    score = outputs[target] - 0.6 * outputs[others[:3]].mean()
    (gradients,) = torch.autograd.grad(score, activations)
    weights = gradients.flatten(2).mean(2)[0].numpy()
    channels = activations.detach()[0].numpy()
    summed = sum(weight * channel for weight, channel in zip(weights, channels, strict=True))
    found = enlarged(np.maximum(summed, 0), sample)
    return found / (found.max() or 1)


def enlarged(values: np.ndarray, sample: Tensor) -> np.ndarray:
    size = sample.shape[2:]
    grid = torch.from_numpy(values)[None, None]
    return F.interpolate(grid, size=size, mode=MODES[len(size)])[0, 0].numpy()


def naive_consensus(
    network: nn.Module,
    sample: Tensor,
    target: int,
    n_groups: int = 3,
    radius: int = 2,
    sigma: float = 1.5,
    *,
    flip: bool = True,
) -> tuple[np.ndarray, list]:
    """The map of one sample (1 x C x spatial), and the effects of the two that it is made of."""
    size = sample.shape[2:]
    baseline = BLUR(sample)

    def score(seen: Tensor) -> float:
        with torch.no_grad():
            return float(network(seen).softmax(1)[0, target])

    leaf = sample.clone().requires_grad_()
    activations = network.features(leaf)
    output = network.classifier(network.pooling(activations).flatten(1))[0, target]
    at_layer, at_input = torch.autograd.grad(output, [activations, leaf])
    weights = at_layer[0].flatten(1).mean(1).numpy()
    channels = activations.detach()[0].numpy()
    contributions = weights.reshape(-1, *[1] * len(size)) * channels

    finer = naive_finer_cam(network, sample, target)
    if flip:
        mirrored = naive_finer_cam(network, sample.flip(-1), target)
        finer = (finer + mirrored[..., ::-1]) / 2
    group_cam = np.zeros(tuple(size))
    for group in np.array_split(np.arange(len(channels)), n_groups):
        mask = enlarged(np.maximum(contributions[group].sum(0), 0), sample)
        mask = np.where(mask > np.percentile(mask, 70), mask, 0)
        if not mask.any():
            continue
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        shown = torch.from_numpy(mask) * sample + torch.from_numpy(1 - mask) * baseline
        group_cam += (score(shown) - score(baseline)) * mask
    group_cam = np.maximum(group_cam, 0)
    group_cam = group_cam / (group_cam.max() or 1) + 0.5 * finer

    both = [naive_filter(sample[0].numpy(), one, radius) for one in (finer, group_cam)]
    both = [one / (one.max() or 1) for one in both]
    effects = []
    for one in both:
        differences = []
        for share in (0.15, 0.45):
            order = np.argsort(-one.ravel(), kind="stable")
            first = np.zeros(one.size)
            first[order[: round(share * one.size)]] = 1
            top = torch.from_numpy(first).view(size)
            alone = score(sample * top + baseline * (1 - top))
            differences.append(alone - score(sample * (1 - top) + baseline * top))
        effects.append(np.mean(differences))
    powers = [max(effect, 0) ** 4 for effect in effects]
    shares = [power / sum(powers) for power in powers] if any(powers) else [0.5, 0.5]
    mean = np.prod([(one + 0.02) ** w for one, w in zip(both, shares, strict=True)], axis=0)
    magnitudes = at_input[0].abs().sum(0).numpy()
    blurred = gaussian_filter(magnitudes, sigma, mode="mirror", radius=round(2 * sigma))
    return np.maximum(mean - 0.02, 0) * (blurred / blurred.max()) ** 0.2, effects


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_is_its_steps(dims: int, flip: bool) -> None:
    network = SmallCNN(dims, channels=9, seed=2)
    inputs, targets = small_inputs(4, dims), [2, 4, 2, 4]
    consensus = ConsensusGroupCAM(network, network.features)
    maps, effects = consensus.attribute(inputs, targets, **OPTIONS, flip=flip, return_effects=True)
    flip = flip and dims > 1  # a sequence would run backwards
    for index, target in enumerate(targets):
        sample = inputs[index : index + 1]
        expected, expected_effects = naive_consensus(network, sample, target, flip=flip)
        np.testing.assert_allclose(effects[index], expected_effects, atol=1e-8)
        np.testing.assert_allclose(maps[index, 0], expected, atol=1e-8)


@pytest.mark.parametrize(("size", "radius", "sigma"), [(224, 8, 6.0), (112, 4, 3.0)])
def test_defaults_are_eight_and_six_pixels_of_224(size: int, radius: int, sigma: float) -> None:
    network, inputs = SmallCNN(1, channels=21, seed=2), small_inputs(2, 1, size)
    maps = ConsensusGroupCAM(network, network.features).attribute(inputs, 2, baselines=BLUR)
    for index in range(2):
        sample = inputs[index : index + 1]
        expected, _ = naive_consensus(network, sample, 2, 19, radius, sigma, flip=False)
        np.testing.assert_allclose(maps[index, 0], expected, atol=1e-8)


def test_sizes_are_shares_of_the_shorter_side() -> None:
    network, inputs = SmallCNN(), small_inputs(2)[..., :18]
    consensus = ConsensusGroupCAM(network, network.features)
    options = {"edge_radius": 2 / 18, "gradient_sigma": 1.5 / 18, "flip": False}
    turned = SmallCNN()
    for layer in (turned.features[0], turned.features[2]):
        layer.weight = nn.Parameter(layer.weight.transpose(2, 3).contiguous())
    maps = consensus.attribute(inputs, 1, **{**OPTIONS, **options})
    of_turned = ConsensusGroupCAM(turned, turned.features).attribute(
        inputs.transpose(2, 3), 1, **{**OPTIONS, **options}
    )
    torch.testing.assert_close(of_turned.transpose(2, 3), maps)


@pytest.mark.parametrize("shape", [(1,), ()], ids=["N x 1", "N"])
def test_one_output_has_nothing_to_be_set_apart_from(shape: tuple[int, ...]) -> None:
    network = SmallCNN(classes=2, seed=1)
    inputs = small_inputs(2)

    def margin(x: Tensor) -> Tensor:
        return network(x).diff(dim=1).view(-1, *shape)

    consensus = ConsensusGroupCAM(margin, network.features)
    options = {**OPTIONS, "score_func": torch.sigmoid}
    maps, effects = consensus.attribute(inputs, **options, return_effects=True)
    assert maps.flatten(1).any(1).all()
    grad_cam = GradCAM(margin, network.features).attribute(inputs, relu_attributions=True)
    mirrored = GradCAM(margin, network.features).attribute(inputs.flip(-1), relu_attributions=True)
    both = [divide_by_maximum(upsample(one, (24, 24))) for one in (grad_cam, mirrored)]
    first = guided_filter((both[0] + both[1].flip(-1)) / 2, inputs, 2)
    masks = RankMasks.of(first, (0.15, 0.45)).render(
        torch.zeros(4, dtype=torch.long), torch.arange(4), (24, 24)
    )
    seen = masks * inputs[:1] + (1 - masks) * BLUR(inputs[:1])
    scores = margin(seen).sigmoid().flatten().detach()
    torch.testing.assert_close(effects[0, 0], (scores[::2] - scores[1::2]).mean())


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("epsilon", [0.01, 0.05])
@pytest.mark.parametrize("flat", [False, True])
def test_guided_filter_is_its_equations(dims: int, epsilon: float, flat: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    size = (7, 8, 5)[:dims]
    image = torch.rand(1, 3, *size, generator=generator, dtype=torch.double)
    maps = torch.rand(1, 2, *size, generator=generator, dtype=torch.double)
    image = torch.ones_like(image) if flat else image
    filtered = guided_filter(maps, image, 2, epsilon)
    for index in range(2):
        expected = naive_filter(image[0].numpy(), maps[0, index].numpy(), 2, epsilon)
        np.testing.assert_allclose(filtered[0, index], expected, atol=1e-12)
    assert torch.equal(guided_filter(maps, image, 0), maps)


def test_price_is_that_of_group_cam() -> None:
    network, x = classifier(channels=40), images(1, 24, 24)
    nn.init.uniform_(network.head[-1].weight)  # so that no group is without evidence
    recorder = Recorder(network)
    ConsensusGroupCAM(recorder, network.features).attribute(x, 2)
    # Gradients at the input are counted as three passes, those at the layer as one.
    assert sum(recorder.batch_sizes) == 1 + 3 + 19 + 1 + 2 * 2 * 2
    assert sum(recorder.batch_sizes) == find_method("group_cam_consensus").n_passes()
    assert sum(recorder.batch_sizes) + 2 == 34


def test_only_one_input_is_masked() -> None:
    network = SmallCNN()

    def forward(first: Tensor, scale: Tensor) -> Tensor:
        return network(first) * scale

    inputs, scale = small_inputs(2), torch.tensor([[1.0], [2.0]], dtype=torch.double)
    consensus = ConsensusGroupCAM(forward, network.features)
    maps, other = consensus.attribute((inputs, scale), 1, **OPTIONS)
    assert maps.shape == (2, 1, 24, 24)
    assert torch.equal(other, torch.zeros(2, 1))
    alone = consensus.attribute(inputs, 1, scale, **OPTIONS)
    torch.testing.assert_close(maps, alone)
    with pytest.raises(ValueError, match=r"one input with spatial dimensions, got 2"):
        ConsensusGroupCAM(lambda a, b: network(a + b), network.features).attribute(
            (inputs, inputs), 1
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": ()}, "shares needs at least one number"),
        ({"shares": (0.5, 1.0)}, r"each of shares must be in \(0, 1\), got 1.0"),
        ({"edge_radius": -1}, r"edge_radius must be in \[0, 1\), got -1. It is a share of"),
        ({"gradient_sigma": 0.0}, r"gradient_sigma must be in \(0, 1\], got 0.0. It is a share"),
        ({"gradient_power": -1.0}, r"gradient_power must be in \(0, inf\), got -1.0"),
        ({"flip": None}, "flip must be True or False, got None"),
        ({"n_groups": 0}, "n_groups must be at least 1, got 0"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    network = SmallCNN()
    with pytest.raises((TypeError, ValueError), match=message):
        ConsensusGroupCAM(network, network.features).attribute(small_inputs(1), 1, **options)


def test_network_without_gradients_at_the_input() -> None:
    class Rounded(SmallCNN):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs.detach())

    network = Rounded()
    with pytest.raises(ValueError, match="no gradient with respect to the input"):
        ConsensusGroupCAM(network, network.features).attribute(small_inputs(1), 1)
