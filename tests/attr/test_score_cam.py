from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captum_groupcam import ScoreCAM
from captum_groupcam.masking.baselines import GaussianBlur
from captum_groupcam.masking.network import class_probability
from tests.toy_networks import SmallCNN, TokenCNN, real_image, scaled, small_inputs

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def naive_score_cam(
    network: nn.Module,
    sample: Tensor,
    target: int,
    baseline: Tensor,
    *,
    weighting: str,
    relu: bool = True,
) -> Tensor:
    """Algorithm 1 of the paper, one channel after the other, with f the logit."""
    mode = MODES[sample.dim() - 2]
    with torch.no_grad():
        activations = network.features(sample)[0]
        hidden = network(baseline)[0, target]
        increases, kept = [], []
        for activation in activations:
            if activation.max() == activation.min():
                continue
            mask = F.interpolate(activation[None, None], size=sample.shape[2:], mode=mode)
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            seen = sample * mask + baseline * (1 - mask)
            score = network(seen)[0, target]
            increases.append(score if weighting == "score" else score - hidden)
            kept.append(activation)
        weights = torch.stack(increases)
        if weighting == "softmax":
            weights = weights.exp() / weights.exp().sum()
        layer_map = sum(w * a for w, a in zip(weights, kept, strict=True))
        layer_map = layer_map.relu() if relu else layer_map
        return F.interpolate(layer_map[None, None], size=sample.shape[2:], mode=mode)


def published_score_cam(network: nn.Module, sample: Tensor, target: int) -> Tensor:
    """What the authors' code does: probabilities, black pixels, the sum at input resolution."""
    with torch.no_grad():
        total = torch.zeros_like(sample[:, :1])
        for activation in network.features(sample)[0]:
            mask = F.interpolate(activation[None, None], size=sample.shape[2:], mode="bilinear")
            if mask.max() == mask.min():
                continue
            normalized = (mask - mask.min()) / (mask.max() - mask.min())
            total += network(sample * normalized).softmax(1)[0, target] * mask
        return total.relu()


