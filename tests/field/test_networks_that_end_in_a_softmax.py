"""Networks that give probabilities, of which the softmax would be taken once more."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import RISE, ConsensusGroupCAM, GradCAM, GroupCAM, ScoreCAM
from captum_groupcam.masking.network import class_probability, raw_score
from captum_groupcam.metrics.functional import average_drop, deletion_insertion
from tests.toy_networks import classifier, images

NETWORK = classifier(seed=2)
LAYER = NETWORK.features
X = images(2, 12, 12)

Explain = Callable[..., Tensor]
METHODS: dict[str, Explain] = {
    "GroupCAM": lambda f, **o: GroupCAM(f, LAYER).attribute(
        X, 1, n_groups=4, gradient_free=True, relu_attributions=False, **o
    ),
    "RISE": lambda f, **o: RISE(f).attribute(X, target=1, n_masks=8, **o),
    "deletion and insertion": lambda f, **o: (
        deletion_insertion(f, X.mean(1, keepdim=True), X, 1, **o).deletion
    ),
    "average drop": lambda f, **o: average_drop(f, X.mean(1, keepdim=True), X, 1, **o).average_drop,
}


def ending(last: nn.Module) -> nn.Module:
    return nn.Sequential(NETWORK, last).eval()


@pytest.mark.parametrize("method", METHODS)
def test_it_is_named_once(method: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        METHODS[method](ending(nn.Softmax(1)))
    said = [str(one.message) for one in seen if "gives probabilities" in str(one.message)]
    assert len(said) == 1
    assert "raw_score" in said[0]


def test_consensus_group_cam_names_it_too() -> None:
    with pytest.warns(UserWarning, match="gives probabilities"):
        ConsensusGroupCAM(ending(nn.Softmax(1)), LAYER).attribute(X, 1, edge_radius=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_what_it_says_gives_the_map_of_the_logits(method: str) -> None:
    expected = METHODS[method](NETWORK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = METHODS[method](ending(nn.Softmax(1)), score_func=raw_score)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_softmax_of_log_probabilities_is_right(method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = METHODS[method](ending(nn.LogSoftmax(1)))
    torch.testing.assert_close(found, METHODS[method](NETWORK), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_in_every_precision(dtype: torch.dtype) -> None:
    network = nn.Sequential(classifier(classes=1000, seed=1), nn.Softmax(1)).eval().to(dtype)
    with pytest.warns(UserWarning, match="gives probabilities"):
        RISE(network).attribute(X.to(dtype), target=1, n_masks=8)


def test_of_each_pixel() -> None:
    dense = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Softmax(1)).eval()
    with pytest.warns(UserWarning, match="gives probabilities"):
        RISE(dense).attribute(X, target=(1, 4, 4), n_masks=8)


def binary(x: Tensor) -> Tensor:
    return NETWORK(x)[:, :1].sigmoid()


LIKE = {
    "logits": NETWORK,
    "one probability": (binary, 0),
    "labels": lambda x: NETWORK(x).sigmoid(),
    "shares that are negative too": lambda x: NETWORK(x) / NETWORK(x).sum(1, keepdim=True),
}


@pytest.mark.parametrize("kind", LIKE)
def test_others_are_no_alarm(kind: str) -> None:
    network = LIKE[kind]
    network, target = network if isinstance(network, tuple) else (network, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RISE(network).attribute(X, target=target, n_masks=8)


def test_methods_of_the_raw_output_take_it_as_it_is() -> None:
    network = copy.deepcopy(ending(nn.Softmax(1)))
    layer = network[0].features
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ScoreCAM(network, layer).attribute(X, 1)
        GradCAM(network, layer).attribute(X, 1)
    score = network(X)
    torch.testing.assert_close(raw_score(score), score)
    assert not torch.allclose(class_probability(score), score)
