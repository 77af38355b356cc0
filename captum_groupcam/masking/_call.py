"""One call of ``attribute``: its inputs, their baselines, and the network that is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.masking._inputs import check_activations, is_spatial
from captum_groupcam.masking._places import check_places, warn_of_inputs_elsewhere
from captum_groupcam.masking.masks import MaskSource, upsample
from captum_groupcam.masking.network import Network, in_chunks
from captum_groupcam.masking.queries import merge_masks, score_masks, score_samples
from captum_groupcam.masking.targets import Target, Targets
from captum_groupcam.networks.dependence import independent_of
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.threads import reached_modules

__all__ = ["Call"]


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

    def activations(
        self, layer: TargetLayer, *, check_target: bool = False, checks_order: bool = False
    ) -> Tensor:
        """The activations of a layer, without gradients.

        Args:
            layer (TargetLayer): The layer.
            check_target (bool, optional): Whether the target is looked up in the output, for
                methods that ask for no score. Default: False.
            checks_order (bool, optional): Whether to warn of a layer that has the samples in
                another order, for methods that ask for many scores. Default: False.

        Returns:
            Tensor: A, N x K x spatial.

        Raises:
            ValueError: If they have no spatial dimensions, or not those that the masks of the
                inputs need; if they are not finite; if the layer is never called; or if it does not
                depend on one of several inputs that are explained; if a reshape_transform mixes the
                samples.
            TargetError: If the target is checked and there is no such output.
        """
        found = self.network.activations(
            layer, self.inputs, check_target=check_target, checks_order=checks_order
        )
        return self._checked(found, layer)

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
        return gradients, self._checked(activations, layer)

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
        return gradients, products, self._checked(activations, layer)

    def _checked(self, activations: Tensor, layer: TargetLayer) -> Tensor:
        masked = any(baseline is not None for baseline in self.baselines)
        check_activations(activations, self.inputs, masked=masked)
        if not self.network.follows:
            first = self._part(slice(0, 1))
            check_places(
                tuple(activations.shape),
                first.inputs,
                self._counts(),
                lambda inputs: first.network.activations(layer, inputs),
                layer,
                masked=masked,
                network=lambda: reached_modules(self.network.forward_func),
            )
        if not self.network.follows and sum(map(is_spatial, self.inputs)) > 1:
            self._check_dependence(layer, activations.dim())
        return activations

    def _check_dependence(self, layer: TargetLayer, n_dims: int) -> None:
        """Refuses an input that the layer does not depend on, by the first sample."""
        first = self._part(slice(0, 1))
        explained = [which for which in range(len(self.inputs)) if self.has_map(which)]

        def look(inputs: tuple[Tensor, ...]) -> Tensor:
            return first.network.activations(layer, inputs)

        still = independent_of(first.inputs, look, explained)
        if not still:
            if self.only is None and n_dims == self.inputs[explained[0]].dim():
                warn_of_inputs_elsewhere(first.inputs, explained, look, layer)
            return
        if self.only is not None:
            raise ValueError(
                f"Call {layer.layer_call} of the layer {layer} does not depend on input "
                f"{self.only}: its map would be that of another input. Give the call that sees the "
                "input in layer_call, or None for an input without a map."
            )
        calls = tuple(
            (layer.layer_call or 0) if which in explained and which not in still else None
            for which in range(len(self.inputs))
        )
        which = f"input{'s' if len(still) > 1 else ''} {' and '.join(map(str, still))}"
        raise ValueError(
            f"The layer {layer} does not depend on {which}, whose map would be that of another "
            "input. Choose a layer that all inputs lead to"
            + (
                ", pass the ones without a map as additional_forward_args, or give "
                f"layer_call={calls}, where they have None."
                if any(call is not None for call in calls)
                else "."
            )
        )

    def of_calls(self, layer: TargetLayer) -> list[tuple[Call, TargetLayer]]:
        """One call of ``attribute`` for each call of the layer that is meant.

        Args:
            layer (TargetLayer): The layer; its ``layer_call`` is a tuple if each input has its own.

        Returns:
            list of tuple: The call, which explains one input if each has its own call of the layer;
            and the layer at that call.

        Raises:
            TypeError: If the layer's ``layer_call`` is neither an int nor a tuple of them.
            ValueError: If the tuple has no entry for each input, or one for an input that has no
                map.
        """
        numbers = layer.layer_call
        for number in numbers if isinstance(numbers, tuple) else (numbers,):
            if isinstance(number, bool) or not (number is None or hasattr(number, "__index__")):
                raise TypeError(
                    "layer_call must be an int, which call of the layer is meant, from 0, or a "
                    f"tuple of such, one for each input; got {numbers!r}."
                )
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
            if not is_spatial(self.inputs[which]):
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
            found = work(part, one.at(self.inputs[part._counts()].shape[2:]))
            if part.only is None:
                return found
            maps = maps or [found[part.only].new_zeros(len(found[part.only]), 1)] * len(found)
            maps[part.only] = found[part.only]
        return tuple(maps)

    def _counts(self) -> int:
        """The input whose positions count: the first that is explained."""
        return next(which for which in range(len(self.inputs)) if self.has_map(which))

    def has_map(self, which: int) -> bool:
        """Whether an input is explained, hence has a map.

        Args:
            which (int): Its place.

        Returns:
            bool: Whether it has spatial dimensions, and is not another than the only one.
        """
        return is_spatial(self.inputs[which]) and self.only in (None, which)

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
            replace(network.of_samples(samples), follows=network.follows or bool(chunk.start)),
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
