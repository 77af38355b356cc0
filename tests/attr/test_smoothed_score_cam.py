"""SS-CAM and IS-CAM: by loops, as torchcam has them, and what noise must not depend on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from captum_groupcam import ScoreCAM
from captum_groupcam.masking.smoothed import growing, noisy
from tests.toy_networks import Recorder, SmallCNN, classifier, images, real_image, scaled


def naive(network, sample, target, variants):
    """Score-CAM with the mean score of a channel's masks, all made by ``variants``."""
    with torch.no_grad():
        activations = network.features(sample)[0]
        scores = []
        for channel, activation in enumerate(activations):
            mask = F.interpolate(activation[None, None], size=sample.shape[2:], mode="bilinear")
            if mask.max() == mask.min():
                scores.append(torch.tensor(-torch.inf, dtype=sample.dtype))
                continue
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            outputs = [network(sample * other)[0, target] for other in variants(channel, mask)]
            scores.append(torch.stack(outputs).mean())
        weights = torch.stack(scores).softmax(0)
        layer_map = (weights[:, None, None] * activations).sum(0).relu()
        return F.interpolate(layer_map[None, None], size=sample.shape[2:], mode="bilinear")


def growing_masks(_channel, mask):
    share = 0
    for step in range(1, 5):
        share += step / 4
        yield share * mask


def noisy_masks(channel, mask):
    for draw in range(3):
        yield noisy(0.5, 7)(mask, torch.tensor([channel]), torch.tensor([draw]))


@pytest.mark.parametrize(
    ("options", "variants"),
    [
        ({"smoothing": "integral", "n_samples": 4}, growing_masks),
        ({"smoothing": "noise", "n_samples": 3, "noise_level": 0.5, "seed": 7}, noisy_masks),
    ],
    ids=["IS-CAM", "SS-CAM"],
)
def test_is_the_loop_over_masks(options, variants):
    network, inputs = classifier(seed=2).double(), images(2, 14, 16).double()
    maps = ScoreCAM(network, network.features).attribute(inputs, [1, 4], **options)
    plain = ScoreCAM(network, network.features).attribute(inputs, [1, 4])
    assert (maps - plain).abs().max() > 1e-3
    for index, target in enumerate([1, 4]):
        expected = naive(network, inputs[index : index + 1], target, variants)
        torch.testing.assert_close(maps[index : index + 1], expected)


class OurNoise:
    """Instead of torchcam's distribution: one draw for each channel, in our order."""

    def __init__(self, noise_level: float, seed: int, like: torch.Tensor):
        self.alter, self.draw, self.like = noisy(noise_level, seed), 0, like

    def sample(self, size):
        nothing = torch.zeros(size[1], 1, *size[2:], dtype=self.like.dtype)
        draws = torch.full((size[1],), self.draw)
        self.draw += 1
        return self.alter(nothing, torch.arange(size[1]), draws).transpose(0, 1)


@pytest.mark.parametrize("name", ["SSCAM", "ISCAM"])
def test_equals_torchcam(name):
    import torchcam.methods

    network, image = SmallCNN(channels=12, stride=3), real_image()
    with getattr(torchcam.methods, name)(
        network, network.features, num_samples=4, input_shape=(3, 24, 24)
    ) as extractor:
        if name == "SSCAM":
            extractor._distrib = OurNoise(2.0, 0, image)
        with torch.no_grad():
            network(image)
        (theirs,) = extractor(2, normalized=False)
    theirs = F.interpolate(theirs[None], size=(24, 24), mode="bilinear")
    smoothing = {"SSCAM": "noise", "ISCAM": "integral"}[name]
    ours = ScoreCAM(network, network.features).attribute(image, 2, smoothing=smoothing, n_samples=4)
    # Up to scale: channels that are zero have a share of the weights there.
    assert ours.std() > 0.01
    torch.testing.assert_close(scaled(ours), scaled(theirs), rtol=1e-4, atol=1e-4)


def test_without_noise_it_is_score_cam():
    network, inputs = SmallCNN(), real_image()
    options = {"smoothing": "noise", "n_samples": 2, "noise_level": 0.0}
    found = ScoreCAM(network, network.features).attribute(inputs, 2, **options)
    expected = ScoreCAM(network, network.features).attribute(inputs, 2)
    torch.testing.assert_close(found, expected)


def test_noise_depends_on_its_seed_alone():
    network, inputs = classifier(seed=2), images(3, 14, 16)
    score_cam = ScoreCAM(network, network.features)
    options = {"smoothing": "noise", "n_samples": 3, "noise_level": 0.5}
    expected = score_cam.attribute(inputs, 2, **options)
    torch.manual_seed(5)
    found = score_cam.attribute(inputs, 2, internal_batch_size=1, **options)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(score_cam.attribute(inputs[2:], 2, **options), expected[2:])
    other = score_cam.attribute(inputs, 2, seed=1, **options)
    assert (other - expected).abs().max() > 1e-3


@pytest.mark.parametrize(("smoothing", "masks"), [("noise", 35), ("integral", 10), ("none", 1)])
def test_masks_for_each_channel_are_those_of_the_papers(smoothing, masks):
    network, inputs = SmallCNN(), real_image()
    recorder = Recorder(network)
    ScoreCAM(recorder, network.features).attribute(inputs, 2, smoothing=smoothing)
    active = network.features(inputs).flatten(2).std(2).gt(0).sum()
    alone = masks * active >= 100  # of many queries, one is asked alone, too
    assert sum(recorder.batch_sizes) == 1 + masks * active + alone


def test_steps_add_up():
    ones, steps = torch.ones(4, 1, 2), torch.arange(4)
    found = growing(4)(ones, torch.zeros(4, dtype=torch.long), steps)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([0.25, 0.75, 1.5, 2.5]))


def test_noise_has_its_standard_deviation():
    zeros = torch.zeros(64, 1, 32, 32)
    found = noisy(2.0, 0)(zeros, torch.arange(64), torch.zeros(64, dtype=torch.long))
    assert 1.98 < found.std() < 2.02
    assert found.mean().abs() < 0.02
    assert nn.functional.cosine_similarity(found[0].flatten(), found[1].flatten(), 0).abs() < 0.15
