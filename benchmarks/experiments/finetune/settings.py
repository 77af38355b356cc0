"""What is compared, and how networks are fine-tuned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["FineTuneSettings"]


@dataclass(frozen=True)
class FineTuneSettings:
    """How networks are fine-tuned, the same for all arms and seeds.

    The paper's section 5 fine-tunes a trained ResNet-50 on ImageNet. The log that its authors
    published has 20 epochs with a learning rate of 0.001, a tenth of that for the last five; their
    script has SGD with momentum 0.9, weight decay 1e-4 and batches of 256. These are the defaults.
    The rest is ours.

    Args:
        data (Path): A folder with ``train`` and ``val``, each with one folder for each class.
        network (mapping, optional): Arguments of :func:`captum_groupcam.models.load_model`.
            Pictures are prepared for training at the size that its preprocessing gives, and for
            validation as this does. Default: those of ``efficientnet_lite0``.
        keep_head (bool, optional): Whether the network keeps its classes, which those of the data
            are among by name or WordNet id; accuracy is that among all of them. Otherwise its last
            layer is drawn anew, with the data's classes. Default: False.
        train_from (str, optional): Dotted name of the first module that is trained; those before it
            are frozen. Default: None, all are trained.
        batch_statistics (bool, optional): Whether BatchNorm layers that are trained use and update
            the statistics of batches, each process its own; otherwise they keep those that they
            came with, so that a result does not depend on the number of processes. Default: False.
        epochs (int, optional): Default: 20.
        plain_epochs (int, optional): The first epochs, plain in all arms: a new head explains
            nothing. Default: 0.
        batch_size (int, optional): Pictures in one step, of all processes together. Default: 256.
        learning_rate (float, optional): A tenth of it from three quarters of the epochs on.
            Default: 0.001.
        momentum (float, optional): Default: 0.9.
        weight_decay (float, optional): Default: 1e-4.
        train_per_class (int, optional): Pictures of each class to train with, drawn anew for each
            seed. Default: None, all.
        n_groups (int, optional): Groups of Group-CAM. Default: 16.
        probability (float, optional): Share of pictures that is blurred. Default: 1.0.
        every_n_steps (int, optional): Of so many steps one is blurred. Default: 1.
        n_maps (int, optional): Validation pictures whose maps are looked at after each epoch.
            Default: 32.
        workers (int, optional): Processes that load pictures. Default: 0.
    """

    data: Path
    network: Mapping[str, Any] = field(default_factory=lambda: {"name": "efficientnet_lite0"})
    keep_head: bool = False
    train_from: str | None = None
    batch_statistics: bool = False
    epochs: int = 20
    plain_epochs: int = 0
    batch_size: int = 256
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    train_per_class: int | None = None
    n_groups: int = 16
    probability: float = 1.0
    every_n_steps: int = 1
    n_maps: int = 32
    workers: int = 0

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch."""
        return self.learning_rate * (0.1 if epoch >= math.ceil(0.75 * self.epochs) else 1)
