"""Bad input is an error that says what was expected and what came, and leaves nothing behind."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from captum_groupcam import GroupCAM
from tests.toy_networks import classifier, hooks, images


class Parts(nn.Module):
    """A network with a layer of every kind."""

    def __init__(self):
        super().__init__()
        plain = classifier(seed=2)
        self.features, self.head = plain.features, plain.head
        self.unused = nn.Conv2d(3, 3, 1)
        self.beside = nn.Conv2d(3, 3, 1)
        self.split = Split()
        self.named = Named()
        self.folded = Fold()
        self.bilinear = nn.Bilinear(5, 5, 5)
        self.eval()

    def forward(self, x):
        self.beside(x)
        features = self.features(x)
        self.named(features)
        self.folded(features)
        first, second = self.split(features)
        output = self.head(torch.cat([first, second], dim=1))
        self.bilinear(output, output)
        return output


class Split(nn.Module):
    def forward(self, x):
        return x.chunk(2, dim=1)


class Named(nn.Module):
    def forward(self, x):
        return {"features": x}


class Fold(nn.Module):
    """Two rows for each input, as windows of a transformer are."""

    def forward(self, x):
        return x.repeat(2, 1, 1, 1)


@pytest.fixture(scope="module")
def network():
    return Parts()


X = images(3, 12, 12)


def with_value(value):
    x = X.clone()
    x[1, 0, 0, 0] = value
    return x


LAYERS = {
    "never called": ("unused", {}, "The layer Conv2d was not called in the forward pass"),
    "never called, gradient-free": (
        "unused",
        {"gradient_free": True},
        "The layer Conv2d was not called in the forward pass",
    ),
    "several outputs": ("split", {}, "output of the layer Split to be one tensor, got Tensor, Ten"),
    "several outputs, gradient-free": (
        "split",
        {"gradient_free": True},
        "output of the layer Split to be one tensor, got Tensor, Tensor",
    ),
    "several inputs": (
        "bilinear",
        {"attribute_to_layer_input": True},
        "input of the layer Bilinear to be one tensor, got Tensor, Tensor",
    ),
    "no tensor": ("named", {}, "output of the layer Named to be one tensor, got dict"),
    "no spatial dimensions": (
        "head",
        {},
        r"shape \(3, 5\); for these inputs they need 2 spatial dimensions, N x K x spatial",
    ),
    "no influence on the output": (
        "beside",
        {},
        "The output has no gradient with respect to the layer Conv2d",
    ),
    "several rows for each input": (
        "folded",
        {"gradient_free": True},
        r"The layer has a batch size of \(6,\) for 3 inputs",
    ),
}


@pytest.mark.parametrize(("layer", "options", "message"), LAYERS.values(), ids=LAYERS.keys())
def test_layer(network, layer, options, message):
    with pytest.raises(ValueError, match=message):
        GroupCAM(network, getattr(network, layer)).attribute(X, 2, **options)
    assert not hooks(network).total()
    assert torch.is_grad_enabled()


ARGUMENTS = {
    "target too high": (X, 5, {}, ValueError, r"The target 5 is out of range .* 0 to 4"),
    "target too low": (X, -6, {}, ValueError, r"The target -6 is out of range .* 0 to 4"),
    "one target too high": (X, [0, 7, 1], {}, ValueError, "The target 7 is out of range"),
    "target missing": (X, None, {}, ValueError, r"output has shape \(3, 5\): give a target"),
    "target of two indices": (X, (1, 2), {}, ValueError, r"2 indices does not name one value"),
    "targets of another number": (X, [1, 2], {}, ValueError, "each of 3 samples, got 2"),
    "targets of another number, tensor": (
        X,
        torch.tensor([1, 2]),
        {},
        ValueError,
        "each of 3 samples, got 2",
    ),
    "target of floats": (X, torch.tensor([1.0, 0, 2]), {}, TypeError, "made of integers"),
    "target of text": (X, "cat", {}, TypeError, "A target is an int.*got 'cat'"),
    "NaN in the input": (with_value(torch.nan), 2, {}, ValueError, r"Input 0 contains NaN.*\[1\]"),
    "infinity in the input": (with_value(-torch.inf), 2, {}, ValueError, r"Input 0 .*\[1\]"),
    "no samples": (X[:0], 2, {}, ValueError, "Input 0 has no samples"),
    "a number as input": (torch.tensor(1.0), 2, {}, ValueError, "Input 0 has no samples"),
    "integers as input": (X.long(), 2, {}, ValueError, "floating point.*torch.int64"),
    "input without spatial dimensions": (X[:, 0, 0], 2, {}, ValueError, r"\(3, 12\)"),
    "input with four spatial dimensions": (
        X[..., None, None],
        2,
        {},
        ValueError,
        "one to three spatial dimensions",
    ),
    "list as input": ([X], 2, {}, TypeError, "a tensor or a tuple of tensors, got list"),
    "text in a tuple": ((X, "x"), 2, {}, TypeError, "a tuple of tensors, got str"),
    "batch sizes": ((X, X[:2]), 2, {}, ValueError, "Input 1 has 2 samples, the first has 3"),
    "spatial dimensions that differ": (
        (X, X[..., None]),
        2,
        {},
        ValueError,
        "the same number of spatial dimensions",
    ),
    "baseline of another shape": (
        X,
        2,
        {"baselines": torch.zeros(3, 3, 12, 11)},
        ValueError,
        r"baseline of shape \(3, 3, 12, 12\).*got \(3, 3, 12, 11\)",
    ),
    "baseline of another batch size": (
        X,
        2,
        {"baselines": X[:2]},
        ValueError,
        r"or with batch size 1, got \(2, 3, 12, 12\)",
    ),
    "baselines of another number": (
        X,
        2,
        {"baselines": (0.0, 0.0)},
        ValueError,
        "one for each of the 1 inputs, got 2",
    ),
    "NaN in the baseline": (X, 2, {"baselines": torch.nan}, ValueError, "baseline contains NaN"),
    "text as baseline": (X, 2, {"baselines": "blur"}, TypeError, "got str"),
    "no groups": (X, 2, {"n_groups": 0}, ValueError, "n_groups must be at least 1, got 0"),
    "unknown grouping": (X, 2, {"grouping": "random"}, ValueError, "'random'.*'contiguous'"),
    "grouping of another shape": (
        X,
        2,
        {"grouping": lambda a, g: torch.zeros(8, dtype=torch.long)},
        ValueError,
        r"one group for each sample and channel, \(3, 8\); got \(8,\)",
    ),
    "grouping beyond the groups": (
        X,
        2,
        {"grouping": lambda a, g: torch.full(a.shape[:2], g), "n_groups": 4},
        ValueError,
        "integers from 0 to 3; got some from 4 to 4",
    ),
    "grouping of floats": (
        X,
        2,
        {"grouping": lambda a, g: torch.zeros(a.shape[:2])},
        TypeError,
        "a tensor of integers, got torch.float32",
    ),
    "grouping of booleans": (
        X,
        2,
        {"grouping": lambda a, g: torch.zeros(a.shape[:2], dtype=torch.bool)},
        TypeError,
        "a tensor of integers, got torch.bool",
    ),
    "grouping that is a list": (
        X,
        2,
        {"grouping": lambda a, g: [[0] * 8] * 3},
        TypeError,
        "a tensor of integers, got list",
    ),
    "percentile too high": (
        X,
        2,
        {"denoise_percentile": 100},
        ValueError,
        r"denoise_percentile must be in \[0, 100\), got 100. None turns denoising off",
    ),
    "percentile too low": (X, 2, {"denoise_percentile": -1}, ValueError, r"\[0, 100\), got -1"),
    "percentile too high at the input": (
        X,
        2,
        {"denoise_percentile": 100, "denoise_at": "input"},
        ValueError,
        r"\[0, 100\), got 100",
    ),
    "denoise elsewhere": (X, 2, {"denoise_at": "output"}, ValueError, "'layer' or 'input', got 'o"),
    "chunks of nothing": (
        X,
        2,
        {"internal_batch_size": 0},
        ValueError,
        "internal_batch_size must be at least 1, got 0",
    ),
    "infinite scores": (
        X,
        2,
        {"score_func": lambda y: y / 0},
        ValueError,
        r"scores contain NaN or infinite values for samples \[0, 1, 2\]",
    ),
    "scores of another shape": (
        X,
        2,
        {"score_func": lambda y: y.mean()},
        ValueError,
        r"the output's shape, \(\d, 5\); got \(\)",
    ),
    "reshape_transform that does not restore": (
        X,
        2,
        {"reshape_transform": lambda t: t.flatten(2)},
        ValueError,
        r"activations have the shape \(3, 8, 36\).*reshape_transform",
    ),
}


@pytest.mark.parametrize(
    ("inputs", "target", "options", "error", "message"), ARGUMENTS.values(), ids=ARGUMENTS.keys()
)
def test_argument(network, inputs, target, options, error, message):
    with pytest.raises(error, match=message):
        GroupCAM(network, network.features).attribute(inputs, target, **options)
    assert not hooks(network).total()
    assert torch.is_grad_enabled()


def test_layer_that_is_no_module(network):
    with pytest.raises(TypeError, match=r"layer must be a torch.nn.Module .* str\. Give network"):
        GroupCAM(network, "features").attribute(X, 2)


OUTPUTS = {
    "a tuple": (lambda y: (y, y), TypeError, "returned a tuple, expected a tensor"),
    "another number of rows": (
        lambda y: y[:1],
        ValueError,
        r"shape \(1, 5\) for 3 inputs; expected one row for each",
    ),
    "one number": (lambda y: y.sum(), ValueError, r"shape \(\) for 3 inputs"),
    "NaN": (lambda y: y * torch.nan, ValueError, r"contain NaN .*\[0, 1, 2\]"),
    "NaN for one sample": (
        lambda y: y * torch.tensor([1, torch.nan, 1])[: len(y), None],
        ValueError,
        r"contain NaN .*\[1\]",
    ),
}


@pytest.mark.parametrize(("change", "error", "message"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_output(change, error, message):
    network = classifier(seed=2)
    with pytest.raises(error, match=message):
        GroupCAM(lambda x: change(network(x)), network.features).attribute(
            X, 2, internal_batch_size=3
        )
    assert not hooks(network).total()


def test_nan_in_the_layer():
    network = classifier(seed=2)
    with torch.no_grad():
        network.features[2].bias[0] = torch.nan
    with pytest.raises(ValueError, match="activations contain NaN"):
        GroupCAM(network, network.features).attribute(X, 2, gradient_free=True)


def test_network_in_training_mode_is_warned_of_in_the_callers_line():
    network = classifier(seed=2).train()
    with pytest.warns(UserWarning, match="The network is in training mode") as caught:
        GroupCAM(network, network.features).attribute(X, 2)
    assert caught[0].filename == __file__
    assert network.training
    assert network.head.training


def test_clustering_without_scikit_learn_says_what_to_install(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"pip install 'captum_groupcam\[cluster\]'"):
        GroupCAM(network, network.features).attribute(X, 2, grouping="k_means")
