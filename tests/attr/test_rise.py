from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_groupcam import RISE
from captum_groupcam.masking.baselines import GaussianBlur
from captum_groupcam.masking.network import raw_score
from captum_groupcam.masking.random_masks import RandomMasks
from tests.toy_networks import SmallCNN, small_inputs

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def draw(n_masks: int, grid: tuple[int, ...], seed: int = 0, probability: float = 0.5):
    generator = torch.Generator().manual_seed(seed)
    like = torch.zeros((), dtype=torch.double)
    return RandomMasks.draw(n_masks, grid, probability, generator, n_samples=1, like=like)


def upsampled_and_cropped(masks: RandomMasks, index: int, size: tuple[int, ...]) -> Tensor:
    """Section 3.2 of the paper: bilinear to (h + 1) C_H, then a window at a random offset."""
    grid = masks.grids[index]
    cells = [-(-length // count) for length, count in zip(size, grid.shape, strict=True)]
    large = [(count + 1) * cell for count, cell in zip(grid.shape, cells, strict=True)]
    mask = F.interpolate(grid[None, None], size=large, mode=MODES[len(size)], align_corners=False)
    for axis, (cell, length) in enumerate(zip(cells, size, strict=True), start=2):
        start = int(masks.shifts[index, axis - 2] * cell)
        assert 0 <= start < cell
        mask = mask.narrow(axis, start, length)
    return mask


@st.composite
def grids_and_sizes(draw):
    dims = draw(st.integers(1, 3))
    grid = draw(st.tuples(*[st.integers(1, 7)] * dims))
    size = draw(st.tuples(*[st.integers(1, 23)] * dims))
    return grid, size


@given(grids_and_sizes(), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_masks_are_windows_of_upsampled_grids(shapes, seed):
    grid, size = shapes
    masks = draw(3, grid, seed)
    rendered = masks.render(torch.zeros(3, dtype=torch.long), torch.arange(3), size)
    for index in range(3):
        expected = upsampled_and_cropped(masks, index, size)
        torch.testing.assert_close(rendered[index : index + 1], expected)


def test_masks_have_the_mean_of_the_cells():
    masks = draw(3000, (4, 4), probability=0.3)
    rendered = masks.render(torch.zeros(3000, dtype=torch.long), torch.arange(3000), (12, 12))
    # Wherever a position lies between the cells: it is shifted against them.
    means = rendered.mean(0).flatten()
    assert (means - 0.3).abs().max() < 0.05


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("baseline", [0, GaussianBlur(5, 2.0)], ids=["zero", "blur"])
def test_is_equation_6(dims, baseline):
    network = SmallCNN(dims)
    inputs = small_inputs(2, dims, 12)
    hidden = torch.zeros_like(inputs) if baseline == 0 else baseline(inputs)
    maps = RISE(network).attribute(
        inputs, target=[1, 4], n_masks=20, grid_size=3, probability=0.4, seed=5, baselines=baseline
    )
    masks = draw(20, (3,) * dims, 5, 0.4)
    expected = torch.zeros_like(maps)
    for sample, target in enumerate([1, 4]):
        for index in range(20):
            mask = upsampled_and_cropped(masks, index, (12,) * dims)
            seen = inputs[sample] * mask + hidden[sample] * (1 - mask)
            with torch.no_grad():
                score = network(seen).softmax(1)[0, target]
            expected[sample] += score * mask[0] / (0.4 * 20)
    assert maps.std() > 0.01
    torch.testing.assert_close(maps, expected)


class Corner(nn.Module):
    """Sees nothing but one corner, through a ReLU."""

    def forward(self, inputs: Tensor) -> Tensor:
        corner = inputs[..., :8, 16:].mean((1, 2, 3))
        return torch.stack([corner, 1 - corner], dim=1)


def test_finds_what_the_network_sees():
    inputs = torch.ones(1, 3, 24, 24)
    (maps,) = RISE(Corner().eval()).attribute(inputs, target=0, n_masks=500, score_func=raw_score)
    inside = torch.zeros(1, 24, 24, dtype=torch.bool)
    inside[:, :8, 16:] = True
    assert maps[inside].median() > maps[~inside].quantile(0.95)


def test_converges():
    network = SmallCNN()
    inputs = small_inputs(1)

    def agreement(n_masks: int) -> float:
        halves = [
            RISE(network)
            .attribute(
                inputs,
                target=1,
                n_masks=n_masks,
                grid_size=4,
                seed=seed,
                score_func=raw_score,
            )
            .flatten()
            for seed in (1, 2)
        ]
        return float(np.corrcoef(halves)[0, 1])

    few, some, many = (agreement(n) for n in (20, 200, 1000))
    assert few < some < many
    assert many > 0.95


def test_batch_is_its_samples_one_at_a_time():
    network = SmallCNN()
    inputs = small_inputs(3)
    method = RISE(network)
    together = method.attribute(inputs, target=torch.tensor([0, 1, 2]), n_masks=30)
    for index in range(3):
        alone = method.attribute(inputs[index : index + 1], target=index, n_masks=30)
        torch.testing.assert_close(together[index : index + 1], alone)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_does_not_depend_on_internal_batch_size(size):
    network = SmallCNN()
    inputs = small_inputs(2)
    method = RISE(network)
    torch.testing.assert_close(
        method.attribute(inputs, target=1, n_masks=30, internal_batch_size=size),
        method.attribute(inputs, target=1, n_masks=30),
    )


def test_seed_and_generator():
    network = SmallCNN()
    inputs = small_inputs(1)

    def explain(**options):
        return RISE(network).attribute(inputs, target=1, n_masks=10, **options)

    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = explain()
    torch.rand(1)
    assert torch.equal(first, explain(seed=0))
    assert not torch.equal(first, explain(seed=1))
    assert torch.equal(first, explain(generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(7)
    explain(seed=3)
    assert torch.equal(before, torch.get_rng_state())
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(explain(generator=generator), explain(generator=generator))


def test_several_targets_share_the_queries():
    network = SmallCNN()
    inputs = small_inputs(2)
    method = RISE(network)
    rows = []
    handle = network.register_forward_hook(lambda _m, args, _o: rows.append(len(args[0])))
    together = method.attribute(inputs, targets=[0, [3, 4], torch.tensor(2)], n_masks=40)
    handle.remove()
    assert sum(rows) == 2 * 40 + 1  # one is asked alone, too
    assert together.shape == (2, 3, 24, 24)
    for column, target in enumerate([0, [3, 4], 2]):
        alone = method.attribute(inputs, target=target, n_masks=40)
        torch.testing.assert_close(together[:, column : column + 1], alone)


@pytest.mark.parametrize("arguments", [{"target": 1, "targets": [1]}, {"targets": []}])
def test_target_or_targets(arguments):
    with pytest.raises(ValueError, match="not both"):
        RISE(SmallCNN()).attribute(small_inputs(1), **arguments)


def test_several_inputs_see_the_same_masks():
    class Both(nn.Module):
        def forward(self, left, right):
            return torch.cat([left.mean((2, 3)), right.mean((2, 3))], dim=1)

    left = small_inputs(1, size=14)
    right = small_inputs(1, size=28)
    small, large = RISE(Both().eval()).attribute((left, right), target=0, n_masks=50)
    assert small.shape == (1, 1, 14, 14)
    assert large.shape == (1, 1, 28, 28)
    shrunk = F.avg_pool2d(large, 2)
    assert np.corrcoef(shrunk.flatten(), small.flatten())[0, 1] > 0.9


def test_grids_of_zeros_cost_no_query():
    network = SmallCNN()
    rows = []
    network.register_forward_hook(lambda _m, args, _o: rows.append(len(args[0])))
    inputs = small_inputs(1)
    with pytest.warns(UserWarning, match="no mask moved"):  # each shows all of the input
        RISE(network).attribute(inputs, target=0, n_masks=64, grid_size=1, probability=0.25)
    informative = draw(64, (1, 1), probability=0.25).informative.sum().item()
    assert 0 < informative < 64
    assert sum(rows) == informative


def test_grid_may_differ_along_axes():
    maps = RISE(SmallCNN()).attribute(small_inputs(1), target=0, n_masks=10, grid_size=(2, 5))
    torch.testing.assert_close(
        maps, RISE(SmallCNN()).attribute(small_inputs(1), target=0, n_masks=10, grid_size=[2, 5])
    )


def test_input_equal_to_its_baseline_gives_zeros_and_a_warning():
    with pytest.warns(UserWarning, match=r"samples \[0\] are zero"):
        maps = RISE(SmallCNN()).attribute(torch.zeros(1, 3, 24, 24).double(), target=0, n_masks=5)
    assert not maps.any()


def test_progress_bar(capsys):
    RISE(SmallCNN()).attribute(small_inputs(1), target=0, n_masks=10, show_progress=True)
    assert "RISE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_masks": 0}, "n_masks must be at least 1, got 0"),
        ({"probability": 0.0}, r"probability must be in \(0, 1\), got 0.0"),
        ({"probability": 1.0}, r"probability must be in \(0, 1\), got 1.0"),
        ({"grid_size": 0}, "grid_size must be at least 1"),
        ({"grid_size": (7, 7, 7)}, "one for each of 2 axes"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        RISE(SmallCNN()).attribute(small_inputs(1), target=0, **options)
