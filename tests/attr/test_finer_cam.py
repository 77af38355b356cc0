"""Finer-CAM: the contrast by hand, over every method that takes a gradient, and as in torchcam."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_groupcam import (
    CAM,
    AblationCAM,
    EigenCAM,
    FinerCAM,
    GradCAM,
    GroupCAM,
    HiResCAM,
    LayerCAM,
)
from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.masking.targets import Contrast, Target, TargetError
from tests.toy_networks import FORMULAS, Recorder, classifier, images, real_image

BASES = [method for method in FORMULAS if method.uses_gradients and method is not FinerCAM]


class Contrasted(nn.Module):
    """One output a sample: the class less a share of the mean of the closest others."""

    def __init__(self, network, targets, strength, n_references):
        super().__init__()
        self.network, self.targets = network, targets
        self.strength, self.n_references = strength, n_references

    def forward(self, inputs):
        values = []
        for scores, target in zip(self.network(inputs), self.targets, strict=True):
            others = [c for c in range(len(scores)) if c != target]
            distances = (scores - scores[target]).detach().abs().tolist()
            others.sort(key=distances.__getitem__)
            closest = [scores[c] for c in others[: self.n_references]]
            values.append(scores[target] - self.strength * sum(closest) / len(closest))
        return torch.stack(values)


@pytest.mark.parametrize("base", BASES)
def test_is_the_method_of_the_contrast(base):
    network, inputs = classifier(seed=2).double(), images(2, 14, 16).double()
    found = FinerCAM(network, network.features).attribute(
        inputs, [1, 3], base=base, strength=0.8, n_references=2
    )
    contrasted = Contrasted(network, [1, 3], 0.8, 2).eval()
    expected = base(contrasted, network.features).attribute(inputs)
    plain = base(network, network.features).attribute(inputs, [1, 3])
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("base", [GradCAM, LayerCAM])
def test_equals_torchcam(base):
    torchcam = pytest.importorskip("torchcam", minversion="0.5")  # needs Python 3.11

    network, image = classifier(channels=12, seed=2).double(), real_image()
    theirs_of = getattr(torchcam.methods, base.__name__)
    with torchcam.methods.FinerCAM(
        network, network.features, base_method=theirs_of, input_shape=(3, 24, 24)
    ) as extractor:
        (theirs,) = extractor(2, network(image), normalized=False)
    ours = FinerCAM(network, network.features).attribute(
        image, 2, relu_attributions=True, base=base
    )
    assert ours.std() > 0.01
    torch.testing.assert_close(ours[:, 0], theirs.detach(), rtol=1e-4, atol=1e-4)


def test_the_contrast_by_hand():
    output = torch.tensor([[1.0, 5.0, 4.0, -9.0], [1.0, 5.0, 4.0, -9.0]])
    target = Target.of([1, 3], 2, output.device)
    samples = torch.arange(2)
    # 4 and 1 come closest to 5; 1 and 4 to -9.
    found = Contrast(target, 0.5, 2).select(output, samples)
    torch.testing.assert_close(found, torch.tensor([5 - 1.25, -9 - 1.25]))
    found = Contrast(target, 1.0, 9).select(output, samples)
    torch.testing.assert_close(found, torch.tensor([5 + 4 / 3, -9 - 10 / 3]))
    found = Contrast(target, 1.0, 2, (0,)).select(output, samples)
    torch.testing.assert_close(found, torch.tensor([4.0, -10.0]))
    last = Contrast(Target.of(-1, 2, output.device), 1.0, 1).select(output, samples)
    torch.testing.assert_close(last, torch.tensor([-10.0, -10.0]))


def test_outputs_with_more_dimensions():
    output = torch.arange(24.0).view(1, 3, 4, 2)
    target = Target.of((1, 2, 1), 1, output.device)
    found = Contrast(target, 1.0, 2).select(output, torch.zeros(1, dtype=torch.long))
    expected = output[0, 1, 2, 1] - (output[0, 0, 2, 1] + output[0, 2, 2, 1]) / 2
    torch.testing.assert_close(found, expected.view(1))


def test_without_strength_it_is_the_method_and_one_pass_is_enough():
    network, inputs = classifier(seed=2), images(2, 14, 16)
    recorder = Recorder(network)
    found = FinerCAM(recorder, network.features).attribute(inputs, 1, strength=0)
    assert recorder.batch_sizes == [2]
    expected = GradCAM(network, network.features).attribute(inputs, 1)
    torch.testing.assert_close(found, expected)


class Finer(FinerCAM):
    """The same by another name, which has no formula either."""


@pytest.mark.parametrize(
    "base", [CAM, EigenCAM, AblationCAM, GroupCAM, "GradCAM", FinerCAM, Finer, LayerFormula]
)
def test_methods_that_take_no_gradient_are_refused(base):
    network = classifier(seed=2)
    with pytest.raises(TypeError, match="base must be a method that takes a gradient"):
        FinerCAM(network, network.features).attribute(images(1), 1, base=base)


@pytest.mark.parametrize("references", [(1,), (0, 1), (5,)])
def test_references_are_other_classes(references):
    network = classifier(seed=2)
    with pytest.raises(TargetError, match="References are other classes than the target"):
        FinerCAM(network, network.features).attribute(images(1), 1, references=references)


def test_one_output_has_nothing_to_be_contrasted_with():
    network = classifier(classes=1, seed=2)
    for target in (0, None):
        with pytest.raises(TargetError, match="contrasted with others"):
            FinerCAM(network, network.features).attribute(images(1), target)


def test_hires_cam_of_a_contrast_with_one_class_is_the_difference():
    network, inputs = classifier(seed=2).double(), images(1).double()
    found = FinerCAM(network, network.features).attribute(
        inputs, 1, base=HiResCAM, strength=1.0, references=(3,)
    )
    of_class = HiResCAM(network, network.features).attribute
    torch.testing.assert_close(found, of_class(inputs, 1) - of_class(inputs, 3))


@pytest.mark.parametrize(
    ("references", "error", "words"),
    [
        (2, TypeError, "references must be a tuple of classes, got int"),
        ((2.7,), TypeError, "each of references must be an int, got 2.7"),
        (("2",), TypeError, "each of references must be an int, got '2'"),
        ((-1,), ValueError, "each of references must be at least 0, got -1"),
    ],
)
def test_references_that_are_no_classes(references, error, words):
    network = classifier(channels=6, seed=2)
    with pytest.raises(error, match=words):
        FinerCAM(network, network.features).attribute(images(2), 1, references=references)
