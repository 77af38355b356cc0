"""Smoother maps: by hand, and as pytorch-grad-cam has them."""

from __future__ import annotations

import pytest
import torch
from captum.attr import FeatureAblation, LayerAttribution, NoiseTunnel, Saliency
from torch import nn

from captum_groupcam import (
    CAM,
    RISE,
    EigenCAM,
    EigenGradCAM,
    FinerCAM,
    GradCAM,
    GradCAMPlusPlus,
    GroupCAM,
    HiResCAM,
    LayerCAM,
    ShapleyCAM,
    XGradCAM,
)
from captum_groupcam.attr.by_component import by_component
from captum_groupcam.attr.smoothed import Smoothed
from captum_groupcam.masking.network import Shared
from tests.toy_networks import FORMULAS, SmallCNN, classifier, images, real_image, scaled

SUMS = [
    method
    for method in FORMULAS
    if method.uses_gradients and method not in (EigenGradCAM, FinerCAM)
]


@pytest.mark.parametrize("method", [*(m for m in FORMULAS if m is not CAM), GroupCAM])
def test_is_the_mean_over_altered_inputs(method):
    network, inputs = classifier(seed=2).double(), images(2, 14, 16).double()
    explain = method(network, network.features).attribute
    found = Smoothed(method(network, network.features)).attribute(inputs, [1, 3])
    maps = []
    for factor in (0.9, 1, 1.1):
        maps.append(explain(inputs * factor, [1, 3]))
        maps.append(explain(inputs.flip(3) * factor, [1, 3]).flip(3))
    torch.testing.assert_close(found, torch.stack(maps).mean(0))


def test_equals_pytorch_grad_cam():
    from pytorch_grad_cam import GradCAM as PyTorchGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, image = SmallCNN(channels=12, stride=1), real_image()
    with PyTorchGradCAM(network, [network.features]) as extractor:
        theirs = extractor(image, [ClassifierOutputTarget(2)], aug_smooth=True)
    ours = Smoothed(GradCAM(network, network.features)).attribute(image, 2, scaled=True)
    assert ours.std() > 0.05
    torch.testing.assert_close(ours[:, 0], torch.from_numpy(theirs).double(), rtol=1e-4, atol=1e-4)


def test_at_a_coarser_layer_pytorch_grad_cam_scales_once_more():
    """What the page for its users says."""
    from pytorch_grad_cam import GradCAM as PyTorchGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, image = SmallCNN(channels=12, stride=2), real_image()
    with PyTorchGradCAM(network, [network.features]) as extractor:
        theirs = extractor(image, [ClassifierOutputTarget(2)], aug_smooth=True)
    maps = []
    for factor in (0.9, 1, 1.1):
        for mirrored in (False, True):
            seen = image.flip(3) if mirrored else image
            one = scaled(GradCAM(network, network.features).attribute(seen * factor, 2).relu())
            one = scaled(LayerAttribution.interpolate(one, image.shape[2:], "bilinear"))
            maps.append(one.flip(3) if mirrored else one)
    by_hand = torch.stack(maps).mean(0)[:, 0]
    theirs = torch.from_numpy(theirs).double()
    torch.testing.assert_close(by_hand, theirs, rtol=1e-4, atol=1e-4)
    ours = Smoothed(GradCAM(network, network.features)).attribute(image, 2, scaled=True)
    ours = LayerAttribution.interpolate(ours, image.shape[2:], "bilinear")[:, 0]
    assert 1e-3 < (ours - theirs).abs().max() < 0.2


@pytest.mark.parametrize("method", [GradCAM, GradCAMPlusPlus, LayerCAM, HiResCAM, XGradCAM])
def test_the_first_component_equals_pytorch_grad_cam(method, capsys):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, image = classifier(channels=12, seed=2).double(), real_image()
    with torch.no_grad():
        network.head[-1].weight *= 1e4  # beside which the epsilon of their Grad-CAM++ vanishes
    with getattr(pytorch_grad_cam, method.__name__)(network, [network.features]) as extractor:
        theirs = extractor(image, [ClassifierOutputTarget(2)], eigen_smooth=True)
    theirs = torch.from_numpy(theirs).double()
    signed = by_component(method(network, network.features)).attribute(image, 2)
    # A principal component has no sign; theirs has the one that LAPACK happens to return.
    ours = [
        scaled(LayerAttribution.interpolate((sign * signed).relu(), (24, 24), "bilinear"))[:, 0]
        for sign in (1, -1)
    ]
    assert min((one - theirs).abs().max() for one in ours) < 1e-4


