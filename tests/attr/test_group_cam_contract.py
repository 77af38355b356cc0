"""One call: its signature and what it returns; no trace of it is left."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import nn

from captum_groupcam import GroupCAM
from tests.attr.group_cam_calls import OPTIONS, Both, explain
from tests.toy_networks import classifier, hooks, images


def test_first_five_arguments_are_those_of_layer_grad_cam():
    def names(function):
        return list(inspect.signature(function).parameters.values())

    ours, theirs = names(GroupCAM.attribute), names(LayerGradCam.attribute)
    assert [p.name for p in ours[:6]] == [p.name for p in theirs[:6]]
    assert [p.default for p in ours[:5]] == [p.default for p in theirs[:5]]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[6:])
    ours, theirs = names(GroupCAM.__init__), names(LayerGradCam.__init__)
    assert [p.name for p in ours] == [p.name for p in theirs]
    assert [p.default for p in ours] == [p.default for p in theirs]


def test_drop_in_for_layer_grad_cam():
    network = Both(classifier(seed=2))
    x, scale = images(2, 14, 16), torch.tensor([1.0, 2.0])
    call = (x, [4, 4], scale, False, True)
    grad_cam = LayerGradCam(network, network.plain.features).attribute(*call)
    attributions = GroupCAM(network, network.plain.features).attribute(
        *call, n_groups=1, denoise_percentile=None
    )
    upsampled = LayerAttribution.interpolate(grad_cam.detach(), (14, 16), "bilinear")
    flat, reference = attributions.flatten(1), upsampled.flatten(1)
    reference = reference - reference.amin(1, keepdim=True)
    torch.testing.assert_close(
        flat * reference.amax(1, keepdim=True), reference * flat.amax(1, keepdim=True)
    )
    assert flat.amax(1).gt(1e-3).all()


def test_insights_finds_the_function_behind_the_log(network, x, expected):
    group_cam = GroupCAM(network, network.features)
    attributions = group_cam.attribute.__wrapped__(group_cam, x, 2, **OPTIONS)
    assert torch.equal(attributions, expected)


def test_constructor_stores_and_does_nothing_else(network):
    group_cam = GroupCAM(network, network.features, device_ids=[0])
    assert vars(group_cam).keys() == {"forward_func", "layer", "device_ids"}
    assert group_cam.forward_func is network
    assert group_cam.layer is network.features
    assert group_cam.device_ids == [0]
    assert not hooks(network).total()


def test_result_has_the_place_and_type_of_the_input(network, x):
    attributions, scores = GroupCAM(network, network.features).attribute(
        x, 2, return_group_scores=True
    )
    assert attributions.shape == (3, 1, 14, 16)
    assert scores.shape == (3, 8)
    for result in (attributions, scores):
        assert result.device == x.device
        assert result.dtype == torch.float32
        assert not result.requires_grad
    assert attributions.min() >= 0


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_dimensions(dims):
    network = classifier(dims)
    size = (9, 10, 11)[:dims]
    assert explain(network, network.features, images(2, *size)).shape == (2, 1, *size)


def test_tuple_in_tuple_out(network, x, expected):
    attributions = explain(network, network.features, (x,))
    assert isinstance(attributions, tuple)
    assert len(attributions) == 1
    assert torch.equal(attributions[0], expected)


class Failing(nn.Module):
    """Raises when it is called for the n-th time, in the middle of the network."""

    def __init__(self, plain, fails_at):
        super().__init__()
        self.features, self.head = plain.features, plain.head
        self.fails_at, self.calls = fails_at, 0
        self.eval()

    def forward(self, x):
        self.calls += 1
        features = self.features(x)
        if self.calls == self.fails_at:
            raise RuntimeError("out of cheese")
        return self.head(features)


def state(network, *tensors):
    """All that a call must leave as it was."""
    return {
        "hooks": hooks(network),
        "training": [m.training for m in network.modules()],
        "requires_grad": [p.requires_grad for p in network.parameters()],
        "grad": [p.grad is None for p in network.parameters()],
        "parameters": [p.detach().clone() for p in network.state_dict().values()],
        "rng": torch.get_rng_state(),
        "numpy": np.random.get_state()[1],  # noqa: NPY002, the global state is what is meant
        "modes": [torch.tensor([torch.is_grad_enabled(), torch.is_inference_mode_enabled()])],
        "tensors": [t.detach().clone() for t in tensors],
        "tensors_requires_grad": [t.requires_grad for t in tensors],
        "tensors_grad": [t.grad is None for t in tensors],
    }


def assert_same(before, after):
    torch.testing.assert_close(
        before["parameters"] + before["tensors"] + before["modes"] + [before["rng"]],
        after["parameters"] + after["tensors"] + after["modes"] + [after["rng"]],
        rtol=0,
        atol=0,
    )
    assert (before["numpy"] == after["numpy"]).all()
    tensors = ("parameters", "tensors", "modes", "rng", "numpy")
    for name in before.keys() - set(tensors):
        assert before[name] == after[name], name


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("at_input", [False, True])
@pytest.mark.parametrize("options", [{}, {"gradient_free": True}, {"grouping": "k_means"}], ids=str)
def test_success_leaves_no_trace(network, x, options, at_input, requires_grad):
    x.requires_grad_(requires_grad)
    network.features[0].requires_grad_(False)
    network.head.train()  # a flag of its own
    baseline = torch.rand_like(x)
    before = state(network, x, baseline)
    layer = network.head if at_input else network.features
    explain(network, layer, x, baselines=baseline, attribute_to_layer_input=at_input, **options)
    assert_same(before, state(network, x, baseline))


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
@pytest.mark.parametrize("gradient_free", [False, True])
def test_exception_in_forward_leaves_no_trace(network, x, fails_at, gradient_free):
    failing = Failing(network, fails_at)
    before = state(failing, x)
    with pytest.raises(RuntimeError, match="out of cheese"):
        explain(failing, network.features, x, gradient_free=gradient_free, internal_batch_size=3)
    # What fails for a row alone is tried again, since some networks take batches of one size only;
    # without gradients the layer's rows are compared with the samples, too.
    order, alone = gradient_free and fails_at == 2, fails_at == 3 + gradient_free
    assert failing.calls == fails_at + order + 2 * alone
    assert_same(before, state(failing, x))
    # The failure is over, and so is all that it could have left.
    failing.fails_at = -1
    torch.testing.assert_close(
        explain(failing, network.features, x), explain(network, network.features, x)
    )


def test_failing_assertion_of_the_network_is_its_own(network, x):
    def forward(inputs):
        assert inputs.shape[-1] == 7, "seven columns, please"
        return network(inputs)

    with pytest.raises(AssertionError, match="seven columns"):
        explain(forward, network.features, x)
    assert not hooks(network).total()


def test_hooks_of_the_user_stay_and_are_called(network, x, expected):
    calls = []
    handle = network.features.register_forward_hook(lambda *args: calls.append("own"))
    assert torch.equal(explain(network, network.features, x), expected)
    assert calls
    assert hooks(network).total() == 1
    assert hooks(network)["_forward_hooks"] == 1
    handle.remove()


def test_backward_pass_of_the_user_still_works(network, x):
    explain(network, network.features, x)
    network(x).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
