"""Whether a layer and its grid are what maps are to be made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import check_outside
from captum_groupcam.networks._evidence import Probe
from captum_groupcam.networks._layouts import MAPS, Layout
from captum_groupcam.networks._location import DRAWS, Judgement, centers, choose
from captum_groupcam.networks._messages import no_tensor
from captum_groupcam.networks._search import some_positions
from captum_groupcam.networks._watched import AMOUNT, QUANTIZED_AMOUNT, real
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.trace import Place, Step, one_tensor
from captum_groupcam.threads import exclusive, of_this_thread

__all__ = ["LayerCheck", "check_layer"]


@dataclass(frozen=True)
class LayerCheck:
    """What a network says about a layer and its grid.

    Attributes:
        layer (TargetLayer): The layer.
        shape (tuple of int): Of its values for the inputs of the check.
        grid (tuple of int): Positions along each axis, after the ``reshape_transform``.
        influence (float): Share of the positions that the output depends on.
        correlation (tuple of float): Along each axis, of where a position lies with where the part
            of the input lies that it depends on; NaN along an axis of one position.
        bypassed (bool): Whether the output depends on the input past the layer, too, as in a branch
            of a block; class tokens do not count.
        problems (tuple of str): What speaks against the layer; empty if it fits.

    Examples::

        >>> from torch import nn
        >>> check = LayerCheck(TargetLayer(nn.ReLU(), "relu"), (1, 8, 7, 7), (7, 7), 1.0,
        ...                    (0.98, 0.97), False, ())
        >>> print(check)
        relu, 7 x 7: fits; the output depends on 100 % of the positions, which follow the input
        with a correlation of 0.98, 0.97
    """

    layer: TargetLayer
    shape: tuple[int, ...]
    grid: tuple[int, ...]
    influence: float
    correlation: tuple[float, ...]
    bypassed: bool
    problems: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing speaks against the layer."""
        return not self.problems

    def __str__(self) -> str:
        verdict = "fits" if self.fits else f"does not fit, {'; '.join(self.problems)}"
        along = ", ".join(f"{one:.2f}" for one in self.correlation)
        return (
            f"{self.layer}, {' x '.join(map(str, self.grid))}: {verdict}; the output depends on "
            f"{self.influence:.0%} of the positions, which follow the input with a correlation of "
            f"{along}".replace("%", " %")
        )


@exclusive(draws=True)
def check_layer(
    model: Module, layer: TargetLayer, inputs: Tensor | tuple[Tensor, ...]
) -> LayerCheck:
    """Asks a network whether a layer and its grid are right.

    That is what :func:`~captum_groupcam.networks.layers.find_layer` asks of each candidate: the
    output depends on every position, and each position lies over the part of the input that it
    depends on, along every axis. It is for a layer or a ``reshape_transform`` of your own; methods
    do not call it. It takes about eight passes, more where positions see nearly all of the input.

    Args:
        model (torch.nn.Module): The network; it gives one tensor.
        layer (TargetLayer): The layer, with its ``reshape_transform`` if it has one.
        inputs (Tensor or tuple of Tensor): What the network takes. The first floating-point input
            of shape N x C x spatial counts; the first sample is judged.

    Returns:
        LayerCheck: What speaks against the layer, and the evidence.

    Raises:
        TypeError: If the network gives no tensor.
        ValueError: If no input has spatial dimensions; if the layer is none of the network, is not
            called, gives no single tensor, or its values are not N x C x spatial after the
            transform.

    Warns:
        UserWarning: If the layer does not depend on one of several inputs of this shape.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(
        ...     nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ... )
        >>> images = torch.rand(1, 3, 32, 32)
        >>> check_layer(net, TargetLayer.of(net, "1"), images).fits
        True
        >>> turned = TargetLayer.of(net, "1", reshape_transform=lambda maps: maps.mT)
        >>> check_layer(net, turned, images).problems[0][:50]
        'its positions do not lie where the parts of the in'
    """
    probe = Probe(model, inputs)
    try:
        return _checked(probe, layer)
    finally:
        probe.forget()


