"""ConsensusGroupCAM, against a naive loop written from its steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from captum_groupcam import ConsensusGroupCAM, FinerCAM, GradCAM, GroupCAM
from captum_groupcam.attr.maps import divide_by_maximum, guided_filter, sharpened
from captum_groupcam.masking import Shared
from captum_groupcam.masking.baselines import GaussianBlur
from captum_groupcam.masking.masks import upsample
from captum_groupcam.masking.ranks import RankMasks
from captum_groupcam.methods import find_method
from captum_groupcam.networks import find_reshape_transform
from captum_groupcam.networks.outputs import BoxScore
from tests.toy_networks import Recorder, SmallCNN, classifier, images, small_inputs, small_vit

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


@pytest.mark.parametrize("dims", [2, 3])
def test_images_and_volumes_are_mirrored(dims: int) -> None:
    network, inputs = SmallCNN(dims, channels=9, seed=2), small_inputs(2, dims)
    consensus = ConsensusGroupCAM(network, network.features)
    maps = consensus.attribute(inputs, 2, **OPTIONS)
    assert not torch.equal(maps, consensus.attribute(inputs, 2, **OPTIONS, flip=False))


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


class Detector(SmallCNN):
    """Gives one box an image, with the probability of a class as its score."""

    def forward(self, inputs: list[Tensor]) -> list[dict[str, Tensor]]:
        scores = super().forward(torch.stack(inputs)).softmax(1)[:, 1:2]
        box, label = torch.tensor([[0.0, 0.0, 12.0, 24.0]]), torch.ones(1, dtype=torch.long)
        return [{"boxes": box, "labels": label, "scores": score} for score in scores]


class Segmenter(SmallCNN):
    """Classes at each position, N x classes x H x W."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.features(inputs).movedim(1, -1)).movedim(-1, 1)


def forward_with_places(network: SmallCNN, inputs: Tensor) -> dict[str, tuple[Callable, tuple]]:
    """Functions of the image whose score names a place, with what ``attribute`` gets after it."""
    weights = torch.linspace(0, 1, inputs[0, 0].numel(), dtype=inputs.dtype)
    weights = weights.view_as(inputs[0, 0])
    each = weights.expand(len(inputs), 1, -1, -1)

    def weighed(x: Tensor, w: Tensor) -> Tensor:
        return network(x * torch.as_tensor(w))

    def listed(x: Tensor, each: list[Tensor]) -> Tensor:
        return network(x * torch.stack(each).unsqueeze(1))

    def positions(x: Tensor) -> Tensor:
        return F.interpolate(network.features(x).sum(1, keepdim=True), x.shape[2:]).flatten(1)

    boxes = torch.tensor([[0, 0, 12, 24]]).expand(len(inputs), -1)
    return {
        "target": (Segmenter(), ((1, 2, 5),)),
        "position": (positions, (7,)),
        "argument": (weighed, (1, each)),
        "array": (weighed, (1, each.numpy())),
        "entries": (listed, (1, list(each[:, 0]))),
        "of all": (weighed, (1, weights)),
        "of a column": (weighed, (1, weights[0])),
        "shared": (weighed, (1, Shared(weights))),
        "box": (BoxScore(Detector()), (None, (boxes, torch.ones(len(inputs), dtype=torch.long)))),
    }


PLACES = [
    "target",
    "position",
    "argument",
    "array",
    "entries",
    "shared",
    "box",
    "of all",
    "of a column",
]


@pytest.mark.parametrize("what", PLACES)
def test_what_may_name_a_place_is_not_mirrored(what: str) -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    forward, arguments = forward_with_places(network, inputs)[what]
    inner = getattr(forward, "model", forward)
    layer = inner.features if isinstance(inner, nn.Module) else network.features
    consensus = ConsensusGroupCAM(forward, layer)
    maps = consensus.attribute(inputs, *arguments, **OPTIONS)
    assert maps.any()
    assert torch.equal(maps, consensus.attribute(inputs, *arguments, **OPTIONS, flip=False))


def test_another_input_is_not_mirrored_and_numbers_change_nothing() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    seen = torch.ones(2, 24, 24, dtype=torch.bool)
    masked = ConsensusGroupCAM(lambda x, m: network(x * m.unsqueeze(1)), network.features)
    plain = ConsensusGroupCAM(network, network.features)
    maps, _ = masked.attribute((inputs, seen), 1, **OPTIONS)
    assert torch.equal(maps, plain.attribute(inputs, 1, **OPTIONS, flip=False))
    mirrored = plain.attribute(inputs, 1, **OPTIONS)
    scaled = ConsensusGroupCAM(lambda x, s, t: network(x) * s, network.features)
    for numbers in ((1.0, None), (torch.ones(2, 1), "word"), (Shared(torch.ones(1)), True)):
        assert torch.equal(scaled.attribute(inputs, 1, numbers, **OPTIONS), mirrored)