@pytest.mark.parametrize("method", SUMS)
def test_the_first_component_of_every_sum_goes_along_with_it(method):
    network, inputs = classifier(seed=2).double(), images(2, 14, 16).double()
    plain = method(network, network.features)
    found = by_component(plain).attribute(inputs, [1, 3]).flatten(1)
    expected = plain.attribute(inputs, [1, 3]).flatten(1)
    assert ((expected - expected.mean(1, keepdim=True)) * found).sum(1).min() > 0
    assert by_component(plain).get_name() == f"{method.get_name()}, smoothed"


def test_what_is_no_sum_over_channels_is_refused():
    network, inputs = classifier(seed=2), images(1)
    with pytest.raises(TypeError, match="EigenGradCAM is not a sum over channels"):
        by_component(EigenGradCAM(network, network.features)).attribute(inputs, 1)
    for method in (EigenCAM, CAM):
        with pytest.raises(TypeError, match="is not a sum over channels of activations"):
            by_component(method(network, network.features))


def test_of_a_curved_head():
    network, inputs = classifier(seed=2), images(1)
    network.head = nn.Sequential(nn.SiLU(), *network.head)
    found = by_component(ShapleyCAM(network, network.features)).attribute(inputs, 1)
    other = by_component(GradCAM(network, network.features)).attribute(inputs, 1)
    assert (found - other).abs().max() > 1e-4


def test_several_inputs_and_methods_on_the_input():
    network, x = classifier(seed=2), images(2, 14, 16)
    shift = torch.zeros(2, 1)
    maps, nothing = Smoothed(GradCAM(lambda a, b: network(a) + b, network.features)).attribute(
        (x, shift), 1, factors=(1.0,)
    )
    explain = GradCAM(network, network.features).attribute
    torch.testing.assert_close(maps, (explain(x, 1) + explain(x.flip(3), 1).flip(3)) / 2)
    assert torch.equal(nothing, torch.zeros(2, 1))
    found = Smoothed(Saliency(network)).attribute(x.requires_grad_(), target=1, flip=False)
    assert found.shape == x.shape
    found = Smoothed(RISE(network)).attribute(x.detach(), target=1, n_masks=4)
    assert found.shape == (2, 1, 14, 16)


def test_errors():
    network, x = classifier(seed=2), images(1)
    smoothed = Smoothed(GroupCAM(network, network.features))
    with pytest.raises(ValueError, match="at least one factor"):
        smoothed.attribute(x, 1, factors=())
    with pytest.raises(ValueError, match="baseline with positions is not mirrored"):
        smoothed.attribute(x, 1, baselines=torch.zeros_like(x))


def test_smooth_grad_cam_plus_plus_is_grad_cam_plus_plus_in_a_noise_tunnel():
    """Smooth Grad-CAM++ (arXiv 1908.01224) averages over noisy copies of the input."""
    network, x = classifier(seed=2), images(1, 14, 16)
    method = GradCAMPlusPlus(network, network.features)
    torch.manual_seed(0)
    found = NoiseTunnel(method).attribute(
        x, nt_samples=8, nt_samples_batch_size=4, stdevs=0.3, target=2, relu_attributions=True
    )
    torch.manual_seed(0)
    noisy = [torch.normal(x.repeat_interleave(4, 0), 0.3) for _ in range(2)]
    maps = method.attribute(torch.cat(noisy), 2, relu_attributions=True)
    torch.testing.assert_close(found, maps.mean(0, keepdim=True))
    plain = method.attribute(x, 2, relu_attributions=True)
    assert (found - plain).abs().max() > 0.01


class Masked(nn.Module):
    """Sees an image only where a mask is 1."""

    def __init__(self):
        super().__init__()
        self.inner = classifier(seed=2).double()

    def forward(self, image, mask):
        return self.inner(image * mask.unsqueeze(1))


def test_a_mask_among_the_inputs_is_mirrored_and_no_brighter():
    network, x = Masked().eval(), images(2, 14, 16).double()
    mask = torch.zeros(2, 14, 16, dtype=torch.long)
    mask[:, :, :6] = 1
    explain = GradCAM(network, network.inner.features).attribute
    found, nothing = Smoothed(GradCAM(network, network.inner.features)).attribute((x, mask), 1)
    maps = []
    for factor in (0.9, 1, 1.1):
        maps.append(explain((x * factor, mask), 1)[0])
        maps.append(explain((x.flip(3) * factor, mask.flip(2)), 1)[0].flip(3))
    torch.testing.assert_close(found, torch.stack(maps).mean(0))
    assert not nothing.any()


