"""Group-CAM and its companions in Captum Insights, which captum 0.8 has and 0.9 dropped."""

from __future__ import annotations

import importlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from captum.attr import Attribution, LayerAttribution
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.attr.grad_cam import GradCAMPlusPlus
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.attr.rise import RISE
from captum_groupcam.attr.score_cam import ScoreCAM
from captum_groupcam.attr.selective import SelectiveGroupCAM
from captum_groupcam.masking.groups import GROUPINGS
from captum_groupcam.masking.masks import upsample
from captum_groupcam.networks.layers import find_layer
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = [
    "METHODS",
    "InsightsMethod",
    "LayerFinder",
    "Method",
    "Registration",
    "register",
    "unregister",
]

#: Takes a model and its inputs, one sample each, and says which layer to explain.
LayerFinder: TypeAlias = Callable[[Module, tuple[Tensor, ...]], "Module | TargetLayer"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """A method that Insights can offer.

    Attributes:
        attribution (type): Its class, constructed with the model and, if it is a LayerAttribution,
            the layer.
        controls (dict): What Insights lets its users set: a keyword of ``attribute`` to the lowest
            and highest whole number (None for no limit), or to a list of values to choose from. A
            control starts from the keyword's default.
    """

    attribution: type[Attribution]
    controls: dict[str, tuple[int, int | None] | list[Any]]

    def default(self, keyword: str) -> Any:
        """Looks up the default of a keyword of ``attribute``.

        Args:
            keyword (str): The keyword.

        Returns:
            Any: Its default; ``inspect.Parameter.empty`` if there is no such keyword.
        """
        parameter = inspect.signature(self.attribution.attribute).parameters.get(keyword)
        return inspect.Parameter.empty if parameter is None else parameter.default


#: What :func:`register` offers, by the names that Insights shows.
METHODS: dict[str, Method] = {
    "Group-CAM": Method(
        GroupCAM,
        {
            "n_groups": (1, None),
            "grouping": list(GROUPINGS),
            "denoise_percentile": (0, 99),
            "denoise_at": ["layer", "input"],
            "gradient_free": [False, True],
            "relu_scores": [False, True],
            "merge_normalized": [True, False],
        },
    ),
    "Selective Group-CAM": Method(
        SelectiveGroupCAM,
        {"n_groups": (1, None), "denoise_percentile": (0, 99), "edge_radius": (0, None)},
    ),
    "Score-CAM": Method(ScoreCAM, {"weighting": ["softmax", "increase", "score"]}),
    "Grad-CAM++": Method(GradCAMPlusPlus, {}),
    "RISE": Method(RISE, {"n_masks": (1, None), "grid_size": (1, None), "seed": (0, None)}),
}


@dataclass(frozen=True)
class Registration:
    """What :func:`register` was told of one method.

    Attributes:
        name (str): Its name in :data:`METHODS`.
        method (Method): Its entry there.
        layer (torch.nn.Module or Callable): The layer, or what finds it.
    """

    name: str
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
        if not issubclass(attribution, LayerAttribution):
            return attribution(model), {}
        found = self.layer if isinstance(self.layer, Module) else self.layer(model, inputs)
        if isinstance(found, TargetLayer):
            return attribution(model, found.module), {
                "attribute_to_layer_input": found.attribute_to_layer_input,
                "reshape_transform": found.reshape_transform,
            }
        return attribution(model, found), {}


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
        ...     registration = Registration("Grad-CAM++", METHODS["Grad-CAM++"], net[0])
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
            baseline (str, optional): "auto" takes the features' baselines, but in the place of
                zeros the method's own (for Group-CAM the blurred input); "feature" takes zeros,
                too. Default: "auto".
            **options (Any): Keywords of the method's ``attribute``.

        Returns:
            tuple of Tensor: One map an input, of its shape: the method's map, spread evenly over
            the channels; zeros for an input that the method does not explain.
        """
        registered = self.registration
        own = registered.method.default("baselines")
        if baselines is not None and own is not inspect.Parameter.empty:
            options["baselines"] = tuple(
                own if baseline == "auto" and not given.any() else given for given in baselines
            )
        try:
            explainer, layer_options = registered.explainer(self.forward_func, inputs)
            maps = explainer.attribute(
                inputs,
                target=target,
                additional_forward_args=additional_forward_args,
                **layer_options,
                **options,
            )
        except Exception:
            # The served page shows its spinner for ever, and Insights silences the server's log.
            _log.exception("%s failed in Captum Insights", registered.name)
            raise
        # A map of the layer goes for every input.
        maps = maps if isinstance(maps, tuple) else (maps,) * len(inputs)
        maps = tuple(_like(whole, map_) for whole, map_ in zip(inputs, maps, strict=True))
        if not any(map_.any() for map_ in maps):
            warnings.warn(
                f"The map of {registered.name} is zero, and Insights cannot draw that: choose "
                "another class or other options.",
                stacklevel=2,
            )
        return maps


def register(
    layer: Module | LayerFinder = find_layer, methods: Iterable[str] = tuple(METHODS)
) -> AbstractContextManager[Any]:
    """Makes methods of this package selectable in Captum Insights, with their options as controls.

    It holds until :func:`unregister` or, used as a context manager, for its block. To register
    again replaces what was registered.

    Args:
        layer (torch.nn.Module or Callable, optional): The layer to explain, or a function
            ``(model, inputs)`` that returns it, which also serves several models.
            Default: :func:`~captum_groupcam.networks.layers.find_layer`, the last layer with
            spatial dimensions.
        methods (iterable of str, optional): Names in :data:`METHODS`. Default: all.

    Returns:
        context manager: Its end undoes the registration.

    Raises:
        ImportError: If there is no Captum Insights; the message says what to install.
        TypeError: If layer is neither a module nor callable.
        ValueError: If a method is unknown.

    Examples::

        >>> from captum_groupcam.insights import register
        >>> with register(methods=["Group-CAM"]):  # doctest: +SKIP
        ...     visualizer.serve(blocking=True)
    """
    methods = list(methods)
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"Unknown methods {unknown}: expected some of {list(METHODS)}.")
    if not callable(layer):
        raise TypeError(
            "layer must be a torch.nn.Module or a function (model, inputs) that returns one, got "
            f"{type(layer).__name__}."
        )
    unregister()
    config = _insights_config()
    for name in methods:
        method = METHODS[name]
        config.ATTRIBUTION_NAMES_TO_METHODS[name] = type(
            method.attribution.__name__,
            (InsightsMethod,),
            {"registration": Registration(name, method, layer)},
        )
        config.ATTRIBUTION_METHOD_CONFIG[name] = _controls(config, method)
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
    for name in METHODS:
        config.ATTRIBUTION_NAMES_TO_METHODS.pop(name, None)
        config.ATTRIBUTION_METHOD_CONFIG.pop(name, None)


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
    """The controls of a method, and how what the page sends becomes a keyword's value.

    Insights processes an argument again for each sample, so that has to be idempotent.
    """
    limits = dict(method.controls)
    defaults = {keyword: method.default(keyword) for keyword in limits}
    if method.default("baselines") is not inspect.Parameter.empty:
        limits["baseline"], defaults["baseline"] = ["auto", "feature"], "auto"
    params, post_process = {}, {}
    for keyword, limit in limits.items():
        default = defaults[keyword]
        if isinstance(limit, tuple):
            params[keyword] = config.NumberConfig(value=int(default), limit=limit)
            post_process[keyword] = _to_number(int(default))
        else:
            # The page knows no switches, only choices of strings.
            choices = {str(value): value for value in limit}
            params[keyword] = config.StrEnumConfig(value=str(default), limit=list(choices))
            post_process[keyword] = _to_choice(choices)
    return config.ConfigParameters(params=params, post_process=post_process)


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
