"""Networks whose answer depends on what they were asked before."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam import RISE, GroupCAM, ScoreCAM
from captum_groupcam.metrics.functional import deletion_insertion
from tests.toy_networks import classifier, images


class Stateful(nn.Module):
    """A potential that leaks from pass to pass, as that of spiking neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier(seed=2)
        self.potential: Tensor | None = None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        output = self.inner(x)
        new = output.mean(0, keepdim=True)
        self.potential = new if self.potential is None else 0.5 * self.potential + new
        return output + self.potential


class Drawing(Stateful):
    """Draws from a generator that is not torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * (1 + random.random())


METHODS: dict[str, Callable[..., Tensor]] = {
    "GroupCAM": lambda f, layer, x: GroupCAM(f, layer).attribute(x, 1, n_groups=4),
    "ScoreCAM": lambda f, layer, x: ScoreCAM(f, layer).attribute(x, 1),
    "RISE": lambda f, layer, x: RISE(f).attribute(x, target=1, n_masks=100),
    "deletion and insertion": lambda f, layer, x: (
        deletion_insertion(f, x.mean(1, keepdim=True), x, 1).deletion
    ),
}


@pytest.mark.parametrize("kind", [Stateful, Drawing])
@pytest.mark.parametrize("method", METHODS)
def test_it_is_named(kind: type[Stateful], method: str) -> None:
    network = kind()
    with pytest.warns(UserWarning, match="keeps a state") as seen:
        METHODS[method](network, network.inner.features, images(3, 12, 12))
    assert not [one for one in seen if "beside it" in str(one.message)]


def test_also_of_one_sample_with_many_queries() -> None:
    network = Stateful()
    with pytest.warns(UserWarning, match="keeps a state"):
        METHODS["RISE"](network, None, images(1, 12, 12))


@pytest.mark.parametrize("method", METHODS)
def test_a_function_that_resets_it_is_no_alarm(method: str) -> None:
    network = Stateful()

    def afresh(x: Tensor) -> Tensor:
        rows = []
        for row in x.split(1):
            network.potential = None
            rows.append(network(row))
        return torch.cat(rows)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if method in ("RISE", "deletion and insertion"):
            METHODS[method](afresh, None, images(3, 12, 12))
        else:  # whose layer runs once in a pass
            METHODS[method](network.inner, network.inner.features, images(3, 12, 12))
