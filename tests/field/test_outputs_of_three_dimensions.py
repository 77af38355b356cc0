"""Outputs N x A x B, whose classes may be in dimension 1 or in the last."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import RISE, GradCAM, GroupCAM, ScoreCAM
from captum_groupcam.metrics.functional import deletion_insertion
from tests.toy_networks import classifier, images

NETWORK = classifier(classes=12, seed=2)
LAYER = NETWORK.features
X = images(2, 12, 12)


def queries(x: Tensor) -> Tensor:
    """N x queries x classes, as DETR gives."""
    return NETWORK(x).unflatten(1, (3, 4))


Explain = Callable[..., Tensor]
METHODS: dict[str, Explain] = {
    "GroupCAM": lambda f, t, **o: GroupCAM(f, LAYER).attribute(
        X, t, n_groups=4, relu_attributions=False, **o
    ),
    "RISE": lambda f, t, **o: RISE(f).attribute(X, target=t, n_masks=8, **o),
    "deletion and insertion": lambda f, t, **o: (
        deletion_insertion(f, X.mean(1, keepdim=True), X, t, **o).deletion
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_it_is_named_once(method: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        METHODS[method](queries, (1, 2))
    said = [str(one.message) for one in seen if "softmax is taken over" in str(one.message)]
    assert len(said) == 1
    assert all(part in said[0] for part in (", 3, 4)", "output.softmax(-1)", "output.softmax(1)"))


@pytest.mark.parametrize("method", METHODS)
def test_classes_that_come_last(method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = METHODS[method](queries, (1, 2), score_func=lambda output: output.softmax(-1))
        expected = METHODS[method](lambda x: queries(x)[:, 1], 2)  # the query alone
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_classes_in_dimension_1_are_confirmed(method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = METHODS[method](queries, (1, 2), score_func=lambda output: output.softmax(1))
        expected = METHODS[method](lambda x: queries(x)[..., 2], 1)
    torch.testing.assert_close(found, expected)


def test_other_outputs_are_no_alarm() -> None:
    signals = nn.Conv1d(3, 5, 3, padding=1).eval()
    pixels = nn.Conv2d(3, 5, 3, padding=1).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        METHODS["RISE"](NETWORK, 1)
        METHODS["RISE"](pixels, (1, 4, 4))
        METHODS["RISE"](lambda x: NETWORK(x).unsqueeze(-1), (1, 0))
        RISE(signals).attribute(images(2, 12), target=(1, 4), n_masks=8)
        ScoreCAM(queries, LAYER).attribute(X, (1, 2))  # of the raw output
        GradCAM(queries, LAYER).attribute(X, (1, 2))
