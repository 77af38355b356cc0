"""``python -m benchmarks memory``: the peak of memory, each case in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from captum_groupcam import GroupCAM, ScoreCAM
from captum_groupcam.images import sample_images
from captum_groupcam.models import load_model

__all__ = ["CASES", "Peak", "measure", "run_memory"]


class Peak(NamedTuple):
    """Memory of a process, in MB (resident set).

    Attributes:
        total (float): The peak.
        added (float): How far the peak is above that of the same process after it has loaded the
            network and classified one image.
    """

    total: float
    added: float


class Case(NamedTuple):
    """What a process explains: so many copies of a photo, at once."""

    method: Any
    n_images: int
    options: dict[str, Any]


#: What can be measured, by name; 224 x 224 pixels, 8 inputs in a forward pass.
CASES: dict[str, Case] = {
    "GroupCAM, 1 image x 32 groups": Case(GroupCAM, 1, {"n_groups": 32}),
    "GroupCAM, 8 images x 128 groups": Case(GroupCAM, 8, {"n_groups": 128}),
    "ScoreCAM, 1 image x 1280 channels": Case(ScoreCAM, 1, {}),
}


def measure(name: str) -> Peak:
    """Runs a case in a fresh process and returns the peak of its memory."""
    finished = subprocess.run(  # noqa: S603 (this very module)
        [sys.executable, "-m", __name__, name],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Peak(*json.loads(finished.stdout))


def run_memory() -> None:
    """Measures every case and prints a table."""
    table = Table(title="Peak of memory, EfficientNet-Lite0", title_justify="left")
    for heading in ("", "total (MB)", "added (MB)", "total, ratio to the first"):
        table.add_column(heading, justify="right" if heading else "left")
    first: Peak | None = None
    for name in CASES:
        peak = measure(name)
        first = first or peak
        table.add_row(
            name, f"{peak.total:.0f}", f"{peak.added:.0f}", f"{peak.total / first.total:.3f}"
        )
    Console().print(table)


def _peak() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _run(case: Case) -> Peak:
    model = load_model("efficientnet_lite0")
    image = model.preprocess(sample_images()["cat"]()).unsqueeze(0)
    images = image.repeat(case.n_images, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        target = int(model.network(images[:1]).argmax())
    before = _peak()
    attribution = case.method(model.network, model.layer.module)
    attribution.attribute(
        images, target, internal_batch_size=8, **model.layer.keywords, **case.options
    )
    return Peak(_peak(), _peak() - before)


if __name__ == "__main__":
    print(json.dumps(_run(CASES[sys.argv[1]])))
