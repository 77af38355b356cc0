"""Peak memory is set by internal_batch_size, not by the number of images or groups.

``python tests/test_memory.py efficientnet_lite0 8 128`` prints the resident megabytes of a process
that explains 8 random images with 128 groups: before, and at its peak.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from captum_groupcam import GroupCAM
from captum_groupcam.networks.target_layer import TargetLayer

resource = pytest.importorskip("resource", reason="needs getrusage, which Windows has not")

MEGABYTE = 2**20 if sys.platform == "darwin" else 2**10  # in units of ru_maxrss


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE


def measure(model: str, n_images: int, n_groups: int, side: int = 224) -> tuple[float, float]:
    """Resident megabytes with everything loaded, and at the peak of one call."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if model == "small":  # many channels, few operations
        layer: nn.Module = nn.Sequential(nn.Conv2d(3, 128, 8, stride=8), nn.ReLU())
        network = nn.Sequential(
            layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1000)
        ).eval()
        target_layer = TargetLayer(layer)
    else:
        from captum_groupcam.models import load_model

        loaded = load_model(model)
        network, target_layer = loaded.network, loaded.layer
    images = torch.rand(n_images, 3, side, side) * 2 - 1
    before = peak()
    GroupCAM(network, target_layer.module).attribute(
        images, 285, n_groups=n_groups, internal_batch_size=8, **target_layer.keywords
    )
    return before, peak()


def measured_apart(*arguments: object) -> tuple[float, float]:
    """In a fresh process, since a peak never falls."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    before, highest = map(float, run.stdout.split())
    return before, highest


def test_peak_does_not_grow_with_images_and_groups():
    before_one, one = measured_apart("small", 1, 32)
    before_many, many = measured_apart("small", 8, 128)
    assert many < 1.1 * one
    # Beside the engine's chunks there may be a few copies of the images (5 megabytes), but not the
    # 1,024 masks at the images' resolution (206 megabytes) or their queries (three times that).
    assert (many - before_many) - (one - before_one) < 40


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("n_images", type=int)
    parser.add_argument("n_groups", type=int)
    print(*measure(**vars(parser.parse_args())))
