from __future__ import annotations

import copy
import random as python_random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn

from benchmarks.controls import CONTROLS
from captum_groupcam.methods import METHODS, offered_methods
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import (
    Attentive,
    Recorder,
    SmallCNN,
    real_image,
    seeded,
    small_inputs,
)

NAMES = [*offered_methods(), *CONTROLS]
ON_LAYER = [name for name in NAMES if METHODS[name].on_layer]
WITH_PROGRESS = [name for name in NAMES if "show_progress" in METHODS[name].options]
OPTIONS = {
    "group_cam": {"n_groups": 3, "relu_attributions": False},
    "group_cam_gradient_free": {"n_groups": 3, "relu_attributions": False},
    "group_cam_consensus": {"n_groups": 3},
    "rise": {"n_masks": 20},
    "xrai": {"n_steps": 8, "algorithm": "fast"},
    "integrated_gradients": {"n_steps": 8},
    "smooth_grad": {"n_samples": 5, "internal_batch_size": 2},
    "gradient_shap": {"n_samples": 5},
    "feature_ablation": {"n_segments": 9},
    "lime": {"n_samples": 40, "n_segments": 9},
    "kernel_shap": {"n_samples": 40, "n_segments": 9},
    "shapley_value_sampling": {"n_samples": 2, "n_segments": 9},
    "internal_influence": {"n_steps": 5},
    "layer_conductance": {"n_steps": 5},
}

#: They explain transformers.
OF_ATTENTION = ("attention_rollout", "le_grad")
#: The target changes nothing: they say what is in the layer, in the image, or in the attention.
WHATEVER_THE_CLASS = {*CONTROLS, "eigen_cam", "kpca_cam", "attention_rollout"}

every_method = pytest.mark.parametrize("name", NAMES)


def network_for(name: str) -> nn.Module:
    return seeded(Attentive).double().eval() if name in OF_ATTENTION else SmallCNN()


def method(name: str, network: nn.Module, **options):
    return METHODS[name](network, network.features, **{**OPTIONS.get(name, {}), **options})


# --- the contract of every method


@every_method
def test_batch_is_its_samples_one_at_a_time_and_targets_have_several_forms(name):
    network, inputs = network_for(name), small_inputs(2)
    # Before the pooling its map is the same everywhere.
    layer = network.features[0] if name == "internal_influence" else network.features
    explain = METHODS[name](network, layer, **OPTIONS.get(name, {}))
    together = explain(inputs, [1, 3])
    assert together.shape == (2, 1, 24, 24)
    assert together.device == inputs.device
    assert not together.requires_grad
    assert together.flatten(1).std(1).min() > 0
    torch.testing.assert_close(explain(inputs, torch.tensor([1, 3])), together)
    torch.manual_seed(99)  # chance does not come from the global generator
    torch.testing.assert_close(explain(inputs[:1], 1), together[:1])
    torch.testing.assert_close(explain(inputs[1:], torch.tensor(3)), together[1:])


@every_method
def test_target_matters_to_all_but_those_that_say_so(name):
    network, inputs = network_for(name), small_inputs(1)
    explain = method(name, network)
    first, other = explain(inputs, 0), explain(inputs, 1)
    assert torch.allclose(first, other, rtol=1e-3) == (name in WHATEVER_THE_CLASS)


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].passes is not None])
def test_costs_the_forward_passes_that_it_declares(name):
    recorder, options = Recorder(network_for(name)), OPTIONS.get(name, {})
    METHODS[name](recorder, recorder.network.features, **options)(small_inputs(1), 1)
    passes = sum(recorder.batch_sizes)
    declared = METHODS[name].n_passes(**options)
    # Masks without information cost none, Consensus Group-CAM asks for no more than it declares,
    # and what asks a copy of the network is not seen here.
    assert passes <= declared
    fewer = ("group_cam_consensus", "deep_lift", "lrp")
    assert passes == declared or METHODS[name].grouped or name in fewer