def test_classes_in_either_dimension_are_not_contrasted() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    weights = torch.linspace(0.5, 1.5, 4, dtype=torch.double)

    def classes_first(x: Tensor) -> Tensor:
        return network(x).unsqueeze(2) * weights

    def classes_last(x: Tensor) -> Tensor:
        return classes_first(x).movedim(1, 2)

    found = [
        ConsensusGroupCAM(forward, network.features).attribute(
            inputs, target, **OPTIONS, score_func=lambda output, axis=axis: output.softmax(axis)
        )
        for forward, target, axis in ((classes_first, (1, 2), 1), (classes_last, (2, 1), 2))
    ]
    assert found[0].any()
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("seed", "index", "target"), [(280, 1, 1), (215, 1, 1), (97, 1, 1)])
def test_where_finer_cam_shows_nothing_it_is_group_cam(seed: int, index: int, target: int) -> None:
    network = classifier(channels=3 + seed % 4, classes=2 + seed % 5, pooled=1, seed=seed)
    inputs = images(3, 16, 16, seed=seed)[index : index + 1]
    finer = FinerCAM(network, network.features).attribute(inputs, target, relu_attributions=True)
    assert not finer.any()
    consensus = ConsensusGroupCAM(network, network.features)
    maps, effects = consensus.attribute(inputs, target, return_effects=True)
    assert effects[0, 0] == 0
    group_cam = GroupCAM(network, network.features)
    expected = group_cam.attribute(inputs, target, n_groups=19, denoise_at="input")
    expected = divide_by_maximum(guided_filter(expected / expected.amax(), inputs, 1))
    leaf = inputs.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(network(leaf)[:, target].sum(), leaf)
    expected = sharpened(expected, gradients, 6 / 224 * 16, 0.2)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)


def test_where_no_group_shows_anything_it_is_finer_cam() -> None:
    network = classifier(channels=4, classes=2, pooled=1, seed=25)
    inputs = images(1, 16, 16, seed=25)
    with pytest.warns(UserWarning, match="every mask is flat"):
        GroupCAM(network, network.features).attribute(inputs, 1, n_groups=19)
    with pytest.warns(UserWarning, match="are Finer-CAM's, to which Group-CAM adds nothing"):
        maps = ConsensusGroupCAM(network, network.features).attribute(inputs, 1)
    assert maps.amax() > 0.5


def test_plateaus_at_the_percentile_are_the_same_in_a_batch() -> None:
    network = small_vit().double().eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nn.init.normal_(network.heads.head.weight)
    inputs, layer = images(3, 32, 32).double(), network.encoder.layers[1].ln_1
    keywords = {"reshape_transform": find_reshape_transform(network, layer, inputs[:1])}
    consensus = ConsensusGroupCAM(network, layer)
    maps = consensus.attribute(inputs, 2, **keywords)
    alone = [consensus.attribute(inputs[i : i + 1], 2, **keywords) for i in range(3)]
    torch.testing.assert_close(maps, torch.cat(alone), rtol=0, atol=1e-9)


def test_saturated_network_is_a_warning() -> None:
    network = classifier(channels=24)
    network.head[-1].weight.data.mul_(300)
    inputs = images(1, 18, 20, seed=3)
    likeliest = int(network(inputs).argmax())
    with pytest.warns(UserWarning, match="are Finer-CAM's, to which Group-CAM adds nothing"):
        ConsensusGroupCAM(network, network.features).attribute(inputs, likeliest)


def test_guide_that_is_rounding_is_flat() -> None:
    network = classifier(dims=1, in_channels=8, channels=24, seed=1)
    inputs = images(1, 128, channels=8, seed=1)
    inputs = inputs - inputs.mean(1, keepdim=True)
    consensus = ConsensusGroupCAM(network, network.features)
    maps, moved = (consensus.attribute(x, 2, edge_radius=0.04) for x in (inputs, inputs + 1e-7))
    torch.testing.assert_close(maps, moved, rtol=0, atol=1e-4)


def test_gradient_of_the_input_that_is_zero_says_nothing() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    consensus = ConsensusGroupCAM(lambda x: network((x * 255).round() / 255), network.features)
    maps = consensus.attribute(inputs, 1, **OPTIONS)
    expected = ConsensusGroupCAM(network, network.features).attribute(
        (inputs * 255).round() / 255, 1, **OPTIONS, gradient_power=1e-9
    )
    torch.testing.assert_close(maps, expected, rtol=0, atol=0.02)


def test_blur_of_next_to_nothing_is_none() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    consensus = ConsensusGroupCAM(network.float(), network.features)
    maps = consensus.attribute(inputs.float(), 1, n_groups=3, gradient_sigma=1e-60)
    assert maps.isfinite().all()


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


@pytest.mark.filterwarnings("error")
def test_nothing_to_ask_is_a_zero_map_and_a_warning() -> None:
    network, inputs = SmallCNN(), small_inputs(2)
    consensus = ConsensusGroupCAM(network, network.features)
    baselines = torch.stack([inputs[0], torch.zeros_like(inputs[1])])
    with pytest.warns(UserWarning, match=r"maps of samples \[0\] are zero"):
        maps = consensus.attribute(inputs, 1, baselines=baselines, n_groups=3)
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
