"""Which layer to explain."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from captum_groupcam.networks._evidence import AMOUNT, QUANTIZED_AMOUNT, Probe
from captum_groupcam.networks._layouts import Form, Layout, forms, layouts
from captum_groupcam.networks._location import DRAWS, Judgement, centers, choose
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.tensors import check_tensor
from captum_groupcam.networks.trace import Place, Step
from captum_groupcam.networks.transformers import ReshapeTransform
from captum_groupcam.threads import exclusive

__all__ = ["find_layer", "find_reshape_transform"]

#: Layers that are looked at in the same passes.
AT_ONCE = 24
#: Candidates that an error lists.
N_LISTED = 10
PASSED = "the output depends on the input past it, too"


@exclusive(draws=True)
def find_layer(model: Module, inputs: Tensor | tuple[Tensor, ...]) -> TargetLayer:
    """Finds the last layer that still knows where in the input something is.

    It is the last one, in execution order, of which the network confirms that

    - the output depends on it, at every position of its grid;
    - each position lies where the part of the input is that it depends on, along every axis;
    - nothing else leads from the input to the output past it, but for a class token and its like.

    In a convolutional network that is usually the last block. If a block and its last child give
    the same output, it is the block. If the module that makes the output is called several times (a
    shared ReLU), it is the input of the module that takes it, usually the pooling. Class maps that
    are pooled straight into the output are passed over if there is anything else: each class looks
    at one channel of them, so there is nothing to group.

    In a transformer, where the class token is the output, it is the first norm of the last block:
    after its attention no other token counts. Where tokens are averaged it is the last norm or
    block. Linear layers, also those with an adapter around them, are passed over if there is
    anything else. The transform that gives the tokens their positions comes with the layer, and is
    made for the size of these inputs.

    It takes about six forward passes of the first sample in a convolutional network, 20 in most
    transformers and mixers, more where many layers see nearly all of the input; one of them has a
    graph, through which one to three go back. The network is in evaluation mode meanwhile; nothing
    of it is changed.

    Args:
        model (torch.nn.Module): A network for 1-D to 3-D inputs that gives one tensor; wrapped in
            :class:`~captum_groupcam.networks.outputs.SelectOutput` where it gives several, since
            what counts is whether the explained one depends on a layer.
        inputs (Tensor or tuple of Tensor): What the network takes; one sample is enough. The first
            floating-point input of shape N x C x spatial counts. If it is constant, some noise is
            added.

    Returns:
        TargetLayer: The layer's name, the layer, whether its input is meant, and what brings it to
        N x C x spatial.

    Raises:
        TypeError: If the output is no tensor.
        ValueError: If no input or no layer has spatial dimensions; if no layer fits, or two of
            different grids lead to the output side by side. The candidates are listed, each with
            what speaks against it.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(
        ...     nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()),
        ...     nn.AdaptiveAvgPool2d(1),
        ...     nn.Flatten(),
        ...     nn.Linear(8, 5),
        ... )
        >>> find_layer(net, torch.rand(1, 3, 16, 16)).name
        '0'
    """
    probe = Probe(model, first_sample(inputs))
    try:
        return _Search(probe).layer()
    finally:
        probe.forget()


@exclusive(draws=True)
def find_reshape_transform(
    model: Module,
    layer: Module,
    inputs: Tensor | tuple[Tensor, ...],
    *,
    attribute_to_layer_input: bool = False,
) -> ReshapeTransform | None:
    """Finds what brings the activations of a chosen layer to N x C x spatial.

    It is the arrangement by which each position lies where the part of the input is that it depends
    on; grids that the network has had before come first. About six passes tell.

    Args:
        model (torch.nn.Module): The network, see :func:`find_layer`.
        layer (torch.nn.Module): A module of it.
        inputs (Tensor or tuple of Tensor): What the network takes; one sample is enough. The
            transform is made for their size.
        attribute_to_layer_input (bool, optional): Whether the layer's input is meant.
            Default: False.

    Returns:
        Callable or None: The transform. None if the activations have these dimensions already, or
        no positions, or the layer is not called: then a method on the layer says so.

    Raises:
        ValueError: If no input has spatial dimensions, or the layer's values lie on no grid where
            the parts of the input are that they depend on, or on several.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> class Tokens(nn.Module):
        ...     def forward(self, maps):
        ...         return maps.flatten(2).transpose(1, 2)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), Tokens(), nn.Linear(8, 5))
        >>> images = torch.rand(1, 3, 16, 24)
        >>> find_reshape_transform(net, net[1], images).keywords["grid"]
        (4, 6)
    """
    probe = Probe(model, first_sample(inputs))
    names = [name for name, module in probe.model.named_modules() if module is layer and name]
    if not names:
        return None
    place = Place(names[0], attribute_to_layer_input)
    value = probe.activations([place]).get(place)
    if value is None:
        return None
    admitted = forms(value.shape, probe.n_samples, len(probe.size))
    if not admitted:
        return None
    seen = list(_grids(probe.shapes(), len(probe.size)))
    found = Locator(probe, seen).judge(place, value.shape, admitted)
    if found.layout is None:
        raise ValueError(
            f"{place} gives {_text(value.shape)}: {found.problem}. Give a reshape_transform that "
            "turns it into N x C x spatial, if there is one, or choose another layer; "
            "captum_groupcam.networks.transformers has some."
        )
    return found.layout.transform


def first_sample(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The first sample of all inputs that have as many as the first of them."""
    whole = inputs if isinstance(inputs, tuple) else (inputs,)
    for position, tensor in enumerate(whole):
        check_tensor(f"Input {position}", tensor)
    counts = [tensor for tensor in whole if tensor.is_floating_point() and 3 <= tensor.dim() <= 5]
    if not counts:
        return whole
    n = len(counts[0])
    return tuple(tensor[:1] if tensor.dim() and len(tensor) == n else tensor for tensor in whole)


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


