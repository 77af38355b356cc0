"""FullGrad: complete, as pytorch-grad-cam has it, and what it needs."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from captum_groupcam import FullGrad
from captum_groupcam.masking.biases import full_gradients
from captum_groupcam.masking.network import Network
from captum_groupcam.masking.targets import Target
from tests.toy_networks import (
    CONVOLUTIONS,
    POOLS,
    Attentive,
    images,
    real_image,
    scaled,
    seeded,
    small_vit,
)

NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def normed(dims: int = 2, inplace: bool = False) -> nn.Module:
    """Convolutions with and without bias, batch norms that do something, ReLU."""

    def make() -> nn.Module:
        convolution, norm = CONVOLUTIONS[dims], NORMS[dims]
        network = nn.Sequential(
            convolution(3, 6, 3, padding=1, bias=False),
            norm(6),
            nn.ReLU(inplace),
            convolution(6, 8, 3, stride=2),
            nn.ReLU(inplace),
            convolution(8, 8, 1),
            norm(8, affine=False),
            nn.ReLU(inplace),
            POOLS[dims](1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
        for module in network:
            if isinstance(module, NORMS[dims]):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)
        nn.init.normal_(network[-1].weight, std=3)
        return network.double().eval()

    return seeded(make, 3)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("inplace", [False, True])
def test_terms_add_up_to_the_output(dims, inplace):
    network, inputs = normed(dims, inplace), images(3, *(9, 10, 11)[:dims]).double()
    targets = torch.tensor([0, 3, 4])
    asked = Network(network, Target.of(targets, 3, inputs.device), (), n_samples=3)
    terms = full_gradients(asked, (inputs,), torch.arange(3), [0])
    assert len(terms.at_biases) == 4  # two convolutions with a bias and two batch norms
    total = sum(term.flatten(1).sum(1) for term in (*terms.at_inputs, *terms.at_biases))
    outputs = network(inputs).detach()[torch.arange(3), targets]
    assert outputs.abs().min() > 0.1
    torch.testing.assert_close(total + network[-1].bias.detach()[targets], outputs)


def naive(network, sample, target, rescale):
    """The equation, a term after the other, with gradients at the outputs taken one by one."""
    size, total = sample.shape[2:], 0
    places = {"input": (0, sample[0])}
    for index, module in enumerate(network):
        if getattr(module, "bias", None) is not None and not isinstance(module, nn.Linear):
            places[index] = (index + 1, module.bias)
        if isinstance(module, nn.BatchNorm2d):
            scale = 1 / (module.running_var + module.eps).sqrt()
            scale = scale * module.weight if module.affine else scale
            shift = module.bias if module.affine else 0
            places[index] = (index + 1, shift - module.running_mean * scale)
    for start, value in places.values():
        maps = network[:start](sample).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network[start:](maps)[0, target], maps)
        value = value.detach()
        term = (gradient[0] * (value if value.dim() == 3 else value[:, None, None])).abs()
        if rescale == "layer":
            term = (term - term.min()) / (term.max() - term.min())
        elif rescale == "channel":
            for channel in term:
                channel -= channel.min().clone()
                channel /= channel.max().clone() if channel.any() else 1
        total += F.interpolate(term[None], size, mode="bilinear")[0].sum(0)
    return total


@pytest.mark.parametrize("rescale", ["layer", "channel", "none"])
def test_is_the_sum_of_rescaled_magnitudes(rescale):
    network, inputs = normed(), images(2, 9, 10).double()
    maps = FullGrad(network).attribute(inputs, [1, 4], rescale=rescale)
    for index, target in enumerate([1, 4]):
        expected = naive(network, inputs[index : index + 1], target, rescale)
        torch.testing.assert_close(maps[index, 0], expected)
    assert maps.flatten(1).std(1).min() > 0.01


def test_equals_pytorch_grad_cam(capsys):
    from pytorch_grad_cam import FullGrad as PyTorchFullGrad
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, image = normed(), real_image()
    network[6] = nn.Identity()  # theirs does not take batch norms without weights
    with PyTorchFullGrad(network, []) as extractor:
        theirs = torch.from_numpy(extractor(image, [ClassifierOutputTarget(2)])).double()
    ours = FullGrad(network).attribute(image, 2, rescale="channel")
    assert ours.std() > 0.05
    torch.testing.assert_close(scaled(ours)[:, 0], theirs, rtol=1e-4, atol=1e-4)


def test_networks_without_biases_are_refused():
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5)
    )
    with pytest.raises(ValueError, match="FullGrad needs biases"):
        FullGrad(plain.eval()).attribute(images(1, 16, 16), 0)
    with pytest.raises(TypeError, match=r"finds biases in a torch\.nn\.Module"):
        FullGrad(lambda x: plain(x)).attribute(images(1, 16, 16), 0)


def test_inputs_of_several_sizes_have_each_its_map():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = normed()

        def forward(self, large, small):
            return self.inner(large) + self.inner(small)

    inputs = images(2, 14, 16).double(), images(2, 9, 10, seed=1).double()
    large, small = FullGrad(Two().eval()).attribute(inputs, 3)
    assert large.shape == (2, 1, 14, 16)
    assert small.shape == (2, 1, 9, 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rescale", ["layer", "channel", "none"])
def test_half_precision_is_computed_in_float32(dtype, rescale):
    network, inputs = normed().to(dtype), images(2, 9, 10).to(dtype)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    maps = FullGrad(network).attribute(inputs, [1, 4], rescale=rescale)
    assert maps.dtype is torch.float32
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    exact = copy.deepcopy(network).double()
    for index, target in enumerate([1, 4]):
        expected = naive(exact, inputs[index : index + 1].double(), target, rescale)
        torch.testing.assert_close(maps[index, 0].double(), expected, rtol=1e-3, atol=1e-4)


def test_under_autocast():
    network, inputs = normed().float(), images(2, 9, 10)
    expected = FullGrad(network).attribute(inputs, [1, 4])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(FullGrad(network).attribute(inputs, [1, 4]), expected)


def test_a_network_of_half_precision_that_cannot_be_copied():
    network = normed().half()
    network.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"computes in float32, .* cannot be copied.*pickle"):
        FullGrad(network).attribute(images(1, 9, 10).half(), 1)


@pytest.mark.parametrize(
    "norm", [lambda: nn.GroupNorm(2, 6), lambda: nn.InstanceNorm2d(6, affine=True)]
)
def test_norms_of_the_inputs_own_statistics(norm):
    network, inputs = normed(), images(2, 9, 10).double()
    network[1] = seeded(norm).double()
    seeded(lambda: nn.init.normal_(network[1].bias))
    maps = FullGrad(network.eval()).attribute(inputs, [1, 4], rescale="none")
    for index, target in enumerate([1, 4]):
        expected = naive(network, inputs[index : index + 1], target, "none")
        torch.testing.assert_close(maps[index, 0], expected)


class Activated(nn.BatchNorm2d):
    """Normalises and activates, as those of timm."""

    def forward(self, inputs):
        return super().forward(inputs).relu()


class Functional(nn.Module):
    """Calls functions, with weights of modules that do not run."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        first, norm, *rest = self.network
        x = F.conv2d(x, first.weight, padding=1)
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        for module in rest:
            x = module(x)
        return x


