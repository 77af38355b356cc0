"""The registry: every method, declared once, with one interface."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

import torch
from captum.attr import Attribution, LayerAttribution
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr import input_methods
from captum_groupcam.attr.cam import CAM
from captum_groupcam.attr.grad_cam import GradCAM, GradCAMPlusPlus
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.attr.layer_cam import LayerCAM
from captum_groupcam.attr.rise import RISE
from captum_groupcam.attr.score_cam import ScoreCAM
from captum_groupcam.attr.selective import SelectiveGroupCAM
from captum_groupcam.attr.xrai import XRAI
from captum_groupcam.masking.call import in_training
from captum_groupcam.naming import find_object, is_reference, short_reference, split_reference
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.options import (
    Option,
    check_options,
    format_value,
    options_of,
    parse_value,
    split_text,
)

__all__ = ["METHODS", "Explain", "Method", "MethodSpec", "find_method", "load_method"]
__all__ += ["offered_methods"]

#: Explains inputs (N x C x H x W) for a target in any of Captum's forms: N x 1 x H x W.
Explain: TypeAlias = Callable[[Tensor, TargetType], Tensor]
#: ``method`` is offered to users. ``control`` says nothing of the network, ``peer`` comes from
#: another package, ``research`` is on trial: these three belong to the benchmark.
Kind: TypeAlias = Literal["method", "control", "peer", "research"]


@dataclass(frozen=True)
class Method:
    """A method, with all that the command line, the explorer, Insights and the benchmark ask of it.

    Args:
        name (str): Its name in commands and in :data:`METHODS`.
        title (str): What a person reads.
        explain (type or Callable): A class in Captum's style, or a function ``(model, inputs,
            target, *, options)`` or, if it explains a layer, ``(model, layer, inputs, target, *,
            options)`` that gives N x 1 x H x W. Its keyword-only parameters are the options.
        fixed (mapping of str to Any, optional): Options that are no choice: what makes the method
            of its class. Default: none.
        grouped (bool, optional): Whether the map is a sum over groups, whose masks and scores
            :func:`~captum_groupcam.analysis.uncertainty.scored_masks` gives. Default: False.
        passes (Callable, optional): Forward passes of one image, from the options by name; None
            where it depends on the network. Default: None.
        kind (str, optional): "method", "control", "peer" or "research". Default: "method".

    Examples::

        >>> def brightness(model, inputs, target, *, power: float = 1.0):
        ...     return inputs.mean(1, keepdim=True) ** power
        >>> method = Method("brightness", "Brightness", brightness, passes=lambda power: 0)
        >>> method(torch.nn.Flatten().eval())(torch.ones(2, 3, 4, 4), 0).shape
        torch.Size([2, 1, 4, 4])
        >>> list(method.options), method.n_passes()
        (['power'], 0)
    """

    name: str
    title: str
    explain: type[Attribution] | Callable[..., Tensor]
    fixed: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    grouped: bool = False
    passes: Callable[..., int] | None = None
    kind: Kind = "method"

    @property
    def attribution(self) -> type[Attribution] | None:
        """The class in Captum's style; None for a function."""
        return self.explain if isinstance(self.explain, type) else None

    @property
    def on_layer(self) -> bool:
        """Whether it explains a layer."""
        if isinstance(self.explain, type):
            return issubclass(self.explain, LayerAttribution)
        return "layer" in inspect.signature(self.explain).parameters

    @cached_property
    def options(self) -> dict[str, Option]:
        """The options that can be chosen, by name."""
        known = options_of(self._function)
        return {name: option for name, option in known.items() if name not in self.fixed}

    @property
    def _function(self) -> Callable[..., Any]:
        """Whose parameters the options are."""
        attribution = self.attribution
        return self.explain if attribution is None else attribution.attribute

    def check_signature(self) -> None:
        """Checks that it can be called as a method is, and that its options have types.

        Raises:
            TypeError: If it takes other arguments.
            NameError: If an annotation says what is not defined.
        """
        _ = self.options
        if self.attribution is None:
            where = (None,) if self.on_layer else ()
            inspect.signature(self.explain).bind(None, *where, None, None, **self.fixed)

    def check(self, options: Mapping[str, Any]) -> None:
        """Checks names and types of options; what a function takes by ``**`` it checks itself.

        Args:
            options (mapping of str to Any): Options that are not at their defaults.

        Raises:
            TypeError: If there is no such option, or a value is of another type.
            ValueError: If a value is none of the choices.
        """
        parameters = inspect.signature(self._function).parameters.values()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            options = {name: value for name, value in options.items() if name in self.options}
        check_options(self.options, options, self.name)

    def n_passes(self, **options: Any) -> int | None:
        """Forward passes that one image costs.

        Args:
            **options (Any, optional): Options that are not at their defaults.

        Returns:
            int or None: The number; None where it depends on the network.
        """
        if self.passes is None:
            return None
        known = {option.name: option.default for option in self.options.values()} | options
        taken = inspect.signature(self.passes).parameters
        return self.passes(**{name: known[name] for name in taken})

    def __call__(
        self, model: Module, layer: TargetLayer | Module | None = None, **options: Any
    ) -> Explain:
        """Binds the method to a network.

        Args:
            model (torch.nn.Module): A classifier in evaluation mode: N x C x H x W to N x classes.
            layer (TargetLayer or torch.nn.Module, optional): The layer that is explained; methods
                that explain none ignore it. Default: None.
            **options (Any, optional): The method's options.

        Returns:
            Callable: Takes inputs (N x C x H x W) and a target in any of Captum's forms, and gives
            finite maps (N x 1 x H x W). It leaves no trace: neither on the network and the inputs
            nor on the global state.

        Raises:
            TypeError: If the method has no such option, or a value is of another type.
            ValueError: If a value is none of the choices, or a layer is missing.
        """
        self.check(options)
        if isinstance(layer, Module):
            layer = TargetLayer(layer)
        if self.on_layer and layer is None:
            raise ValueError(f"{self.name} explains a layer: give one.")
        return partial(_run, self, model, layer, {**self.fixed, **options})

    def attributions(
        self,
        model: Module,
        layer: TargetLayer | None,
        inputs: Tensor,
        target: TargetType,
        options: Mapping[str, Any],
    ) -> Tensor:
        """The maps as the class or function gives them, at the resolution of the input.

        Args:
            model (torch.nn.Module): The network.
            layer (TargetLayer or None): The layer, if it explains one.
            inputs (Tensor): N x C x H x W.
            target (int, tuple, Tensor, list or None): As in Captum.
            options (mapping of str to Any): All options that are not at their defaults.

        Returns:
            Tensor: N x 1 x H x W.
        """
        if not isinstance(self.explain, type):
            where = (layer,) if self.on_layer else ()
            return self.explain(model, *where, inputs, target, **options)
        if layer is None or not self.on_layer:
            attribution = self.explain(model)
            return cast(Tensor, attribution.attribute(inputs, target=target, **options))
        attribution = self.explain(model, layer.module)
        maps = attribution.attribute(inputs, target=target, **layer.keywords, **options)
        return cast(Tensor, LayerAttribution.interpolate(maps, inputs.shape[2:], "bilinear"))


