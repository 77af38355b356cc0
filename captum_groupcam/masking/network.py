"""The network that is asked: rows of inputs in, scores of their targets out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_groupcam import _captum, _compiled
from captum_groupcam.masking._arguments import Shared, arrays_of, of_rows, of_samples
from captum_groupcam.masking._chunks import DEFAULT_BATCH_SIZE, default_batch_size, in_chunks
from captum_groupcam.masking._order import check_order
from captum_groupcam.masking._scores import (
    ScoreFunc,
    at_least_float32,
    checked_scores,
    class_probability,
    finite,
    raw_score,
    warn_of_probabilities,
    warn_of_three_dimensions,
    with_rows,
)
from captum_groupcam.masking.checks import check_count
from captum_groupcam.masking.targets import Contrast, Target, Targets
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.training import has_batch_statistics, in_training

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "Network",
    "ScoreFunc",
    "Shared",
    "arrays_of",
    "class_probability",
    "default_batch_size",
    "finite",
    "in_chunks",
    "of_rows",
    "raw_score",
]


class Once:
    """Notes what has been done once, and what has been seen.

    Examples::

        >>> once = Once()
        >>> once.is_first("look"), once.is_first("look")
        (True, False)
    """

    def __init__(self) -> None:
        self._done: set[str] = set()
        self.output: torch.Size | None = None  #: Of one sample, once a pass has shown it.

    def is_first(self, what: str) -> bool:
        """Whether something is asked about for the first time.

        Args:
            what (str): Its name.

        Returns:
            bool: Whether it is so.
        """
        if what in self._done:
            return False
        self._done.add(what)
        return True


@dataclass(frozen=True)
class Network:
    """A forward function with all that one call of ``attribute`` says about it.

    It is asked about rows: inputs of Q samples, altered or not, together with the Q indices of the
    samples that they come from, by which target and additional arguments are found.

    Attributes:
        forward_func (Callable): As in Captum.
        target (Target, Targets or Contrast): Which output is meant, for each sample; or which T of
            them, where one set of queries serves several targets.
        additional_forward_args (tuple): Passed on after the inputs; of tensors with batch size N,
            also inside tuples, lists, dicts and dataclasses, each row gets its sample's part, as
            of lists that are known to have an entry for each. What is :class:`Shared` goes to all.
        n_samples (int): N.
        score_func (Callable): Turns the output into scores. Default: softmax over dimension 1.
        internal_batch_size (int, optional): Rows of one forward pass. Default: None, the size in
            :data:`DEFAULT_BATCH_SIZE`.
        device_ids (list of int, optional): As in Captum, for DataParallel. Default: None.
        follows (bool): Whether its samples follow others of the same call, which showed that the
            layer depends on all inputs. Default: False.
        once (Once): What one call looks at once, whichever of its passes comes first.
    """

    forward_func: _captum.ForwardFunc
    target: Target | Targets | Contrast
    additional_forward_args: tuple[Any, ...]
    n_samples: int
    score_func: ScoreFunc = class_probability
    internal_batch_size: int | None = None
    device_ids: list[int] | None = None
    follows: bool = False
    once: Once = field(default_factory=Once, compare=False)

    def __post_init__(self) -> None:
        if self.internal_batch_size is not None:
            check_count("internal_batch_size", self.internal_batch_size)
        if not callable(self.score_func):
            raise TypeError(f"score_func must be a function, got {self.score_func!r}.")

    def batch_size(self, device: torch.device) -> int:
        """Rows of one forward pass on a device.

        Args:
            device (torch.device): The device.

        Returns:
            int: ``internal_batch_size``, or :func:`default_batch_size`.
        """
        return self.internal_batch_size or default_batch_size(device)

    def scores(self, inputs: tuple[Tensor, ...], samples: Tensor) -> Tensor:
        """F_c, the score of the target for each of Q rows, without a graph.

        Args:
            inputs (tuple of Tensor): Inputs, Q x C x spatial each.
            samples (Tensor): Q indices of the samples that they come from.

        Returns:
            Tensor: Q scores, or Q x T for T targets.
        """
        with torch.no_grad():
            output = _captum.run_forward(self.forward_func, inputs, self.arguments(samples))
            if self.once.is_first("probabilities"):
                warn_of_probabilities(output, self.score_func)
                warn_of_three_dimensions(output, self.score_func, inputs)
            output = at_least_float32(with_rows(output, len(samples)))
            self.once.output = output.shape[1:]
            return self.target.select(checked_scores(self.score_func(output), output), samples)

    def scores_without(
        self, inputs: tuple[Tensor, ...], samples: Tensor, layer: TargetLayer, channels: Tensor
    ) -> Tensor:
        """F_c for each of Q rows, in a network where one channel of a layer is zero.

        The network runs as written, on one device.

        Args:
            inputs (tuple of Tensor): Inputs, Q x C x spatial each.
            samples (Tensor): Q indices of the samples that they come from.
            layer (TargetLayer): The layer.
            channels (Tensor): Q indices of channels of its grid, one for each row.

        Returns:
            Tensor: Q scores, or Q x T for T targets.
        """
        network = _compiled.on_one_device(self.forward_func)
        with _captum.replacing(
            layer.module,
            lambda activations: layer.without_channels(activations, channels),
            **_place(layer),
        ):
            return replace(self, forward_func=network).scores(inputs, samples)

    def goes_past(self, layer: TargetLayer, inputs: tuple[Tensor, ...]) -> bool:
        """Whether the input of a layer, if that is meant, reaches the output past it, too.

        The first sample tells.

        Args:
            layer (TargetLayer): The layer.
            inputs (tuple of Tensor): Inputs, N samples each.

        Returns:
            bool: Whether it does, as far as gradients tell.
        """
        assert not isinstance(layer.layer_call, tuple)
        if not layer.attribute_to_layer_input:
            return False
        samples = torch.zeros(1, dtype=torch.long, device=inputs[0].device)
        return _captum.goes_past(
            self.forward_func,
            layer.module,
            tuple(tensor[:1] for tensor in inputs),
            self.arguments(samples),
            lambda output: self.select(output, samples),
            layer_call=layer.layer_call,
        )

    def select(self, output: Tensor, samples: Tensor) -> Tensor:
        """Takes the raw output at the target of each of Q rows.

        Args:
            output (Tensor): Q x ..., what the network returned.
            samples (Tensor): Q indices of the samples that the rows come from.

        Returns:
            Tensor: Q values.
        """
        output = with_rows(output, len(samples))
        self.once.output = output.shape[1:]
        return self.target.select(output, samples)

    def activations(
        self,
        layer: TargetLayer,
        inputs: tuple[Tensor, ...],
        *,
        check_target: bool = False,
        checks_order: bool = False,
    ) -> Tensor:
        """The layer's activations A for all samples.

        Args:
            layer (TargetLayer): The layer.
            inputs (tuple of Tensor): Inputs, N x C x spatial each.
            check_target (bool, optional): Whether the target is looked up in the output.
                Default: False.
            checks_order (bool, optional): Whether to warn of a layer that has the samples in
                another order, at the price of one to three more rows; that is always done where the
                caller has given a reshape_transform. Default: False.

        Returns:
            Tensor: Activations on the layer's grid, N x K x spatial.

        Raises:
            ValueError: As :meth:`by_sample`, or if the reshape_transform mixes the samples.
            TargetError: If the target is checked and there is no such output.
        """

        def work(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor]:
            select = partial(self.select, samples=samples) if check_target else None
            found = self._given(layer, rows, samples, select)
            grid = layer.to_grid(found)
            if len(grid) == len(samples) and (checks_order or layer.is_brought_by_hand):
                self._check_order(layer, rows, samples, found)
            return (grid,)

        return self.by_sample(inputs, work)[0]

    def _given(
        self,
        layer: TargetLayer,
        rows: tuple[Tensor, ...],
        samples: Tensor,
        select: Callable[[Tensor], object] | None = None,
    ) -> Tensor:
        """What the layer gives for some rows, in its own form."""
        return _captum.layer_activations(
            self.forward_func,
            layer.module,
            rows,
            self.arguments(samples),
            select,
            **_place(layer),
            device_ids=self.device_ids,
        )

    def _check_order(
        self, layer: TargetLayer, rows: tuple[Tensor, ...], samples: Tensor, found: Tensor
    ) -> None:
        """Compares the layer's rows with the samples, if that has not been done."""
        if not self._checks_order(samples):
            return

        def look(some: Tensor) -> Tensor:
            return self._given(layer, tuple(tensor[some] for tensor in rows), samples[some])

        check_order(layer.module, found, look, layer.to_grid)

    def gradients_and_activations(
        self, layer: TargetLayer, inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Gradients dy_c/dA and A for all samples; y_c is the raw output at the target.

        Args:
            layer (TargetLayer): The layer.
            inputs (tuple of Tensor): Inputs, N x C x spatial each.

        Returns:
            tuple of Tensor: Gradients and activations on the layer's grid, N x K x spatial each.

        Raises:
            ValueError: If a gradient is NaN or infinite, or as :meth:`by_sample`.
        """

        def work(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor, ...]:
            found = _captum.layer_gradients_and_activations(
                self.forward_func,
                layer.module,
                rows,
                self.arguments(samples),
                partial(self.select, samples=samples),
                **_place(layer),
                device_ids=self.device_ids,
                checks_order=self._checks_order(samples),
                to_grid=layer.to_grid if layer.is_brought_by_hand else None,
            )
            return tuple(map(layer.to_grid, found))

        gradients, activations = self.by_sample(inputs, work)
        return finite(gradients, "gradients at the layer"), activations

    def _checks_order(self, samples: Tensor) -> bool:
        """Whether the layer's rows are compared with the samples: once, where there are several."""
        if len(samples) < 2 or not self.once.is_first("order"):
            return False
        network = self.forward_func
        return not (in_training(network) or has_batch_statistics(network))

    def curvature(
        self, layer: TargetLayer, inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients dy_c/dA, the product of y_c's Hessian with A, and A for all samples.

        Args:
            layer (TargetLayer): The layer.
            inputs (tuple of Tensor): Inputs, N x C x spatial each.

        Returns:
            tuple of Tensor: The three on the layer's grid, N x K x spatial each.

        Raises:
            ValueError: As :meth:`gradients_and_activations`.
        """

        def work(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor, ...]:
            found = _captum.layer_curvature(
                self.forward_func,
                layer.module,
                rows,
                self.arguments(samples),
                partial(self.select, samples=samples),
                **_place(layer),
            )
            if layer.is_brought_by_hand and len(layer.to_grid(found[2])) == len(samples):
                self._check_order(layer, rows, samples, found[2])
            return tuple(map(layer.to_grid, found))

        gradients, products, activations = self.by_sample(inputs, work)
        finite(gradients, "gradients at the layer")
        return gradients, finite(products, "second derivatives at the layer"), activations

    def input_gradients(self, inputs: tuple[Tensor, ...], which: int) -> Tensor:
        """Gradients dy_c/dI of one input for all samples; y_c is the raw output at the target.

        Args:
            inputs (tuple of Tensor): Inputs, N x C x spatial each.
            which (int): The place of the input.

        Returns:
            Tensor: Gradients, N x C x spatial.

        Raises:
            ValueError: If a gradient is NaN or infinite, or the output does not depend on the
                input.
        """

        def work(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor]:
            arguments = self.arguments(samples)
            select = partial(self.select, samples=samples)
            return (_captum.input_gradients(self.forward_func, rows, which, arguments, select),)

        return finite(self.by_sample(inputs, work)[0], "gradients at the input")

    def by_sample(
        self,
        inputs: tuple[Tensor, ...],
        work: Callable[[tuple[Tensor, ...], Tensor], tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        """Runs the samples as they are, as many as fit at a time, and joins the results.

        Args:
            inputs (tuple of Tensor): Inputs, N x C x spatial each.
            work (Callable): Gets some rows of the inputs and the indices of these samples; returns
                a tuple of tensors with one row for each.

        Returns:
            tuple of Tensor: What ``work`` returned, N x ... each, at least float32.

        Raises:
            ValueError: If ``work`` returns another number of rows.
        """
        device = inputs[0].device
        results: list[tuple[Tensor, ...]] = []

        def run(chunk: slice) -> None:
            samples = torch.arange(self.n_samples, device=device)[chunk]
            result = work(tuple(tensor[samples] for tensor in inputs), samples)
            for tensor in result:
                if tensor.shape[:1] != samples.shape:
                    raise ValueError(
                        f"The layer has a batch size of {tuple(tensor.shape[:1])} for "
                        f"{len(samples)} inputs. Choose a layer with one row for each input."
                    )
            results.append(tuple(at_least_float32(tensor).to(device) for tensor in result))

        in_chunks(self.n_samples, self.batch_size(device), run)
        return tuple(torch.cat(parts) for parts in zip(*results, strict=True))

    def arguments(self, samples: Tensor) -> tuple[Any, ...]:
        """The additional forward arguments of Q rows.

        Args:
            samples (Tensor): Q indices of the samples that the rows come from.

        Returns:
            tuple: The arguments; tensors of batch size N with the samples' parts.
        """
        return of_rows(self.additional_forward_args, samples, self.n_samples)

    def of_samples(self, samples: Tensor) -> Network:
        """The network that is asked about some of the samples, as if there were no others.

        Args:
            samples (Tensor): Q indices.

        Returns:
            Network: It, with their targets and arguments.
        """
        return replace(
            self,
            target=self.target.of_samples(samples),
            additional_forward_args=of_samples(
                self.additional_forward_args, samples, self.n_samples
            ),
            n_samples=len(samples),
        )


def _place(layer: TargetLayer) -> dict[str, Any]:
    """Which tensor of the network is meant, where it is not one for each input."""
    assert not isinstance(layer.layer_call, tuple)
    return replace(layer, reshape_transform=None).keywords
