"""The torchmetrics metric of deletion and insertion."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from captum_groupcam.metrics import DeletionInsertion
from captum_groupcam.metrics.functional import deletion_insertion
from tests.metrics.deletion_toys import distinct_maps
from tests.toy_networks import SmallCNN, small_inputs


def filled(network: nn.Module, samples: slice = slice(None), **options: object) -> SimpleNamespace:
    inputs, maps = small_inputs(4, size=8), distinct_maps(4, 8, 8)
    metric = DeletionInsertion(network, "official", **options)
    targets, ids = torch.tensor([0, 1, 2, 3]), torch.tensor([10, 11, 12, 13])
    arguments = [t[samples] for t in (maps, inputs, targets)]
    metric.update(*arguments, ids=ids[samples])
    return SimpleNamespace(metric=metric, arguments=arguments, ids=ids[samples])


def test_metric_returns_means_and_keeps_every_sample() -> None:
    network = SmallCNN()
    full = filled(network)
    maps, inputs, targets = full.arguments
    expected = deletion_insertion(network, maps, inputs, targets, protocol="official")
    result, rows = full.metric.compute(), full.metric.per_sample()
    assert rows["ids"].tolist() == [10, 11, 12, 13]
    for name in ("deletion", "insertion", "over_all"):
        torch.testing.assert_close(rows[name], getattr(expected, name).float())
        torch.testing.assert_close(result[name], rows[name].mean())


def test_metric_contract() -> None:
    network = SmallCNN()
    full = filled(network)
    expected = full.metric.compute()

    restored = pickle.loads(pickle.dumps(full.metric))
    assert restored.compute() == expected
    copy = full.metric.clone()
    assert copy.compute() == expected
    copy.reset()
    with (
        pytest.raises(ValueError, match="call update first"),
        pytest.warns(UserWarning, match="before the ``update`` method"),
    ):
        copy.compute()
    assert full.metric.compute() == expected

    # Parts give the whole, in any order, and a sample that comes again counts once.
    for first, second in [(slice(0, 1), slice(1, 4)), (slice(2, 4), slice(0, 3))]:
        merged = filled(network, first).metric
        merged.merge_state(filled(network, second).metric)
        torch.testing.assert_close(merged.compute(), expected)
        assert merged.per_sample()["ids"].tolist() == [10, 11, 12, 13]

    # `forward` returns the batch's value and accumulates.
    stepwise = DeletionInsertion(network, "official")
    for i in range(4):
        batch = stepwise(*(t[i : i + 1] for t in full.arguments), ids=full.ids[i : i + 1])
        torch.testing.assert_close(batch["over_all"], full.metric.per_sample()["over_all"][i])
    torch.testing.assert_close(stepwise.compute(), expected)

    moved = full.metric.to("meta")
    assert {value.device.type for value in moved.deletion} == {"meta"}


def test_samples_without_ids_all_count_and_conflicts_warn() -> None:
    network = SmallCNN()
    full = filled(network)
    maps, inputs, targets = full.arguments
    metric = DeletionInsertion(network, "official")
    metric.update(maps, inputs, targets)
    metric.update(maps, inputs, targets)
    assert len(metric.per_sample()["ids"]) == 8
    metric.reset()
    for sample in (0, 1):
        metric.update(maps[[sample]], inputs[[sample]], sample, ids=[3])
    with pytest.warns(UserWarning, match=r"ids \[3\] came again with another value"):
        assert len(metric.per_sample()["ids"]) == 1
    with pytest.raises(ValueError, match="one integer id for each of 4"):
        metric.update(maps, inputs, targets, ids=[1, 2])


def test_network_stays_the_callers() -> None:
    network = SmallCNN()
    metric = DeletionInsertion(network)
    metric.train()
    assert not network.training
    assert not list(metric.parameters())
    assert not metric.state_dict()
