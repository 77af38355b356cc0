"""Fine-tuning with and without augmentation: the same schedule, seeds and pictures in each arm."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # noqa: PLC2701 - no public name

from captum_groupcam.augmentation import BackgroundBlur, GradCAMBlur, GroupCAMBlur
from captum_groupcam.methods import METHODS
from captum_groupcam.models import ImageClassifier, load_model

from ...controls import ShiftedBlur
from ...run.processes import end_together
from .data import (
    Pictures,
    class_indices,
    derived_seed,
    image_folder,
    shuffled,
)
from .results import DamagedError, EpochRow, Run
from .settings import FineTuneSettings

__all__ = ["ARMS", "map_entropy", "train"]

#: What is done to the training pictures, by name; None is nothing.
ARMS: Mapping[str, Callable[..., BackgroundBlur] | None] = {
    "plain": None,
    "group_cam": GroupCAMBlur,
    "random": ShiftedBlur,
    "grad_cam": GradCAMBlur,
}


def map_entropy(maps: Tensor) -> Tensor:
    r"""How widely a map is spread, from 0 (all in one position) to 1 (everywhere the same).

    :math:`-\sum_i p_i \ln p_i / \ln n` over its n positions, with p the map divided by its sum.

    Args:
        maps (Tensor): N x 1 x spatial, not negative. A map of zeros points nowhere: 1.

    Returns:
        Tensor: N values.

    Examples::

        >>> import torch
        >>> map_entropy(torch.tensor([[[0.0, 0.0, 0.0, 3.0]], [[1.0, 0.0, 1.0, 0.0]]]))
        tensor([0.0000, 0.5000])
    """
    values = maps.flatten(1)
    total = values.sum(1, keepdim=True)
    shares = torch.where(total > 0, values / total, 1 / values.shape[1])
    entropy: Tensor = torch.special.entr(shares).sum(1)
    return entropy / math.log(values.shape[1])


def train(fabric: Fabric, settings: FineTuneSettings, arm: str, seed: int, run: Run) -> None:
    """Fine-tunes a network, or goes on with it from the last epoch that is done.

    Several processes give what one gives, up to rounding, unless the network draws (dropout): each
    process draws its own.

    Args:
        fabric (Fabric): Devices, processes and precision; launched.
        settings (FineTuneSettings): How.
        arm (str): A name of :data:`ARMS`.
        seed (int): Seed of the head, of the pictures' choice, order and crops, and of what the
            network and the augmentation draw.
        run (Run): Where results go.

    Raises:
        ValueError: If the data do not fit the settings, the loss is not finite, or what a stopped
            run has left is damaged.
    """
    first = run.epochs_done
    if first >= settings.epochs:
        return
    session = _Session(fabric, settings, arm, seed)
    if first:
        session.load(run.checkpoint(first))
    for epoch in range(first, settings.epochs):
        row, predicted = session.epoch(epoch)
        if fabric.is_global_zero:
            run.write(row, session.validation.names, session.targets, predicted)
        session.save(run.checkpoint(epoch + 1))
        if fabric.is_global_zero:
            run.checkpoint(epoch).unlink(missing_ok=True)
        session.console.print(
            f"{arm}, seed {seed}, epoch {epoch + 1} of {settings.epochs}: loss "
            f"{row.train_loss:.4f}, top-1 {row.top1:.4f}, entropy {row.map_entropy:.4f}"
        )


class _Session:
    """A network, its data and its optimizer."""

    def __init__(self, fabric: Fabric, settings: FineTuneSettings, arm: str, seed: int) -> None:
        self.fabric, self.settings, self.arm, self.seed = fabric, settings, arm, seed
        self.console = Console(quiet=not fabric.is_global_zero, highlight=False)
        if settings.batch_size % fabric.world_size:
            raise ValueError(
                f"A batch of {settings.batch_size} cannot be shared by {fabric.world_size} "
                "processes evenly."
            )
        torch.manual_seed(derived_seed(seed))  # for weights that are random
        loaded = load_model(**settings.network)
        self._prepare_data(loaded)
        network = loaded.network
        if not settings.keep_head:
            torch.manual_seed(derived_seed(seed))
            _replace_head(network, len(loaded.class_names), len(self.training.folder.classes))
        self.trained = _trained_part(network, settings.train_from)
        optimizer = torch.optim.SGD(
            [parameter for parameter in network.parameters() if parameter.requires_grad],
            settings.learning_rate,
            settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.model, self.optimizer = fabric.setup(network, optimizer)
        self.network = network
        self.explain = METHODS["group_cam_gradient_free"](
            network, loaded.layer, n_groups=settings.n_groups, denoise_percentile=None
        )
        augmentation = ARMS[arm]
        self.blur: BackgroundBlur | None = None
        if augmentation is not None:
            options = {} if augmentation is GradCAMBlur else {"n_groups": settings.n_groups}
            self.blur = augmentation(
                network,
                loaded.layer,
                probability=settings.probability,
                every_n_steps=settings.every_n_steps,
                seed=seed,
                **options,
            )

    def _prepare_data(self, loaded: ImageClassifier) -> None:
        settings, root = self.settings, self.settings.data
        training, validation = image_folder(root / "train"), image_folder(root / "val")
        names = training.classes
        if validation.classes != names:
            raise ValueError(f"{root} has other classes in val than in train.")
        labels = class_indices(loaded, names) if settings.keep_head else range(len(names))
        self.training = Pictures.training(training, loaded, labels, self.seed)
        self.validation = Pictures.validation(validation, loaded, labels)
        self.targets = [labels[target] for target in self.validation.folder.targets]
        self.chosen = self.training.some_of_each_class(settings.train_per_class, self.seed)
        self.n_steps = len(self.chosen) // settings.batch_size
        if not self.n_steps:
            raise ValueError(
                f"{len(self.chosen)} training pictures do not fill a batch of "
                f"{settings.batch_size}: choose a smaller one."
            )

    # --- one epoch

    def epoch(self, epoch: int) -> tuple[EpochRow, list[int]]:
        """Trains and validates: the epoch's row, and the class predicted for each picture."""
        torch.manual_seed(derived_seed(self.seed, epoch, self.fabric.global_rank))
        loss, step_seconds, blur_seconds = self._train(epoch)
        if not math.isfinite(loss):
            raise ValueError(
                f"The loss of {self.arm}, seed {self.seed}, is {loss} in epoch {epoch + 1}: choose "
                "a smaller learning rate."
            )
        val_loss, predicted = self._validate()
        row = EpochRow(
            arm=self.arm,
            seed=self.seed,
            epoch=epoch + 1,
            learning_rate=self.settings.rate(epoch),
            train_loss=loss,
            val_loss=val_loss,
            top1=float(np.mean(np.array(predicted) == np.array(self.targets))),
            map_entropy=self._map_entropy(),
            step_seconds=step_seconds,
            blur_seconds=blur_seconds,
        )
        return row, predicted

    def _train(self, epoch: int) -> tuple[float, float, float]:
        """The mean loss, and mean seconds of a step without and in its augmentation."""
        self.network.eval()
        for module in self.trained:
            module.training = self.settings.batch_statistics or not isinstance(module, _BatchNorm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(epoch)
        blur = self.blur if epoch >= self.settings.plain_epochs else None
        if blur is not None:
            blur.step = epoch * self.n_steps

        order = self.chosen[shuffled(len(self.chosen), self.seed, epoch)]
        whole = order[: self.n_steps * self.settings.batch_size]
        # The crops of an epoch are its own.
        pictures = replace(self.training, seed=derived_seed(self.seed, epoch))
        total = torch.zeros((), device=self.fabric.device)
        step_seconds = blur_seconds = 0.0
        for images, labels, _ in track(
            self._batches(pictures, whole),
            f"{self.arm} {self.seed}, epoch {epoch + 1}",
            console=self.console,
            disable=not self.console.is_terminal,
        ):
            if blur is not None:
                begin = self._now()
                with self.fabric.autocast():
                    images = blur(images, labels)
                blur_seconds += self._now() - begin
            begin = self._now()
            loss = F.cross_entropy(self.model(images), labels)
            self.fabric.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            total += loss.detach()
            step_seconds += self._now() - begin
        mean = self._sum(total) / self.n_steps / self.fabric.world_size
        return float(mean), step_seconds / self.n_steps, blur_seconds / self.n_steps

    def _validate(self) -> tuple[float, list[int]]:
        self.network.eval()
        n = len(self.validation)
        predicted = torch.zeros(n, dtype=torch.long, device=self.fabric.device)
        losses = torch.zeros(n, device=self.fabric.device)
        # Not through what synchronises processes: one may have a batch more than the others.
        with torch.no_grad(), self.fabric.autocast():
            for images, labels, where in self._batches(self.validation, np.arange(n)):
                outputs = self.network(images).float()
                predicted[where] = outputs.argmax(1)
                losses[where] = F.cross_entropy(outputs, labels, reduction="none")
        # Each process has filled in its own part.
        return float(self._sum(losses).mean()), self._sum(predicted).tolist()

    def _map_entropy(self) -> float:
        """The mean over some validation pictures, by Group-CAM as it augments, in every arm."""
        n = len(self.validation)
        chosen = np.linspace(0, n - 1, min(self.settings.n_maps, n)).round().astype(int)
        if not chosen.size:
            return math.nan
        total = torch.zeros((), device=self.fabric.device)
        with self.fabric.autocast():
            for images, labels, _ in self._batches(self.validation, chosen):
                total += map_entropy(self.explain(images, labels)).sum()
        return float(self._sum(total)) / len(chosen)

    def _batches(self, pictures: Pictures, order: np.ndarray) -> Any:
        """This process's part of the pictures: every so many, as a process alone would mix them."""
        share = order[self.fabric.global_rank :: self.fabric.world_size]
        size = self.settings.batch_size // self.fabric.world_size
        loader = pictures.batches(share, size, self.settings.workers)
        return self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)

    def _sum(self, values: Tensor) -> Tensor:
        """Over all processes."""
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op="sum"))

    def _now(self) -> float:
        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize(self.fabric.device)
        return time.perf_counter()

    # --- checkpoints

    def save(self, path: Path) -> None:
        """Replaces the checkpoint, all or nothing."""
        unfinished = path.with_name(path.name + ".part")
        self.fabric.save(unfinished, self._state())
        if self.fabric.is_global_zero:
            unfinished.replace(path)
        self.fabric.barrier()

    def load(self, path: Path) -> None:
        """Continues from a checkpoint."""
        state = self._state()
        failure = None
        try:
            self.fabric.load(path, state)
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        except Exception as error:  # torch raises nearly anything on damaged files
            failure = DamagedError(path, error)
        end_together(self.fabric, failure)

    def _state(self) -> dict[str, Any]:
        precision = self.fabric.strategy.precision.state_dict()
        return {"network": self.model, "optimizer": self.optimizer, "precision": precision}


