"""ConsensusGroupCAM, against a naive loop written from its five steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from captum_groupcam import ConsensusGroupCAM
from captum_groupcam.attr.maps import guided_filter
from captum_groupcam.masking.baselines import GaussianBlur
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


def naive_selective(
    network: nn.Module,
    sample: Tensor,
    target: int,
    n_groups: int = 3,
    radius: int = 2,
    sigma: float = 1.5,
) -> tuple[np.ndarray, list]:
    """The map of one sample (1 x C x spatial), and the effects of the four it is selected from."""
    size, mode = sample.shape[2:], MODES[sample.dim() - 2]
    baseline = BLUR(sample)

    def score(seen: Tensor) -> float:
        with torch.no_grad():
            return float(network(seen).softmax(1)[0, target])

    def enlarged(values: np.ndarray) -> np.ndarray:
        grid = torch.from_numpy(values)[None, None]
        return F.interpolate(grid, size=size, mode=mode)[0, 0].numpy()

    leaf = sample.clone().requires_grad_()
    activations = network.features(leaf)
    output = network.classifier(network.pooling(activations).flatten(1))[0, target]
    at_layer, at_input = torch.autograd.grad(output, [activations, leaf])
    weights = at_layer[0].flatten(1).mean(1).numpy()
    channels = activations.detach()[0].numpy()
    contributions = weights.reshape(-1, *[1] * len(size)) * channels

    grad_cam = enlarged(np.maximum(contributions.sum(0), 0))
    grad_cam = grad_cam / grad_cam.max()
    group_cam = np.zeros(tuple(size))
    for group in np.array_split(np.arange(len(channels)), n_groups):
        mask = enlarged(np.maximum(contributions[group].sum(0), 0))
        mask = np.where(mask > np.percentile(mask, 70), mask, 0)
        if not mask.any():
            continue
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        shown = torch.from_numpy(mask) * sample + torch.from_numpy(1 - mask) * baseline
        group_cam += (score(shown) - score(baseline)) * mask
    group_cam = np.maximum(group_cam, 0)
    group_cam = group_cam / (group_cam.max() or 1) + 0.1 * grad_cam

    magnitudes = at_input[0].abs().sum(0).numpy()
    blurred = gaussian_filter(magnitudes, sigma, mode="mirror", radius=round(2 * sigma))
    both = [naive_filter(sample[0].numpy(), one, radius) for one in (grad_cam, group_cam)]
    candidates = [one * (blurred / blurred.max()) ** 0.8 for one in both] + both
    effects = []
    for candidate in candidates:
        differences = []
        for share in (0.15, 0.45):
            order = np.argsort(-candidate.ravel(), kind="stable")
            first = np.zeros(candidate.size)
            first[order[: round(share * candidate.size)]] = 1
            top = torch.from_numpy(first).view(size)
            alone = score(sample * top + baseline * (1 - top))
            differences.append(alone - score(sample * (1 - top) + baseline * top))
        effects.append(np.mean(differences))
    return candidates[int(np.argmax(effects))], effects


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_is_its_five_steps(dims: int) -> None:
    network = SmallCNN(dims, channels=9, seed=2)
    inputs, targets = small_inputs(4, dims), [2, 4, 2, 4]
    selective = ConsensusGroupCAM(network, network.features)
    maps, effects = selective.attribute(inputs, targets, **OPTIONS, return_effects=True)
    for index, target in enumerate(targets):
        expected, expected_effects = naive_selective(network, inputs[index : index + 1], target)
        np.testing.assert_allclose(effects[index], expected_effects, atol=1e-8)
        np.testing.assert_allclose(maps[index, 0], expected, atol=1e-8)


@pytest.mark.parametrize(("size", "radius", "sigma"), [(224, 8, 6.0), (112, 4, 3.0)])
def test_defaults_are_eight_and_six_pixels_of_224(size: int, radius: int, sigma: float) -> None:
    network, inputs = SmallCNN(1, channels=15, seed=2), small_inputs(2, 1, size)
    maps = ConsensusGroupCAM(network, network.features).attribute(inputs, 2, baselines=BLUR)
    for index in range(2):
        sample = inputs[index : index + 1]
        expected, _ = naive_selective(network, sample, 2, 13, radius, sigma)
        np.testing.assert_allclose(maps[index, 0], expected, atol=1e-8)


def test_sizes_are_shares_of_the_shorter_side() -> None:
    network, inputs = SmallCNN(), small_inputs(2)[..., :18]
    selective = ConsensusGroupCAM(network, network.features)
    options = {"edge_radius": 2 / 18, "gradient_sigma": 1.5 / 18}
    turned = SmallCNN()
    for layer in (turned.features[0], turned.features[2]):
        layer.weight = nn.Parameter(layer.weight.transpose(2, 3).contiguous())
    maps = selective.attribute(inputs, 1, **{**OPTIONS, **options})
    of_turned = ConsensusGroupCAM(turned, turned.features).attribute(
        inputs.transpose(2, 3), 1, **{**OPTIONS, **options}
    )
    torch.testing.assert_close(of_turned.transpose(2, 3), maps)


def test_network_selects_image_by_image() -> None:
    network, inputs = SmallCNN(), small_inputs(8)
    selective = ConsensusGroupCAM(network, network.features)
    _, effects = selective.attribute(inputs, 1, **OPTIONS, return_effects=True)
    assert len(effects.argmax(1).unique()) > 1


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
    recorder = Recorder(network)
    ConsensusGroupCAM(recorder, network.features).attribute(x, 2)
    # Gradients at the input are counted as three passes, those at the layer as one.
    assert sum(recorder.batch_sizes) == 2 + 13 + 1 + 4 * 2 * 2
    assert sum(recorder.batch_sizes) + 2 <= 34


def test_only_one_input_is_masked() -> None:
    network = SmallCNN()

    def forward(first: Tensor, scale: Tensor) -> Tensor:
        return network(first) * scale

    inputs, scale = small_inputs(2), torch.tensor([[1.0], [2.0]], dtype=torch.double)
    selective = ConsensusGroupCAM(forward, network.features)
    maps, other = selective.attribute((inputs, scale), 1, **OPTIONS)
    assert maps.shape == (2, 1, 24, 24)
    assert torch.equal(other, torch.zeros(2, 1))
    alone = selective.attribute(inputs, 1, scale, **OPTIONS)
    torch.testing.assert_close(maps, alone)
    with pytest.raises(ValueError, match=r"one input with spatial dimensions, got 2"):
        ConsensusGroupCAM(lambda a, b: network(a + b), network.features).attribute(
            (inputs, inputs), 1
        )


@pytest.mark.filterwarnings("error")
def test_nothing_to_ask_is_a_zero_map_and_a_warning() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    selective = ConsensusGroupCAM(network, network.features)
    baselines = torch.stack([inputs[0], torch.zeros_like(inputs[1])])
    with pytest.warns(UserWarning, match=r"maps of samples \[0\] are zero"):
        maps = selective.attribute(inputs, 1, baselines=baselines, n_groups=3)
    assert not maps[0].any()
    assert maps[1].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": ()}, "shares needs at least one number"),
        ({"shares": (0.5, 1.0)}, r"each of shares must be in \(0, 1\), got 1.0"),
        ({"edge_radius": -1}, r"edge_radius must be in \[0, 1\), got -1. It is a share of"),
        ({"gradient_sigma": 0.0}, r"gradient_sigma must be in \(0, 1\], got 0.0. It is a share"),
        ({"gradient_power": -1.0}, r"gradient_power must be in \(0, inf\), got -1.0"),
        ({"n_groups": 0}, "n_groups must be at least 1, got 0"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    network = SmallCNN()
    with pytest.raises(ValueError, match=message):
        ConsensusGroupCAM(network, network.features).attribute(small_inputs(1), 1, **options)


def test_network_without_gradients_at_the_input() -> None:
    class Rounded(SmallCNN):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs.detach())

    network = Rounded()
    with pytest.raises(ValueError, match="no gradient with respect to the input"):
        ConsensusGroupCAM(network, network.features).attribute(small_inputs(1), 1)