class LargestTensor(TorchDispatchMode):
    """Takes down the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.numel = max([self.numel, *sizes])
        return result


@pytest.mark.parametrize("weighting", ["softmax", "increase", "score"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("baseline", [0, GaussianBlur(5, 2.0)], ids=["zero", "blur"])
def test_is_the_algorithm_of_the_paper(dims, weighting, baseline, relu):
    network = SmallCNN(dims)
    inputs = small_inputs(2, dims, 12)
    hidden = torch.zeros_like(inputs) if baseline == 0 else baseline(inputs)
    maps = ScoreCAM(network, network.features).attribute(
        inputs, [1, 4], baselines=baseline, weighting=weighting, relu_attributions=relu
    )
    for index, target in enumerate([1, 4]):
        at = slice(index, index + 1)
        expected = naive_score_cam(
            network, inputs[at], target, hidden[at], weighting=weighting, relu=relu
        )
        torch.testing.assert_close(maps[at], expected)
    assert maps.any() or relu


def test_expresses_the_published_code():
    network = SmallCNN(channels=12)
    image = real_image()
    maps = ScoreCAM(network, network.features).attribute(
        image, 2, weighting="score", score_func=class_probability
    )
    torch.testing.assert_close(maps, published_score_cam(network, image, 2))


def test_equals_torchcam():
    # Its variant: logits, softmax, zero for black, masks normalised before they are upsampled,
    # which is the same thing where every position of the layer falls on a pixel.
    from torchcam.methods import ScoreCAM as TorchCAM

    network = SmallCNN(channels=12, stride=3)
    image = real_image()
    with TorchCAM(network, network.features, input_shape=(3, 24, 24)) as extractor:
        with torch.no_grad():
            network(image)
        (theirs,) = extractor(2, normalized=False)
    theirs = F.interpolate(theirs[None], size=(24, 24), mode="bilinear")
    ours = ScoreCAM(network, network.features).attribute(image, 2)
    # Up to scale: channels that are zero have a share of the weights there.
    assert ours.std() > 0.01
    torch.testing.assert_close(scaled(ours), scaled(theirs), rtol=1e-4, atol=1e-4)


def test_equals_pytorch_grad_cam():
    # Its variant: logits, softmax, zero for black; its masks are upsampled with corners aligned,
    # which plays no part where the layer has the input's resolution.
    from pytorch_grad_cam import ScoreCAM as PyTorchGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network = SmallCNN(channels=12, stride=1)
    image = real_image()
    with PyTorchGradCAM(network, [network.features]) as extractor:
        theirs = extractor(image, [ClassifierOutputTarget(2)])
    ours = ScoreCAM(network, network.features).attribute(image, 2)
    assert ours.std() > 0.01
    torch.testing.assert_close(
        scaled(ours)[:, 0], torch.from_numpy(theirs).double(), rtol=1e-4, atol=1e-4
    )


def test_flat_channels_cost_no_query_and_have_no_weight():
    network = SmallCNN()
    with torch.no_grad():
        network.features[2].weight[1] = 0
        network.features[2].bias[1] = 7.0  # flat, but far from zero
    inputs = small_inputs(1)
    rows = []
    network.register_forward_hook(lambda _m, args, _o: rows.append(len(args[0])))
    maps = ScoreCAM(network, network.features).attribute(inputs, 0)
    assert sum(rows) == 1 + 5  # the activations, and one query for each channel that is not flat
    expected = naive_score_cam(network, inputs, 0, torch.zeros_like(inputs), weighting="softmax")
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("weighting", ["softmax", "increase", "score"])
def test_nothing_to_see_gives_zeros_and_a_warning(weighting):
    network = SmallCNN()
    inputs = small_inputs(2)
    inputs[1] = 0  # equal to its baseline
    with pytest.warns(UserWarning, match=r"samples \[1\] are zero"):
        maps = ScoreCAM(network, network.features).attribute(
            inputs, 0, relu_attributions=False, weighting=weighting
        )
    assert maps[0].any()
    assert not maps[1].any()


def test_never_holds_all_masks_at_the_size_of_the_input():
    network = SmallCNN(channels=128, stride=8).float()
    inputs = small_inputs(1, size=64).float()
    with LargestTensor() as largest:
        ScoreCAM(network, network.features).attribute(inputs, 0, internal_batch_size=2)
    assert largest.numel == 2 * 8 * 64 * 64  # the network's own largest activations


@pytest.mark.parametrize("size", [1, 3, 100])
def test_does_not_depend_on_internal_batch_size(size):
    network = SmallCNN()
    inputs = small_inputs(3)
    method = ScoreCAM(network, network.features)
    torch.testing.assert_close(
        method.attribute(inputs, [0, 1, 2], internal_batch_size=size),
        method.attribute(inputs, [0, 1, 2]),
    )


def test_signed_maps():
    network = SmallCNN()
    inputs = small_inputs(1)
    method = ScoreCAM(network, network.features[2])  # before the ReLU
    signed = method.attribute(inputs, 0, relu_attributions=False)
    assert signed.min() < 0 < signed.max()


def test_input_of_the_layer():
    network = SmallCNN()
    inputs = small_inputs(2)
    torch.testing.assert_close(
        ScoreCAM(network, network.pooling).attribute(inputs, 3, attribute_to_layer_input=True),
        ScoreCAM(network, network.features).attribute(inputs, 3),
    )


def test_tokens_become_maps():
    network, inputs = TokenCNN().eval(), small_inputs(2)
    torch.testing.assert_close(
        ScoreCAM(network, network.tokens).attribute(
            inputs, 1, reshape_transform=lambda t: t.transpose(1, 2).unflatten(2, (8, 8))
        ),
        ScoreCAM(network.inner, network.inner.features).attribute(inputs, 1),
    )


def test_several_inputs_share_the_masks():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = SmallCNN()

        def forward(self, left, right, shift):
            small = F.interpolate(right, size=left.shape[2:], mode="bilinear")
            return self.inner((left + small) / 2) + shift

    network = Both().eval()
    left, right = small_inputs(2, size=24), small_inputs(2, size=48, seed=1)
    shift = torch.zeros(2, 5, dtype=torch.double)
    maps = ScoreCAM(network, network.inner.features).attribute((left, right, shift), 0)
    assert [tuple(m.shape) for m in maps] == [(2, 1, 24, 24), (2, 1, 48, 48), (2, 1)]
    assert not maps[2].any()


def test_progress_bar(capsys):
    network = SmallCNN()
    ScoreCAM(network, network.features).attribute(small_inputs(1), 0, show_progress=True)
    assert "Score-CAM" in capsys.readouterr().err


def test_unknown_weighting():
    network = SmallCNN()
    with pytest.raises(ValueError, match="'softmax', 'increase' or 'score', got 'plain'"):
        ScoreCAM(network, network.features).attribute(small_inputs(1), 0, weighting="plain")
