"""What holds around a call: no trace left, and right under every way that torch runs networks."""

from __future__ import annotations

import inspect
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import nn

from captum_groupcam import GroupCAM
from tests.toy_networks import Recorder, classifier, hooks, images

OPTIONS = {"n_groups": 4, "relu_attributions": False}


@pytest.fixture
def network():
    return classifier(seed=2)


@pytest.fixture
def x():
    return images(3, 14, 16)


@pytest.fixture
def expected(network, x):
    """The signed map in plain float32; it says something about every sample."""
    attributions = GroupCAM(network, network.features).attribute(x, 2, **OPTIONS)
    assert attributions.flatten(1).abs().amax(1).gt(1e-3).all()
    return attributions


def explain(forward_func, layer, x, target=2, **options):
    return GroupCAM(forward_func, layer).attribute(x, target, **{**OPTIONS, **options})


# Call: signature, types, devices -----------------------------------------------------------------


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


class Both(nn.Module):
    """A network with a second argument, one value a sample."""

    def __init__(self, plain):
        super().__init__()
        self.plain = plain
        self.eval()

    def forward(self, x, scale):
        return self.plain(x) * scale.unsqueeze(1)


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


# No trace ----------------------------------------------------------------------------------------


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
    assert failing.calls == fails_at
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


# Networks ----------------------------------------------------------------------------------------


def test_frozen_parameters(network, x, expected):
    network.requires_grad_(False)
    assert torch.equal(explain(network, network.features, x), expected)


def test_parameters_get_no_gradient_and_store_no_graph(network, x):
    """The graph of the gradient pass begins at the layer: before it grad mode is off."""
    modes = []
    network.features[0].register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    network.head.register_forward_pre_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    explain(network, network.features, x, internal_batch_size=100)
    assert modes == [False, True] + [False] * 4


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


# Modes of torch ----------------------------------------------------------------------------------


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


# Targets and arguments ---------------------------------------------------------------------------


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


def test_second_input_of_another_size(network, x):
    """The same masks hide both; there is a map of its own size for each."""
    small = classifier(seed=5)
    both = TwoInputs(network, small)
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
    _, (big, little), (hidden_big, hidden_little) = seen.calls
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