def _checked(probe: Probe, layer: TargetLayer) -> LayerCheck:
    place = layer.place_in(probe.model)
    steps, step, n_calls = _traced(probe, place)
    values = probe.activations([place])[place]
    placed = _Placed(layer.at(probe.size), values, len(probe.size))
    if n_calls == 1:  # other calls may be those of other inputs
        probe.warn_of_other_inputs(place)
    by_gradients = step.reached is not None
    problems = []

    judged = _located(probe, place, placed, AMOUNT if by_gradients else QUANTIZED_AMOUNT)
    if judged.problem:
        problems.append(judged.problem)
    positions = _influential(probe, place, placed, step.reached)
    if not positions.all():
        n = int(positions.sum())
        problems.append(f"the output depends on {n} of its {positions.numel()} positions")
    if outside := probe.outside(placed.grid):
        problems.append(outside)
    if n_calls > 1:
        problems.append(f"it runs {n_calls} times in one pass, and only the last call is looked at")
    if by_gradients:
        bypassed = probe.bypassed(step, placed.others, steps)
    else:
        bypassed = probe.bypassed_when_held(place)
    return LayerCheck(
        layer=layer,
        shape=tuple(values.shape),
        grid=placed.grid,
        influence=float(positions.float().mean()),
        correlation=judged.fit.correlation if judged.fit else (),
        bypassed=bypassed,
        problems=tuple(problems),
    )


class _Placed:
    """Where a layer's transform puts the values of its first sample."""

    def __init__(self, layer: TargetLayer, values: Tensor, n_dims: int) -> None:
        self.to_grid = layer.to_grid
        with torch.inference_mode(False), torch.enable_grad():
            self._values = real(values).detach().clone().requires_grad_()
            self._maps = layer.to_grid(self._values)
            if self._maps.dim() != n_dims + 2 or self._maps.shape[2:].numel() < 2:
                raise ValueError(
                    f"The layer {layer} gives {tuple(values.shape)}, {tuple(self._maps.shape)} "
                    f"after its reshape_transform; expected N x C x spatial with {n_dims} spatial "
                    "dimensions and more than one position."
                )
            self.grid = tuple(self._maps.shape[2:])
            used = self.values_at(torch.ones(self.grid, dtype=torch.bool), every_sample=True)
        #: Which values are not on the grid, as those of a class token.
        self.others = None if used.all() else ~used

    def values_at(self, positions: Tensor, *, every_sample: bool = False) -> Tensor:
        """Which values lie at some positions of the grid."""
        with torch.inference_mode(False), torch.enable_grad():
            maps = self._maps if every_sample else self._maps[:1]
            weights = positions.to(maps).expand_as(maps)
            (gradient,) = torch.autograd.grad(maps, self._values, weights, retain_graph=True)
        return gradient != 0


def _traced(probe: Probe, place: Place) -> tuple[list[Step], Step, int]:
    """All steps, that of the layer's last call, and how often it runs."""
    seen: list[tuple[Tensor, int]] = []

    def watch(_module: Module, args: object, output: object = None) -> None:
        value = one_tensor(args if place.at_input else output)
        if value is None:
            raise ValueError(
                f"The {'input' if place.at_input else 'output'} of {place.name} is not one tensor."
            )
        check_outside(module, value)
        seen.append((value, value._version))

    module = probe.model.get_submodule(place.name)
    register = module.register_forward_pre_hook if place.at_input else module.register_forward_hook
    handle = register(of_this_thread(watch))
    try:
        trace, output = probe.trace(lambda tensor: tensor.dim() > 1)
    finally:
        handle.remove()
    if not isinstance(output, Tensor):
        raise TypeError(no_tensor(probe.model, output))
    if not seen:
        raise ValueError(f"The layer {place} is not called in a forward pass.")
    value, version = seen[-1]
    found = [step for step in trace.steps if step.was(value, version)]
    if not found:
        raise ValueError(f"The layer {place} gives {tuple(value.shape)}, which has no positions.")
    return trace.steps, found[-1], len(seen)


def _located(probe: Probe, place: Place, placed: _Placed, amount: float) -> Judgement:
    """Whether the grid follows the input."""

    def read(change: Tensor) -> Tensor:
        return placed.to_grid(change).square().sum(1)[0].cpu()

    energies: list[Tensor] = []
    for draws in DRAWS:
        for draw in probe.energies({place: read}, draws, amount)[place]:
            energies.append(torch.stack([torch.stack(pair) for pair in draw]))
        judged = choose(centers(torch.stack(energies)), [Layout(MAPS, placed.grid)])
        if judged.clear:
            break
    return judged


def _influential(probe: Probe, place: Place, placed: _Placed, reached: Tensor | None) -> Tensor:
    """Which positions the output depends on."""
    if reached is None:
        positions = torch.ones(placed.grid, dtype=torch.bool)
        asked = some_positions(positions)
    else:
        positions = (placed.to_grid(reached.float().cpu())[0] > 0).any(0)
        asked = some_positions(~positions) if positions.any() else []
    answers = [
        probe.responds(place, placed.values_at(position), nan=reached is not None)
        for position in asked
    ]
    if reached is not None:  # a maximum or a ReLU lets only a few through
        return torch.ones_like(positions) if asked and all(answers) else positions
    for position, answer in zip(asked, answers, strict=True):
        positions &= ~position | answer
    return positions
