"""Group-CAM and its companions in Captum Insights, which captum 0.8 has and 0.9 dropped."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from captum.attr import Attribution
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.masking.masks import upsample
from captum_groupcam.methods import METHODS, Method
from captum_groupcam.networks.layers import find_layer
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.options import Option

__all__ = [
    "InsightsMethod",
    "LayerFinder",
    "Registration",
    "offered",
    "register",
    "unregister",
]

#: Takes a model and its inputs, one sample each, and says which layer to explain.
LayerFinder: TypeAlias = Callable[[Module, tuple[Tensor, ...]], "Module | TargetLayer"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registration:
    """What :func:`register` was told of one method.

    Attributes:
        method (Method): Its entry in :data:`~captum_groupcam.methods.METHODS`, which has a class.
        layer (torch.nn.Module or Callable): The layer, or what finds it.
    """

    method: Method
    layer: Module | LayerFinder

    def explainer(
        self, model: Module, inputs: tuple[Tensor, ...]
    ) -> tuple[Attribution, dict[str, Any]]:
        """Constructs the method for a model.

        Args:
            model (torch.nn.Module): The model.
            inputs (tuple of Tensor): Its inputs, N x ... each, for what finds the layer.

        Returns:
            tuple of Attribution and dict: The method, and the keywords of ``attribute`` that belong
            to its layer.
        """
        attribution = self.method.attribution
        assert attribution is not None  # what has none is not offered
        if not self.method.on_layer:
            return attribution(model), {}
        found = self.layer if isinstance(self.layer, Module) else self.layer(model, inputs)
        layer = TargetLayer(found) if isinstance(found, Module) else found
        return attribution(model, layer.module), layer.keywords


class InsightsMethod(Attribution):
    """A method in the form that Insights needs: made of a model alone, maps shaped like the inputs.

    :func:`register` makes a subclass for each method.

    Args:
        model (torch.nn.Module): The model that Insights shows.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        >>> class OfConvolution(InsightsMethod):
        ...     registration = Registration(METHODS["grad_cam_plus_plus"], net[0])
        >>> (shown,) = OfConvolution(net).attribute((torch.rand(1, 3, 16, 16),), target=2)
        >>> shown.shape
        torch.Size([1, 3, 16, 16])
    """

    registration: ClassVar[Registration]

    def __init__(self, model: Module) -> None:
        super().__init__(model)

    @_captum.log_usage
    def attribute(
        self,
        inputs: tuple[Tensor, ...],
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        baselines: tuple[Tensor, ...] | None = None,
        *,
        baseline: Literal["auto", "feature"] = "auto",
        **options: Any,
    ) -> tuple[Tensor, ...]:
        """Computes maps whose sum over the channels, which Insights draws, is that of the method.

        Args:
            inputs (tuple of Tensor): One sample of each feature, 1 x C x spatial.
            target (int or Tensor, optional): The class. Default: None.
            additional_forward_args (Any, optional): As in Captum. Default: None.
            baselines (tuple of Tensor, optional): The features' baselines, of the inputs' shapes.
                Insights passes zeros for a feature without a baseline transform. Default: None.
            baseline (str, optional): "auto" takes the features' baselines, but instead of
                zeros the method's own (for Group-CAM the blurred input); "feature" takes zeros,
                too. Default: "auto".
            **options (Any): Keywords of the method's ``attribute``.

        Returns:
            tuple of Tensor: One map an input, of its shape: the method's map, spread evenly over
            the channels; zeros for an input that the method does not explain.
        """
        method = self.registration.method
        if baselines is not None and "baselines" in method.options:
            own = method.options["baselines"].default
            options["baselines"] = tuple(
                own if baseline == "auto" and not given.any() else given for given in baselines
            )
        try:
            explainer, layer_options = self.registration.explainer(self.forward_func, inputs)
            maps = explainer.attribute(
                inputs,
                target=target,
                additional_forward_args=additional_forward_args,
                **layer_options,
                **method.fixed,
                **options,
            )
        except Exception:
            # The served page shows its spinner for ever, and Insights silences the server's log.
            _log.exception("%s failed in Captum Insights", method.title)
            raise
        # A map of the layer goes for every input.
        maps = maps if isinstance(maps, tuple) else (maps,) * len(inputs)
        maps = tuple(_like(whole, map_) for whole, map_ in zip(inputs, maps, strict=True))
        if not any(map_.any() for map_ in maps):
            warnings.warn(
                f"The map of {method.title} is zero, and Insights cannot draw that: choose "
                "another class or other options.",
                stacklevel=2,
            )
        return maps


def offered() -> dict[str, Method]:
    """The methods that Insights can show: those of the registry that have a class.

    Returns:
        dict of str to Method: The methods by the titles that Insights shows.

    Examples::

        >>> list(offered())[0]
        'Group-CAM'
    """
    return {
        method.title: method
        for method in METHODS.values()
        if method.kind == "method" and method.attribution is not None
    }


def register(
    layer: Module | LayerFinder = find_layer, methods: Iterable[str] | None = None
) -> AbstractContextManager[Any]:
    """Makes methods of this package selectable in Captum Insights, with their options as controls.

    It holds until :func:`unregister` or, used as a context manager, for its block. To register
    again replaces what was registered.

    Args:
        layer (torch.nn.Module or Callable, optional): The layer to explain, or a function
            ``(model, inputs)`` that returns it, which also serves several models.
            Default: :func:`~captum_groupcam.networks.layers.find_layer`, the last layer with
            spatial dimensions.
        methods (iterable of str, optional): Names of methods, or the titles of :func:`offered`.
            Default: None, all of these.

    Returns:
        context manager: Its end undoes the registration.

    Raises:
        ImportError: If there is no Captum Insights; the message says what to install.
        TypeError: If layer is neither a module nor callable.
        ValueError: If a method is unknown.

    Examples::

        >>> from captum_groupcam.insights import register
        >>> with register(methods=["group_cam"]):  # doctest: +SKIP
        ...     visualizer.serve(blocking=True)
    """
    known = offered()
    known |= {method.name: method for method in known.values()}
    names = list(offered() if methods is None else methods)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"Unknown methods {unknown}: expected some of {list(known)}.")
    if not callable(layer):
        raise TypeError(
            "layer must be a torch.nn.Module or a function (model, inputs) that returns one, got "
            f"{type(layer).__name__}."
        )
    unregister()
    config = _insights_config()
    for method in (known[name] for name in names):
        assert method.attribution is not None
        config.ATTRIBUTION_NAMES_TO_METHODS[method.title] = type(
            method.attribution.__name__,
            (InsightsMethod,),
            {"registration": Registration(method, layer)},
        )
        config.ATTRIBUTION_METHOD_CONFIG[method.title] = _controls(config, method)
    undo = ExitStack()
    undo.callback(unregister)
    return undo


def unregister() -> None:
    """Takes the methods of :func:`register` out of Captum Insights; nothing happens without any.

    Raises:
        ImportError: If there is no Captum Insights; the message says what to install.

    Examples::

        >>> from captum_groupcam.insights import unregister
        >>> unregister()  # doctest: +SKIP
    """
    config = _insights_config()
    names = config.ATTRIBUTION_NAMES_TO_METHODS
    for name in [name for name, shown in names.items() if _is_registered(shown)]:
        del names[name]
        config.ATTRIBUTION_METHOD_CONFIG.pop(name, None)


def _is_registered(shown: Any) -> bool:
    """Whether a method of Insights was registered here."""
    return isinstance(shown, type) and issubclass(shown, InsightsMethod)


def _insights_config() -> Any:
    try:
        return importlib.import_module("captum.insights.attr_vis.config")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Captum Insights cannot be imported ({error}). captum 0.8 has it, captum 0.9 dropped "
            "it, and it needs numpy < 2: install it in an environment of its own, by "
            "pip install 'captum_groupcam[insights]'."
        ) from error


def _controls(config: Any, method: Method) -> Any:
    """The controls of a method, and how what the page sends becomes a keyword's value."""
    # Insights processes an argument again for each sample, so that has to be idempotent.
    params, post_process = {}, {}
    for option in method.options.values():
        # The page knows whole numbers and choices of strings; no switches and no fractions.
        whole = option.kind in (int, float) and float(option.default or 0).is_integer()
        choices = {str(value): value for value in _choices(option)}
        if option.is_offered and whole and option.default is not None:
            number = int(option.default)
            params[option.name] = config.NumberConfig(value=number, limit=option.limits)
            post_process[option.name] = _to_number(number)
        elif option.is_offered and choices:
            shown = str(option.default)
            params[option.name] = config.StrEnumConfig(value=shown, limit=list(choices))
            post_process[option.name] = _to_choice(choices)
    if "baselines" in method.options:
        choices = {"auto": "auto", "feature": "feature"}
        params["baseline"] = config.StrEnumConfig(value="auto", limit=list(choices))
        post_process["baseline"] = _to_choice(choices)
    return config.ConfigParameters(params=params, post_process=post_process)


def _choices(option: Option) -> tuple[Any, ...]:
    return (False, True) if option.kind is bool else option.choices


def _to_number(default: int) -> Callable[[Any], int]:
    # An empty field arrives as None.
    return lambda value: default if value is None else int(value)


def _to_choice(choices: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda value: choices[str(value)]


def _like(whole: Tensor, map_: Tensor) -> Tensor:
    """A map, N x 1 x spatial, in the shape of an input, N x C x spatial: 1 / C of it a channel."""
    if map_.dim() != whole.dim() or map_.dim() < 3:
        return map_.new_zeros(whole.shape)
    return upsample(map_, whole.shape[2:]).expand_as(whole) / whole.shape[1]
