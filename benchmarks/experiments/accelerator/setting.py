"""What the check of an accelerator works on, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_groupcam import GroupCAM
from captum_groupcam.images import sample_images
from captum_groupcam.models import load_model

from ...data import planted_network  # noqa: F401  registers the small networks
from ..speed import Timed

__all__ = ["FULL", "ROUNDING", "SMALL", "Check", "Finding", "Setting", "Sizes"]

#: How far maps of two batch sizes may be apart, as a share of their largest value, and scores of
#: two processes: where convolutions are computed in TF32, rounding depends on the size of a batch.
ROUNDING = 0.01


@dataclass(frozen=True)
class Sizes:
    """How much is asked for.

    Attributes:
        networks (mapping of str to str or None): Networks to their weights. The first is the one
            that is examined; of the others only run times are taken.
        n_images, n_groups (int): Of an ordinary call.
        growth (int): How many times as many images, and groups, a large call has.
        query_batch (int): Rows of a forward pass where memory is measured.
        free_memory (int): Bytes that are left where memory is to run out.
        batch_sizes (sequence of int): Sizes at which speed is measured.
        rounds (int): Rounds of a timing that count.
        data (str): The data set that several processes evaluate, by the first network.
    """

    networks: Mapping[str, str | None]
    n_images: int
    n_groups: int
    growth: int
    query_batch: int
    free_memory: int
    batch_sizes: Sequence[int]
    rounds: int
    data: str


FULL = Sizes(
    networks={"efficientnet_lite0": None, "resnet50": "random"},
    n_images=8,
    n_groups=32,
    growth=8,
    query_batch=8,
    free_memory=2**30,
    batch_sizes=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    rounds=2,
    data="bundled",
)

#: For tests, on a CPU.
SMALL = Sizes(
    networks={"planted": None},
    n_images=2,
    n_groups=4,
    growth=2,
    query_batch=2,
    free_memory=2**20,
    batch_sizes=(1, 4),
    rounds=1,
    data="planted:n=2",
)


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        said (str): In a line.
        passed (bool, optional): None if it is a figure, or could not be checked. Default: None.
        numbers (mapping, optional): As JSON. Default: none.
    """

    said: str
    passed: bool | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)


class Setting:
    """A device, and networks and images on it.

    Args:
        device (torch.device): The device.
        sizes (Sizes): How much is asked for.
    """

    def __init__(self, device: torch.device, sizes: Sizes) -> None:
        self.device = device
        self.sizes = sizes

    @cached_property
    def timed(self) -> dict[str, Timed]:
        """The networks by name, each with an image and its class."""
        return {name: self._timed(name) for name in self.sizes.networks}

    def _timed(self, name: str) -> Timed:
        model = load_model(name, self.sizes.networks[name], self.device)
        image = model.prepare(sample_images()["cat"]())
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            target = int(model.network(image).argmax())
        return Timed(model, image, target, self.sizes.rounds)

    @property
    def examined(self) -> Timed:
        """The first network."""
        return next(iter(self.timed.values()))

    def images(self, count: int, timed: Timed | None = None) -> Tensor:
        """So many images, all different: the photograph, more and more of it mirrored."""
        image = (timed or self.examined).image
        columns = torch.arange(image.shape[-1], device=image.device)
        shifts = torch.arange(count, device=image.device) * image.shape[-1] // count
        mirrored = columns < shifts.view(-1, 1, 1, 1)
        images = torch.where(mirrored, image.flip(-1), image)
        return images.contiguous(memory_format=torch.channels_last)

    def explain(self, images: Tensor, timed: Timed | None = None, **how: Any) -> Tensor:
        """Signed maps of Group-CAM."""
        timed = timed or self.examined
        model = timed.model
        options = {"n_groups": self.sizes.n_groups, "relu_attributions": False, **how}
        maps: Tensor = GroupCAM(model.network, model.layer.module).attribute(
            images, timed.target, **model.layer.keywords, **options
        )
        return maps


@dataclass(frozen=True)
class Check:
    """A question about an accelerator.

    Attributes:
        title (str): What is checked.
        goal (str): What should come out; empty for a figure.
        run (Callable): Finds it out.
    """

    title: str
    goal: str
    run: Callable[[Setting], Finding]
