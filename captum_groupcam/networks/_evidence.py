"""What a network itself says about its layers: what depends on them, and where they look.

Three questions, each answered by a few passes:

- *Influence*: does the output depend on every position? NaN times anything is NaN, so NaN that
  goes back from the output reaches all that it depends on, even by a weight that is zero, as those
  of a new head often are. Where there are no gradients, or something like a maximum lets only a few
  through, positions are changed and the output is looked at.
- *Location*: does each position lie over the part of the input that it depends on? The input is
  changed by noise that grows along an axis, and by the same noise shrinking along it. By which of
  both a position changes more says where its influences lie, whatever it depends on besides.
- *Bypass*: does the output depend on the input past the layer, too? NaN that is stopped at the
  layer still reaches the input then.

What needs gradients is here; passes without are those of
:class:`~captum_groupcam.networks._watched.Watched`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import Module

from captum_groupcam.networks._layouts import Form
from captum_groupcam.networks._watched import Watched
from captum_groupcam.networks.trace import Step, Trace, evaluating

__all__ = ["Probe"]


class Probe(Watched):
    """A network that is asked about its layers.

    Args:
        model (torch.nn.Module): As for :class:`~captum_groupcam.networks._watched.Watched`.
        inputs (Tensor or tuple of Tensor): The same.

    Attributes:
        reached (Tensor, optional): Whether the output depends on each value of the input that
            counts, once :meth:`trace` has run; None if there are no gradients.
    """

    def __init__(self, model: Module, inputs: Tensor | tuple[Tensor, ...]) -> None:
        super().__init__(model, inputs)
        self.reached: Tensor | None = None
        self._trace: Trace | None = None
        self._leaf: Any = None
        self._output: Any = None

    def trace(self, is_step: Callable[[Tensor], bool]) -> tuple[Trace, Any]:
        """Runs the network with a graph and sends NaN back from its output.

        Returns:
            tuple of Trace and output: Steps know then where they were reached, and ``reached`` of
            the probe is whether each value of the input that counts was; None if there are no
            gradients.
        """
        trace = self._trace = Trace(is_step)
        # Weights made in inference mode cannot be part of a graph.
        frozen = any(parameter.is_inference() for parameter in self.model.parameters())
        with evaluating(self.model), torch.set_grad_enabled(not frozen):
            leaves = [
                tensor.clone().requires_grad_(tensor.is_floating_point()) for tensor in self.inputs
            ]
            with trace.watching(self.model):
                # Clones: layers that work in place must not meet a leaf.
                output = self.model(*(leaf.clone() for leaf in leaves))
        self._leaf, self._output = leaves[self._which], output
        trace.noting = True
        self.reached = self._back(output, self._leaf)
        trace.noting = False
        return trace, output

    def outside(self, grid: tuple[int, ...]) -> str:
        """What to say of a grid if the output depends on a part of the input only."""
        if self.reached is None or not self.reached.any():
            return ""
        parts = []
        for axis, n in enumerate(grid):
            lines = self.reached.movedim(2 + axis, 0).flatten(1).any(1).nonzero()[:, 0]
            side = self.size[axis]
            first, last = int(lines[0]), int(lines[-1])
            if max(first, side - 1 - last) > max(side / n / 2, side / 20):
                parts.append(f"{first} to {last} of {side}")
        return (
            f"the network looks at a part of the input only, {' and '.join(parts)}" if parts else ""
        )

    def forget(self) -> None:
        """Lets go of the graph."""
        self._leaf = self._output = None
        if self._trace is not None:
            self._trace.forget()

    def bypassed(self, step: Step, others: Tensor | None, steps: Iterable[Step]) -> bool:
        """Whether the output depends on the input past a step, too.

        What the tokens of a class and registers had before is not counted: a class token goes past
        the norms that it is led through. Steps are marked then if they lie on the way past it;
        others are passed by, too.

        Args:
            step (Step): The step.
            others (Tensor or None): Which of its values are of other tokens, as a shape that
                broadcasts to its own.
            steps (iterable of Step): All steps, in execution order.

        Returns:
            bool: Whether NaN that is stopped at the step reaches the input.
        """
        steps = list(steps)
        for one in steps:
            one.marked = False
        if step.edge is None or not self._leads_past(step.edge):
            return False
        stopped = [step]
        step.stop = torch.zeros_like
        if others is not None:
            mask = others

            def without_others(gradient: Tensor) -> Tensor:
                return gradient.masked_fill(mask.to(gradient.device), 0)

            for other in steps[: steps.index(step)]:
                if other.shape == step.shape:
                    other.stop = without_others
                    stopped.append(other)
        try:
            reached = self._back(self._output, self._leaf)
        finally:
            for one in stopped:
                one.stop = None
        return reached is not None and bool(reached.any())

    def _leads_past(self, past: GradientEdge) -> bool:
        """Whether the graph leads from the output to the input past an edge."""
        with torch.inference_mode(False):
            begin, end = (get_gradient_edge(one).node for one in (self._output, self._leaf))
        seen, ahead = set(), [begin]
        while ahead:
            node = ahead.pop()
            for following, number in node.next_functions:
                if following is None or (following, number) == tuple(past)[:2]:
                    continue
                if following is end:
                    return True
                if following not in seen:
                    seen.add(following)
                    ahead.append(following)
        return False

    @staticmethod
    def leads(later: Step, earlier: Step) -> bool:
        """Whether the graph leads from a step back to another; not where there is none."""
        if later.edge is None or earlier.edge is None:
            return False
        seen, ahead = set(), [later.edge.node]
        while ahead:
            for following, _ in ahead.pop().next_functions:
                if following is earlier.edge.node:
                    return True
                if following is not None and following not in seen:
                    seen.add(following)
                    ahead.append(following)
        return False

    def channels_of_one_output(self, step: Step, form: Form) -> int:
        """On how many channels of a step one of the outputs (N x outputs x ...) depends."""
        assert step.edge is not None
        for which in range(min(self._output.shape[1], 5)):  # ReLU may let nothing of some back
            reached = self._back(self._output[:, which], step.edge)
            if reached is not None and reached.any():
                return int(form.by_channel(reached).any(1).sum())
        return 0

    def _back(self, output: Any, to: Tensor | GradientEdge) -> Tensor | None:
        """Sends NaN back from the output: whether each value of a tensor is reached."""
        if not isinstance(output, Tensor) or not output.requires_grad:
            return None
        try:
            with torch.inference_mode(False), warnings.catch_warnings():
                # Quantised operations let nothing through, and say so.
                warnings.filterwarnings("ignore", ".*an autograd kernel was not registered")
                (gradient,) = torch.autograd.grad(
                    output,
                    cast(Any, [to]),
                    torch.full_like(output, torch.nan),
                    retain_graph=True,
                    allow_unused=True,
                )
        except RuntimeError:  # operations without a derivative, re-entrant checkpoints
            return None
        return None if gradient is None else gradient.isnan()