@every_method
@pytest.mark.parametrize("fails", [False, True], ids=["works", "forward raises"])
def test_leaves_no_trace(name, fails):
    network, inputs = network_for(name), small_inputs(1).requires_grad_()
    network.classifier.weight.requires_grad_(False)
    network.features[0].bias.grad = torch.ones_like(network.features[0].bias)
    if fails:
        network.classifier.forward = Failure()
    before = state(network, inputs)
    if fails and name not in CONTROLS:
        with pytest.raises(RuntimeError, match="broken on purpose"):
            method(name, network)(inputs, 0)
    else:
        method(name, network)(inputs, 0)
    after = state(network, inputs)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert same(value, after[key]), key


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_runs_in_any_grad_mode(name, mode):
    network = network_for(name)
    expected = method(name, network)(small_inputs(1), 2)
    with mode():
        maps = method(name, network)(small_inputs(1), 2)
    torch.testing.assert_close(maps, expected)
    assert not maps.is_inference()


@every_method
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (small_inputs(1)[0], r"shape N x C x H x W, got \(3, 24, 24\)"),
        (small_inputs(1)[:0], r"got \(0, 3, 24, 24\)"),
        (small_inputs(1).long(), "int64"),
        (small_inputs(1) * torch.nan, "NaN"),
    ],
    ids=["no batch", "empty", "integers", "NaN"],
)
def test_bad_inputs(name, inputs, message):
    with pytest.raises(ValueError, match=message):
        method(name, network_for(name))(inputs, 0)


@every_method
def test_bad_calls(name):
    network, inputs = network_for(name), small_inputs(1)
    with pytest.raises(ValueError, match="evaluation mode"):
        method(name, network_for(name).train())(inputs, 0)
    with pytest.raises(TypeError, match="n_grups"):
        method(name, network, n_grups=3)(inputs, 0)
    if name not in CONTROLS:
        with pytest.raises((ValueError, IndexError), match=r"out of (range|bounds)"):
            method(name, network)(inputs, 7)
    if name in ON_LAYER:
        with pytest.raises(ValueError, match="explains a layer"):
            METHODS[name](network, **OPTIONS.get(name, {}))(inputs, 0)


@pytest.mark.parametrize("name", WITH_PROGRESS)
def test_progress_bar(name, capsys):
    method(name, network_for(name), show_progress=True)(small_inputs(1), 0)
    assert "%" in capsys.readouterr().err


@pytest.mark.parametrize("name", ON_LAYER)
def test_input_of_the_layer(name):
    network, inputs = network_for(name), small_inputs(1)
    options = OPTIONS.get(name, {})
    layer = TargetLayer(network.pooling, attribute_to_layer_input=True)
    at_input = METHODS[name](network, layer, **options)
    torch.testing.assert_close(at_input(inputs, 1), method(name, network)(inputs, 1))


@every_method
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_cuda(name):
    network, inputs = network_for(name), small_inputs(2)
    expected = method(name, network)(inputs, [1, 3])
    before = torch.cuda.get_rng_state()
    maps = method(name, network.cuda())(inputs.cuda(), [1, 3])
    assert maps.is_cuda
    assert torch.equal(torch.cuda.get_rng_state(), before)
    if name not in ("smooth_grad", "gradient_shap"):  # Captum draws its noise on the device
        torch.testing.assert_close(maps.cpu(), expected)


class Failure:
    """A forward that fails."""

    def __call__(self, inputs: Tensor) -> Tensor:
        raise RuntimeError("broken on purpose")


def state(network: nn.Module, inputs: Tensor) -> dict[str, object]:
    """Everything that a method might leave behind."""
    seen: dict[str, object] = {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1],  # noqa: NPY002
        "python": python_random.getstate(),
        "inputs": (inputs.detach().clone(), inputs.requires_grad, inputs.grad),
        "global hooks": [
            len(hooks)
            for hooks in (
                torch.nn.modules.module._global_forward_hooks,
                torch.nn.modules.module._global_forward_pre_hooks,
                torch.nn.modules.module._global_backward_hooks,
            )
        ],
    }
    for key, module in network.named_modules():
        hooks = [getattr(module, kind) for kind in vars(module) if kind.endswith("_hooks")]
        seen[f"{key} module"] = ([len(kind) for kind in hooks], module.training, id(module))
    for key, tensor in (*network.named_parameters(), *network.named_buffers()):
        grad = None if tensor.grad is None else tensor.grad.clone()
        seen[key] = (tensor.detach().clone(), tensor.requires_grad, grad, id(tensor))
    return copy.copy(seen)


def same(a: object, b: object) -> bool:
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return bool(np.all(a == b))


# --- each method against what it should be


