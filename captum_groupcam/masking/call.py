"""What every call of ``attribute`` begins with: its arguments, checked and brought to one form."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.masking.baselines import Baseline, Baselines, for_inputs, resolve_baseline
from captum_groupcam.masking.masks import MaskSource, upsample
from captum_groupcam.masking.network import Network, ScoreFunc, class_probability, in_chunks
from captum_groupcam.masking.queries import merge_masks, score_masks, score_samples
from captum_groupcam.masking.targets import Target, Targets
from captum_groupcam.networks.axes import check_axes
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.tensors import check_samples

__all__ = ["Call", "TensorOrTuple", "in_training", "isolated", "like_inputs", "prepare"]
__all__ += ["expecting_zero_maps", "warn_of_zero_maps"]

#: What of torch behaves otherwise in training mode.
_OTHER_IN_TRAINING = (
    torch.nn.modules.batchnorm._NormBase,
    torch.nn.modules.dropout._DropoutNd,
    torch.nn.MultiheadAttention,
    torch.nn.RNNBase,
    torch.nn.RReLU,
    torch.nn.TransformerEncoderLayer,
    torch.nn.TransformerDecoderLayer,
)
#: One input or several; what a method returns has the same form.
TensorOrTuple = TypeVar("TensorOrTuple", Tensor, tuple[Tensor, ...])
_Result = TypeVar("_Result")


class Call(NamedTuple):
    """The arguments of one call of ``attribute``.

    Attributes:
        inputs (tuple of Tensor): Inputs of N samples, without a graph.
        baselines (tuple of Tensor or None): The baseline of each input, of its shape; None for an
            input that is not masked.
        network (Network): What answers the queries.
        only (int or None): The one input that is explained, the others stay as they are. Default:
            None, every input with spatial dimensions is.
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor | None, ...]
    network: Network
    only: int | None = None

    @property
    def hidden(self) -> tuple[Tensor, ...]:
        """The inputs with nothing to be seen of what masks cover: N x C x spatial each."""
        return tuple(
            whole if baseline is None else torch.empty_like(whole).copy_(baseline)
            for whole, baseline in zip(self.inputs, self.baselines, strict=True)
        )

    def activations(self, layer: TargetLayer, *, check_target: bool = False) -> Tensor:
        """The activations of a layer, without gradients.

        Args:
            layer (TargetLayer): The layer.
            check_target (bool, optional): Whether the target is looked up in the output, for
                methods that ask for no score. Default: False.

        Returns:
            Tensor: A, N x K x spatial.

        Raises:
            ValueError: If they have no spatial dimensions, or not those that the masks of the
                inputs need; if they are not finite; or if the layer is never called.
            TargetError: If the target is checked and there is no such output.
        """
        found = self.network.activations(layer, self.inputs, check_target=check_target)
        return self._checked(found)

    def gradients_and_activations(self, layer: TargetLayer) -> tuple[Tensor, Tensor]:
        """Gradients of the output at the target with respect to a layer, and its activations.

        Args:
            layer (TargetLayer): The layer.

        Returns:
            tuple of Tensor: dy_c/dA and A, N x K x spatial each.

        Raises:
            ValueError: As :meth:`activations`, or if there are no gradients or they are not finite.
        """
        gradients, activations = self.network.gradients_and_activations(layer, self.inputs)
        return gradients, self._checked(activations)

    def curvature(self, layer: TargetLayer) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the output, the product of its Hessian with the activations, and these.

        Args:
            layer (TargetLayer): The layer.

        Returns:
            tuple of Tensor: dy_c/dA, H A and A, N x K x spatial each.

        Raises:
            ValueError: As :meth:`gradients_and_activations`.
        """
        gradients, products, activations = self.network.curvature(layer, self.inputs)
        return gradients, products, self._checked(activations)

    def _checked(self, activations: Tensor) -> Tensor:
        (needed,) = {whole.dim() for whole in self.inputs if _is_spatial(whole)}
        masks = any(baseline is not None for baseline in self.baselines)
        # Fewer could be tokens, N x T x C, whose positions would be taken for channels.
        if not needed <= activations.dim() <= (needed if masks else 5):
            least = "" if masks else "at least "
            raise ValueError(
                f"The layer's activations have the shape {tuple(activations.shape)}; for these "
                f"inputs they need {least}{needed - 2} spatial dimensions, N x K x spatial. Choose "
                "a layer before the spatial dimensions are gone, or give a reshape_transform that "
                "restores them."
            )
        if not activations.isfinite().all():
            raise ValueError("The layer's activations contain NaN or infinite values.")
        if masks and activations.dim() == needed:
            self._check_channels(activations)
        return activations

    def _check_channels(self, activations: Tensor) -> None:
        """Refuses N x spatial x C, where the layer's grid says that the channels come last."""
        grid = activations.shape[2:]
        for whole in self.inputs:
            if whole.dim() != activations.dim() or whole.shape[-1] > 4:
                continue
            first, last = (
                [side / cells for side, cells in zip(sides, grid, strict=True)]
                for sides in (whole.shape[2:], whole.shape[1:-1])
            )
            # A patch of a sane layer is about as high as wide.
            if max(last) <= 2 * min(last) and max(first) > 8 * min(first):
                raise ValueError(
                    f"An input of shape {tuple(whole.shape)} for a layer of {tuple(grid)} "
                    "positions looks as if its channels came last. Expected N x C x spatial: wrap "
                    "the network so that it takes its channels first, and permute the input."
                )

    def of_calls(self, layer: TargetLayer) -> list[tuple[Call, TargetLayer]]:
        """One call of ``attribute`` for each call of the layer that is meant.

        Args:
            layer (TargetLayer): The layer; its ``layer_call`` is a tuple if each input has its own.

        Returns:
            list of tuple: The call, which explains one input if each has its own call of the layer;
            and the layer at that call.

        Raises:
            ValueError: If the tuple has no entry for each input, or one for an input that has no
                map.
        """
        numbers = layer.layer_call
        if not isinstance(numbers, tuple):
            return [(self, layer)]
        if len(numbers) != len(self.inputs) or all(number is None for number in numbers):
            raise ValueError(
                f"A tuple for layer_call has the call of each of the {len(self.inputs)} inputs, "
                f"None for one that is not explained; got {numbers}."
            )
        found = []
        for which, number in enumerate(numbers):
            if number is None:
                continue
            if not _is_spatial(self.inputs[which]):
                raise ValueError(
                    f"Input {which} has no spatial dimensions, its shape is "
                    f"{tuple(self.inputs[which].shape)}: its entry in layer_call has to be None, "
                    f"got {number}."
                )
            alone = tuple(b if i == which else None for i, b in enumerate(self.baselines))
            part = self._replace(baselines=alone, only=which)
            found.append((part, replace(layer, layer_call=number)))
        return found

    def for_all(
        self, layer: TargetLayer, work: Callable[[Call, TargetLayer], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Does work for each call of the layer that is meant, and joins the maps.

        Args:
            layer (TargetLayer): The layer.
            work (Callable): Gets what :meth:`of_calls` gives; returns a map for each input.

        Returns:
            tuple of Tensor: A map for each input, N x 1 x spatial; zero (N x 1) where it has none.
        """
        maps: list[Tensor] = []
        for part, one in self.of_calls(layer):
            found = work(part, one)
            if part.only is None:
                return found
            maps = maps or [found[part.only].new_zeros(len(found[part.only]), 1)] * len(found)
            maps[part.only] = found[part.only]
        return tuple(maps)

    def has_map(self, which: int) -> bool:
        """Whether an input is explained, hence has a map.

        Args:
            which (int): Its place.

        Returns:
            bool: Whether it has spatial dimensions, and is not another than the only one.
        """
        return _is_spatial(self.inputs[which]) and self.only in (None, which)

    def by_parts(self, work: Callable[[Call], Tensor]) -> Tensor:
        """Does work on as many samples at a time as one pass takes, and joins what it returns.

        Args:
            work (Callable): Gets the call of some samples, returns a tensor with a row for each.

        Returns:
            Tensor: N x ...
        """
        device = self.inputs[0].device
        results: list[Tensor] = []

        def run(chunk: slice) -> None:
            results.append(work(self._part(chunk)))

        in_chunks(self.network.n_samples, self.network.batch_size(device), run)
        return torch.cat(results)

    def with_targets(self, targets: Sequence[_captum.TargetType]) -> Call:
        """The same call, with several targets that are selected from each output.

        Args:
            targets (sequence): T targets in any of Captum's forms.

        Returns:
            Call: Its scores have a last dimension of T.
        """
        network, device = self.network, self.inputs[0].device
        several = tuple(Target.of(target, network.n_samples, device) for target in targets)
        return self._replace(network=replace(network, target=Targets(several)))

    def _part(self, chunk: slice) -> Call:
        network = self.network
        samples = torch.arange(network.n_samples, device=self.inputs[0].device)[chunk]
        return Call(
            tuple(whole[chunk] for whole in self.inputs),
            tuple(None if baseline is None else baseline[chunk] for baseline in self.baselines),
            replace(
                network,
                target=network.target.of_samples(samples),
                additional_forward_args=network.arguments(samples),
                n_samples=len(samples),
            ),
            self.only,
        )

    def only_spatial(self) -> int:
        """Which input is explained, for methods that explain one.

        Returns:
            int: Its place.

        Raises:
            ValueError: If several inputs have spatial dimensions.
        """
        spatial = [which for which in range(len(self.inputs)) if self.has_map(which)]
        if len(spatial) > 1:
            raise ValueError(
                f"Expected one input with spatial dimensions, got {len(spatial)}: inputs "
                f"{spatial}. Pass the others as additional_forward_args; GroupCAM explains several "
                "at once."
            )
        return spatial[0]

    def for_each_input(self, maps: Tensor) -> tuple[Tensor, ...]:
        """What a map of the layer is for each input: itself, or nothing.

        Args:
            maps (Tensor): N x 1 x spatial, at the resolution of the layer.

        Returns:
            tuple of Tensor: The maps for every input that is explained, zero (N x 1) for others.
        """
        nothing = maps.new_zeros(len(maps), 1)
        return tuple(maps if self.has_map(which) else nothing for which in range(len(self.inputs)))

    def upsample(self, maps: Tensor) -> tuple[Tensor, ...]:
        """Brings maps of a layer to the resolution of each input.

        Args:
            maps (Tensor): N x 1 x spatial, at the resolution of the layer.

        Returns:
            tuple of Tensor: N x 1 x spatial; zero (N x 1) for an input that is not explained.
        """
        nothing = maps.new_zeros(len(maps), 1)
        return tuple(
            upsample(maps, whole.shape[2:]) if self.has_map(which) else nothing
            for which, whole in enumerate(self.inputs)
        )

    def score_masks(
        self, masks: MaskSource, description: str = "", *, show_progress: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Scores every sample seen through each of its masks.

        Args:
            masks (MaskSource): G masks for each of N samples.
            description (str, optional): Title of the progress bar. Default: "".
            show_progress (bool, optional): Whether to show it. Default: False.

        Returns:
            tuple of Tensor: Scores, N x G (N x G x T for T targets), and booleans, N x G: which
            masks were queried (see :func:`~captum_groupcam.masking.queries.score_masks`).
        """
        return score_masks(
            self.network,
            self.inputs,
            self.baselines,
            masks,
            description=description,
            show_progress=show_progress,
        )

    def score_baselines(self) -> Tensor:
        """F(B), the scores of the samples with nothing to be seen.

        Returns:
            Tensor: N scores, or N x T for T targets.
        """
        return score_samples(self.network, self.hidden)

    def merge(
        self, masks: MaskSource, weights: Tensor, *, normalized: bool = True
    ) -> tuple[Tensor, ...]:
        """Merges masks at the resolution of each input.

        Args:
            masks (MaskSource): G masks for each of N samples.
            weights (Tensor): N x G, or N x G x T for T sums.
            normalized (bool, optional): Whether masks are brought to [0, 1] first. Default: True.

        Returns:
            tuple of Tensor: N x 1 x spatial (or N x T x spatial) for each input; zero (N x 1) for
            one that is not masked.
        """
        size = self.network.batch_size(weights.device)
        return tuple(
            weights.new_zeros(whole.shape[0], 1)
            if baseline is None
            else merge_masks(
                masks, weights, whole.shape[2:], batch_size=size, normalized=normalized
            )
            for whole, baseline in zip(self.inputs, self.baselines, strict=True)
        )


def like_inputs(inputs: TensorOrTuple, attributions: tuple[Tensor, ...]) -> TensorOrTuple:
    """Returns a tuple where the inputs are one.

    Args:
        inputs (Tensor or tuple of Tensor): The inputs as they were given, N x C x spatial.
        attributions (tuple of Tensor): One for each input, N x 1 x spatial.

    Returns:
        Tensor or tuple of Tensor: The attributions, N x 1 x spatial.

    Examples::

        >>> like_inputs(torch.ones(1, 3, 2), (torch.zeros(1, 1, 2),))
        tensor([[[0., 0.]]])
    """
    return attributions if isinstance(inputs, tuple) else attributions[0]


@contextmanager
def isolated() -> Iterator[None]:
    """Runs without a graph, also inside ``torch.inference_mode``, where none could be made.

    Examples::

        >>> with torch.inference_mode(), isolated():
        ...     torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        (False, False)
    """
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        # Weights that autocast has brought to lower precision here have no graph to train by.
        torch.clear_autocast_cache()


def prepare(
    forward_func: _captum.ForwardFunc,
    inputs: Tensor | tuple[Tensor, ...],
    target: _captum.TargetType,
    additional_forward_args: Any,
    baselines: Baselines = None,
    *,
    default_baseline: Baseline = None,
    masked: bool = True,
    score_func: ScoreFunc = class_probability,
    internal_batch_size: int | None = None,
    device_ids: list[int] | None = None,
) -> Call:
    """Checks the arguments that Captum's methods share.

    Args:
        forward_func (Callable): The network or any modification of its forward function.
        inputs (Tensor or tuple of Tensor): N x ... each. Floating-point inputs with spatial
            dimensions (N x C x spatial, one to three of them) are masked, others passed on.
        target (int, tuple, Tensor, list or None): As in Captum.
        additional_forward_args (Any): As in Captum.
        baselines (Tensor, float, callable, None or tuple of these, optional): See
            :func:`~captum_groupcam.masking.baselines.resolve_baselines`. A tuple has an entry for
            each input; that of an input which is not masked is ignored. Default: None.
        default_baseline (Tensor, float or callable, optional): What None stands for, of the
            input's shape. Default: None, Group-CAM's blur.
        masked (bool, optional): Whether inputs will be seen through masks; otherwise they need no
            baselines. Default: True.
        score_func (Callable, optional): See :class:`~captum_groupcam.masking.network.Network`.
            Default: softmax over dimension 1.
        internal_batch_size (int, optional): Rows of one forward pass. Default: None.
        device_ids (list of int, optional): As in Captum. Default: None.

    Returns:
        Call: Inputs and baselines of N samples, and the network that is asked.

    Raises:
        TypeError: If an input is not a tensor.
        ValueError: If there are no samples, batch sizes differ, a value is not finite, or no input
            has spatial dimensions.

    Examples::

        >>> call = prepare(torch.nn.Flatten().eval(), torch.ones(2, 3, 4), 0, None, 0.5)
        >>> call.network.n_samples, call.hidden[0].shape, call.hidden[0].unique()
        (2, torch.Size([2, 3, 4]), tensor([0.5000]))
    """
    if not callable(forward_func):
        raise TypeError(f"forward_func must be a network or a function, got {forward_func!r}.")
    if isinstance(forward_func, Module):
        for parameter in itertools.islice(forward_func.parameters(), 1):
            if parameter.is_meta:
                raise TypeError("The network has no weights: it is on the device meta.")
    whole = inputs if isinstance(inputs, tuple) else (inputs,)
    for position, tensor in enumerate(whole):
        _check_input(position, tensor, whole[0])
    spatial = [_is_spatial(tensor) for tensor in whole]
    for tensor in itertools.compress(whole, spatial):
        check_axes(tensor)
    if not any(spatial):
        raise ValueError(
            "Expected an input of shape N x C x spatial, floating point, with one to three spatial "
            f"dimensions; got {[(tuple(t.shape), t.dtype) for t in whole]}."
        )
    if len({tensor.dim() for tensor in whole if _is_spatial(tensor)}) > 1:
        raise ValueError(
            "Inputs that are explained need the same number of spatial dimensions, got the shapes "
            f"{[tuple(t.shape) for t in whole]}. Pass the others as additional_forward_args."
        )
    if isinstance(forward_func, Module) and in_training(forward_func):
        _captum.warn(
            "The network is in training mode: dropout and batch statistics make its scores depend "
            "on chance and on the batch. Call eval() on it first."
        )

    whole = tuple(tensor.detach().as_subclass(Tensor) for tensor in whole)
    baselines = for_inputs(baselines, len(whole))
    extra = additional_forward_args
    extra = () if extra is None else extra if isinstance(extra, tuple) else (extra,)
    network = Network(
        forward_func,
        Target.of(target, whole[0].shape[0], whole[0].device),
        tuple(map(_plain, extra)),
        whole[0].shape[0],
        score_func,
        internal_batch_size,
        device_ids,
    )
    network.check_arguments(whole)
    resolved = tuple(
        resolve_baseline(default_baseline if baseline is None else baseline, tensor)
        if masked and has_positions
        else None
        for tensor, baseline, has_positions in zip(whole, baselines, spatial, strict=True)
    )
    return Call(whole, resolved, network)


def _check_input(position: int, tensor: Tensor, first: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"inputs must be a tensor or a tuple of tensors, got {type(tensor).__name__}."
        )
    check_samples(f"Input {position}", tensor)
    if tensor.shape[0] != first.shape[0]:
        raise ValueError(
            f"Input {position} has {tensor.shape[0]} samples, the first has {first.shape[0]}."
        )


def _is_spatial(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and 3 <= tensor.dim() <= 5


def _plain(argument: Any) -> Any:
    """An argument without what only its class knows; tensors of inference mode have no graph."""
    if not isinstance(argument, Tensor):
        return argument
    argument = argument.as_subclass(Tensor)
    return argument.clone() if argument.is_inference() else argument


def in_training(network: Module) -> bool:
    """Whether something in a network is in training mode that behaves otherwise there.

    That is dropout, batch statistics and the like, and a network that is not of torch, unless it
    only wraps modules in evaluation mode.

    Args:
        network (torch.nn.Module): The network.

    Returns:
        bool: Whether there is such a module.

    Examples::

        >>> wrapped = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Dropout()).eval())
        >>> wrapped.training, in_training(wrapped)
        (True, False)
    """

    def matters(module: Module) -> bool:
        if type(module).__module__.startswith("torch."):
            return isinstance(module, _OTHER_IN_TRAINING)
        rates = (getattr(module, name, None) for name in ("p", "drop_prob", "drop_rate"))
        return any(isinstance(rate, float) and rate > 0 for rate in rates) or any(
            child.training and any(True for _ in child.parameters()) for child in module.children()
        )

    return any(module.training and matters(module) for module in network.modules())


_EXPECTED: ContextVar[bool] = ContextVar("_EXPECTED", default=False)


def expecting_zero_maps(work: Callable[[], _Result]) -> _Result:
    """Does work, and says nothing of maps that are zero meanwhile.

    Args:
        work (Callable): The work.

    Returns:
        Any: What the work returns.

    Examples::

        >>> expecting_zero_maps(lambda: warn_of_zero_maps(torch.tensor([[False]])))
    """
    context = copy_context()
    context.run(_EXPECTED.set, True)
    return context.run(work)


def warn_of_zero_maps(queried: Tensor, maps: tuple[Tensor, ...] = ()) -> None:
    """Warns, on behalf of the caller of ``attribute``, of samples whose maps are zero.

    Args:
        queried (Tensor): N x G booleans: which masks were queried.
        maps (tuple of Tensor, optional): The maps of each input, N x ... each. Default: (), no
            matter what they are.

    Examples::

        >>> warn_of_zero_maps(torch.tensor([[True, False]]))
    """
    if _EXPECTED.get():
        return
    asked = queried.any(1)
    nothing = torch.stack([~m.flatten(1).any(1) for m in maps]).all(0) if maps else ~asked
    for samples, reason in (
        (~asked, "every mask is flat, or the input equals its baseline."),
        (
            nothing & asked,
            "no mask raised the score of the target. Ask for another class, or for the signed map "
            "with relu_attributions=False where the method has it.",
        ),
    ):
        if samples.any():
            dead = samples.nonzero().flatten().tolist()
            _captum.warn(f"The maps of samples {dead} are zero: {reason}")
