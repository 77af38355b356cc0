from __future__ import annotations

import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel
from captum.metrics import sensitivity_max

from captum_groupcam import RISE, XRAI, ConsensusGroupCAM, GroupCAM, ScoreCAM
from captum_groupcam.attr.partial import Partial
from captum_groupcam.masking.baselines import GaussianBlur
from tests.toy_networks import classifier, images

BLUR = GaussianBlur(5, 2.0)
OPTIONS = {
    GroupCAM: {"n_groups": 3},
    ScoreCAM: {},
    ConsensusGroupCAM: {"n_groups": 3},
    RISE: {"n_masks": 12},
    XRAI: {"n_steps": 4, "algorithm": "fast"},
}


@pytest.mark.parametrize("method", OPTIONS)
def test_functions_as_baselines_inside_noise_tunnel(method):
    network, x = classifier(seed=2), images(2, 20, 20)
    layer = () if method in (RISE, XRAI) else (network.features,)
    explained = method(network, *layer)
    options = OPTIONS[method]
    with pytest.raises(AssertionError, match="must be either a torch"):
        NoiseTunnel(explained).attribute(x, target=4, nt_samples=2, baselines=BLUR, **options)
    tunnel = NoiseTunnel(Partial(explained, baselines=BLUR, **options))
    maps = tunnel.attribute(x, target=[4, 2], nt_samples=2, stdevs=0.0)
    expected = explained.attribute(x, target=[4, 2], baselines=BLUR, **options)
    assert (expected - explained.attribute(x, target=[4, 2], **options)).abs().max() > 1e-3
    torch.testing.assert_close(maps, expected)


def test_inside_sensitivity():
    network, x = classifier(seed=2), images(2, 14, 16)
    blurred = Partial(GroupCAM(network, network.features), baselines=BLUR, n_groups=3)
    still = sensitivity_max(blurred.attribute, x, perturb_radius=0.0, target=4)
    torch.testing.assert_close(still, torch.zeros(2))
    assert sensitivity_max(blurred.attribute, x, perturb_radius=0.1, target=4).min() > 0


def test_is_the_method_with_its_arguments():
    network, x = classifier(seed=2), images(2, 14, 16)
    partial = Partial(IntegratedGradients(network), n_steps=7, return_convergence_delta=True)
    expected = IntegratedGradients(network).attribute(
        x, target=1, n_steps=7, return_convergence_delta=True
    )
    for found, theirs in zip(partial.attribute(x, target=1), expected, strict=True):
        torch.testing.assert_close(found, theirs)
    assert partial.has_convergence_delta()
    assert partial.multiplies_by_inputs
    (few,) = partial.attribute((x,), target=1, n_steps=2, return_convergence_delta=False)
    assert (few - expected[0]).abs().max() > 1e-5


def test_unknown_argument():
    network = classifier(seed=2)
    with pytest.raises(TypeError, match="n_gruops"):
        Partial(GroupCAM(network, network.features), n_gruops=3)