class GuidedReLU(torch.autograd.Function):
    """Springenberg et al., figure 1: what is passed back is positive, where the input was."""

    @staticmethod
    def forward(context, inputs, ceiling):
        context.save_for_backward((inputs > 0) & (inputs < ceiling))
        return inputs.clamp(0, ceiling)

    @staticmethod
    def backward(context, gradients):
        (passed,) = context.saved_tensors
        return gradients.relu() * passed, None


class Guided(nn.Module):
    def __init__(self, ceiling):
        super().__init__()
        self.ceiling = ceiling

    def forward(self, inputs):
        return GuidedReLU.apply(inputs, self.ceiling)


class Reused(nn.Module):
    """One activation used twice, at the end of a skip connection too."""

    def __init__(self, activation):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
            self.classifier = nn.Linear(6, 5)
            nn.init.normal_(self.classifier.weight, std=2.0)
        self.activation = activation
        self.features = self.second
        self.double().eval()

    def forward(self, inputs):
        maps = self.activation(self.first(inputs) * 5)
        maps = self.activation(self.second(maps)) + maps
        return self.classifier(maps.mean((2, 3)))


@pytest.mark.parametrize(
    ("activation", "ceiling"),
    [(nn.ReLU(), torch.inf), (nn.ReLU(inplace=True), torch.inf), (nn.ReLU6(), 6.0)],
    ids=["ReLU", "ReLU in place", "ReLU6"],
)
def test_guided_backprop_guides_modules_that_are_used_twice(activation, ceiling):
    network, inputs = Reused(activation), small_inputs(2) * 3
    maps = METHODS["guided_backprop"](network)(inputs, [1, 3])

    network.activation = Guided(ceiling)
    inputs.requires_grad_()
    scores = network(inputs)
    (gradients,) = torch.autograd.grad(scores[0, 1] + scores[1, 3], inputs)
    torch.testing.assert_close(maps, gradients.abs().amax(1, keepdim=True))


def test_guided_backprop_needs_relu_modules():
    with pytest.raises(ValueError, match="this network has none"):
        METHODS["guided_backprop"](Reused(nn.GELU()))(small_inputs(1), 0)


def test_guided_grad_cam_is_the_product():
    network, inputs = SmallCNN(), small_inputs(2)
    guided = METHODS["guided_backprop"](network)(inputs, 1)
    grad_cam = method("grad_cam", network)(inputs, 1)
    torch.testing.assert_close(method("guided_grad_cam", network)(inputs, 1), guided * grad_cam)


def test_grad_cam_is_captums_brought_to_the_size_of_the_input():
    network, inputs = SmallCNN(), small_inputs(2)
    layer_maps = LayerGradCam(network, network.features).attribute(inputs, 1).detach().relu()
    expected = F.interpolate(layer_maps, (24, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(method("grad_cam", network)(inputs, 1), expected)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if METHODS[name].fixed.get("relu_attributions")]
)
def test_class_activation_maps_are_positive_as_in_their_papers(name):
    network, inputs = SmallCNN(), small_inputs(2)
    maps = METHODS[name](network, network.features[2])(inputs, 1)  # before the ReLU
    assert maps.min() == 0 < maps.max()


def test_gradient_free_group_cam_takes_no_gradients():
    network, inputs = SmallCNN(), small_inputs(1)
    network.pooling.register_forward_hook(lambda _m, _a, output: output.detach())
    assert method("group_cam_gradient_free", network)(inputs, 1).any()
    with pytest.raises(ValueError, match="no gradient"):
        method("group_cam", network)(inputs, 1)


def test_integrated_gradients_are_the_riemann_sum():
    network, inputs = SmallCNN(), small_inputs(1)
    total = torch.zeros_like(inputs)
    for step in range(400):
        point = (inputs * (step + 0.5) / 400).requires_grad_()
        total += torch.autograd.grad(network(point)[0, 2], point)[0] / 400
    expected = (total * inputs).abs().sum(1, keepdim=True)
    maps = METHODS["integrated_gradients"](network, n_steps=200)(inputs, 2)
    assert (maps - expected).norm() < 0.01 * expected.norm()


