"""The algorithm: each step by hand, the whole against a loop written from the equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from torch import nn

from captum_groupcam import GroupCAM
from captum_groupcam.masking.baselines import GaussianBlur
from tests.attr.naive_group_cam import assert_is_naive, naive_group_cam
from tests.toy_networks import Recorder, classifier, images


class TestByHand:
    """Two channels, four positions, the layer as large as the input: all numbers on paper."""

    inputs = torch.tensor([[[0.0, 1, 2, 3], [4, 2, 0, 0]]])

    @pytest.fixture
    def cam(self):
        features = nn.Conv1d(2, 2, 1, bias=False)
        head = nn.Linear(8, 2, bias=False)
        with torch.no_grad():
            features.weight.copy_(torch.eye(2).unsqueeze(-1))
            # Over positions the mean of the gradient of class 0 is 2 and 1, of class 1 it is -1, 3.
            head.weight.copy_(
                torch.tensor([[1.0, 2, 3, 2, -1, 1, 1, 3], [-1, -1, -1, -1, 4, 4, 2, 2]])
            )
        return GroupCAM(nn.Sequential(features, nn.Flatten(), head).eval(), features)

    @staticmethod
    def explain(cam, target=0, **options):
        attributions, scores = cam.attribute(
            TestByHand.inputs,
            target,
            relu_attributions=options.pop("relu_attributions", False),
            baselines=options.pop("baselines", 0.0),
            score_func=options.pop("score_func", lambda logits: logits),
            return_group_scores=True,
            **{"n_groups": 2, "denoise_percentile": 50.0, **options},
        )
        return attributions[0, 0].tolist(), scores[0].tolist()

    def test_two_groups(self, cam):
        # M_1 = 2 * (0 1 2 3) = (0 2 4 6), median 3 -> (0 0 4 6), M'_1 = (0 0 2/3 1);
        # M_2 = (4 2 0 0), median 1 -> itself, M'_2 = (1 1/2 0 0).
        # alpha_1 = 3 * 4/3 + 2 * 3 = 10; alpha_2 = 2 * 1/2 - 1 * 4 + 1 * 1 = -2.
        attributions, scores = self.explain(cam)
        assert scores == pytest.approx([10, -2])
        assert attributions == pytest.approx([-2, -1, 20 / 3, 10])

    def test_relu_attributions_is_the_default(self, cam):
        expected = [0, 0, 20 / 3, 10]
        assert self.explain(cam, relu_attributions=True)[0] == pytest.approx(expected)
        options = {"n_groups": 2, "denoise_percentile": 50.0, "baselines": 0.0}
        default = cam.attribute(self.inputs, 0, score_func=lambda logits: logits, **options)
        assert default[0, 0].tolist() == pytest.approx(expected)

    def test_relu_scores_drops_the_second_group(self, cam):
        attributions, scores = self.explain(cam, relu_scores=True)
        assert scores == pytest.approx([10, 0])
        assert attributions == pytest.approx([0, 0, 20 / 3, 10])

    def test_merging_the_maps_before_normalisation(self, cam):
        attributions, scores = self.explain(cam, merge_normalized=False)
        assert scores == pytest.approx([10, -2])
        assert attributions == pytest.approx([-8, -4, 40, 60])  # 10 * (0 0 4 6) - 2 * (4 2 0 0)

    def test_without_denoising(self, cam):
        # M'_1 = (0 1/3 2/3 1) shows (0 1/3 4/3 3) and (0 2/3 0 0):
        # alpha_1 = 2 * 1/3 + 3 * 4/3 + 2 * 3 + 1 * 2/3 = 34/3.
        attributions, scores = self.explain(cam, denoise_percentile=None)
        assert scores == pytest.approx([34 / 3, -2])
        expected = [-2, 34 / 9 - 1, 68 / 9, 34 / 3]
        assert attributions == pytest.approx(expected)

    def test_negative_weights_leave_no_mask(self, cam):
        # Class 1: w = (-1, 3): M_1 = ReLU(-A_1) = 0 is flat; M'_2 = (1 1/2 0 0):
        # alpha_2 = 4*4 + 4*1 - 1 * 1/2 = 19.5.
        attributions, scores = self.explain(cam, target=1)
        assert scores == pytest.approx([0, 19.5])
        assert attributions == pytest.approx([19.5, 9.75, 0, 0])

    def test_gradient_free_weighs_channels_alike(self, cam):
        # G = 1: M = (4 3 2 3), median 3 -> (4 0 0 0), M' = (1 0 0 0): seen (0; 4), logit -4.
        attributions, scores = self.explain(cam, gradient_free=True, n_groups=1)
        assert scores == pytest.approx([-4])
        assert attributions == pytest.approx([-4, 0, 0, 0])

    def test_scores_are_relative_to_the_baseline(self, cam):
        # B = 1 everywhere: F(B) = 12. M'_1 as above: channel 1: (1 1 5/3 3), channel 2:
        # (1 1 1/3 0): 1 + 2 + 5 + 6 - 1 + 1 + 1/3 = 43/3; M'_2: (0 1 1 1), (4 3/2 1 1):
        # 2 + 3 + 2 - 4 + 3/2 + 1 + 3 = 17/2.
        _, scores = self.explain(cam, baselines=1.0)
        assert scores == pytest.approx([43 / 3 - 12, 17 / 2 - 12])

    def test_softmax_is_the_default_score(self, cam):
        _, scores = cam.attribute(
            self.inputs,
            0,
            baselines=0.0,
            n_groups=2,
            denoise_percentile=50.0,
            return_group_scores=True,
        )
        # Class 1 of the same two queries: -4/3 - 3 and 4*4 + 4*1 - 1/2; the baseline gives 1/2.
        expected = [
            1 / (1 + math.exp(-4 / 3 - 3 - 10)) - 0.5,
            1 / (1 + math.exp(19.5 + 2)) - 0.5,
        ]
        assert scores[0].tolist() == pytest.approx(expected)


@pytest.fixture(scope="module")
def network():
    return classifier(seed=2)


OPTIONS = {
    "paper": ({}, {}),
    "percentile": ({"denoise_percentile": 35.5}, {"theta": 35.5}),
    "percentile zero": ({"denoise_percentile": 0}, {"theta": 0}),
    "no denoising": ({"denoise_percentile": None}, {"theta": None}),
    "denoise at the input": ({"denoise_at": "input"}, {"theta_at": "input"}),
    "gradient-free": ({"gradient_free": True}, {"gradient_free": True}),
    "relu scores": ({"relu_scores": True}, {"relu_scores": True}),
    "merge before normalisation": ({"merge_normalized": False}, {"merge_normalized": False}),
    "newest published variant": (
        {"denoise_percentile": None, "relu_scores": True, "merge_normalized": False},
        {"theta": None, "relu_scores": True, "merge_normalized": False},
    ),
    "denoise at the input, merge before normalisation": (
        {"denoise_at": "input", "merge_normalized": False},
        {"theta_at": "input", "merge_normalized": False},
    ),
    "logits": ({"score_func": lambda logits: logits}, {"score": lambda logits: logits}),
    "own grouping": (
        {"grouping": lambda a, g: torch.arange(a.shape[1]).remainder(g).expand(a.shape[:2])},
        {"groups": [[0, 3, 6], [1, 4, 7], [2, 5]]},
    ),
}


@pytest.mark.parametrize(("options", "naive"), OPTIONS.values(), ids=OPTIONS.keys())
def test_option_equals_the_equations(network, options, naive):
    x = images(3, 15, 13, seed=1)
    assert_is_naive(network, x, torch.zeros_like(x), [2, 4, 2], naive=naive, **options)


@pytest.mark.parametrize("n_groups", [1, 4, 5, 8, 100])
def test_any_number_of_groups_equals_the_equations(network, n_groups):
    x = images(2, 14, 14, seed=2)
    assert_is_naive(network, x, torch.full_like(x, 0.3), [1, 2], n_groups=n_groups)


@pytest.mark.parametrize(
    ("size", "seed"), [((21,), 1), ((13, 18), 0), ((7, 9, 8), 2)], ids=["1-D", "2-D", "3-D"]
)
def test_any_dimensions_equal_the_equations(size, seed):
    network = classifier(len(size), seed=seed)
    x = images(2, *size, seed=seed)
    assert_is_naive(network, x, torch.zeros_like(x), [2, 3])


def test_float64_equals_the_equations_closely(network):
    network = classifier(seed=3).double()
    x = images(2, 16, 16).double()
    assert_is_naive(network, x, torch.zeros_like(x), [2, 1], atol=1e-12)


def test_default_baseline_is_the_blur_of_the_paper(network):
    x = images(2, 32, 40)
    blurred = TF.gaussian_blur(x, 51, 50.0)
    group_cam = GroupCAM(network, network.features)
    default = group_cam.attribute(x, 2, n_groups=4, relu_attributions=False)
    for n in range(2):
        expected, _ = naive_group_cam(network, x[n], blurred[n], 2, 4)
        np.testing.assert_allclose(default[n].numpy(), expected, rtol=0, atol=1e-5)
        assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize(
    ("given", "tensor"),
    [
        (lambda x: 0.25, lambda x: torch.full_like(x, 0.25)),
        (lambda x: 1, torch.ones_like),
        (lambda x: x.flip(0), lambda x: x.flip(0)),
        (lambda x: x[:1].flip(-1), lambda x: x[:1].flip(-1).expand_as(x)),
        (lambda x: (0.5,), lambda x: torch.full_like(x, 0.5)),
        (lambda x: lambda inputs: inputs.roll(3, -1), lambda x: x.roll(3, -1)),
        (lambda x: GaussianBlur(5, 2.0), lambda x: TF.gaussian_blur(x, 5, 2.0)),
    ],
    ids=["float", "int", "tensor", "one tensor", "tuple", "function", "blur"],
)
def test_every_form_of_baseline(network, given, tensor):
    x = images(2, 12, 12)
    group_cam = GroupCAM(network, network.features)
    actual = group_cam.attribute(x, 2, n_groups=3, baselines=given(x), relu_attributions=False)
    for n in range(2):
        expected, _ = naive_group_cam(network, x[n], tensor(x)[n], 2, 3)
        np.testing.assert_allclose(actual[n].numpy(), expected, rtol=0, atol=1e-5)


class Stripes(nn.Module):
    """Six channels that see three places, two channels each, in an order that mixes them."""

    ORDER = (0, 1, 2, 1, 0, 2)

    def forward(self, inputs):
        places = inputs.split(inputs.shape[-1] // 3, dim=-1)
        rows = []
        for position, place in enumerate(self.ORDER):
            row = torch.zeros_like(inputs)
            width = places[0].shape[-1]
            row[..., place * width : (place + 1) * width] = places[place] * (1 + 0.01 * position)
            rows.append(row)
        return torch.cat(rows, dim=1)  # N x 1 x h x w each


@pytest.mark.parametrize("grouping", ["k_means", "agglomerative"])
def test_clustering_finds_channels_active_in_the_same_place(grouping):
    pytest.importorskip("sklearn")
    network = nn.Module()
    network = classifier(channels=6, seed=1)
    network.features, network.head[0] = Stripes(), nn.AdaptiveAvgPool2d((1, 4))
    x = images(2, 9, 9, channels=1)
    attributions, scores = GroupCAM(network, network.features).attribute(
        x,
        1,
        n_groups=3,
        grouping=grouping,
        gradient_free=True,
        baselines=0.0,
        relu_attributions=False,
        return_group_scores=True,
    )
    for n in range(2):
        expected, alphas = naive_group_cam(
            network,
            x[n],
            torch.zeros_like(x[n]),
            1,
            3,
            groups=[[0, 4], [1, 3], [2, 5]],
            gradient_free=True,
        )
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(attributions[n].numpy(), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(sorted(scores[n].tolist()), sorted(alphas), atol=1e-5)


def test_reshape_transform_brings_tokens_back_to_a_grid():
    class Tokens(nn.Module):
        def forward(self, maps):  # N x K x h x w -> N x (1 + T) x K
            tokens = maps.flatten(2).transpose(1, 2)
            return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)

    class Transformer(nn.Module):
        def __init__(self, plain):
            super().__init__()
            self.plain, self.tokens = plain, Tokens()

        def forward(self, x):
            tokens = self.tokens(self.plain.features(x))[:, 1:]
            return self.plain.head(tokens.transpose(1, 2).unflatten(2, (6, 6)))

    plain = classifier(seed=3)
    network = Transformer(plain).eval()
    x = images(2, 12, 12)
    options = {"n_groups": 3, "relu_attributions": False}
    actual = GroupCAM(network, network.tokens).attribute(
        x,
        1,
        reshape_transform=lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (6, 6)),
        **options,
    )
    expected = GroupCAM(plain, plain.features).attribute(x, 1, **options)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(actual, expected)


def test_group_scores_come_with_the_map(network):
    x = images(2, 12, 12)
    group_cam = GroupCAM(network, network.features)
    alone = group_cam.attribute(x, 1, n_groups=3)
    attributions, scores = group_cam.attribute(x, 1, n_groups=3, return_group_scores=True)
    assert scores.shape == (2, 3)
    assert torch.equal(alone, attributions)
    _, capped = group_cam.attribute(x, 1, n_groups=50, return_group_scores=True)
    assert capped.shape == (2, 8)


def test_progress_bar_counts_the_queries(network, capsys):
    GroupCAM(network, network.features).attribute(
        images(2, 12, 12), 1, n_groups=3, show_progress=True
    )
    err = capsys.readouterr().err
    assert "Group-CAM" in err
    assert "6/6" in err


def test_one_query_for_each_group_and_one_for_the_baseline(network):
    recorder = Recorder(network)
    x = images(3, 12, 12)
    _, scores = GroupCAM(recorder, network.features).attribute(
        x, 1, n_groups=4, gradient_free=True, internal_batch_size=5, return_group_scores=True
    )
    assert scores.ne(0).all()
    # The layer's rows are compared with the samples. Queries of all samples in one stream; one of
    # them is asked alone, too.
    assert recorder.batch_sizes == [3, 3, 5, 1, 5, 2, 3]
