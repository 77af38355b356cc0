from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from captum_groupcam import XRAI
from tests.toy_networks import SmallCNN, real_image, small_inputs

saliency = pytest.importorskip("saliency.core")


def packages_xrai(network, image, target, steps, algorithm="full"):
    """XRAI of the saliency package with its own integrated gradients."""

    def call_model(batch, call_model_args=None, expected_keys=None):
        inputs = torch.from_numpy(batch).movedim(-1, 1).requires_grad_()
        (gradients,) = torch.autograd.grad(network(inputs)[:, target].sum(), inputs)
        return {saliency.INPUT_OUTPUT_GRADIENTS: gradients.movedim(1, -1).numpy()}

    return saliency.XRAI().GetMask(
        image[0].movedim(0, -1).numpy(),
        call_model,
        batch_size=50,
        extra_parameters=saliency.XRAIParameters(steps=steps, algorithm=algorithm),
    )


@pytest.mark.parametrize("algorithm", ["full", "fast"])
def test_equals_the_package_with_its_own_integrated_gradients(algorithm):
    network, image = SmallCNN(), real_image(48)
    ours = XRAI(network).attribute(image, target=2, n_steps=200, algorithm=algorithm)
    theirs = packages_xrai(network, image, 2, 1000, algorithm)
    assert len(np.unique(theirs)) > 3  # regions, not pixels, and more than one
    torch.testing.assert_close(ours[0, 0], torch.from_numpy(theirs), rtol=0.02, atol=1e-4)


def test_baselines_are_averaged():
    network, image = SmallCNN(), real_image(24)
    default = XRAI(network).attribute(image, target=1)
    extremes = [image.min().item(), image.max().item()]
    torch.testing.assert_close(
        XRAI(network).attribute(image, target=1, baselines=extremes), default
    )
    black = XRAI(network).attribute(image, target=1, baselines=extremes[:1])
    assert not torch.allclose(black, default)


def test_tuple_of_inputs_has_a_baseline_and_a_map_for_each():
    network, inputs = SmallCNN(), small_inputs(2)
    scale = torch.tensor([[1.0], [-2.0]], dtype=torch.double)
    method = XRAI(lambda factor, images: network(images) * factor)
    nothing, maps = method.attribute((scale, inputs), (None, 0.25), [1, 2], n_steps=8)
    expected = XRAI(lambda images, factor: network(images) * factor).attribute(
        inputs, 0.25, [1, 2], scale, n_steps=8
    )
    torch.testing.assert_close(maps, expected)
    assert torch.equal(nothing, torch.zeros_like(scale))
    callable_baseline = method.attribute(
        (scale, inputs), (None, lambda x: torch.full_like(x, 0.25)), [1, 2], n_steps=8
    )
    torch.testing.assert_close(callable_baseline[1], expected)


def test_batch_is_its_samples_one_at_a_time():
    network, inputs = SmallCNN(), small_inputs(2)
    method = XRAI(network)
    together = method.attribute(inputs, target=[0, 1], internal_batch_size=1)
    for index in range(2):
        alone = method.attribute(inputs[index : index + 1], target=index)
        torch.testing.assert_close(together[index : index + 1], alone)


def test_additional_arguments_go_with_their_samples():
    network, inputs = SmallCNN(), small_inputs(2)
    factors = torch.tensor([1.0, -2.0], dtype=torch.double)

    def forward(images, factor, power):
        return network(images) * factor.unsqueeze(1) ** power

    maps = XRAI(forward).attribute(inputs, None, 1, (factors, 1))
    for index, factor in enumerate([1.0, -2.0]):
        expected = XRAI(lambda x, f=factor: network(x) * f).attribute(
            inputs[index : index + 1], target=1
        )
        torch.testing.assert_close(maps[index : index + 1], expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_any_grad_mode_and_no_trace(mode):
    network, inputs = SmallCNN(), small_inputs(1).requires_grad_()
    expected = XRAI(network).attribute(small_inputs(1), target=1)
    with mode():
        maps = XRAI(network).attribute(inputs, target=1)
    torch.testing.assert_close(maps, expected)
    assert not maps.requires_grad
    assert inputs.requires_grad
    assert inputs.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "saliency.core", None)
    with pytest.raises(ImportError, match=r"pip install 'captum_groupcam\[bench\]'"):
        XRAI(SmallCNN()).attribute(small_inputs(1), target=0)


def test_progress_bar(capsys):
    XRAI(SmallCNN()).attribute(small_inputs(1), target=0, show_progress=True)
    assert "XRAI" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (torch.ones(2, 3, 24, 24).double(), {}, r"Samples \[0, 1\] are constant"),
        (small_inputs(1, dims=1), {}, r"images, N x C x H x W, got \(1, 3, 24\)"),
        ((small_inputs(1), small_inputs(1)), {}, r"one input with spatial dimensions, got 2"),
        (small_inputs(1), {"baselines": (0, 0)}, "one for each of the 1 inputs, got 2"),
        (small_inputs(1), {"baselines": []}, "at least one"),
        (small_inputs(1), {"n_steps": 0}, "n_steps must be at least 1, got 0"),
        (small_inputs(1) * torch.nan, {}, "NaN"),
        (small_inputs(1), {"target": 7}, "target 7 is out of range"),
        (small_inputs(1), {"algorithm": "slow"}, "'full' or 'fast', got 'slow'"),
    ],
)
def test_bad_input(inputs, options, message):
    with pytest.raises(ValueError, match=message):
        XRAI(SmallCNN()).attribute(inputs, **{"target": 0, **options})
