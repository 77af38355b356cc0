"""How the values of layers lie: where in the input each position looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from captum_groupcam.networks._evidence import Probe
from captum_groupcam.networks._layouts import Form, layouts
from captum_groupcam.networks._location import DRAWS, Judgement, centers, choose
from captum_groupcam.networks._watched import AMOUNT
from captum_groupcam.networks.trace import Place

__all__ = ["Locator", "grids"]


class Locator:
    """Finds how the values of layers lie, by where in the input each position looks.

    Args:
        probe (Probe): The network.
        seen (list of tuple of int): Grids of maps in the network.
        amount (float): See :meth:`Probe.energies`.
    """

    def __init__(self, probe: Probe, seen: list[tuple[int, ...]], amount: float = AMOUNT) -> None:
        self._probe = probe
        self._seen = seen
        self._amount = amount
        self._energies: dict[Place, list[Any]] = {}

    def look(
        self, asked: dict[Place, tuple[torch.Size, list[Form]]], draws: Iterable[int]
    ) -> dict[Place, Judgement]:
        """Judges layers by what was seen before and some more draws of noise.

        Args:
            asked (dict): For each place the shape that is seen there and the forms that it admits.
            draws (iterable of int): Seeds of the noise.

        Returns:
            dict: The judgement of each place.
        """
        readers = {place: _reader(admitted) for place, (_, admitted) in asked.items()}
        for place, values in self._probe.energies(readers, draws, self._amount).items():
            self._energies.setdefault(place, []).extend(values)
        return {
            place: _judge(self._energies[place], shape, admitted, self._probe.size, self._seen)
            for place, (shape, admitted) in asked.items()
        }

    def judge(self, place: Place, shape: torch.Size, admitted: list[Form]) -> Judgement:
        """Judges one layer by as many draws as it takes."""
        for draws in DRAWS:
            judged = self.look({place: (shape, admitted)}, draws)[place]
            if judged.clear:
                break
        return judged


def _reader(admitted: list[Form]) -> Any:
    def read(change: Tensor) -> list[Tensor]:
        squares = change.square()
        return [form.sum_channels(squares).cpu() for form in admitted]

    return read


def _judge(
    energies: list[Any],
    shape: torch.Size,
    admitted: list[Form],
    size: torch.Size,
    seen: list[tuple[int, ...]],
) -> Judgement:
    """Which of the forms fits: the only one that does."""
    found = []
    for which, form in enumerate(admitted):
        stacked = torch.stack(
            [
                torch.stack([torch.stack([pair[which] for pair in axis]) for axis in draw])
                for draw in energies
            ]
        )
        found.append(choose(centers(stacked), layouts(form, shape, size, seen)))
    fitting = [one for one in found if one.layout is not None]
    clear = all(one.clear for one in found)
    if len(fitting) > 1:
        admissible = " or ".join(str(one.layout) for one in fitting)
        return Judgement(None, fitting[0].fit, f"its values may lie on {admissible}", clear)
    if fitting:
        return fitting[0]._replace(clear=clear)
    # What fits best says most about why none does.
    best = max(found, key=lambda one: one.fit.explained if one.fit else -1.0)
    return best._replace(clear=clear)


def grids(shapes: list[torch.Size], n_dims: int) -> Iterator[tuple[int, ...]]:
    """The grids of what may be maps."""
    for shape in shapes:
        if len(shape) == n_dims + 2:
            yield tuple(shape[2:])
            yield tuple(shape[1:-1])