#: As in the papers, where Captum keeps the sign.
_POSITIVE = {"relu_attributions": True}

#: Every method by name. A method registered here at run time is known to the command line, the
#: explorer, Insights and the benchmark.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "group_cam",
            "Group-CAM",
            GroupCAM,
            grouped=True,
            passes=lambda n_groups: n_groups + 2,
        ),
        Method(
            "group_cam_gradient_free",
            "Group-CAM without gradients",
            GroupCAM,
            {"gradient_free": True},
            grouped=True,
            passes=lambda n_groups: n_groups + 2,
        ),
        Method(
            "group_cam_selective",
            "Selective Group-CAM",
            SelectiveGroupCAM,
            # Four maps, shown and hidden; gradients at the layer and at the input; the baseline.
            passes=lambda n_groups, shares: n_groups + 8 * len(shares) + 3,
        ),
        Method("grad_cam", "Grad-CAM", GradCAM, _POSITIVE, passes=lambda: 1),
        Method("grad_cam_plus_plus", "Grad-CAM++", GradCAMPlusPlus, _POSITIVE, passes=lambda: 1),
        Method("layer_cam", "LayerCAM", LayerCAM, _POSITIVE, passes=lambda: 1),
        Method("cam", "CAM", CAM, passes=lambda: 2),
        Method("score_cam", "Score-CAM", ScoreCAM),
        Method("rise", "RISE", RISE, passes=lambda n_masks: n_masks),
        Method("xrai", "XRAI", XRAI, passes=lambda n_steps: 2 * n_steps),
        Method(
            "guided_backprop",
            "Guided backpropagation",
            input_methods.guided_backprop,
            passes=lambda: 1,
        ),
        Method(
            "guided_grad_cam",
            "Guided Grad-CAM",
            input_methods.guided_grad_cam,
            passes=lambda: 2,
        ),
        Method(
            "integrated_gradients",
            "Integrated gradients",
            input_methods.integrated_gradients,
            passes=lambda n_steps: n_steps,
        ),
        Method(
            "smooth_grad",
            "SmoothGrad",
            input_methods.smooth_grad,
            passes=lambda n_samples: n_samples,
        ),
        Method(
            "input_x_gradient",
            "Input x gradient",
            input_methods.input_x_gradient,
            passes=lambda: 1,
        ),
        Method("occlusion", "Occlusion", input_methods.occlusion),
    )
}