def test_what_lies_over_the_input_and_is_not_mirrored_is_refused():
    network, x = Masked().eval(), images(2, 14, 16).double()
    mask = torch.ones(2, 14, 16).double()
    layer = network.inner.features
    smoothed = Smoothed(GradCAM(network, layer))
    for given in (mask, (mask,)):
        with pytest.raises(
            ValueError, match=r"\(2, 14, 16\) in additional_forward_args\[0\] lies over"
        ):
            smoothed.attribute(x, 1, given)
        with pytest.raises(ValueError, match="lies over the input, and is not mirrored with it"):
            smoothed.attribute(x, 1, additional_forward_args=given)
    with pytest.raises(
        ValueError, match=r"in additional_forward_args\[0\]\['masks'\]\[1\] lies over"
    ):
        smoothed.attribute(x, 1, {"masks": [2.0, mask]})
    with pytest.raises(ValueError, match=r"An array of shape \(2, 14, 16\) in .* lies over"):
        smoothed.attribute(x, 1, mask.numpy())
    with pytest.raises(ValueError, match=r"A tensor of shape \(14, 16\) in .* lies over"):
        smoothed.attribute(x, 1, mask[0])
    found = smoothed.attribute(x, 1, mask, flip=False, factors=(1.0,))
    torch.testing.assert_close(found, GradCAM(network, layer).attribute(x, 1, mask))
    # What does not lie over it, though it has its size.
    smoothed.attribute(x, 1, Shared(mask))
    # Other arguments of a method, by position too.
    segments = torch.arange(14 * 16).view(1, 1, 14, 16) // 32
    with pytest.raises(ValueError, match="in feature_mask lies over the input"):
        Smoothed(FeatureAblation(classifier())).attribute(x, target=1, feature_mask=segments)
    with pytest.raises(ValueError, match="baseline with positions is not mirrored"):
        Smoothed(RISE(classifier().double())).attribute(x, torch.zeros_like(x), 1)


def test_what_belongs_to_a_signal_is_mirrored_with_it_or_refused():
    network = classifier(dims=1)
    signal, weights = images(2, 16), torch.rand(2, 16)
    smoothed = Smoothed(GradCAM(lambda s, w: network(s * w.unsqueeze(1)), network.features))
    with pytest.raises(ValueError, match="give it as N x 1 x L, or flip=False"):
        smoothed.attribute((signal, weights), 1)
    smoothed.attribute((signal, weights), 1, flip=False)


def test_channels_that_come_last_are_not_mirrored():
    network = classifier(seed=2)
    explainer = Smoothed(Saliency(lambda x: network(x.permute(0, 3, 1, 2))))
    with pytest.raises(ValueError, match=r"\(2, 14, 16, 3\) looks as if its channels came last"):
        explainer.attribute(images(2, 14, 16).permute(0, 2, 3, 1), target=1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"factors": "a"}, TypeError, "factors must be a tuple of numbers, got 'a'"),
        ({"factors": 1.0}, TypeError, "factors must be a tuple of numbers, got 1.0"),
        ({"factors": ("a",)}, TypeError, "each of factors must be a number, got 'a'"),
        ({"factors": (float("nan"),)}, ValueError, "each of factors must be in"),
        ({"flip": "no"}, TypeError, "flip must be True or False, got 'no'"),
    ],
)
def test_options_of_another_type(options, error, words):
    network = classifier(seed=2)
    with pytest.raises(error, match=words):
        Smoothed(GradCAM(network, network.features)).attribute(images(1), 1, **options)


def test_a_method_is_one_of_a_network():
    with pytest.raises(TypeError, match=r"as GradCAM\(network, \.\.\.\) is, got GradCAM"):
        Smoothed(GradCAM)
    with pytest.raises(TypeError, match=r"as GradCAM\(network, \.\.\.\) is, got str"):
        Smoothed("GradCAM")
    with pytest.raises(TypeError, match="Each of inputs must be a tensor, got list"):
        Smoothed(Saliency(classifier())).attribute([images(1)], target=1)
