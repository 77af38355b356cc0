from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from benchmarks.measures.explained import Explained
from benchmarks.measures.randomisation import (
    chosen_layers,
    parameter_randomisation,
    randomised_maps,
)
from benchmarks.measures.registry import MEASURES


def gradients(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    inputs = inputs.detach().clone().requires_grad_()
    scores = model(inputs).gather(1, targets[:, None]).sum()
    return torch.autograd.grad(scores, inputs)[0].sum(1, keepdim=True)


def blind(_model: nn.Module, inputs: Tensor, _targets: Tensor) -> Tensor:
    return inputs.sum(1, keepdim=True)


@pytest.fixture
def explained() -> Explained:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(256, 3),
    ).eval()
    inputs, targets = torch.rand(2, 3, 12, 12), torch.tensor([0, 2])
    maps = gradients(model, inputs, targets)
    return Explained(model, inputs, targets, maps, explain=gradients, seed=3)


def test_layers_from_the_output_down(explained: Explained) -> None:
    assert chosen_layers(explained.model, 10) == ["5", "2", "0"]
    assert chosen_layers(explained.model, 2) == ["5", "0"]


def test_cascading_takes_away_more_and_more(explained: Explained) -> None:
    network = explained.model
    maps = dict(randomised_maps(explained, "cascading", 10))
    assert list(maps) == ["5", "2", "0"]
    # Step by step, with the seed that Quantus documents.
    twin = nn.Sequential(*(type_of(module) for module in network)).eval()
    twin.load_state_dict(network.state_dict())
    for name in maps:
        torch.manual_seed(explained.seed + 1)
        twin.get_submodule(name).reset_parameters()
        expected = gradients(twin, explained.inputs, explained.targets)
        torch.testing.assert_close(maps[name], expected)


def test_independent_takes_away_one_at_a_time(explained: Explained) -> None:
    network = explained.model
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for name, maps in randomised_maps(explained, "independent", 10):
        twin = nn.Sequential(*(type_of(module) for module in network)).eval()
        twin.load_state_dict(before)
        torch.manual_seed(explained.seed + 1)
        twin.get_submodule(name).reset_parameters()
        torch.testing.assert_close(maps, gradients(twin, explained.inputs, explained.targets))
    torch.testing.assert_close(network.state_dict(), before)  # the network itself is as it was


def type_of(module: nn.Module) -> nn.Module:
    """A module of the same shape with weights of its own."""
    if isinstance(module, nn.Conv2d):
        return nn.Conv2d(module.in_channels, module.out_channels, 3)
    return nn.Linear(256, 3) if isinstance(module, nn.Linear) else type(module)()


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_a_map_that_does_not_look_at_the_network_stays(explained: Explained, order: str) -> None:
    seen = replace(
        explained, explain=blind, maps=blind(explained.model, explained.inputs, explained.targets)
    )
    scores, curves = MEASURES[f"ParameterRandomisation.{order}"].measure(seen)
    assert scores[f"{order}.ssim"].tolist() == pytest.approx([1.0, 1.0])
    assert scores[f"{order}.spearman"].tolist() == pytest.approx([1.0, 1.0])
    assert curves["ssim"].shape == curves["spearman"].shape == (2, 3)


def test_rank_correlation_by_other_code(explained: Explained) -> None:
    _, mean, _, curves = parameter_randomisation(explained, order="cascading", n_layers=10)
    again = [maps for _, maps in randomised_maps(explained.sample(0), "cascading", 10)]
    for value, maps in zip(curves[0].tolist(), again, strict=True):
        ranks = [rankdata(one[0].flatten().numpy()) for one in (explained.maps, maps)]
        assert value == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert mean[0].item() == pytest.approx(curves[0].mean().item())


def test_an_empty_map_resembles_nothing(explained: Explained) -> None:
    seen = replace(explained, explain=lambda _m, x, _t: torch.zeros_like(x[:, :1]))
    scores, _ = MEASURES["ParameterRandomisation.cascading"].measure(seen)
    assert [value.tolist() for value in scores.values()] == [[0.0, 0.0], [0.0, 0.0]]


def test_randomness_outside_is_left_alone(explained: Explained) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    randomised_maps(explained, "cascading", 3)
    torch.testing.assert_close(torch.rand(3), expected)