def test_smooth_grad_is_the_mean_over_noise():
    network, inputs = SmallCNN(), small_inputs(1)
    explain = METHODS["smooth_grad"](network, n_samples=200, noise_level=0.1, seed=1)
    noise = torch.randn(1000, *inputs.shape[1:], generator=torch.Generator().manual_seed(2))
    noisy = (inputs + 0.1 * (inputs.max() - inputs.min()) * noise).requires_grad_()
    (gradients,) = torch.autograd.grad(network(noisy)[:, 2].sum(), noisy)
    expected = gradients.mean(0, keepdim=True).abs().sum(1, keepdim=True)
    assert (explain(inputs, 2) - expected).norm() < 0.2 * expected.norm()
    plain = METHODS["smooth_grad"](network, n_samples=1, noise_level=1e-9)(inputs, 2)
    assert (plain - expected).norm() > 0.4 * expected.norm()


def test_smooth_grad_has_a_seed():
    network, inputs = SmallCNN(), small_inputs(1)
    first = method("smooth_grad", network, seed=0)(inputs, 2)
    assert torch.equal(first, method("smooth_grad", network)(inputs, 2))
    assert not torch.equal(first, method("smooth_grad", network, seed=1)(inputs, 2))


def test_input_x_gradient_adds_up_to_the_output_of_a_linear_network():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 4, bias=False)).double().eval()
    inputs = small_inputs(2)
    maps = METHODS["input_x_gradient"](network)(inputs, 3)
    torch.testing.assert_close(maps.flatten(1).sum(1), network(inputs)[:, 3].detach())


def test_occlusion_is_the_drop_in_the_output():
    network, inputs = SmallCNN(), small_inputs(1)
    maps = METHODS["occlusion"](network, window=8, stride=8)(inputs, 2)
    with torch.no_grad():
        whole = network(inputs)[0, 2]
        for row in range(0, 24, 8):
            for column in range(0, 24, 8):
                at = (..., slice(row, row + 8), slice(column, column + 8))
                hidden = inputs.clone()
                hidden[at] = 0
                drop = whole - network(hidden)[0, 2]
                expected = drop.expand_as(maps[at])
                torch.testing.assert_close(maps[at], expected, check_dtype=False, rtol=1e-4, atol=0)


def test_random_differs_from_sample_to_sample_and_with_the_seed():
    inputs = small_inputs(2)
    first = METHODS["random"](SmallCNN())(inputs, 0)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, METHODS["random"](SmallCNN(), seed=1)(inputs, 0))
    assert 0.4 < first.mean() < 0.6


def test_centre_is_highest_in_the_middle_and_symmetric():
    maps = METHODS["centre"](SmallCNN())(small_inputs(1), 0)
    assert maps[0, 0, 11:13, 11:13].min() == maps.max()
    torch.testing.assert_close(maps, maps.flip(2, 3))
    # One standard deviation, a quarter of the side, from the middle.
    torch.testing.assert_close(
        (maps[0, 0, 12, 17] * maps[0, 0, 12, 18]).sqrt() / maps.max(),
        torch.tensor(0.5, dtype=torch.double).neg().exp(),
        rtol=0.02,
        atol=0,
    )


def test_edges_are_sobels():
    filters = pytest.importorskip("skimage.filters")
    image = real_image()
    maps = METHODS["edges"](SmallCNN())(image, 0)
    grey = image[0].mean(0).numpy()
    expected = np.hypot(filters.sobel_h(grey), filters.sobel_v(grey)) * 4  # normalised there
    np.testing.assert_allclose(maps[0, 0, 1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-9)


# --- a real network and a real image


@pytest.mark.parametrize(
    "name", ["grad_cam", "grad_cam_plus_plus", "cam", "guided_backprop", "guided_grad_cam"]
)
def test_sees_the_cat(name, lite0, images):
    inputs = images("cat")
    maps = lite0.explain(name, inputs, 281)
    assert maps.shape == (1, 1, *inputs.shape[2:])
    # The face fills the middle of the picture.
    height, width = inputs.shape[2:]
    middle = torch.zeros(height, width, dtype=torch.bool)
    middle[height // 6 : -height // 6, width // 6 : -width // 6] = True
    assert maps[0, 0][middle].mean() > maps[0, 0][~middle].mean()


def test_guided_backprop_is_not_the_gradient_where_the_network_has_relu6(lite0, images):
    inputs = images("cat")[..., ::2, ::2].contiguous()
    guided = METHODS["guided_backprop"](lite0.network)(inputs, 281)
    leaf = inputs.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(lite0.network(leaf)[0, 281], leaf)
    plain = gradients.abs().amax(1, keepdim=True)
    assert np.corrcoef(guided.flatten(), plain.flatten())[0, 1] < 0.9
