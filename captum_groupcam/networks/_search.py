"""The search for the last layer that still knows where in the input something is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import Module

from captum_groupcam.networks._evidence import Probe
from captum_groupcam.networks._layouts import Form, Layout, forms, layouts
from captum_groupcam.networks._location import DRAWS, Judgement
from captum_groupcam.networks._locator import Locator, grids
from captum_groupcam.networks._messages import no_tensor, partly, sizes
from captum_groupcam.networks._watched import AMOUNT, QUANTIZED_AMOUNT
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.trace import Place, Step

__all__ = ["Search", "some_positions"]

#: Layers that are looked at in the same passes.
AT_ONCE = 24
#: Candidates that an error lists.
N_LISTED = 10
#: Layers on frames or slices that it lists.
_N_REGROUPED = 3
_OF_SIGNALS = (
    " A signal is N x C x L: if this one is N x L x C, put a module around the network whose "
    "forward takes N x C x L and gives inputs.transpose(1, 2) to it, and transpose the input."
)
PASSED = "the output depends on the input past it, too"


@dataclass(eq=False)
class Candidate:
    """A step that may be chosen, or why it is not."""

    step: Step
    place: Place | None  # at a module that runs once
    of_call: Place | None  # at a call of a module, whether it runs once or not
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
        return f"{self.place or self.of_call}, {sizes(self.step.shape)}: {self.problem}"


class Search:
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
        self.seen = sorted(set(grids([step.shape for step in self.trace.steps], n_dims)))
        self.locator = Locator(probe, self.seen, AMOUNT if self.by_gradients else QUANTIZED_AMOUNT)
        # What comes before any parameter, an image that is normalised or cropped, is not a feature.
        begin = self.trace.first_parameters
        steps = [] if begin is None else self.trace.steps[begin:]
        self.passed: set[int] = set()  # steps that something later is known to lead past
        self.candidates = [
            Candidate(
                step,
                self.trace.place(step),
                self.trace.place_of_call(step),
                forms(step.shape, probe.n_samples, n_dims),
            )
            for step in reversed(steps)
        ]

    def layer(self) -> TargetLayer:
        second: Candidate | None = None
        beside: list[Candidate] = []
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

    def _chosen(self, one: Candidate | None, beside: list[Candidate]) -> TargetLayer:
        """The layer, if what does not lead all of the input on lies on the same grid."""
        grid = one.layout.grid if one is not None and one.layout is not None else None
        parted = [
            other
            for other in beside
            if other.layout and other.layout.grid != grid and not self._in_a_block(other, grid)
        ]
        if one is None or one.place is None or one.layout is None or parted:
            before = (
                f"The last before them is {one.place}, {sizes(one.step.shape)}. " if one else ""
            )
            raise ValueError(
                f"Several layers of {type(self.probe.model).__name__} lead to the output side by "
                f"side, none of them alone:\n{_listed(parted)}\n{before}Choose the layer to "
                "explain."
            )
        self._check_that_it_counts(one)
        self._check_calls_after(one)
        self.probe.warn_of_other_inputs(one.place)
        return TargetLayer.of(
            self.probe.model, str(one.place), reshape_transform=one.layout.transform
        )

    def _in_a_block(self, other: Candidate, grid: tuple[int, ...] | None) -> bool:
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

    def _check_that_it_counts(self, one: Candidate) -> None:
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

    def _check_calls_after(self, chosen: Candidate) -> None:
        """Refuses a layer if a call of a module that runs several times would do later."""
        later = self.candidates[: self.candidates.index(chosen)]
        for one in later:
            if one.place is not None or one.of_call is None or not self._mixes(one.of_call):
                continue
            other = replace(one, place=one.of_call)
            if self.by_gradients and not (one.step.reached is not None and one.step.reached.any()):
                continue
            other.judge(self.locator.judge(one.of_call, one.step.shape, one.admitted))
            if (
                other.layout is None
                or self._influence(other)
                or self._bypassed(other)
                or self._is_class_map(other)
                or self._is_projection(other)
                or not self._is_repeated(other)
            ):
                continue
            raise ValueError(self._of_calls(other, chosen))

    def _is_repeated(self, one: Candidate) -> bool:
        """Whether calls of a module follow on one another; those of a shared head do not."""
        assert one.of_call is not None
        for step in self.trace.steps:
            place = self.trace.place_of_call(step)
            if place is None or place.name != one.of_call.name or place.call == one.of_call.call:
                continue
            if self.probe.leads(one.step, step) or self.probe.leads(step, one.step):
                return True
        return False

    def _of_calls(self, later: Candidate, chosen: Candidate) -> str:
        """What to do about a module whose call comes after the layer."""
        assert later.place is not None
        assert later.layout is not None
        name, at_input, call = later.place
        model = type(self.probe.model).__name__
        at = ", attribute_to_layer_input=True" if at_input else ""
        transform = (
            f" find_reshape_transform(model, layer, inputs{at}) gives the reshape_transform."
            if later.layout.transform is not None
            else ""
        )
        given = f"layer_call={call}{at}"
        return (
            f"{name} of {model} runs {self.trace.calls[name]} times in one pass. The last layer "
            f"that runs once is {chosen.place}, {sizes(chosen.step.shape)}, before {later.place}, "
            f"{sizes(later.step.shape)}, which still knows where in the input something is. Say "
            f"which call is meant, layer_call=0 to {self.trace.calls[name] - 1}: "
            f"TargetLayer(model.get_submodule({name!r}), {name!r}, {given}), or give {given} to "
            f"attribute.{transform} For the earlier layer choose "
            f"TargetLayer.of(model, {str(chosen.place)!r})."
        )

    def _mixes(self, place: Place) -> bool:
        """Whether a module does more than a norm or an activation, which any layer may share."""
        module = self.probe.model.get_submodule(place.name)
        return any(parameter.dim() > 1 for parameter in module.parameters()) or any(
            type(part).__module__.startswith("torch.ao.nn") and hasattr(part, "weight")
            for part in module.modules()
        )

    def _constant_is_bypassed(self, one: Candidate) -> bool:
        if self.by_gradients:
            return self.probe.bypassed(one.step, None, self.trace.steps)
        assert one.place is not None
        return self.probe.bypassed_when_held(one.place)

    def _located(self) -> Iterator[Candidate]:
        """The candidates that the output depends on and that lie on a grid, the last first."""
        asked = (one for one in self.candidates if self._may_be(one))
        while batch := list(islice(asked, AT_ONCE)):
            unclear = batch
            for draws in DRAWS:
                places = {one.place: (one.step.shape, one.admitted) for one in unclear if one.place}
                found = self.locator.look(places, draws)
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
                    self._settle(one)
                if one.layout is not None:
                    yield one

    def _settle(self, one: Candidate) -> None:
        """Judges a candidate whose turn has come though one before it was sure to fit."""
        assert one.place is not None
        for draws in DRAWS[1:]:
            asked = {one.place: (one.step.shape, one.admitted)}
            one.judge(self.locator.look(asked, draws)[one.place])
            if one.clear:
                break

    def _may_be(self, one: Candidate) -> bool:
        """Whether a candidate is worth a look at where it lies."""
        if one.place is None:
            times = self.trace.calls[one.of_call.name] if one.of_call else 0
            one.problem = (
                f"the module runs {times} times in one pass; say which call is meant, "
                f"layer_call=0 to {times - 1}"
            )
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
                    one.problem = partly(positions)
                    return False
        return True

    def _influence(self, one: Candidate) -> str:
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
            return partly(positions)
        if outside := self.probe.outside(layout.grid):
            return outside
        n_channels = int((by_channel.any(1) & ~on_grid.any(1)).sum())
        if n_channels:
            return f"{n_channels} of its channels count in other tokens only, those of a class"
        return ""

    def _unmoved(self, one: Candidate, chosen: list[Tensor]) -> str:
        assert one.layout is not None
        assert one.place is not None
        for position in chosen:
            values = one.layout.values_at(position)
            if not self.probe.responds(one.place, values, nan=self.by_gradients):
                return "the output does not change with each of its positions"
        return ""

    def _bypassed(self, one: Candidate) -> bool:
        assert one.layout is not None
        assert one.place is not None
        if not self.by_gradients:
            return self.probe.bypassed_when_held(one.place)
        bypassed = self.probe.bypassed(one.step, one.layout.others, self.trace.steps)
        if bypassed:
            self.passed |= {id(step) for step in self.trace.steps if not step.marked}
        return bypassed

    def _is_class_map(self, one: Candidate) -> bool:
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

    def _is_projection(self, one: Candidate) -> bool:
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
        regrouped = self._regrouped()
        if not self.candidates:
            n_dims = len(self.probe.size)
            return (
                f"No layer of {name} has an output with {n_dims} spatial dimensions and more than "
                f"one position for an input of size {tuple(self.probe.size)}. Class activation "
                "maps need a layer that keeps positions, as convolutional ones do."
                f"{regrouped}"
            )
        return (
            f"No layer of {name} was found of which the output depends on every position and "
            "whose positions lie where the parts of the input are that they depend on. Looked at, "
            f"the last first:\n{_listed(self.candidates)}\nChoose a layer, with a "
            "reshape_transform if its activations are not N x C x spatial "
            "(captum_groupcam.networks.transformers has some); check_layer says whether they fit."
            + (_OF_SIGNALS if len(self.probe.size) == 1 else "")
            + regrouped
        )

    def _regrouped(self) -> str:
        """What to say of layers whose rows are the frames or slices of the samples; "" of none."""
        size, n_samples = self.probe.size, self.probe.n_samples
        if len(size) < 3:
            return ""
        of_axis = {
            n_samples * side: axis for axis, side in reversed([*enumerate(size)]) if side > 1
        }

        def has_rows(tensor: Tensor) -> bool:
            maps = tensor.dim() == len(size) + 1 and tensor.is_floating_point()
            return maps and len(tensor) in of_axis and tensor.shape[2:].numel() > 1

        trace = self.probe.traced(has_rows)
        lines = []
        for step in reversed(trace.steps[trace.first_parameters or 0 :]):
            axis = of_axis[step.shape[0]]
            if (place := trace.place(step)) is not None:
                lines.append(
                    f"  {place}, {sizes(step.shape)}: its rows are not the samples, but N x "
                    f"{size[axis]} parts of them, along dimension {2 + axis} of the input. A "
                    "reshape_transform may regroup them: lambda rows: "
                    f"rows.unflatten(0, (-1, {size[axis]}))"
                    f".movedim(1, {2 + axis})"
                )
        if not lines:
            return ""
        return (
            "\nThese layers run on parts of the samples, as frames of a clip, as rows of their "
            "own:\n" + "\n".join(lines[:_N_REGROUPED]) + "\nGive such a layer as "
            "TargetLayer.of(model, name, reshape_transform=...); check_layer says whether the "
            "rows of each sample come one after the other."
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


def _listed(candidates: list[Candidate]) -> str:
    lines = list(dict.fromkeys(f"  {one}" for one in candidates if one.problem))
    return "\n".join([*lines[:N_LISTED], *["  ..."] * (len(lines) > N_LISTED)])
