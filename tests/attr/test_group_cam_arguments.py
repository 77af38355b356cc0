"""Targets in every form, additional arguments and several inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from captum_groupcam import GroupCAM
from tests.attr.group_cam_calls import OPTIONS, Both, explain
from tests.toy_networks import Recorder, classifier, images


@pytest.mark.parametrize(
    "target",
    [
        2,
        -3,
        np.int64(2),
        torch.tensor(2),
        torch.tensor([2]),
        (2,),
        [2, 2, 2],
        [np.int64(2), 2, torch.tensor(2)],
        [(2,), (2,), (2,)],
        torch.tensor([2, 2, 2]),
        torch.tensor([2, 2, 2], dtype=torch.int32),
        torch.tensor([2, -3, 2]),
    ],
    ids=repr,
)
def test_target_of_any_form(network, x, expected, target):
    torch.testing.assert_close(explain(network, network.features, x, target), expected)


def test_each_sample_has_its_own_target(network, x):
    targets = [2, 0, 4]
    expected = torch.cat(
        [explain(network, network.features, x, t)[[n]] for n, t in enumerate(targets)]
    )
    assert (expected - explain(network, network.features, x, 2)).abs().max() > 1e-2
    for form in (targets, torch.tensor(targets), [(t,) for t in targets]):
        actual = explain(network, network.features, x, form, internal_batch_size=2)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


class Segmenter(nn.Module):
    """N x classes x h x w, each position a classifier of its own."""

    def __init__(self):
        super().__init__()
        self.plain = classifier(classes=5 * 4 * 3, seed=2)
        self.eval()

    def forward(self, x):
        return self.plain(x).unflatten(1, (5, 4, 3))


@pytest.mark.parametrize(
    ("target", "of_sample"),
    [
        ((2, 1, 0), [(2, 1, 0)] * 3),
        ((np.int64(2), -3, -3), [(2, 1, 0)] * 3),
        ([(2, 1, 0), (4, 3, 2), (0, 0, 0)], [(2, 1, 0), (4, 3, 2), (0, 0, 0)]),
    ],
)
def test_tuples_for_outputs_with_more_dimensions(x, target, of_sample):
    network = Segmenter()
    actual = explain(network, network.plain.features, x, target)
    for n, (c, i, j) in enumerate(of_sample):
        # The classes of one position, softmax over them, is a classifier with five classes.
        alone = explain(
            lambda inputs, i=i, j=j: network(inputs)[:, :, i, j],
            network.plain.features,
            x[n : n + 1],
            c,
        )
        torch.testing.assert_close(actual[n : n + 1], alone, rtol=0, atol=1e-5)
    assert actual.abs().max() > 1e-2


@pytest.mark.parametrize("shape", [lambda y: y[:, 2], lambda y: y[:, 2:3]], ids=["N", "N x 1"])
def test_output_without_classes_needs_no_target(network, x, shape):
    """Its value is its own score."""
    actual = explain(lambda i: shape(network(i)), network.features, x, None)
    expected = explain(network, network.features, x, 2, score_func=lambda y: y)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_target_zero_of_a_single_column(network, x):
    actual = explain(lambda i: network(i)[:, 2:3], network.features, x, 0)
    expected = explain(network, network.features, x, 2, score_func=lambda y: y)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


class ManyArguments(nn.Module):
    """Takes one value a sample, a tensor for all, and something that is no tensor."""

    def __init__(self, plain):
        super().__init__()
        self.plain = plain
        self.eval()

    def forward(self, x, scale, offset, power):
        return self.plain(x) * scale.unsqueeze(1) ** power + offset


def test_additional_forward_args_go_with_their_samples(network, x):
    scale, offset = torch.tensor([0.5, 1.0, 2.0]), torch.arange(5.0)
    many = ManyArguments(network)
    actual = explain(
        many,
        network.features,
        x,
        [2, 0, 4],
        additional_forward_args=(scale, offset, 2),
        internal_batch_size=5,
    )
    for n, target in enumerate([2, 0, 4]):
        alone = explain(
            lambda i, n=n: network(i) * scale[n] ** 2 + offset,
            network.features,
            x[n : n + 1],
            target,
        )
        torch.testing.assert_close(actual[n : n + 1], alone, rtol=0, atol=1e-5)


def test_one_additional_forward_arg_needs_no_tuple(network, x):
    scale = torch.tensor([0.5, 1.0, 2.0])
    both = Both(network)
    torch.testing.assert_close(
        explain(both, network.features, x, additional_forward_args=scale),
        explain(both, network.features, x, additional_forward_args=(scale,)),
    )


class TwoInputs(nn.Module):
    """A picture, and something beside it that enters after the layer."""

    def __init__(self, plain, beside):
        super().__init__()
        self.plain, self.beside = plain, beside
        self.eval()

    def forward(self, picture, other):
        return self.plain(picture) + self.beside(other)


class Tinted(TwoInputs):
    """The layer sees both."""

    def forward(self, picture, other):
        return super().forward(picture + 0.1 * other.mean((1, 2, 3), keepdim=True), other)


@pytest.mark.filterwarnings("ignore:The positions of the layer")  # only the mean counts of one
def test_second_input_of_another_size(network, x):
    """The same masks hide both; there is a map of its own size for each."""
    small = classifier(seed=5)
    both = Tinted(network, small)
    y = images(3, 9, 7, seed=4)
    seen = Recorder(both)
    attributions, scores = GroupCAM(seen, network.features).attribute(
        (x, y),
        2,
        baselines=(0.0, 1.0),
        return_group_scores=True,
        denoise_percentile=None,
        internal_batch_size=100,
        **OPTIONS,
    )
    assert [a.shape for a in attributions] == [(3, 1, 14, 16), (3, 1, 9, 7)]

    # By hand, with the masks that the network saw: query = input * mask + baseline * (1 - mask).
    *_, (big, little), _alone, (hidden_big, hidden_little) = seen.calls
    assert torch.equal(hidden_big, torch.zeros_like(x))
    assert torch.equal(hidden_little, torch.ones_like(y))
    samples, groups = scores.nonzero().unbind(1)
    assert len(samples) == len(big)
    mask_big = (big / x[samples])[:, :1]
    mask_little = ((little - 1) / (y[samples] - 1))[:, :1]
    value = (
        both(big, little).softmax(1)[:, 2] - both(hidden_big, hidden_little).softmax(1)[samples, 2]
    )
    torch.testing.assert_close(scores[samples, groups], value.detach(), rtol=0, atol=1e-5)
    for attribution, mask in zip(attributions, (mask_big, mask_little), strict=True):
        expected = torch.zeros_like(attribution)
        for query, sample in enumerate(samples):
            expected[sample] += value[query].item() * mask[query]
        torch.testing.assert_close(attribution, expected, rtol=0, atol=1e-4)
        assert expected.abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_second_input_without_spatial_dimensions(network, x, dtype):
    other = torch.tensor([[0, 1], [2, 1], [1, 0]]).to(dtype)

    class Beside(nn.Module):
        def forward(self, other):
            return other.float().sum(1, keepdim=True) * torch.tensor([0.0, 0, 1, 0, 0])

    both = TwoInputs(network, Beside())
    pictures, others = explain(both, network.features, (x, other), [2, 0, 4])
    assert torch.equal(others, torch.zeros(3, 1))
    for n, target in enumerate([2, 0, 4]):
        alone = explain(
            lambda i, n=n: both(i, other[n : n + 1].expand(len(i), -1)),
            network.features,
            x[n : n + 1],
            target,
        )
        torch.testing.assert_close(pictures[n : n + 1], alone, rtol=0, atol=1e-5)


def test_integer_input_before_the_picture(network, x, expected):
    attributions = explain(
        lambda ids, picture: network(picture), network.features, (torch.arange(3), x)
    )
    assert torch.equal(attributions[0], torch.zeros(3, 1))
    torch.testing.assert_close(attributions[1], expected)
