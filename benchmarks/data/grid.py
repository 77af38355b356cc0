"""Mosaics of images that the network is sure of: the truth is the cell of the class."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from captum_groupcam.metrics.functional import grid_cells
from captum_groupcam.models import ImageClassifier

from ._objects import boxes_tensor
from ._samples import Dataset, LeftOut, Sample, input_size, to_inputs

__all__ = ["grid"]

_BATCH = 16


@dataclass(frozen=True)
class _Certain:
    """An image that the network is sure of: its sample's name and its class."""

    name: str
    target: int


def grid(
    root: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    *,
    model: ImageClassifier | None = None,
    of: str = "folder",
    n: int = 2,
    confidence: float = 0.9,
    n_mosaics: int = 100,
    ask: Literal["one", "each"] = "one",
    seed: int = 0,
) -> Dataset:
    """Mosaics of n x n images of different classes, for the grid pointing game.

    Images are those of another data set that the network classifies as their label says, with at
    least a confidence. Each pass over them in another random order gives as many mosaics as there
    are images for; no image is twice in one pass. A cell is as large as the network's input, so
    that a mosaic is n times as large, if the network takes that; else cells are resized, so that
    the mosaic is as large as the input.

    Args:
        root (str or Path, optional): The folder of the data set that the images are from.
            Default: None.
        class_names (sequence of str, optional): A name for each class of the network. Default:
            None, ImageNet's 1000.
        model (ImageClassifier): The network. Default: None, which is an error.
        of (str, optional): The data set that the images are from. Default: ``folder``.
        n (int, optional): Cells a side. Default: 2.
        confidence (float, optional): The least probability of the class. Default: 0.9.
        n_mosaics (int, optional): Number of mosaics. Default: 100.
        ask (str, optional): ``one``: for each mosaic the class of one cell is explained, the cells
            in turn, so that samples have no mosaic in common. ``each``: of every cell.
            Default: ``one``.
        seed (int, optional): Seed of the orders. Default: 0.

    Returns:
        Dataset: The samples, named ``mosaic:cell``, with the cell as box. ``about`` says how many
        images qualified, and the size of the cells; ``left_out`` why the others did not.

    Raises:
        ValueError: If there is no network, the data set is unknown, the images that qualify do not
            have n * n different classes, or an option is out of range.
    """
    from . import DATASETS  # which this one is in, too

    if model is None:
        raise ValueError("A grid is of images that a network is sure of: give the model.")
    if of not in DATASETS or of == "grid":
        known = ", ".join(name for name in DATASETS if name != "grid")
        raise ValueError(f"A grid is of images of another data set, one of {known}; got {of!r}.")
    if n < 2 or n_mosaics < 1 or not 0 <= confidence <= 1:
        raise ValueError(
            "Expected at least 2 cells a side, 1 mosaic and a confidence from 0 to 1, got "
            f"n={n}, n_mosaics={n_mosaics}, confidence={confidence}."
        )
    images = DATASETS[of](root, class_names)
    left_out = LeftOut()
    certain = list(_certain(images, model, confidence, left_out))
    if len({one.target for one in certain}) < n * n:
        raise ValueError(
            f"Of {len(images)} images {len(certain)} are predicted as their label says with a "
            f"probability of at least {confidence}, of {len({one.target for one in certain})} "
            f"classes: too few for mosaics of {n} x {n} different classes."
        )
    size, native = _mosaic_size(model, n)
    loaders = {}
    mosaics = _mosaics(certain, n * n, random.Random(seed))  # noqa: S311  not for secrets
    for index, members in zip(range(n_mosaics), mosaics, strict=False):
        asked = range(n * n) if ask == "each" else (index % (n * n),)
        for place in asked:
            name = f"{index:04}:{place}"
            loaders[name] = partial(_load, name, images, members, place, n, size)
    height, width = size
    about = {
        "images": f"{of}: {len(certain)} of {len(images)} are predicted as their label says with "
        f"a probability of at least {confidence}",
        "mosaics": f"{n} x {n} different classes; "
        + ("each cell is asked" if ask == "each" else "one cell of each is asked"),
        "cells": f"{height // n} x {width // n} pixels, "
        + (
            "as large as the network's input, which takes the larger mosaics"
            if native
            else "resized, since the network takes inputs of one size only"
        ),
        "seed": seed,
    }
    notes = [f"{name.capitalize()}: {text}." for name, text in about.items() if name != "seed"]
    return Dataset(loaders, left_out=left_out, notes=[*images.notes, *notes], about=about)


def _certain(
    images: Dataset, model: ImageClassifier, confidence: float, left_out: LeftOut
) -> Iterator[_Certain]:
    names = list(images.loaders)
    for start in range(0, len(names), _BATCH):
        samples = []
        for name in names[start : start + _BATCH]:
            try:
                samples.append(images.load(name))
            except Exception:  # whatever it is, it is of this image
                left_out.add("the image cannot be loaded", name)
        if not samples:
            continue
        with torch.no_grad():
            inputs = to_inputs(samples, model).to(model.device)
            probabilities = model.network(inputs).softmax(1)
        best, targets = (values.tolist() for values in probabilities.max(1))
        for sample, probability, target in zip(samples, best, targets, strict=True):
            if target not in sample.targets:
                left_out.add("the network predicts another class", sample.id)
            elif probability < confidence:
                left_out.add("the network is less sure of its class", sample.id)
            else:
                yield _Certain(sample.id, target)


def _mosaics(
    certain: Sequence[_Certain], n_cells: int, rng: random.Random
) -> Iterator[list[_Certain]]:
    """Mosaics without end: sets of images of different classes."""
    while True:
        waiting = list(certain)
        rng.shuffle(waiting)
        while True:
            members: dict[int, _Certain] = {}
            for one in waiting:
                members.setdefault(one.target, one)
                if len(members) == n_cells:
                    break
            if len(members) < n_cells:
                break
            chosen = list(members.values())
            waiting = [one for one in waiting if one not in chosen]
            yield chosen


def _mosaic_size(model: ImageClassifier, n: int) -> tuple[tuple[int, int], bool]:
    """Height and width of a mosaic, and whether its cells are as large as the network's input."""
    height, width = input_size(model)
    large = n * height, n * width
    try:
        with torch.no_grad():
            scores = model.network(torch.zeros(1, 3, *large, device=model.device))
        takes_it = scores.shape[0] == 1 and bool(scores.isfinite().all())
    except Exception:  # as many kinds as there are networks
        takes_it = False
    return (large if takes_it else (height, width)), takes_it


def _load(
    name: str,
    images: Dataset,
    members: Sequence[_Certain],
    asked: int,
    n: int,
    size: tuple[int, int],
) -> Sample:
    height, width = size
    mosaic = Image.new("RGB", (width, height))
    samples = [images.load(member.name) for member in members]
    boxes = grid_cells(height, width, n)
    for sample, (x0, y0, x1, y1) in zip(samples, boxes, strict=True):
        resized = sample.image.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC)
        mosaic.paste(resized, (x0, y0))
    return Sample(
        name,
        mosaic,
        (members[asked].target,),
        samples[asked].label,
        boxes=boxes_tensor([boxes[asked]]),
        as_it_is=True,
    )
