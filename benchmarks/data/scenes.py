"""Scenes made by a program, in which one patch bears the class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

__all__ = ["CLASSES", "NOTHING", "SIZE", "Array", "Scene", "Variant", "make_scene"]

Array: TypeAlias = NDArray[np.float32]
#: ``patch``: the pattern of a patch is the class. ``mark``: a small mark is the class, and the
#: patch, the object of the picture, says nothing.
Variant: TypeAlias = Literal["patch", "mark"]

#: Side of a scene in pixels.
SIZE = 96
#: Sides of patches and of marks, the first and the last one.
_PATCH_SIDES = (18, 40)
_MARK_SIDES = (19, 24)
#: What a scene without a patch (or mark) is to the network.
NOTHING = "nothing"


# --- what bears the class -------------------------------------------------------------------------

_Pattern: TypeAlias = Callable[[Array, Array, float], NDArray[np.bool_]]


def _waves(phase: Array, period: float) -> NDArray[np.bool_]:
    return (phase / period) % 1 < 0.5


#: Pattern to a function of x and y, from the middle of the patch, and of the period, in pixels.
_PATTERNS: dict[str, _Pattern] = {
    "rows": lambda _, y, period: _waves(y, period),
    "columns": lambda x, _, period: _waves(x, period),
    "rising": lambda x, y, period: _waves((x + y) / np.sqrt(2), period),
    "falling": lambda x, y, period: _waves((x - y) / np.sqrt(2), period),
    "checks": lambda x, y, period: _waves(x, 2 * period) ^ _waves(y, 2 * period),
    "rings": lambda x, y, period: _waves(np.hypot(x, y), period),
    "dots": lambda x, y, period: (
        np.hypot((x % (1.5 * period)) - 0.75 * period, (y % (1.5 * period)) - 0.75 * period)
        < 0.45 * period
    ),
    "rays": lambda x, y, _: _waves(np.arctan2(y, x), np.pi / 3),
}

#: Marks of 5 x 5 fields, row by row.
_MARKS: dict[str, str] = {
    "rows": "11111 00000 11111 00000 11111",
    "columns": "10101 10101 10101 10101 10101",
    "rising": "00001 00010 00100 01000 10000",
    "falling": "11000 11100 01110 00111 00011",
    "checks": "11011 11011 00000 11011 11011",
    "rings": "11111 10001 10001 10001 11111",
    "dots": "00100 00100 11111 00100 00100",
    "rays": "10001 01010 00100 00100 00100",
}

#: The classes, in the order of a network's outputs.
CLASSES = (*_PATTERNS, NOTHING)


def _painted(shape: NDArray[np.bool_], rng: np.random.Generator, *, shuffled: bool) -> Array:
    """A shape in a bright colour on a dark one or, if shuffled, the other way round."""
    colours = [rng.uniform(0, 0.4, 3), rng.uniform(0.6, 1, 3)]
    if shuffled:
        rng.shuffle(colours)
    painted = np.where(shape[..., None], colours[1], colours[0])
    return (painted + rng.normal(0, 0.03, painted.shape)).clip(0, 1).astype(np.float32)


def _patch(label: int, side: int, rng: np.random.Generator) -> Array:
    offset = rng.uniform(0, 6, 2) if CLASSES[label] not in ("rings", "rays") else np.zeros(2)
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    x, y = (axis - (side - 1) / 2 + shift for axis, shift in zip((x, y), offset, strict=True))
    return _painted(_PATTERNS[CLASSES[label]](x, y, rng.uniform(4.5, 7)), rng, shuffled=True)


def _mark(label: int, side: int, rng: np.random.Generator) -> Array:
    fields = np.array([list(row) for row in _MARKS[CLASSES[label]].split()]) == "1"
    inner = side - 4  # a frame around it, of the colour of what is not set
    places = np.arange(inner) * 5 // inner
    shape = np.zeros((side, side), dtype=np.bool_)
    shape[2:-2, 2:-2] = fields[places][:, places]
    return _painted(shape, rng, shuffled=False)


# --- what does not --------------------------------------------------------------------------------


def _background(rng: np.random.Generator) -> Array:
    """Soft clouds of colour, with texture and grain."""
    layers = []
    for cells, strength in ((4, 0.25), (12, 0.12), (32, 0.08)):
        noise = torch.from_numpy(rng.normal(0, strength, (1, 3, cells, cells)).astype(np.float32))
        layers.append(F.interpolate(noise, size=(SIZE, SIZE), mode="bilinear"))
    clouds = torch.stack(layers).sum(0)[0].permute(1, 2, 0).numpy()
    grain = rng.normal(0, 0.03, clouds.shape)
    return (0.5 + clouds + grain).clip(0, 1).astype(np.float32)


def _draw_distractor(image: Array, rng: np.random.Generator) -> None:
    """A disc, a square or a triangle, plain or shaded."""
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    (cx, cy), radius = rng.uniform(0, SIZE, 2), rng.uniform(6, 18)
    dx, dy = (x - cx) / radius, (y - cy) / radius
    kind = rng.integers(3)
    if kind == 0:
        inside = np.hypot(dx, dy) < 1
    elif kind == 1:
        inside = np.maximum(abs(dx), abs(dy)) < 0.9
    else:
        inside = (dy < 0.8) & (dy > 2 * abs(dx) - 1)
    shade = 1 + rng.uniform(-0.4, 0.4) * dx + rng.uniform(-0.4, 0.4) * dy
    colours = (rng.uniform(0, 1, 3) * shade[..., None]).clip(0, 1)
    image[inside] = colours[inside]


def _backdrop(rng: np.random.Generator) -> Array:
    image = _background(rng)
    for _ in range(rng.integers(2, 5)):
        _draw_distractor(image, rng)
    return image


def _draw_object(image: Array, rng: np.random.Generator) -> None:
    """A patch that says nothing."""
    side = int(rng.integers(_PATCH_SIDES[0], _PATCH_SIDES[1] + 1))
    x, y = rng.integers(0, SIZE - side + 1, 2)
    image[y : y + side, x : x + side] = _patch(int(rng.integers(len(_PATTERNS))), side, rng)


# --- scenes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene, with its parts.

    Attributes:
        label (int): Index of the class in :data:`CLASSES`.
        backdrop (numpy.ndarray): All but the evidence: SIZE x SIZE x 3, in [0, 1].
        evidence (numpy.ndarray): What bears the class, side x side x 3.
        place (tuple of int): x and y of its upper left corner.
    """

    label: int
    backdrop: Array
    evidence: Array
    place: tuple[int, int]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Where the evidence is: x0, y0, x1, y1, ends exclusive."""
        (x, y), side = self.place, len(self.evidence)
        return x, y, x + side, y + side

    @property
    def pixels(self) -> Array:
        """The picture: SIZE x SIZE x 3, in [0, 1]."""
        x0, y0, x1, y1 = self.box
        image: Array = self.backdrop.copy()
        image[y0:y1, x0:x1] = self.evidence
        return image

    @property
    def without(self) -> Array:
        """The picture without the evidence."""
        return self.backdrop

    def with_evidence_of(self, other: Scene) -> Scene:
        """The same, but for the evidence, which is drawn anew for another class."""
        return replace(self, label=other.label, evidence=other.evidence)

    def with_rest_of(self, other: Scene) -> Scene:
        """The evidence, where it was, in another picture."""
        return replace(self, backdrop=other.backdrop)


def make_scene(
    variant: Variant,
    seed: tuple[int, ...],
    side: int | None = None,
    backdrop: Array | None = None,
) -> Scene:
    """Draws a scene.

    Args:
        variant (str): ``patch`` or ``mark``.
        seed (tuple of int): Seed of all that is drawn.
        side (int, optional): Side of the evidence in pixels. Default: None, drawn.
        backdrop (numpy.ndarray, optional): All but the evidence. Default: None, drawn.

    Examples::

        >>> scene = make_scene("patch", (0, 1))
        >>> scene.pixels.shape, CLASSES[scene.label]
        ((96, 96, 3), 'checks')
    """
    rng = np.random.default_rng(seed)
    label = int(rng.integers(len(CLASSES) - 1))
    if backdrop is None:
        backdrop = _backdrop(rng)
        if variant == "mark":
            _draw_object(backdrop, rng)
    first, last = _PATCH_SIDES if variant == "patch" else _MARK_SIDES
    drawn = int(rng.integers(first, last + 1))
    side = drawn if side is None else side
    x, y = (int(place) for place in rng.integers(0, SIZE - side + 1, 2))
    evidence = (_patch if variant == "patch" else _mark)(label, side, rng)
    return Scene(label, backdrop, evidence, (x, y))