def _grids(shapes: list[torch.Size], n_dims: int) -> Iterator[tuple[int, ...]]:
    """The grids of what may be maps."""
    for shape in shapes:
        if len(shape) == n_dims + 2:
            yield tuple(shape[2:])
            yield tuple(shape[1:-1])


@dataclass(eq=False)
class _Candidate:
    """A step that may be chosen, or why it is not."""

    step: Step
    place: Place | None
    admitted: list[Form]
    layout: Layout | None = None
    problem: str = ""
    clear: bool = False
    constant: bool = False  # no value of it changes with the input

    def judge(self, found: Judgement) -> None:
        """Takes over what the evidence says."""
        self.layout, fit, self.problem, self.clear = found
        self.constant = fit is not None and fit.n_positions == 0

    def __str__(self) -> str:
        if self.place is not None:
            name = str(self.place)
        else:
            name = f"{self.step.givers[-1]} (call {self.step.call})" if self.step.givers else "?"
        return f"{name}, {_text(self.step.shape)}: {self.problem}"


class _Search:
    """The search for a layer of one network."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        n_dims = len(probe.size)

        def is_step(tensor: Tensor) -> bool:
            number = tensor.is_floating_point() or tensor.is_quantized
            return number and bool(forms(tensor.shape, probe.n_samples, n_dims))

        self.trace, output = probe.trace(is_step)
        if not isinstance(output, Tensor):
            raise TypeError(no_tensor(probe.model, output))
        self.output = output
        self.by_gradients = probe.reached is not None and bool(probe.reached.any())
        self.seen = sorted(set(_grids([step.shape for step in self.trace.steps], n_dims)))
        # What comes before any parameter, an image that is normalised or cropped, is no feature.
        begin = self.trace.first_parameters
        steps = [] if begin is None else self.trace.steps[begin:]
        self.passed: set[int] = set()  # steps that something later is known to lead past
        self.candidates = [
            _Candidate(step, self.trace.place(step), forms(step.shape, probe.n_samples, n_dims))
            for step in reversed(steps)
        ]

    def layer(self) -> TargetLayer:
        second: _Candidate | None = None
        beside: list[_Candidate] = []
        for one in self._located():
            assert one.layout is not None
            one.problem = self._influence(one)
            if one.problem:
                continue
            if id(one.step) in self.passed or self._bypassed(one):
                one.problem = PASSED
                beside.append(one)
            elif self._is_class_map(one) or self._is_projection(one):
                second = second or one
            else:
                return self._chosen(one, beside)
        if second is None and not beside:
            raise ValueError(self._nothing())
        return self._chosen(second, beside)

    def _chosen(self, one: _Candidate | None, beside: list[_Candidate]) -> TargetLayer:
        """The layer, if what does not lead all of the input on lies on the same grid."""
        grid = one.layout.grid if one is not None and one.layout is not None else None
        parted = [
            other
            for other in beside
            if other.layout and other.layout.grid != grid and not self._in_a_block(other, grid)
        ]
        if one is None or one.place is None or one.layout is None or parted:
            before = (
                f"The last before them is {one.place}, {_text(one.step.shape)}. " if one else ""
            )
            raise ValueError(
                f"Several layers of {type(self.probe.model).__name__} lead to the output side by "
                f"side, none of them alone:\n{_listed(parted)}\n{before}Choose the layer to "
                "explain."
            )
        self._check_that_it_counts(one)
        return TargetLayer.of(
            self.probe.model,
            one.place.name,
            attribute_to_layer_input=one.place.at_input,
            reshape_transform=one.layout.transform,
        )

    def _in_a_block(self, other: _Candidate, grid: tuple[int, ...] | None) -> bool:
        """Whether a candidate lies in a block whose output may lie on a grid, as an attention's.

        Its keys and values may lie on a coarser grid than its queries.

        Returns:
            bool: Whether a module around it gives something of the grid's size.
        """
        if grid is None or other.place is None:
            return False
        parts = other.place.name.split(".")
        blocks = {".".join(parts[:n]) for n in range(1, len(parts))}
        return any(
            grid == layout.grid
            for step in self.trace.steps
            if not blocks.isdisjoint(step.givers)
            for form in forms(step.shape, self.probe.n_samples, len(grid))
            for layout in layouts(form, step.shape, self.probe.size, [grid])
        )

    def _check_that_it_counts(self, one: _Candidate) -> None:
        """Refuses a layer if something between it and the output is constant."""
        later = self.candidates[: self.candidates.index(one)]
        for other in later:
            if other.constant and not self._constant_is_bypassed(other):
                raise ValueError(
                    f"{other.place} of {type(self.probe.model).__name__} does not change with the "
                    "input, and nothing leads past it to the output: its values are too small for "
                    "their precision, or constant. A network with such weights cannot be "
                    "explained; initialise or load them otherwise. The last layer whose positions "
                    f"lie where the parts of the input are is {one.place}."
                )

    def _constant_is_bypassed(self, one: _Candidate) -> bool:
        if self.by_gradients:
            return self.probe.bypassed(one.step, None, self.trace.steps)
        assert one.place is not None
        return self.probe.bypassed_when_held(one.place)

    def _located(self) -> Iterator[_Candidate]:
        """The candidates that the output depends on and that lie on a grid, the last first."""
        locator = Locator(self.probe, self.seen, AMOUNT if self.by_gradients else QUANTIZED_AMOUNT)
        asked = (one for one in self.candidates if self._may_be(one))
        while batch := list(islice(asked, AT_ONCE)):
            unclear = batch
            for draws in DRAWS:
                places = {one.place: (one.step.shape, one.admitted) for one in unclear if one.place}
                found = locator.look(places, draws)
                for one in unclear:
                    assert one.place is not None
                    one.judge(found[one.place])
                # More draws for what comes before the first that is sure to lie on a grid.
                sure = next((i for i, one in enumerate(batch) if one.clear and one.layout), None)
                unclear = [one for one in batch[:sure] if not one.clear]
                if not unclear:
                    break
            for one in batch:
                if not one.clear:
                    self._settle(one, locator)
                if one.layout is not None:
                    yield one

    def _settle(self, one: _Candidate, locator: Locator) -> None:
        """Judges a candidate whose turn has come though one before it was sure to fit."""
        assert one.place is not None
        for draws in DRAWS[1:]:
            asked = {one.place: (one.step.shape, one.admitted)}
            one.judge(locator.look(asked, draws)[one.place])
            if one.clear:
                break

    def _may_be(self, one: _Candidate) -> bool:
        """Whether a candidate is worth a look at where it lies."""
        if one.place is None:
            times = self.trace.calls[one.step.givers[-1]] if one.step.givers else 0
            one.problem = f"the module runs {times} times in one pass; say which call is meant"
            return False
        if id(one.step) in self.passed:
            one.problem = PASSED
            return False
        if self.by_gradients:
            reached = one.step.reached
            if reached is None or not reached.any():
                one.problem = "the output does not depend on it"
                return False
            if all(
                form.tokens for form in one.admitted
            ):  # what comes after a class token's last look
                positions = one.admitted[0].by_channel(reached).any(0)
                if len(positions) > 20 and positions.float().mean() < 0.1:
                    one.problem = _partly(positions)
                    return False
        return True

    def _influence(self, one: _Candidate) -> str:
        """Why the output does not depend on all of a candidate; nothing if it does."""
        assert one.layout is not None
        assert one.place is not None
        layout, form = one.layout, one.layout.form
        if not self.by_gradients:
            chosen = some_positions(torch.ones(layout.grid, dtype=torch.bool))
            return self._unmoved(one, chosen)
        reached = one.step.reached
        assert reached is not None
        by_channel = form.by_channel(reached.cpu())
        shape = layout.grid if not form.tokens else (by_channel.shape[1],)
        on_grid = layout.arrange(by_channel.reshape(-1, *shape)).flatten(1)
        positions = on_grid.any(0)
        if not positions.all():
            if positions.any() and not self._unmoved(
                one, some_positions(~positions.view(layout.grid))
            ):
                return ""  # a maximum or a ReLU let nothing back
            return _partly(positions)
        if outside := self.probe.outside(layout.grid):
            return outside
        n_channels = int((by_channel.any(1) & ~on_grid.any(1)).sum())
        if n_channels:
            return f"{n_channels} of its channels count in other tokens only, those of a class"
        return ""

    def _unmoved(self, one: _Candidate, chosen: list[Tensor]) -> str:
        assert one.layout is not None
        assert one.place is not None
        for position in chosen:
            values = one.layout.values_at(position)
            if not self.probe.responds(one.place, values, nan=self.by_gradients):
                return "the output does not change with each of its positions"
        return ""

    def _bypassed(self, one: _Candidate) -> bool:
        assert one.layout is not None
        assert one.place is not None
        if not self.by_gradients:
            return self.probe.bypassed_when_held(one.place)
        bypassed = self.probe.bypassed(one.step, one.layout.others, self.trace.steps)
        if bypassed:
            self.passed |= {id(step) for step in self.trace.steps if not step.marked}
        return bypassed

    def _is_class_map(self, one: _Candidate) -> bool:
        """Whether each class looks at one channel of a candidate."""
        assert one.layout is not None
        if self.output.dim() < 2:
            return False
        channels = one.step.shape[-1 if one.layout.form.channels_last else 1]
        if channels != self.output.shape[1] or channels == 1:
            return False
        if not self.by_gradients:
            return True
        return self.probe.channels_of_one_output(one.step, one.layout.form) <= 1

    def _is_projection(self, one: _Candidate) -> bool:
        """Whether a candidate is a linear layer, perhaps with an adapter around it."""
        assert one.place is not None
        if one.place.at_input:
            return False
        module = self.probe.model.get_submodule(one.place.name)
        leaves = [part for part in module.modules() if not any(True for _ in part.children())]
        passing = (nn.Dropout, nn.Identity, nn.ModuleDict, nn.ModuleList, nn.ParameterDict)
        kinds = Counter(
            "linear" if _is_linear(leaf) else "other"
            for leaf in leaves
            if not isinstance(leaf, passing)
        )
        return kinds["linear"] > 0 and not kinds["other"]

    def _nothing(self) -> str:
        """The error that nothing was found."""
        name = type(self.probe.model).__name__
        if not self.candidates:
            n_dims = len(self.probe.size)
            return (
                f"No layer of {name} has an output with {n_dims} spatial dimensions and more than "
                f"one position for an input of size {tuple(self.probe.size)}. Class activation "
                "maps need a layer that keeps positions, as convolutional ones do."
            )
        return (
            f"No layer of {name} was found of which the output depends on every position and "
            "whose positions lie where the parts of the input are that they depend on. Looked at, "
            f"the last first:\n{_listed(self.candidates)}\nChoose a layer, with a "
            "reshape_transform if its activations are not N x C x spatial "
            "(captum_groupcam.networks.transformers has some); check_layer says whether they fit."
        )


def _is_linear(module: Module) -> bool:
    quantized = torch.ao.nn.quantized.dynamic.Linear, torch.ao.nn.quantized.Linear
    return isinstance(module, (nn.Linear, *quantized))


def some_positions(positions: Tensor) -> list[Tensor]:
    """A few of the positions, each alone."""
    where = positions.flatten().nonzero()[:, 0]
    chosen = where[torch.linspace(0, len(where) - 1, min(len(where), 5)).round().long()]
    masks = torch.zeros(len(chosen), positions.numel(), dtype=torch.bool)
    masks[torch.arange(len(chosen)), chosen] = True
    return list(masks.view(-1, *positions.shape))


def _partly(positions: Tensor) -> str:
    return f"the output depends on {int(positions.sum())} of its {positions.numel()} positions"


def _listed(candidates: list[_Candidate]) -> str:
    lines = list(dict.fromkeys(f"  {one}" for one in candidates if one.problem))
    return "\n".join([*lines[:N_LISTED], *["  ..."] * (len(lines) > N_LISTED)])


def no_tensor(model: Module, output: Any) -> str:
    """What to do about an output that is no tensor."""
    if hasattr(output, "items"):
        named = dict(output.items())
    elif isinstance(output, (tuple, list)):
        named = dict(enumerate(output))
    else:
        named = {}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    which = ", ".join(f"{key!r} ({_text(value.shape)})" for key, value in tensors.items())
    example = repr(next(iter(tensors))) if tensors else "lambda output: ..."
    return (
        f"{type(model).__name__} gives a {type(output).__name__}"
        f"{f' with the tensors {which}' if which else ''}. Say which tensor is explained: "
        f"captum_groupcam.networks.SelectOutput(model, {example})."
    )


def _text(shape: Any) -> str:
    return " x ".join(map(str, shape)) if math.prod(shape) >= 0 else ""
