"""What goes around a method of any kind: several layers, and smoothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._mirrored import check_no_places, output_shape
from captum_groupcam.attr.functional.several_layers import Merge, merge_maps
from captum_groupcam.attr.functional.smoothed import FACTORS, mean_over_altered
from captum_groupcam.masking.call import expecting_zero_maps, warn_of_zero_maps
from captum_groupcam.networks.layers import find_reshape_transform
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.options import Option

__all__ = ["AROUND_LAYERS", "Around"]

#: Passes of :func:`find_reshape_transform` for a layer.
_LOOKS = 7
_SMOOTH = ("none", "flips", "component", "both")

#: Options of every method that explains a layer, beside its own.
AROUND_LAYERS = {
    "layers": Option("layers", (), tuple[str, ...]),
    "merge": Option("merge", "mean", Merge, str, get_args(Merge)),
    "smooth": Option("smooth", "none", Literal[_SMOOTH], str, _SMOOTH),
}


@dataclass(frozen=True)
class Around:
    """How often a method is asked, about what, and how its maps become one.

    Attributes:
        layers (tuple of str): Names of the layers that are merged into one map. Default: (), the
            one that is explained anyway.
        merge (str): "mean", "maximum" or "product". Default: "mean".
        smooth (str): "flips" is the mean over mirrored, brighter and darker inputs, "component" the
            first principal component of what a method adds up, "both" both. Default: "none".
    """

    layers: tuple[str, ...] = ()
    merge: Merge = "mean"
    smooth: str = "none"

    @classmethod
    def taken_from(
        cls, options: Mapping[str, Any], own: Mapping[str, Option]
    ) -> tuple[Around, dict[str, Any]]:
        """These options, and the others; an option of the method itself comes first."""
        around = {
            name: value
            for name, value in options.items()
            if name in AROUND_LAYERS and name not in own
        }
        return cls(**around), {n: value for n, value in options.items() if n not in around}

    @property
    def by_component(self) -> bool:
        """Whether the map is a principal component."""
        return self.smooth in ("component", "both")

    @property
    def flips(self) -> bool:
        """Whether inputs are mirrored; the target is looked at before, in a pass of its own."""
        return self.smooth in ("flips", "both")

    @property
    def n_calls(self) -> int:
        """How often the method is called."""
        flips = 2 * len(FACTORS) if self.flips else 1
        return flips * max(1, len(self.layers))

    @property
    def n_looks(self) -> int:
        """Passes that tell what layers and targets are: about as many for each layer."""
        return _LOOKS * len(self.layers) + self.flips

    def explain(
        self,
        explain: Callable[[TargetLayer, Tensor], Tensor],
        model: Module,
        layer: TargetLayer,
        inputs: Tensor,
        target: TargetType,
    ) -> Tensor:
        """The map of a method, N x 1 x H x W, from a function of layer and inputs.

        Layers that are named are looked at: each may have its positions in a way of its own. Where
        inputs are mirrored, the target must name no place.
        """
        places = [_found(model, name, inputs) for name in self.layers]

        def merged(seen: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            if not places:
                return (explain(layer, seen[0]),)
            maps = [explain(place, seen[0]) for place in places]
            return (merge_maps(maps, inputs.shape[2:], self.merge),)

        if self.n_calls == 1:
            return merged((inputs,))[0]
        if self.flips:
            instead = f"smooth={'component' if self.by_component else 'none'}"
            shape = output_shape(model, (inputs,))
            check_no_places(model, (inputs,), [target], shape, instead=instead)
        ask = mean_over_altered if self.flips else lambda one, seen: one(seen)
        (maps,) = expecting_zero_maps(lambda: ask(merged, (inputs,)))
        warn_of_zero_maps(None, (maps,))
        return maps


def _found(model: Module, name: str, inputs: Tensor) -> TargetLayer:
    """A layer by its name, with what brings its activations to a grid."""
    place = TargetLayer.of(model, name)
    transform = find_reshape_transform(
        model,
        place.module,
        inputs[:1],
        attribute_to_layer_input=place.place_in(model).at_input,
    )
    return replace(place, reshape_transform=transform)
