from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_groupcam.metrics import AverageDrop
from captum_groupcam.metrics.functional import average_drop
from tests.toy_networks import FinishedMaps, SmallCNN, small_inputs


def unit_maps(samples: int, size: int = 8) -> Tensor:
    """Maps that span exactly [0, 1]."""
    maps = torch.rand(samples, 1, size, size, dtype=torch.double)
    maps[:, 0, 0, 0], maps[:, 0, -1, -1] = 0.0, 1.0
    return maps


def test_by_hand() -> None:
    # Scores 4 -> 1, 3 -> 5 and 0 -> 0: the map keeps one pixel.
    inputs = torch.tensor([[[1.0, 3.0]], [[5.0, -2.0]], [[0.0, 0.0]]])
    maps = torch.tensor([[7.0, -1.0], [0.0, -1.0], [2.0, 1.0]])
    result = average_drop(lambda x: x.sum((1, 2)), maps, inputs)
    assert result.average_drop.tolist() == [75.0, 0.0, 0.0]
    assert result.increase_in_confidence.tolist() == [0.0, 100.0, 0.0]


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(1, 5), batch=st.integers(1, 6), seed=st.integers(0, 100))
def test_equals_the_equations_sample_by_sample(samples: int, batch: int, seed: int) -> None:
    network = SmallCNN(seed=seed)
    rng = np.random.default_rng(seed)
    inputs = small_inputs(samples, size=8, seed=seed)
    maps = torch.from_numpy(rng.normal(size=(samples, 1, 8, 8)))
    targets = torch.from_numpy(rng.integers(0, 5, samples))
    result = average_drop(network, maps, inputs, targets, internal_batch_size=batch)
    for i in range(samples):
        low, high = maps[i].min(), maps[i].max()
        seen = torch.stack([inputs[i], inputs[i] * (maps[i] - low) / (high - low)])
        with torch.no_grad():
            whole, explained = network(seen).softmax(1)[:, targets[i]].tolist()
        drop = 100 * max(0.0, whole - explained) / whole
        assert result.average_drop[i].item() == pytest.approx(drop, abs=1e-9)
        assert result.increase_in_confidence[i].item() == 100 * (explained > whole)


def test_equals_torchcam() -> None:
    pytest.importorskip("torchcam", minversion="0.5")  # before, its metrics were others
    from torchcam import metrics

    network = SmallCNN()
    inputs, maps = small_inputs(4, size=8), unit_maps(4)
    reference = metrics.ClassificationMetric(
        FinishedMaps(network, maps), lambda logits: logits.softmax(-1)
    )
    reference.update(inputs, [0, 1, 2, 3])
    ours = average_drop(network, maps, inputs, [0, 1, 2, 3])
    summary = reference.summary()
    assert ours.average_drop.mean().item() == pytest.approx(100 * summary["avg_drop"], rel=1e-4)
    increase = ours.increase_in_confidence.mean().item()
    assert increase == pytest.approx(100 * summary["conf_increase"])


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # within grad-cam
def test_equals_pytorch_grad_cam() -> None:
    metrics = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    network = SmallCNN()
    inputs, maps = small_inputs(4, size=8), unit_maps(4)
    outputs = [targets.ClassifierOutputSoftmaxTarget(c) for c in range(4)]
    drop = metrics.DropInConfidence()(inputs, maps[:, 0].numpy(), outputs, network)
    increase = metrics.IncreaseInConfidence()(inputs, maps[:, 0].numpy(), outputs, network)
    ours = average_drop(network, maps, inputs, [0, 1, 2, 3])
    with torch.no_grad():
        whole = network(inputs).softmax(1)[range(4), range(4)].numpy()
    np.testing.assert_allclose(ours.average_drop * whole / 100, drop, atol=1e-6)
    np.testing.assert_allclose(ours.increase_in_confidence / 100, increase)
    assert drop.any()
    assert increase.any()


def test_constant_map_shows_nothing_and_warns() -> None:
    inputs = torch.ones(2, 1, 2, 2)
    maps = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[3.0, 3.0], [3.0, 3.0]]])
    with pytest.warns(UserWarning, match=r"constant in samples \[1\]: nothing"):
        result = average_drop(lambda x: x.sum((1, 2, 3)), maps, inputs)
    assert result.average_drop.tolist() == [25.0, 100.0]


def test_errors_name_what_is_wrong() -> None:
    network = SmallCNN().float()
    inputs, maps = small_inputs(2, size=8).float(), torch.rand(2, 8, 8)
    broken = maps.clone()
    broken[1, 3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinite values in samples \[1\]"):
        average_drop(network, broken, inputs, 0)
    with pytest.raises(ValueError, match=r"spatial size \(8, 8\)"):
        average_drop(network, maps[:, :4], inputs, 0)
    with pytest.raises(ValueError, match=r"negative ones for samples \[0, 1\]"):
        average_drop(lambda x: -x.abs().flatten(1).sum(1), maps, inputs)


def test_metric_contract() -> None:
    network = SmallCNN()
    inputs, maps, targets = small_inputs(4, size=8), unit_maps(4), torch.arange(4)
    expected = average_drop(network, maps, inputs, targets)
    metric = AverageDrop(network)
    for part in (slice(0, 3), slice(2, 4)):
        metric.update(maps[part], inputs[part], targets[part], ids=torch.arange(4)[part])
    result = metric.compute()
    for name, values in expected._asdict().items():
        torch.testing.assert_close(metric.per_sample()[name], values.float())
        torch.testing.assert_close(result[name], values.float().mean())
    for copy in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert copy.compute() == result
        copy.reset()
        assert copy(maps, inputs, targets) == result
    metric.merge_state(metric.clone())
    assert metric.compute() == result


def test_a_clone_shares_the_network_and_nothing_else() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    metric = AverageDrop(network)
    metric.update(torch.rand(1, 2, 2), torch.rand(1, 1, 2, 2), 0)
    twin = metric.clone()
    assert twin._network.forward_func is network
    twin.update(torch.rand(1, 2, 2), torch.rand(1, 1, 2, 2), 0)
    assert len(twin.per_sample()["ids"]) == 2
    assert len(metric.per_sample()["ids"]) == 1
    assert not list(metric.parameters())
