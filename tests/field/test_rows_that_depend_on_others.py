"""Networks whose answer for a row depends on the rows beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam import (
    RISE,
    AblationCAM,
    ConsensusGroupCAM,
    GradCAM,
    GroupCAM,
    ScoreCAM,
)
from captum_groupcam.metrics.functional import deletion_insertion
from tests.toy_networks import Recorder, classifier, images

NETWORK = classifier(seed=2)
LAYER = NETWORK.features


def normalising(x: Tensor) -> Tensor:
    seen = LAYER(x)
    return NETWORK.head(F.batch_norm(seen, None, None, training=True))


def by_hand(x: Tensor) -> Tensor:
    output = NETWORK(x)
    return (output - output.mean(0)) / (output.std(0, correction=0) + 1)


def attending(x: Tensor) -> Tensor:
    output = NETWORK(x)
    return output + (output @ output.T / 9).softmax(1) @ output


SHIFT = 3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


def closure(x: Tensor) -> Tensor:
    return NETWORK(x) + SHIFT[: len(x)]


def strict_closure(x: Tensor) -> Tensor:
    return torch.cat([NETWORK(x) + SHIFT], 0)


DEPENDENT = {
    "batch norm": normalising,
    "by hand": by_hand,
    "attention": attending,
    "closure": closure,
    "strict closure": strict_closure,
}
Explain = Callable[..., Tensor]
METHODS: dict[str, Explain] = {
    "GroupCAM": lambda f, x, **o: GroupCAM(f, LAYER).attribute(x, 1, n_groups=4, **o),
    "GroupCAM without gradients": lambda f, x, **o: GroupCAM(f, LAYER).attribute(
        x, 1, n_groups=4, gradient_free=True, **o
    ),
    "ScoreCAM": lambda f, x, **o: ScoreCAM(f, LAYER).attribute(x, 1, **o),
    "ConsensusGroupCAM": lambda f, x, **o: ConsensusGroupCAM(f, LAYER).attribute(
        x, 1, n_groups=4, edge_radius=0.1, **o
    ),
    "AblationCAM": lambda f, x, **o: AblationCAM(f, LAYER).attribute(x, 1, **o),
    "RISE": lambda f, x, **o: RISE(f).attribute(x, target=1, n_masks=8, **o),
    "deletion and insertion": lambda f, x, **o: (
        deletion_insertion(f, x.mean(1, keepdim=True), x, 1, **o).deletion
    ),
}


@pytest.mark.parametrize("kind", DEPENDENT)
@pytest.mark.parametrize("method", METHODS)
def test_it_is_named(kind: str, method: str) -> None:
    said = pytest.warns(UserWarning, match=r"depends on the rows beside it.*internal_batch_size=1")
    with warnings.catch_warnings(), said:
        warnings.filterwarnings("ignore", "The maps of samples")
        METHODS[method](DEPENDENT[kind], images(4, 12, 12))


@pytest.mark.parametrize("kind", ["batch norm", "by hand", "attention"])
@pytest.mark.parametrize("method", METHODS)
def test_one_row_at_a_time_is_the_answer(kind: str, method: str) -> None:
    x = images(3, 12, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The maps of samples")
        found = METHODS[method](DEPENDENT[kind], x, internal_batch_size=1)
        one = METHODS[method](DEPENDENT[kind], x[1:2], internal_batch_size=1)
    torch.testing.assert_close(found[1:2], one)


@pytest.mark.parametrize("method", ["RISE", "deletion and insertion"])
def test_many_queries_of_one_sample_are_looked_at(method: str) -> None:
    explain = {
        "RISE": lambda x: RISE(normalising).attribute(x, target=1, n_masks=100),
        "deletion and insertion": lambda x: METHODS[method](normalising, x),
    }[method]
    with pytest.warns(UserWarning, match="depends on the rows beside it"):
        explain(images(1, 12, 12))


def test_rows_of_a_closure_are_an_argument() -> None:
    x = images(4, 12, 12)
    maps = GroupCAM(lambda x, shift: NETWORK(x) + shift, LAYER).attribute(x, 1, SHIFT, n_groups=4)
    for n in range(4):
        one = GroupCAM(lambda x, n=n: NETWORK(x) + SHIFT[n], LAYER)
        expected = one.attribute(x[n : n + 1], 1, n_groups=4)
        torch.testing.assert_close(maps[n : n + 1], expected)


@pytest.mark.parametrize("how", ["float32", "bfloat16", "float16", "autocast"])
def test_rounding_is_no_alarm(how: str) -> None:
    dtype = torch.float32 if how == "autocast" else getattr(torch, how)
    network = classifier(seed=2).to(dtype)
    layer = network.features
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast")
    with warnings.catch_warnings(), autocast:
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The maps of samples")
        for seed in range(3):
            x = images(3, 12, 12, seed=seed).to(dtype)
            GroupCAM(network, layer).attribute(x, 1, n_groups=4)
            ScoreCAM(network, layer).attribute(x, 1)
            AblationCAM(network, layer).attribute(x, 1)
            RISE(network).attribute(x, target=1, n_masks=8)


class OneSize(nn.Module):
    """Takes four rows at a time, as an engine that was built for them."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != 4:
            raise RuntimeError("expected 4 rows")
        return NETWORK(x)


def test_networks_that_take_one_batch_size_still_do() -> None:
    x, options = images(2, 12, 12), {"n_masks": 8, "internal_batch_size": 4}
    found = RISE(OneSize().eval()).attribute(x, target=1, **options)
    torch.testing.assert_close(found, RISE(NETWORK).attribute(x, target=1, **options))


def test_chance_is_named_as_such() -> None:
    class Dropping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return NETWORK.head(F.dropout(LAYER(x)))

    with pytest.warns(UserWarning, match="draws random numbers") as seen:
        GroupCAM(Dropping().eval(), LAYER).attribute(images(3, 12, 12), 1, n_groups=4)
    assert not [one for one in seen if "beside it" in str(one.message)]


# And one for the order of two samples, or three for that of more.
@pytest.mark.parametrize(("n", "more"), [(1, 0), (2, 1 + 1), (3, 1 + 3)])
def test_it_costs_one_row_and_none_for_one_sample(n: int, more: int) -> None:
    recorder = Recorder(NETWORK)
    _, scores = GroupCAM(recorder, LAYER).attribute(
        images(n, 12, 12), 1, n_groups=4, gradient_free=True, return_group_scores=True
    )
    assert scores.ne(0).all()
    assert sum(recorder.batch_sizes) == n + 4 * n + n + more


def test_one_pass_with_a_gradient_stays_one() -> None:
    recorder = Recorder(NETWORK)
    GradCAM(recorder, LAYER).attribute(images(3, 12, 12), 1)
    assert recorder.batch_sizes == [3]
