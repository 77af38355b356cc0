"""A small run: pictures, a network, settings, and the rows without interruption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.run.loop import RunSettings, run
from benchmarks.run.rows import Row
from captum_groupcam.models import load_model
from tests.benchmarks.run.small_runs import MEASURED, N_SAMPLES, SPECS


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures with boxes."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    lines = ["file,label,x0,y0,x1,y1"]
    rng = np.random.default_rng(0)
    for index in range(N_SAMPLES):
        pixels = rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        lines.append(f"{index}.png,{index},10,10,40,{30 + index}")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that is the same in all processes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pt"
    torch.save(load_model("squeezenet1_1", "random").network.state_dict(), path)
    return path


def settings_for(out: Path, data: Path, weights: Path) -> RunSettings:
    return RunSettings(
        out,
        SPECS,
        MEASURED,
        dataset="folder",
        root=data,
        model="squeezenet1_1",
        weights=str(weights),
        n_shown=1,
        accelerator="cpu",
    )


@pytest.fixture
def settings(data: Path, weights: Path, tmp_path: Path) -> RunSettings:
    return settings_for(tmp_path / "run", data, weights)


@pytest.fixture(scope="session")
def whole(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of a run without interruption."""
    folder = run(settings_for(tmp_path_factory.mktemp("whole"), data, weights))
    assert folder is not None
    return folder.rows()