def find_method(name: str) -> Method:
    """Looks a method up.

    Args:
        name (str): A name in :data:`METHODS`.

    Returns:
        Method: The method.

    Raises:
        ValueError: If there is none of this name; names that come close are listed.

    Examples::

        >>> find_method("group_cam").title
        'Group-CAM'
    """
    if name not in METHODS:
        if is_reference(name):
            raise ValueError(f"Unknown method {name!r}: load_method imports it.")
        close = difflib.get_close_matches(name, METHODS, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"known are {', '.join(METHODS)}."
        raise ValueError(f"Unknown method {name!r}; {hint}")
    return METHODS[name]


def load_method(reference: str) -> Method:
    """Imports a method of one's own and puts it into :data:`METHODS`.

    Args:
        reference (str): ``package.module:object`` or ``path/file.py:object``: a :class:`Method`, or
            what its `explain` can be. It runs the module's code.

    Returns:
        Method: The method. Its name is the reference, without the folders of a file.

    Raises:
        ValueError: If there is no such object, it fails, or is no method.

    Examples::

        >>> load_method("captum.attr:Saliency").on_layer
        False
        >>> del METHODS["captum.attr:Saliency"]
    """
    found = find_object(reference)
    name = short_reference(reference)
    if isinstance(found, Method):
        method = replace(found, name=name)
    elif isinstance(found, type) and issubclass(found, Attribution):
        method = Method(name, found.__name__, found)
    elif callable(found) and not isinstance(found, (type, Module)):
        method = Method(name, name.rpartition(":")[2], found)
    else:
        raise ValueError(
            f"{reference} is {_kind_of(found)}; expected a function (model, inputs, target) or "
            "(model, layer, inputs, target), a class in Captum's style, or a "
            "captum_groupcam.methods.Method."
        )
    try:
        method.check_signature()
    except (TypeError, NameError) as error:
        raise ValueError(f"{reference} is no method: {error}") from error
    known = METHODS.setdefault(name, method)
    if known.explain is not method.explain:
        raise ValueError(f"Another method is called {name}, too: rename one of the files.")
    METHODS[name] = method
    return method


def _kind_of(found: object) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__


def offered_methods() -> list[str]:
    """Names of the methods that a user is offered: neither controls nor what is on trial.

    Returns:
        list of str: The names.

    Examples::

        >>> offered_methods()[0]
        'group_cam'
    """
    return [method.name for method in METHODS.values() if method.kind == "method"]


@dataclass(frozen=True)
class MethodSpec:
    """A method with its options and its layer, written as ``name:option=value,option=value``.

    Args:
        name (str): A name of :data:`METHODS`.
        options (mapping, optional): Its options. Default: none.
        layer (str, optional): Dotted name of the layer that it explains. Default: None, the
            network's own.

    Raises:
        TypeError: If the method has no such option, or a value is of another type.
        ValueError: If there is no such method, or a value is none of the choices.

    Examples::

        >>> MethodSpec.parse("group_cam:n_groups=8,denoise_at=input")
        MethodSpec(name='group_cam', options={'denoise_at': 'input', 'n_groups': 8}, layer=None)
        >>> str(MethodSpec.parse("group_cam:n_groups=8,denoise_at=input"))
        'group_cam:denoise_at=input,n_groups=8'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    layer: str | None = None

    def __post_init__(self) -> None:
        self.method.check(self.options)

    @property
    def method(self) -> Method:
        """The entry of the registry."""
        return find_method(self.name)

    @classmethod
    def parse(cls, text: str, *, importing: bool = False) -> MethodSpec:
        """Reads what ``str`` writes.

        Args:
            text (str): ``name`` or ``name:option=value,...``. Values are numbers, None, True,
                False, words, quoted strings, or tuples or lists of these; the option ``layer`` is
                a layer's dotted name, whatever that looks like.
            importing (bool, optional): Whether a name that is a reference
                (``package.module:object``) is imported, by :func:`load_method`: only for what a
                user has typed. Default: False.

        Returns:
            MethodSpec: The method with its options.

        Raises:
            TypeError: If the method has no such option, or a value is of another type.
            ValueError: If it is not of this form, or there is no such method.
        """
        name, listed = split_reference(text)
        if importing and is_reference(name):
            name = load_method(name).name
        options: dict[str, Any] = {}
        layer: str | None = None
        for item in split_text(listed, ","):
            option, equals, value = (part.strip() for part in item.partition("="))
            if not equals or not option.isidentifier():
                raise ValueError(
                    f"Expected a method as name or name:option=value,option=value, got {text!r}."
                )
            if option == "layer":
                quoted = parse_value(value)
                layer = quoted if isinstance(quoted, str) else value
            else:
                options[option] = parse_value(value)
        return cls(name.strip(), dict(sorted(options.items())), layer)

    def __str__(self) -> str:
        options = {option: format_value(value) for option, value in self.options.items()}
        if self.layer is not None:
            # Of this one it is known that it is a name, so a number needs no quotes.
            number = self.layer.replace(".", "").isdecimal()
            options["layer"] = self.layer if number else format_value(self.layer)
        listed = ",".join(f"{option}={value}" for option, value in sorted(options.items()))
        return f"{self.name}:{listed}" if listed else self.name


def _run(
    method: Method,
    model: Module,
    layer: TargetLayer | None,
    options: dict[str, Any],
    inputs: Tensor,
    target: TargetType,
) -> Tensor:
    """Checks what goes in and comes out, and keeps the method to itself."""
    if inputs.dim() != 4 or not len(inputs) or not inputs.is_floating_point():
        raise ValueError(
            "Expected floating-point inputs of shape N x C x H x W, got "
            f"{tuple(inputs.shape)}, {inputs.dtype}."
        )
    if not inputs.isfinite().all():
        raise ValueError("The inputs contain NaN or infinite values.")
    if in_training(model):
        raise ValueError("Explain a model in evaluation mode: call model.eval() first.")
    # A seed reaches all devices.
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if initialized else ()
    with (
        torch.inference_mode(False),
        torch.random.fork_rng(devices),
        warnings.catch_warnings(),
    ):
        # Captum on what it does to a network and inputs that nobody else sees.
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU activations")
        warnings.filterwarnings("ignore", "Input Tensor . did not already require gradients")
        maps = method.attributions(model, layer, inputs.detach().clone(), target, options)
        return _checked(maps, inputs, method.name)


def _checked(maps: object, inputs: Tensor, name: str) -> Tensor:
    """What a method gives, if it is maps: dense, real and finite, now without a graph."""
    if not isinstance(maps, Tensor):
        raise TypeError(f"Expected a tensor of maps from {name}, got {type(maps).__name__}.")
    if maps.layout != torch.strided or maps.is_complex() or maps.device != inputs.device:
        raise TypeError(
            f"Expected dense real maps on {inputs.device} from {name}, got {maps.layout}, "
            f"{maps.dtype} on {maps.device}."
        )
    expected = (len(inputs), 1, *inputs.shape[2:])
    if tuple(maps.shape) != expected:
        raise ValueError(f"Expected maps of shape {expected} from {name}, got {tuple(maps.shape)}.")
    plain = maps.detach().as_subclass(Tensor)
    plain = plain.to(torch.promote_types(plain.dtype, torch.float32))
    if not plain.isfinite().all():
        raise ValueError(f"Expected finite maps from {name}, got NaN or infinite values.")
    return plain
