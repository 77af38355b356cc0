"""What a network's layers give for an input, and by how much that changes with it.

No pass needs a graph. Inputs that are changed in several ways share a pass where the network
answers a row alike beside others; its first rows, the inputs as they are, show whether it does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum, _compiled
from captum_groupcam.networks.axes import check_axes
from captum_groupcam.networks.dependence import independent_of
from captum_groupcam.networks.tensors import check_samples, check_tensor
from captum_groupcam.networks.trace import Place, Trace, evaluating, one_tensor
from captum_groupcam.threads import of_this_thread

__all__ = ["AMOUNT", "QUANTIZED_AMOUNT", "Watched", "real"]

#: Noise in the input, in standard deviations of it.
AMOUNT = 0.3
#: The same where steps of eight bits would swallow it.
QUANTIZED_AMOUNT = 1.0
#: Changed inputs that one pass takes, where there are more than those of one draw.
AT_ONCE = 8


class Watched:
    """A network whose layers are watched while its input changes.

    Args:
        model (torch.nn.Module): The network. Each pass runs it in evaluation mode and leaves no
            trace.
        inputs (Tensor or tuple of Tensor): What it takes. The first floating-point input of shape
            N x C x spatial counts.

    Attributes:
        model (torch.nn.Module): The module that calls hooks.
        inputs (tuple of Tensor): Its inputs. A constant image has got some noise: it would say
            little.
        size (torch.Size): Spatial size of the input that counts.

    Raises:
        TypeError: If the network is not a module, or an input is not a tensor.
        ValueError: If no input has spatial dimensions, the one that counts is a clip whose frames
            come before its channels, or the network is one of TorchScript.
    """

    def __init__(self, model: Module, inputs: Tensor | tuple[Tensor, ...]) -> None:
        if isinstance(model, torch.jit.ScriptModule):
            raise ValueError(
                "The layers of a TorchScript network cannot be watched. Explain the network that "
                "it was made of; RISE needs no layer."
            )
        if not isinstance(model, Module):
            raise TypeError(f"Expected a network, a torch.nn.Module, got {type(model).__name__}.")
        whole = inputs if isinstance(inputs, tuple) else (inputs,)
        for position, tensor in enumerate(whole):
            check_tensor(f"Input {position}", tensor)
        self._which = _explained(whole)
        check_samples(f"Input {self._which}", whole[self._which])
        self.model = cast(Module, _compiled.eager(model))
        self.inputs = tuple(tensor.detach().as_subclass(Tensor) for tensor in whole)
        counts = self.inputs[self._which]
        with evaluating(self.model):
            check_axes(self.model, self.inputs, self._which)
        self.size = counts.shape[2:]
        self.n_samples = len(counts)
        spread = float(counts.float().std()) if counts.numel() > 1 else 0.0
        self._scale = spread if spread > 1e-3 * float(counts.abs().max()) else 1.0
        if self._scale != spread:
            self.inputs = self._with(counts + self._noise(-1))
        self._has_rows = True  # whether a row is answered alike beside others, as far as is known

    def traced(self, is_step: Callable[[Tensor], bool]) -> Trace:
        """The tensors of some kind that modules give or take, without a graph."""
        trace = Trace(is_step)
        with trace.watching(self.model):
            self._run(self.inputs)
        return trace

    def shapes(self) -> list[torch.Size]:
        """The shapes of all tensors that modules give or take."""
        return [step.shape for step in self.traced(lambda _: True).steps]

    def activations(
        self, places: Iterable[Place], inputs: tuple[Tensor, ...] | None = None
    ) -> dict[Place, Tensor]:
        """What is to be seen at some places, at the last call of each or the one that it names."""
        found: dict[Place, Tensor] = {}

        def keep(place: Place, value: Tensor) -> None:
            found[place] = value.clone()

        with self._at(dict.fromkeys(places, keep)):
            self._run(self.inputs if inputs is None else inputs)
        return found

    def warn_of_other_inputs(self, place: Place) -> None:
        """Warns of inputs with spatial dimensions that a layer does not depend on."""
        spatial = [which for which, one in enumerate(self.inputs) if _has_positions(one)]
        if len(spatial) < 2:
            return
        still = independent_of(
            self.inputs, lambda inputs: real(self.activations([place], inputs)[place]), spatial
        )
        if still:
            which = f"input{'s' if len(still) > 1 else ''} {' and '.join(map(str, still))}"
            _captum.warn(
                f"The layer {place} does not depend on {which}: it makes no map of that. Explain "
                "the other inputs, with this as additional_forward_args, or with layer_call=(0, "
                "None), where None is for an input without a map; or choose a layer that all "
                "inputs lead to."
            )

    def energies(
        self,
        readers: Mapping[Place, Callable[[Tensor], Any]],
        draws: Iterable[int],
        amount: float = AMOUNT,
    ) -> dict[Place, list[list[list[Any]]]]:
        """How much layers change with noise along each axis, as readers see it.

        Args:
            readers (mapping of Place to Callable): Gets what the layer's value changes by.
            draws (iterable of int): Seeds of the noise.
            amount (float): Standard deviation of the noise, in those of the input.

        Returns:
            dict: For each place what the reader gave, [draw][axis][growing, shrinking].
        """
        before = {place: real(value) for place, value in self.activations(readers).items()}
        found: dict[Place, list[list[list[Any]]]] = {place: [] for place in readers}
        seeds = list(draws)
        of_all = self._changes(before, self._changed(seeds, amount), len(seeds) > 1)
        for _ in seeds:
            rows: dict[Place, list[list[Any]]] = {place: [] for place in readers}
            for _ in self.size:
                pair = [next(of_all), next(of_all)]
                for place, row in rows.items():
                    # NaN in a layer says nothing about where it looks.
                    row.append([readers[place](one[place].nan_to_num()) for one in pair])
            for place, row in rows.items():
                found[place].append(row)
        return found

    def _changed(self, draws: Iterable[int], amount: float) -> Iterator[Tensor]:
        """The input that counts with noise, growing and shrinking along each axis, by draw."""
        for draw in draws:
            noise = self._noise(draw) * amount
            for ramp in self._ramps():
                for share in (ramp, 1 - ramp):
                    yield self.inputs[self._which] + noise * share

    def _changes(
        self, before: dict[Place, Tensor], changed: Iterator[Tensor], several: bool
    ) -> Iterator[dict[Place, Tensor]]:
        """What places change by for each of several inputs, of which a pass takes a few."""
        while part := list(itertools.islice(changed, AT_ONCE if several and self._has_rows else 1)):
            together = self._changes_together(before, part) if len(part) > 1 else None
            if together is not None:
                yield from together
                continue
            for one in part:
                values = self.activations(before, self._with(one))
                yield {place: real(value) - before[place] for place, value in values.items()}

    def _changes_together(
        self, before: dict[Place, Tensor], part: list[Tensor]
    ) -> list[dict[Place, Tensor]] | None:
        """The same in one pass; None if its first rows, the inputs as they are, tell otherwise."""
        n_parts = 1 + len(part)
        inputs = [one.repeat(n_parts, *[1] * (one.dim() - 1)) for one in self.inputs]
        inputs[self._which] = torch.cat([self.inputs[self._which], *part])
        self._has_rows = False
        try:
            values = self.activations(before, tuple(inputs))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
            return None  # a network that takes one size of batches, or too little memory
        parts: dict[Place, tuple[Tensor, ...]] = {}
        for place, value in values.items():
            alone = before[place]
            if value.shape != (n_parts * len(alone), *alone.shape[1:]):
                return None
            parts[place] = real(value).chunk(n_parts)
            rounding = 1e-4 * float(alone.abs().nan_to_num().amax())
            if not torch.allclose(parts[place][0], alone, rtol=0, atol=rounding, equal_nan=True):
                return None
        self._has_rows = True
        return [
            {place: rows[n] - rows[0] for place, rows in parts.items()} for n in range(1, n_parts)
        ]

    def responds(self, place: Place, mask: Tensor, *, nan: bool) -> bool:
        """Whether the output changes if some values of a layer do.

        Args:
            place (Place): Where the layer is.
            mask (Tensor): Which values, true or false, in a shape that broadcasts to the layer's.
            nan (bool): Whether to change them to NaN, which no weight of zero hides.

        Returns:
            bool: Whether any value of the output is another one.
        """

        def change(_place: Place, value: Tensor) -> Tensor:
            if nan:
                return value.masked_fill(mask.to(value.device), torch.nan)
            numbers = real(value)
            noise = self._random(value.shape, 7).to(numbers) * 3 * max(float(numbers.std()), 1.0)
            changed = torch.where(mask.to(numbers.device), numbers + noise, numbers)
            return _like(changed, value)

        before = self._run(self.inputs)
        with self._at({place: change}):
            try:
                after = self._run(self.inputs)
            except (RuntimeError, ValueError, AssertionError):
                return False  # the network checks its values
        return not torch.equal(before, after)

    def bypassed_when_held(self, place: Place) -> bool:
        """As ``bypassed``, without gradients: whether the output changes while the layer does not.

        Other tokens count here, too.

        Args:
            place (Place): Where the layer is.

        Returns:
            bool: Whether it changes by more than rounding.
        """
        held = self.activations([place])[place]
        changed = self._with(self.inputs[self._which] + self._noise(3))
        before, free = self._run(self.inputs), self._run(changed)
        with self._at({place: lambda _place, _value: held.clone()}):
            after = self._run(changed)
        moved = float((real(after) - real(before)).abs().max())
        return moved > 1e-3 * float((real(free) - real(before)).abs().max())

    def _run(self, inputs: tuple[Tensor, ...]) -> Any:
        with evaluating(self.model), torch.no_grad():
            return self.model(*(tensor.clone() for tensor in inputs))

    @contextmanager
    def _at(self, actions: Mapping[Place, Callable[[Place, Tensor], Any]]) -> Iterator[None]:
        """Hooks at places, whose actions see the value and may give another."""

        def hook(place: Place) -> Any:
            calls = itertools.count()

            def act(_module: Module, args: Any, output: Any = None) -> Any:
                if place.call not in {None, next(calls)}:
                    return None
                whole = args if place.at_input else output
                value = one_tensor(whole)
                if value is None:
                    return None
                other = actions[place](place, value)
                if other is None:
                    return None
                return type(whole)([other]) if isinstance(whole, (tuple, list)) else other

            return act

        handles = []
        try:
            for place in actions:
                module = self.model.get_submodule(place.name)
                register = (
                    module.register_forward_pre_hook
                    if place.at_input
                    else module.register_forward_hook
                )
                handles.append(register(of_this_thread(hook(place))))
            yield
        finally:
            for handle in handles:
                handle.remove()

    # --- noise

    def _with(self, counts: Tensor) -> tuple[Tensor, ...]:
        """The inputs, with the one that counts replaced."""
        which = self._which
        return (*self.inputs[:which], counts, *self.inputs[which + 1 :])

    def _noise(self, seed: int) -> Tensor:
        counts = self.inputs[self._which]
        return self._random(counts.shape, seed + 1).to(counts) * self._scale

    @staticmethod
    def _random(shape: torch.Size, seed: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def _ramps(self) -> Iterator[Tensor]:
        """For each axis of the input the coordinate along it, 0 to 1, to broadcast."""
        counts = self.inputs[self._which]
        for axis, side in enumerate(self.size):
            ramp = (torch.arange(side, device=counts.device) + 0.5) / side
            yield ramp.to(counts.dtype).view(
                [-1 if a == axis else 1 for a in range(len(self.size))]
            )


def _explained(inputs: tuple[Tensor, ...]) -> int:
    """Which input counts."""
    for which, tensor in enumerate(inputs):
        if _has_positions(tensor):
            return which
    raise ValueError(
        "Expected an input of shape N x C x spatial, floating point, with one to three spatial "
        f"dimensions; got {[(tuple(t.shape), t.dtype) for t in inputs]}."
    )


def _has_positions(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and 3 <= tensor.dim() <= 5


def real(value: Tensor) -> Tensor:
    """The numbers of a tensor, also of a quantised one, in single precision."""
    return value.dequantize() if value.is_quantized else value.float()


def _like(value: Tensor, other: Tensor) -> Tensor:
    """A value in the data type of another."""
    if other.is_quantized:
        return torch.quantize_per_tensor(value, other.q_scale(), other.q_zero_point(), other.dtype)
    return value.to(other.dtype)
