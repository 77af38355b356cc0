"""One call is right under every way that torch runs networks."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from captum_groupcam import GroupCAM
from captum_groupcam._captum._hooks import NotStoredError
from tests.attr.group_cam_calls import OPTIONS, Both, explain
from tests.toy_networks import Recorder, classifier, hooks


def test_frozen_parameters(network, x, expected):
    network.requires_grad_(False)
    assert torch.equal(explain(network, network.features, x), expected)


@pytest.mark.parametrize("at_input", [False, True])
def test_parameters_get_no_gradient_and_what_runs_before_the_layer_stores_nothing(
    network, x, at_input
):
    made = []
    convolution = next(m for m in network.features.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_hook(lambda _module, _args, output: made.append(output.grad_fn))
    layer = network.head if at_input else network.features
    explain(network, layer, x, attribute_to_layer_input=at_input, internal_batch_size=100)
    assert all(parameter.grad is None for parameter in network.parameters())
    with pytest.raises(NotStoredError):
        _ = made[0]._saved_input


def test_inplace_relu(x, expected):
    network = classifier(seed=2, inplace=True)
    for layer in (network.features, network.features[2], network.features[3]):
        reference = classifier(seed=2)
        of_reference = dict(reference.named_modules())
        name = next(n for n, m in network.named_modules() if m is layer)
        torch.testing.assert_close(
            explain(network, layer, x), explain(reference, of_reference[name], x)
        )
    torch.testing.assert_close(explain(network, network.features, x), expected)
    torch.testing.assert_close(
        explain(network, network.features[3], x, attribute_to_layer_input=True),
        explain(reference, reference.features[3], x, attribute_to_layer_input=True),
    )


def test_inplace_relu_as_the_very_first_operation(network, x):
    x = x - 0.7
    before = x.clone()
    inplace = nn.Sequential(nn.ReLU(inplace=True), network).eval()
    plain = nn.Sequential(nn.ReLU(), network).eval()
    for at_input in (False, True):
        torch.testing.assert_close(
            explain(inplace, inplace[0], x, attribute_to_layer_input=at_input, gradient_free=True),
            explain(plain, plain[0], x, attribute_to_layer_input=at_input, gradient_free=True),
        )
        torch.testing.assert_close(
            explain(inplace, inplace[0], x, attribute_to_layer_input=at_input),
            explain(plain, plain[0], x, attribute_to_layer_input=at_input),
        )
        assert torch.equal(x, before)
    torch.testing.assert_close(
        explain(inplace, network.features, (x,)), explain(plain, network.features, (x,))
    )
    assert torch.equal(x, before)


class Twice(nn.Module):
    """Calls the same activation twice."""

    def __init__(self, plain):
        super().__init__()
        self.first, self.second, self.head = plain.features[0], plain.features[2], plain.head
        self.relu = nn.ReLU()
        self.eval()

    def forward(self, x):
        return self.head(self.relu(self.second(self.relu(self.first(x)))))


def test_the_last_call_of_a_layer_that_is_called_twice(network, x, expected):
    """It is what Captum's LayerGradCam takes without a word."""
    twice = Twice(network)
    torch.testing.assert_close(explain(twice, twice.relu, x, layer_call=1), expected)
    grad_cam = LayerGradCam(twice, twice.relu).attribute(x, 2)
    torch.testing.assert_close(grad_cam, LayerGradCam(network, network.features).attribute(x, 2))
    torch.testing.assert_close(
        explain(twice, twice.relu, x, gradient_free=True, layer_call=1),
        explain(network, network.features, x, gradient_free=True),
    )


@pytest.mark.parametrize(
    "layer",
    [
        lambda n: (n.features, False),
        lambda n: (n.head, True),
        lambda n: (n.head[0], True),
        lambda n: (n.features[3], False),
    ],
)
def test_input_of_the_next_layer_is_the_output_of_this(network, x, expected, layer):
    layer, at_input = layer(network)
    attributions = explain(network, layer, x, attribute_to_layer_input=at_input)
    torch.testing.assert_close(attributions, expected)


