"""Planted evidence: scenes whose decisive part is known, and the proof that it is decisive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_groupcam.models import ImageClassifier

from ._objects import boxes_tensor
from ._samples import Dataset, LeftOut, Sample, to_inputs
from .planted_network import model_name
from .scenes import CLASSES, Array, Scene, Variant, make_scene

__all__ = ["Proof", "picture", "planted", "prove"]

_BATCH = 50
#: First number of the seeds: what a network is trained on is never measured.
_MEASURED = 0
#: What shares of the images the interventions must change, and may change.
_MUST, _MAY = 0.99, 0.01


@dataclass(frozen=True)
class Proof:
    """What interventions do to the decisions for N scenes.

    Attributes:
        right (Tensor): Whether the network decides for the class, N.
        other (Tensor): Whether the evidence of another class in the same place changes the
            decision, to that class, N.
        without (Tensor): Whether the decision changes where there is no evidence, N.
        rest (Tensor): Whether the decision changes with all but the evidence, N.
    """

    right: Tensor
    other: Tensor
    without: Tensor
    rest: Tensor

    @property
    def holds(self) -> Tensor:
        """The scenes whose truth is the truth, N."""
        return self.right & self.other & self.without & ~self.rest

    @property
    def convinces(self) -> bool:
        """Whether it holds in so many images that the evidence is what the network decides by."""
        changed = min(self.other.double().mean().item(), self.without.double().mean().item())
        return changed >= _MUST and self.rest.double().mean().item() <= _MAY

    def __str__(self) -> str:
        right, other, without, rest = (
            f"{100 * values.double().mean().item():.1f} %"
            for values in (self.right, self.other, self.without, self.rest)
        )
        return (
            f"of {len(self.right)} images {right} are classified rightly; another class's evidence "
            f"in its place changes the decision to that class in {other}, none in {without}, "
            f"all the rest in {rest}"
        )


def picture(pixels: Array) -> Image.Image:
    """Pixels in [0, 1] as an image."""
    return Image.fromarray((255 * pixels).round().astype(np.uint8))


def prove(model: ImageClassifier, variant: Variant, n: int, seed: int = 0) -> Proof:
    """Replaces the evidence, and all but the evidence, and looks at the decisions.

    Args:
        model (ImageClassifier): The network.
        variant (str): ``patch`` or ``mark``.
        n (int): Number of scenes.
        seed (int, optional): Seed of the scenes. Default: 0.
    """
    batches = [
        _prove(model, variant, seed, range(start, min(start + _BATCH, n)))
        for start in range(0, n, _BATCH)
    ]
    return Proof(*(torch.cat(values) for values in zip(*batches, strict=True)))


def _prove(
    model: ImageClassifier, variant: Variant, seed: int, indices: range
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scenes = [make_scene(variant, (_MEASURED, seed, index)) for index in indices]
    others = [_other(variant, scene, seed, i) for scene, i in zip(scenes, indices, strict=True)]
    labels = torch.tensor([scene.label for scene in scenes])
    new_labels = torch.tensor([other.label for other in others])
    pairs = list(zip(scenes, others, strict=True))
    whole = _decisions(model, [scene.pixels for scene in scenes])
    other = _decisions(model, [scene.with_evidence_of(new).pixels for scene, new in pairs])
    without = _decisions(model, [scene.without for scene in scenes])
    rest = _decisions(model, [scene.with_rest_of(new).pixels for scene, new in pairs])
    to_other = (other == new_labels) & (other != whole)
    return whole == labels, to_other, without != whole, rest != whole


def _other(variant: Variant, scene: Scene, seed: int, index: int) -> Scene:
    """Another scene, with the evidence of another class of the same size."""
    return next(
        other
        for attempt in _from(1)
        if (
            other := make_scene(variant, (_MEASURED, seed, index, attempt), len(scene.evidence))
        ).label
        != scene.label
    )


def _from(start: int) -> Iterator[int]:
    while True:
        yield start
        start += 1


def _decisions(model: ImageClassifier, pixels: Sequence[Array]) -> Tensor:
    samples = [Sample(str(index), picture(one), (0,), "") for index, one in enumerate(pixels)]
    with torch.no_grad():
        decisions: Tensor = model.network(to_inputs(samples, model).to(model.device)).argmax(1)
    return decisions.cpu()


def planted(
    root: str | Path | None = None,  # noqa: ARG001
    class_names: Sequence[str] | None = None,  # noqa: ARG001
    *,
    model: ImageClassifier | None = None,
    variant: Variant = "patch",
    n: int = 500,
    seed: int = 0,
) -> Dataset:
    """Scenes in which one patch is decisive: the truth is its box.

    In clouds of colour and shapes that say nothing lies a patch, whose pattern is the class. The
    variant ``mark`` has a small mark for the class, and the patch, the object of the picture, says
    nothing: a map that is faithful points at the mark.

    That the evidence is decisive is shown for each scene, by interventions: the evidence of another
    class in its place changes the decision to that class, no evidence changes it, and another
    picture around the evidence does not. Scenes where one of these fails are left out and counted.

    Args:
        root (str or Path, optional): Not used. Default: None.
        class_names (sequence of str, optional): Not used. Default: None.
        model (ImageClassifier): The network: ``planted``, or ``planted_mark`` for the variant.
            Default: None, which is an error.
        variant (str, optional): ``patch`` or ``mark``. Default: ``patch``.
        n (int, optional): Number of scenes before some are left out. Default: 500.
        seed (int, optional): Seed of the scenes. Default: 0.

    Returns:
        Dataset: The samples, named by number; ``about`` says what the interventions do.

    Raises:
        ValueError: If there is no network, it has other classes, or it does not decide by the
            evidence: replacing it changes the decision in less than 99 % of the images, or
            replacing the rest does in more than 1 %.

    Examples::

        >>> from captum_groupcam.models import load_model
        >>> data = planted(model=load_model("planted"), n=8)
        >>> sample = next(iter(data))
        >>> sample.id, sample.label, sample.image.size
        ('00000', 'dots', (96, 96))
    """
    name = model_name(variant)
    if model is None or list(model.class_names) != list(CLASSES):
        raise ValueError(f"Planted evidence is evidence to one network: give --model {name}.")
    if n < 1:
        raise ValueError(f"Expected at least one scene, got n={n}.")
    proof = prove(model, variant, n, seed)
    if not proof.convinces:
        raise ValueError(
            f"This network does not decide by the evidence of the variant {variant} ({proof}): "
            f"give --model {name}, or weights that `captum-groupcam planted train` has made."
        )
    left_out, loaders = LeftOut(), {}
    reasons = {
        "the network predicts another class": ~proof.right,
        "another class's evidence does not change the decision to it": ~proof.other,
        "without evidence the decision stays": ~proof.without,
        "with another picture around the evidence the decision changes": proof.rest,
    }
    for index in range(n):
        label = f"{index:05}"
        if proof.holds[index]:
            loaders[label] = partial(_load, label, variant, (_MEASURED, seed, index))
        else:
            why = next(reason for reason, failed in reasons.items() if failed[index])
            left_out.add(why, label)
    about = {"evidence": f"{variant}; {proof}", "scenes": f"{n}, seed {seed}"}
    notes = [f"{key.capitalize()}: {text}." for key, text in about.items()]
    return Dataset(loaders, left_out=left_out, notes=notes, about=about)


def _load(name: str, variant: Variant, seed: tuple[int, ...]) -> Sample:
    scene = make_scene(variant, seed)
    return Sample(
        name,
        picture(scene.pixels),
        (scene.label,),
        CLASSES[scene.label],
        boxes=boxes_tensor([scene.box]),
    )