def test_what_is_added_is_seen_where_it_is_added():
    network, inputs = normed(), images(2, 9, 10).double()
    expected = FullGrad(network).attribute(inputs, [1, 4])
    torch.testing.assert_close(FullGrad(Functional(network)).attribute(inputs, [1, 4]), expected)
    activated = Activated(6).double().eval()
    activated.load_state_dict(network[1].state_dict())
    network[1], network[2] = activated, nn.Identity()
    torch.testing.assert_close(FullGrad(network).attribute(inputs, [1, 4]), expected)


class Shift(nn.Module):
    """Adds a bias of its own."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(6).double())

    def forward(self, x):
        return x + self.bias.view(-1, 1, 1)


class Last(nn.Module):
    """Runs a module with the channels last."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x.movedim(1, -1)).movedim(-1, 1)


class AlongChannels(nn.Module):
    """A convolution over the channels of pooled activations."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        return x * self.conv(x.mean((2, 3)).unsqueeze(1)).movedim(1, 2).unsqueeze(-1)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Shift(), "Shift"),
        (Last(nn.Linear(6, 6)), "linear"),
        (Last(nn.LayerNorm(6)), "layer_norm"),
        (AlongChannels(), "1-D layers"),
    ],
    ids=["own", "linear", "layer norm", "along channels"],
)
def test_biases_of_which_nothing_is_known_are_refused(module, name):
    network, inputs = normed(), images(1, 9, 10).double()
    unused = nn.Sequential(nn.Identity(), module).eval()
    unused.forward = lambda x: x
    network[2] = unused.double()
    FullGrad(network).attribute(inputs, 1)  # one that does not run adds nothing
    network[2] = module.double().eval()
    with pytest.raises(ValueError, match=f"not know where those of {name} lie: its map would"):
        FullGrad(network).attribute(inputs, 1)


@pytest.mark.parametrize("make", [small_vit, Attentive])
def test_transformers_are_refused(make):
    network = seeded(make).eval()
    with pytest.raises(ValueError, match=r"does not know where those of .*layer_norm.* lie"):
        FullGrad(network).attribute(images(1, 32, 32), 1)


def test_a_bias_belongs_to_the_inputs_that_reach_it():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.joint = normed(), normed(), normed()

        def forward(self, a, b):
            return self.first(a) + self.second(b) + self.joint((a + b) / 2)

    network = Two().eval()
    inputs = images(2, 9, 10).double(), images(2, 9, 10, seed=1).double()
    found = FullGrad(network).attribute(inputs, 3, rescale="none")
    a, b = inputs
    joint = FullGrad(network.joint).attribute((a + b) / 2, 3, rescale="none")
    for index, part in enumerate((network.first, network.second)):
        (of_input,) = torch.autograd.grad(
            network(*(one.requires_grad_() for one in inputs))[:, 3].sum(), inputs[index]
        )
        own = (of_input * inputs[index]).abs().sum(1, keepdim=True)
        for alone, seen in ((part, inputs[index]), (network.joint, (a + b) / 2)):
            seen = seen.detach().requires_grad_()
            (slope,) = torch.autograd.grad(alone(seen)[:, 3].sum(), seen)
            biases = joint if alone is network.joint else None
            biases = (
                FullGrad(alone).attribute(seen, 3, rescale="none") if biases is None else biases
            )
            own = own + biases - (slope * seen).abs().sum(1, keepdim=True)
        torch.testing.assert_close(found[index], own.detach())