def test_forward_func_may_be_any_function(network, x, expected):
    torch.testing.assert_close(explain(lambda i: network(i), network.features, x), expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_grad_mode_around_it_changes_nothing(network, x, expected, mode):
    with mode():
        attributions = explain(network, network.features, x)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert torch.equal(attributions, expected)
    assert not attributions.is_inference()


@pytest.mark.parametrize("inside", [False, True])
def test_inference_tensors_as_inputs(network, x, expected, inside):
    with torch.inference_mode():
        inference = x.clone()
        baselines = torch.zeros_like(x)
        scale, one = torch.ones(3), torch.ones(1)
    assert inference.is_inference()
    with torch.inference_mode() if inside else nullcontext():
        assert torch.equal(explain(network, network.features, inference), expected)
        both = Both(network)
        for extra in (scale, one):  # with a part for each sample, and without
            torch.testing.assert_close(
                explain(both, network.features, inference, 2, additional_forward_args=extra),
                expected,
            )
        torch.testing.assert_close(
            explain(network, network.features, inference, baselines=baselines),
            explain(network, network.features, x, baselines=0.0),
        )


def test_training_after_inference_mode(network, x):
    with torch.inference_mode():
        explain(network, network.features, x)
    network(x).sum().backward()


@pytest.mark.parametrize("gradient_free", [False, True])
def test_autocast(network, x, gradient_free):
    expected = explain(network, network.features, x, gradient_free=gradient_free)
    with torch.autocast("cpu", torch.bfloat16):
        attributions, scores = GroupCAM(network, network.features).attribute(
            x, 2, return_group_scores=True, gradient_free=gradient_free, **OPTIONS
        )
        network(x).sum().backward()  # casts kept from the call would have no graph
    assert attributions.dtype == scores.dtype == torch.float32
    # bfloat16 has 8 bits: scores are right to about 1 %.
    torch.testing.assert_close(attributions, expected, rtol=0, atol=0.03)
    assert torch.corrcoef(torch.stack([attributions.flatten(), expected.flatten()]))[0, 1] > 0.99
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_of_half_precision(network, x, expected, dtype):
    half = classifier(seed=2).to(dtype)
    attributions = explain(half, half.features, x.to(dtype))
    assert attributions.dtype == torch.float32
    tolerance = {torch.float16: 0.005, torch.bfloat16: 0.03}[dtype]
    torch.testing.assert_close(attributions, expected, rtol=0, atol=tolerance)


def test_float64(network, x, expected):
    double = classifier(seed=2).double()
    attributions = explain(double, double.features, x.double())
    assert attributions.dtype == torch.float64
    torch.testing.assert_close(attributions.float(), expected, rtol=0, atol=1e-5)


def test_network_that_computes_wider_than_its_inputs(network, x, expected):
    double = classifier(seed=2).double()
    attributions = explain(lambda i: double(i.double()).float(), double.features, x)
    assert attributions.dtype == torch.float32
    torch.testing.assert_close(attributions, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_network_sees_queries_in_the_layout_of_the_input(network, x, expected, layout):
    recorder = Recorder(network)
    attributions = explain(
        recorder, network.features, x.contiguous(memory_format=layout), internal_batch_size=5
    )
    torch.testing.assert_close(attributions, expected, rtol=0, atol=1e-5)
    assert len(recorder.calls) > 3
    for (seen,) in recorder.calls:
        assert seen.is_contiguous(memory_format=layout)


def test_channels_last_network(network, x, expected):
    network = network.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(explain(network, network.features, x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["strided", "expanded", "permuted"])
def test_inputs_that_are_views(network, x, expected, layout):
    view = {
        "strided": lambda: x.repeat_interleave(2, -1)[..., ::2],
        "expanded": lambda: x[:1].expand(3, -1, -1, -1),
        "permuted": lambda: x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
    }[layout]()
    expected = expected[:1].expand(3, -1, -1, -1) if layout == "expanded" else expected
    torch.testing.assert_close(
        explain(network, network.features, view), expected, rtol=0, atol=1e-5
    )


class Compiled:
    """A wrapper of each kind."""

    @staticmethod
    def module(network, backend):
        return torch.compile(network, backend=backend), network.features

    @staticmethod
    def attribute_of_module(network, backend):
        compiled = torch.compile(network, backend=backend)
        return compiled, compiled.features

    @staticmethod
    def in_place(network, backend):
        network.compile(backend=backend)
        return network, network.features

    @staticmethod
    def function(network, backend):
        return torch.compile(lambda i: network(i), backend=backend), network.features


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    "make", [Compiled.module, Compiled.attribute_of_module, Compiled.in_place, Compiled.function]
)
@pytest.mark.parametrize("gradient_free", [False, True])
def test_compiled_model(network, x, make, warm, gradient_free):
    torch._dynamo.reset()
    expected = explain(network, network.features, x, gradient_free=gradient_free)
    compiled, layer = make(network, "eager")
    if warm:
        compiled(x)
    for _ in range(2):
        attributions = explain(compiled, layer, x, gradient_free=gradient_free)
        torch.testing.assert_close(attributions, expected, rtol=0, atol=1e-5)
    assert not hooks(network).total()
    torch.testing.assert_close(compiled(x), network(x))
    compiled(x).sum().backward()


def test_data_parallel_without_devices(network, x, expected):
    parallel = nn.DataParallel(network).eval()
    if parallel.device_ids:
        pytest.skip("there are devices, see the next test")
    torch.testing.assert_close(explain(parallel, network.features, x), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pass_ids", [False, True])
def test_data_parallel(network, x, expected, pass_ids):
    network = network.cuda()
    parallel = nn.DataParallel(network).eval()
    forward_func = (lambda i: parallel(i)) if pass_ids else parallel
    group_cam = GroupCAM(forward_func, network.features, parallel.device_ids if pass_ids else None)
    attributions = group_cam.attribute(x.cuda(), 2, **OPTIONS)
    torch.testing.assert_close(attributions.cpu(), expected, rtol=0, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda(network, x, expected):
    network = network.cuda()
    attributions = explain(network, network.features, x.cuda())
    assert attributions.is_cuda
    torch.testing.assert_close(attributions.cpu(), expected, rtol=0, atol=1e-4)


class SmallMemory(nn.Module):
    """Runs out of memory, as an accelerator does, above some batch size."""

    def __init__(self, network, limit):
        super().__init__()
        self.network, self.limit = network, limit
        self.sizes = []
        self.eval()

    def forward(self, x):
        self.sizes.append(len(x))
        features = self.network.features(x)
        if len(x) > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return self.network.head(features)


@pytest.mark.parametrize("gradient_free", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_chunks_are_halved_when_memory_runs_out(network, x, limit, gradient_free):
    expected = explain(network, network.features, x, gradient_free=gradient_free)
    small = SmallMemory(network, limit)
    attributions = explain(
        small, network.features, x, internal_batch_size=12, gradient_free=gradient_free
    )
    torch.testing.assert_close(attributions, expected, rtol=0, atol=1e-5)
    assert max(small.sizes) > limit
    failures = [size for size in small.sizes if size > limit]
    assert len(failures) <= 9  # the size is kept, not tried again for each chunk
    assert not hooks(network).total()


def test_memory_too_small_for_one_sample_is_an_error(network, x):
    small = SmallMemory(network, 0)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="out of memory"):
        explain(small, network.features, x, internal_batch_size=2)
    assert small.sizes == [2, 1]
    assert not hooks(network).total()


def test_batch_is_its_samples_one_at_a_time(network, x):
    targets = [2, 0, 4]
    whole = explain(network, network.features, x, targets)
    for n, target in enumerate(targets):
        alone = explain(network, network.features, x[n : n + 1], target)
        torch.testing.assert_close(whole[n : n + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"gradient_free": True}, {"grouping": "k_means"}])
def test_same_call_same_result(network, x, options):
    first = explain(network, network.features, x, **options)
    assert torch.equal(first, explain(network, network.features, x, **options))
