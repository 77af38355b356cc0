"""What a method is: one interface to every class and function that explains."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

import torch
from captum.attr import Attribution, LayerAttribution
from torch import Tensor
from torch.nn import Module

from captum_groupcam import threads
from captum_groupcam._captum import TargetType, of_inference
from captum_groupcam.attr._shared import Titled
from captum_groupcam.attr.by_component import by_component
from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.masking.call import (
    check_channels_first,
    check_grid,
    in_training,
    leveled,
    warn_of_zero_maps,
)
from captum_groupcam.masking.targets import Target
from captum_groupcam.methods._around import AROUND_LAYERS, Around
from captum_groupcam.networks.axes import check_channels
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.tensors import check_tensor
from captum_groupcam.options import Option, check_options, options_of

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
        draws (bool, optional): Whether it may draw from torch's global generators. Then their
            states are put back, and no other thread runs such a method meanwhile. Default: True.
        shares_batches (bool, optional): Whether a sample's map does not depend on the samples
            beside it but for rounding, so that several may be explained in one call, which fills
            the network's batches. Default: False, not known.

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
    draws: bool = True
    shares_batches: bool = False

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
        around = AROUND_LAYERS if self.on_layer else {}
        check_options({**around, **self.options}, options, self.name)
        chosen, _ = Around.taken_from(options, self.options)
        if chosen.by_component and not self._is_formula:
            raise ValueError(
                f"{self.name} adds up no channels, which smooth={chosen.smooth} needs."
            )

    def n_passes(self, **options: Any) -> int | None:
        """Forward passes that one image costs.

        Args:
            **options (Any, optional): Options that are not at their defaults.

        Returns:
            int or None: The number; None where it depends on the network.
        """
        if self.passes is None:
            return None
        around, options = Around.taken_from(options, self.options)
        known = {name: option.default for name, option in self.options.items()}
        known |= {**self.fixed, **options}
        taken = inspect.signature(self.passes).parameters
        once = self.passes(**{name: known[name] for name in taken})
        return around.n_calls * once + around.n_looks

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
        if layer is None or not self.on_layer:
            if not isinstance(self.explain, type):
                return self.explain(model, inputs, target, **options)
            attribution = self.explain(model)
            return cast(Tensor, attribution.attribute(inputs, target=target, **options))
        around, own = Around.taken_from(options, self.options)

        def explain(place: TargetLayer, seen: Tensor) -> Tensor:
            if not isinstance(self.explain, type):
                return self.explain(model, place, seen, target, **own)
            attribution = self.explain(model, place.module)
            if around.by_component:
                attribution = by_component(attribution)
            maps = attribution.attribute(seen, target=target, **place.keywords, **own)
            check_channels_first(maps, (seen,))
            check_grid(maps, (seen,))
            return cast(Tensor, LayerAttribution.interpolate(maps, inputs.shape[2:], "bilinear"))

        return around.explain(explain, model, layer, inputs, target)

    @property
    def _is_ours(self) -> bool:
        return isinstance(self.explain, type) and issubclass(self.explain, Titled)

    @property
    def _looks_at_axes(self) -> bool:
        """Whether the method itself refuses channels that come last."""
        return self._is_ours and not self._is_formula

    @property
    def _is_formula(self) -> bool:
        return isinstance(self.explain, type) and issubclass(self.explain, LayerFormula)


def _run(
    method: Method,
    model: Module,
    layer: TargetLayer | None,
    options: dict[str, Any],
    inputs: Tensor,
    target: TargetType,
) -> Tensor:
    """Checks what goes in and comes out, and keeps the method to itself."""
    check_tensor("inputs", inputs)
    if inputs.dim() != 4 or not inputs.numel() or not inputs.is_floating_point():
        raise ValueError(
            "Expected floating-point inputs of shape N x C x H x W, got "
            f"{tuple(inputs.shape)}, {inputs.dtype}."
        )
    if not inputs.isfinite().all():
        raise ValueError("The inputs contain NaN or infinite values.")
    if in_training(model):
        raise ValueError("Explain a model in evaluation mode: call model.eval() first.")

    # Captum's own methods say less of a target that they cannot take.
    read = Target.of(target, len(inputs), inputs.device)

    def explain() -> Tensor:
        with torch.inference_mode(False):
            if not method._looks_at_axes:
                check_channels(model, (inputs,))
            try:
                maps = method.attributions(model, layer, inputs.detach().clone(), target, options)
            except (IndexError, AssertionError):
                _check_target(model, inputs, read)
                raise
            except RuntimeError as error:
                if (said := of_inference(error)) is not None:
                    raise ValueError(said) from error
                raise
            maps = leveled(_checked(maps, inputs, method.name))
            if not method._is_ours:
                warn_of_zero_maps(None, (maps,))
            return maps

    def quietly() -> Tensor:
        # Captum on what it does to a network and inputs that nobody else sees.
        warnings.filterwarnings("ignore", r"\s*Setting (forward, )?backward hooks")
        warnings.filterwarnings("ignore", "Input Tensor . did not already require gradients")
        return explain()

    def filtered() -> Tensor:  # with the lock of the process, which has one list of filters
        filters = warnings.catch_warnings()
        filters.__enter__()
        return threads.surely(quietly, lambda: filters.__exit__(None, None, None))

    work = filtered if method.draws else explain
    return threads.run_alone((model, layer), work, draws=method.draws)


def _check_target(model: Module, inputs: Tensor, target: Target) -> None:
    """Says so if a target is out of range, or is missing."""
    samples = torch.zeros(1, dtype=torch.long, device=inputs.device)
    with torch.no_grad():
        target.select(model(inputs[:1].clone()), samples)


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