def _replace_head(network: nn.Module, n_before: int, n_classes: int) -> None:
    """Draws the last layer anew, with other classes."""
    for name, module in reversed(list(network.named_modules())):
        if isinstance(module, nn.Linear) and module.out_features == n_before:
            bias = module.bias is not None
            head: nn.Module = nn.Linear(module.in_features, n_classes, bias)
        elif isinstance(module, nn.Conv2d) and module.out_channels == n_before:
            bias = module.bias is not None
            head = nn.Conv2d(module.in_channels, n_classes, 1, bias=bias)
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, head)
        return
    raise ValueError(
        f"{type(network).__name__} has no linear layer with its {n_before} classes to replace: "
        "keep its head."
    )


def _trained_part(network: nn.Module, first: str | None) -> list[nn.Module]:
    """Freezes what comes before a module; gives the modules that are trained or hold such."""
    named = list(network.named_modules())
    names = [name for name, _ in named]
    if first is None:
        return [module for _, module in named]
    if first not in names:
        raise ValueError(f"Unknown module {first!r}: expected one of {', '.join(names[1:8])}, ...")
    start = names.index(first)
    for _, module in named[:start]:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    return [
        module
        for place, (name, module) in enumerate(named)
        if place >= start or not name or first.startswith(f"{name}.")
    ]
