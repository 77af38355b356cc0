"""Values of the measures of robustness, from small independent implementations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor, nn

from benchmarks.measures.explained import Explained
from benchmarks.measures.registry import MEASURES
from tests.benchmarks.measures.measured import SIZE, explained_by_chance, gradient_map


def dot(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """A map that sees nothing."""
    maps = torch.zeros(len(inputs), 1, SIZE, SIZE)
    maps[:, :, 6:10, 6:10] = torch.arange(16.0).view(4, 4)
    return maps


def brightness(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """A map that goes with the picture."""
    return inputs.mean(1, keepdim=True)


def explained_by(explain: object) -> Explained:
    explained = explained_by_chance(2)
    maps = explain(explained.model, explained.inputs, explained.targets)  # type: ignore[operator]
    return dataclasses.replace(explained, maps=maps, explain=explain)


def test_maps_that_see_nothing_or_move_with_the_picture_are_robust() -> None:
    assert MEASURES["MaxSensitivity"](explained_by(dot))["max_sensitivity"].tolist() == [0, 0]
    found = MEASURES["Agreement"](explained_by(brightness))
    assert found["agreement.flip"].tolist() == pytest.approx([1, 1])
    assert found["agreement.shift"].tolist() == pytest.approx([1, 1])
    assert (found["agreement.noise"] > 0.8).all()
    assert (found["agreement.noise"] < 1).all()
    seen = MEASURES["Agreement"](explained_by(dot))
    assert seen["agreement.noise"].tolist() == pytest.approx([1, 1])
    assert (seen["agreement.shift"] < 0.95).all()


def test_agreement_equals_its_definition() -> None:
    explained = explained_by(gradient_map)
    found = MEASURES["Agreement"](explained)
    for index in range(2):
        one = explained.sample(index)
        before = one.maps[0, 0].numpy()
        mirrored = gradient_map(one.model, one.inputs.flip(3), one.targets)[0, 0].numpy()[:, ::-1]
        expected = spearmanr(before, mirrored, axis=None).statistic
        assert found["agreement.flip"][index] == pytest.approx(expected, abs=1e-6)
        moved = gradient_map(one.model, one.inputs.roll((1, 1), (2, 3)), one.targets)[0, 0].numpy()
        expected = spearmanr(before[:-1, :-1], moved[1:, 1:], axis=None).statistic
        assert found["agreement.shift"][index] == pytest.approx(expected, abs=1e-6)


def test_sensitivity_is_the_largest_relative_change() -> None:
    """Of a map that is the picture, noise of the radius changes at most so much."""
    explained = explained_by(brightness)
    (values,) = MEASURES["MaxSensitivity"](explained).values()
    for value, maps in zip(values, explained.maps, strict=True):
        most = 0.02 * SIZE / maps.norm()
        assert 0.2 * most < value < most


def test_adcc_equals_its_definition() -> None:
    explained = explained_by(gradient_map)
    found = MEASURES["ADCC"](explained)
    for index in range(2):
        one = explained.sample(index)
        maps = one.maps[0, 0].double().numpy()
        maps = (maps - maps.min()) / (maps.max() - maps.min())
        masked = (one.inputs * torch.from_numpy(maps)).float()
        target = int(one.targets)
        with torch.no_grad():
            whole, kept = (one.model(x).softmax(1)[0, target].item() for x in (one.inputs, masked))
        again = gradient_map(one.model, masked, one.targets)[0, 0].double().numpy()
        coherency = (1 + pearsonr(maps.ravel(), again.ravel()).statistic) / 2
        parts = np.array([coherency, 1 - maps.mean(), 1 - max(0, whole - kept) / whole])
        assert found["adcc.coherency"][index] == pytest.approx(coherency, abs=1e-4)
        assert found["adcc.complexity"][index] == pytest.approx(maps.mean(), abs=1e-6)
        assert found["adcc"][index] == pytest.approx(3 / (1 / parts).sum(), abs=1e-4)


def test_a_constant_map_agrees_with_none_and_nothing_is_undefined() -> None:
    def constant(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return torch.zeros(len(inputs), 1, SIZE, SIZE)

    explained = explained_by(constant)
    assert all(v.tolist() == [0, 0] for v in MEASURES["Agreement"](explained).values())
    with pytest.warns(UserWarning, match="nothing of the input is shown"):
        found = MEASURES["ADCC"](explained)
    assert found["adcc.coherency"].tolist() == [0.5, 0.5]
    assert MEASURES["MaxSensitivity"](explained)["max_sensitivity"].tolist() == [0, 0]


def test_maps_that_are_not_finite_are_an_error() -> None:
    explained = explained_by(brightness)

    def broken(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return inputs[:, :1] * float("nan")

    for name in ("MaxSensitivity", "Agreement", "ADCC"):
        with pytest.raises(ValueError, match="not finite"):
            MEASURES[name](dataclasses.replace(explained, explain=broken))
