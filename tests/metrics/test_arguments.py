"""What the measures that ask the network have in common: their arguments and their order."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_groupcam.metrics import AverageDrop, DeletionInsertion
from captum_groupcam.metrics.functional import average_drop, deletion_insertion

BOTH_FORMS = [(average_drop, AverageDrop), (deletion_insertion, DeletionInsertion)]
ORDER = ["maps", "inputs", "target", "additional_forward_args"]


def score(inputs: Tensor) -> Tensor:
    return inputs.flatten(1).sum(1).sigmoid()


@pytest.mark.parametrize(("function", "metric"), BOTH_FORMS)
def test_both_forms_take_maps_inputs_and_target(function: Callable[..., Any], metric: type) -> None:
    assert list(inspect.signature(function).parameters)[:5] == ["forward_func", *ORDER]
    assert list(inspect.signature(metric.update).parameters)[:5] == ["self", *ORDER]


@pytest.mark.parametrize(
    ("maps", "inputs"),
    [
        (torch.rand(2, 1, 6, 6), torch.rand(2, 3, 6, 6)),
        (torch.rand(2, 6, 6), torch.rand(2, 1, 6, 6)),
        (torch.rand(2, 6, 6), torch.rand(2, 3, 6, 6)),
        (torch.rand(2, 8), torch.rand(2, 1, 8)),
        (torch.rand(2, 3, 4, 5), torch.rand(2, 1, 3, 4, 5)),
        (torch.randperm(72).view(2, 1, 6, 6), torch.rand(2, 1, 6, 6)),
        (torch.rand(2, 1, 6, 6) > 0.5, torch.rand(2, 1, 6, 6)),
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)} {tensor.dtype}",
)
@pytest.mark.parametrize(("function", "metric"), BOTH_FORMS)
def test_swapped_maps_and_inputs_are_an_error(
    function: Callable[..., Any], metric: type, maps: Tensor, inputs: Tensor
) -> None:
    result = function(score, maps, inputs)
    assert all(values.isfinite().all() for values in result)
    for call in (lambda a, b: function(score, a, b), metric(score).update):
        with pytest.raises(ValueError, match="maps and inputs are swapped"):
            call(inputs, maps)
