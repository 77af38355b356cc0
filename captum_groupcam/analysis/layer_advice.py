"""Which layer explains a network best: asked of the network itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.masking.call import prepare
from captum_groupcam.masking.checks import check_seed
from captum_groupcam.masking.network import ScoreFunc, class_probability
from captum_groupcam.metrics.bootstrap import Interval, bootstrap_mean
from captum_groupcam.metrics.functional import DeletionInsertionProtocol, deletion_insertion
from captum_groupcam.networks.layers import find_layer, find_reshape_transform
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.tensors import check_samples
from captum_groupcam.networks.trace import Trace, evaluating
from captum_groupcam.threads import exclusive

__all__ = ["LayerAdvice", "candidate_layers", "suggest_layer"]


class LayerAdvice(NamedTuple):
    """How well maps of a layer explain the network.

    Attributes:
        layer (TargetLayer): The layer.
        over_all (Interval): Mean over the images of insertion minus deletion, ``(mean, low, high,
            n)``; higher is better.
        difference_to_best (Interval): The same images' difference to the layer in the first place;
            the layers differ where the interval excludes 0.
    """

    layer: TargetLayer
    over_all: Interval
    difference_to_best: Interval


@exclusive()
def suggest_layer(
    forward_func: Module,
    inputs: Tensor,
    target: _captum.TargetType = None,
    additional_forward_args: Any = None,
    *,
    layers: Sequence[str | TargetLayer] | None = None,
    protocol: DeletionInsertionProtocol | str | None = None,
    n_groups: int = 32,
    score_func: ScoreFunc = class_probability,
    confidence: float = 0.95,
    internal_batch_size: int | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> list[LayerAdvice]:
    r"""Ranks layers by deletion and insertion of GroupCAM's maps, on a handful of images.

    The first place is taken on the very images that it is judged by, so its lead is flattered, the
    more so the fewer images and the more layers there are. What another layer is behind by counts
    where the interval of the difference excludes 0.

    Each image and layer cost ``n_groups + 2`` forward passes for the map, one of them also
    backwards, and about ``2 / step`` for deletion and insertion: 84 with the defaults.

    Args:
        forward_func (torch.nn.Module): The network, in evaluation mode.
        inputs (Tensor): N x C x spatial.
        target (int, tuple, Tensor, list or None, optional): As in Captum. Default: None, the class
            that the network predicts for each image, if its output has classes.
        additional_forward_args (Tensor or tuple of Tensor, optional): As in Captum.
            Default: None.
        layers (sequence of str or TargetLayer, optional): Names of modules, whose outputs are
            meant. Default: None, those of :func:`candidate_layers`.
        protocol (DeletionInsertionProtocol or str, optional): How deletion and insertion are
            measured. Default: None, the paper's with steps of 4 % rather than 1 % of the pixels.
        n_groups (int, optional): Groups of GroupCAM. Default: 32.
        score_func (Callable, optional): Turns the network's output into scores. Default: softmax
            over dimension 1.
        confidence (float, optional): Of the intervals, percentile bootstrap over the images.
            Default: 0.95.
        internal_batch_size (int, optional): As in GroupCAM. Default: None.
        seed (int, optional): Seed of the bootstrap, and of what breaks ties in maps. Default: 0.
        show_progress (bool, optional): Whether to show a progress bar over layers. Default: False.

    Returns:
        list of LayerAdvice: One for each layer, the best first.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If a name is unknown or a layer gives no maps; if a target is missing for an
            output with more than two dimensions; or as GroupCAM and deletion_insertion.

    Examples::

        >>> from torch import nn
        >>> _ = torch.manual_seed(1)
        >>> net = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(),
        ...     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        ... ).eval()
        >>> advice = suggest_layer(net, torch.rand(4, 3, 16, 16), n_groups=4)
        >>> sorted(one.layer.name for one in advice), advice[0].over_all.n
        (['1', '2', '4'], 4)
    """
    if isinstance(layers, str) or (layers is not None and not layers):
        raise ValueError(f"layers is a list of at least one name, got {layers!r}.")
    for layer in layers or ():
        if not isinstance(layer, (str, TargetLayer)):
            raise TypeError(f"layers are names or TargetLayers, got a {type(layer).__name__}.")
    check_samples("inputs", inputs)
    check_seed(seed)
    candidates = (
        candidate_layers(forward_func, inputs, additional_forward_args)
        if layers is None
        else [
            _named_layer(forward_func, inputs, layer, additional_forward_args)
            if isinstance(layer, str)
            else layer
            for layer in layers
        ]
    )
    if target is None:
        target = _predicted(forward_func, inputs, additional_forward_args, internal_batch_size)
    values = []
    with _captum.progress_bar("Layers", len(candidates), show_progress) as bar:
        for layer in candidates:
            maps = GroupCAM(forward_func, layer.module).attribute(
                inputs,
                target,
                additional_forward_args,
                n_groups=n_groups,
                score_func=score_func,
                internal_batch_size=internal_batch_size,
                **layer.keywords,
            )
            result = deletion_insertion(
                forward_func,
                maps,
                inputs,
                target,
                additional_forward_args,
                protocol=DeletionInsertionProtocol(step=0.04) if protocol is None else protocol,
                score_func=score_func,
                seed=seed,
                internal_batch_size=internal_batch_size,
            )
            values.append(result.over_all)
            bar.update(1)
    best = max(values, key=lambda over_all: float(over_all.mean()))
    advice = [
        LayerAdvice(
            layer,
            bootstrap_mean(over_all, confidence, seed=seed),
            bootstrap_mean(over_all - best, confidence, seed=seed),
        )
        for layer, over_all in zip(candidates, values, strict=True)
    ]
    return sorted(advice, key=lambda one: -one.over_all.mean)


@exclusive(draws=True)
def candidate_layers(
    forward_func: Module, inputs: Tensor, additional_forward_args: Any = None
) -> list[TargetLayer]:
    """Finds the last layer of each resolution that a network computes at.

    A resolution ends where it is halved. Of the modules with outputs of one resolution these are
    the outermost, hence stages or blocks rather than their parts, and of those the last; for the
    last resolution it is the layer of :func:`~captum_groupcam.networks.layers.find_layer`, after
    which nothing counts. The blocks of a transformer have one resolution: there it is that layer
    alone, and others are to be named.

    Args:
        forward_func (torch.nn.Module): The network. It runs as for ``find_layer``.
        inputs (Tensor): N x C x spatial.
        additional_forward_args (Any, optional): As in Captum. Default: None.

    Returns:
        list of TargetLayer: The layers, the highest resolution first.

    Raises:
        TypeError: As ``find_layer``.
        ValueError: As ``find_layer``.

    Examples::

        >>> from torch import nn
        >>> stage = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        >>> net = nn.Sequential(
        ...     stage, nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        ... )
        >>> [layer.name for layer in candidate_layers(net, torch.rand(1, 3, 16, 16))]
        ['0', '1']
    """
    check_samples("inputs", inputs)
    arguments = (inputs.detach().clone(), *_as_tuple(additional_forward_args))
    last = find_layer(forward_func, arguments)
    if last.reshape_transform is not None:
        return [last]
    trace = Trace(
        lambda tensor: (
            tensor.dim() == inputs.dim()
            and len(tensor) == len(inputs)
            and tensor.shape[2:].numel() > 1
        )
    )
    with evaluating(forward_func), torch.no_grad(), trace.watching(forward_func):
        forward_func(*arguments)
    # By how often the resolution was halved, which neither padding nor its absence changes.
    outermost: dict[int, TargetLayer] = {}
    for step in trace.steps[trace.first_parameters :]:
        name, at_input, _ = trace.place(step) or ("", False, None)
        halvings = _halvings(inputs.shape[2:], step.shape[2:])
        layer = f"input of {name}" if at_input else name
        if layer == str(last):
            outermost.pop(halvings, None)
            break
        found = outermost.get(halvings)
        if name and (found is None or name.count(".") <= found.name.count(".")):
            outermost[halvings] = TargetLayer.of(forward_func, layer)
    return [*outermost.values(), last]


def _halvings(size: torch.Size, of_layer: torch.Size) -> int:
    return round(math.log2(size.numel() / of_layer.numel()) / len(size))


def _as_tuple(additional_forward_args: Any) -> tuple[Any, ...]:
    if additional_forward_args is None:
        return ()
    given = additional_forward_args
    return given if isinstance(given, tuple) else (given,)


def _named_layer(
    forward_func: Module, inputs: Tensor, name: str, additional_forward_args: Any
) -> TargetLayer:
    layer = TargetLayer.of(forward_func, name)
    arguments = (inputs, *_as_tuple(additional_forward_args))
    transform = find_reshape_transform(forward_func, layer.module, arguments)
    return replace(layer, reshape_transform=transform)


def _predicted(
    forward_func: Module,
    inputs: Tensor,
    additional_forward_args: Any,
    internal_batch_size: int | None,
) -> Tensor | None:
    """The class with the largest output for each input; None if there are no classes."""
    (whole,), _, network, _ = prepare(
        forward_func,
        inputs,
        None,
        additional_forward_args,
        0.0,
        internal_batch_size=internal_batch_size,
    )

    def outputs(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor]:
        with torch.no_grad():
            return (_captum.run_forward(forward_func, rows, network.arguments(samples)),)

    (output,) = network.by_sample((whole,), outputs)
    if output.dim() > 2:
        raise ValueError(
            f"The output has the shape {tuple(output.shape)}: give a target to say which of its "
            "values are explained."
        )
    return output.argmax(1) if output.dim() == 2 else None
