"""Options that cannot be are refused before the network is asked for the first time."""

from __future__ import annotations

import pytest
import torch

from captum_groupcam import CAM, RISE, XRAI, ConsensusGroupCAM, GradCAM, GroupCAM, ScoreCAM
from tests.toy_networks import Recorder, classifier, hooks, images

WRONG = [
    (GroupCAM, {"n_groups": 0}, ValueError, "n_groups must be at least 1, got 0"),
    (GroupCAM, {"n_groups": 2.5}, TypeError, "n_groups must be an int, got 2.5"),
    (GroupCAM, {"n_groups": "4"}, TypeError, "n_groups must be an int, got '4'"),
    (GroupCAM, {"n_groups": True}, TypeError, "n_groups must be an int, got True"),
    (GroupCAM, {"grouping": "random"}, ValueError, "Unknown grouping 'random'"),
    (GroupCAM, {"grouping": 3}, TypeError, "grouping must be a name or a function, got int"),
    (GroupCAM, {"denoise_percentile": 100}, ValueError, r"must be in \[0, 100\), got 100"),
    (GroupCAM, {"denoise_percentile": -1}, ValueError, r"must be in \[0, 100\), got -1"),
    (GroupCAM, {"denoise_percentile": torch.nan}, ValueError, r"in \[0, 100\), got nan"),
    (GroupCAM, {"denoise_percentile": "70"}, TypeError, "must be a number, got '70'"),
    (GroupCAM, {"denoise_at": "output"}, ValueError, "'layer' or 'input', got 'output'"),
    (GroupCAM, {"score_func": "softmax"}, TypeError, "score_func must be a function"),
    (GroupCAM, {"internal_batch_size": 0}, ValueError, "must be at least 1, got 0"),
    (GroupCAM, {"internal_batch_size": 1.5}, TypeError, "must be an int, got 1.5"),
    (GroupCAM, {"baselines": "blur"}, TypeError, "got str"),
    (GroupCAM, {"baselines": (0, 0)}, ValueError, "one for each of the 1 inputs, got 2"),
    (ConsensusGroupCAM, {"n_groups": 0}, ValueError, "at least 1"),
    (ConsensusGroupCAM, {"denoise_percentile": 100}, ValueError, "got 100"),
    (ConsensusGroupCAM, {"edge_radius": 8}, ValueError, "share of the input's shorter side"),
    (ConsensusGroupCAM, {"gradient_sigma": 6.0}, ValueError, "share of the input's shorter"),
    (ConsensusGroupCAM, {"gradient_power": 0}, ValueError, "gradient_power"),
    (ConsensusGroupCAM, {"shares": ()}, ValueError, "at least one"),
    (ConsensusGroupCAM, {"shares": (0.1, 1.5)}, ValueError, "got 1.5"),
    (ScoreCAM, {"weighting": "plain"}, ValueError, "'softmax', 'increase' or 'score'"),
    (ScoreCAM, {"smoothing": "blur"}, ValueError, "'none', 'noise' or 'integral', got 'blur'"),
    (ScoreCAM, {"smoothing": "noise", "n_samples": 0}, ValueError, "n_samples must be at least 1"),
    (
        ScoreCAM,
        {"smoothing": "noise", "noise_level": -1},
        ValueError,
        r"noise_level must be in \[0, inf\)",
    ),
    (RISE, {"n_masks": 0}, ValueError, "n_masks must be at least 1, got 0"),
    (RISE, {"probability": 1}, ValueError, r"in \(0, 1\), got 1"),
    (RISE, {"grid_size": 0}, ValueError, "grid_size must be at least 1"),
    (RISE, {"grid_size": (7, 7, 7)}, ValueError, "one for each of 2 axes"),
    (RISE, {"targets": []}, ValueError, "at least one of targets"),
    (RISE, {"targets": [1]}, ValueError, "not both"),
    (XRAI, {"n_steps": 0}, ValueError, "n_steps must be at least 1, got 0"),
    (XRAI, {"algorithm": "slow"}, ValueError, "'full' or 'fast', got 'slow'"),
    (XRAI, {"baselines": []}, ValueError, "at least one"),
    (GradCAM, {"internal_batch_size": 0}, ValueError, "at least 1"),
    (CAM, {"internal_batch_size": "2"}, TypeError, "must be an int, got '2'"),
]


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    WRONG,
    ids=[f"{method.__name__}-{next(iter(options.items()))}" for method, options, *_ in WRONG],
)
def test_wrong_options_cost_no_forward_pass(method, options, error, message):
    network = Recorder(classifier(seed=2))
    layer = () if method in (RISE, XRAI) else (network.network.features,)
    with pytest.raises(error, match=message):
        method(network, *layer).attribute(images(2, 14, 16), target=2, **options)
    assert network.calls == []
    assert not hooks(network).total()
