"""One map of several layers, for every method that explains a layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from captum.attr import Attribution, LayerAttribution
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.attr._captums_layer import captums_map
from captum_groupcam.attr._shared import Titled
from captum_groupcam.attr.functional.several_layers import Merge, merge_maps
from captum_groupcam.masking.call import (
    TensorOrTuple,
    check_channels_first,
    check_grid,
    expecting_zero_maps,
    like_inputs,
    warn_of_zero_maps,
)
from captum_groupcam.masking.checks import check_choice
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["SeveralLayers"]


class SeveralLayers(Attribution):
    """A method of one layer, asked about several, and its maps merged into one.

    Args:
        method (type): A class that explains a layer, of this package or of Captum.
        forward_func (Callable): The forward function of the model or any modification of it.
        layers (sequence of torch.nn.Module or TargetLayer): The layers;
            :class:`~captum_groupcam.networks.target_layer.TargetLayer` says how to read one.
        device_ids (list of int, optional): As in Captum. Default: None.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> from captum_groupcam import LayerCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.ReLU())
        >>> net = nn.Sequential(*net, nn.Flatten(), nn.Linear(288, 5)).eval()
        >>> layer_cam = SeveralLayers(LayerCAM, net, [net[1], net[3]])
        >>> layer_cam.attribute(torch.rand(2, 3, 16, 16), target=3, merge="product").shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        method: type[LayerAttribution],
        forward_func: _captum.ForwardFunc,
        layers: Sequence[Module | TargetLayer],
        device_ids: list[int] | None = None,
    ) -> None:
        super().__init__(forward_func)
        self.method, self.layers, self.device_ids = method, layers, device_ids

    @_captum.log_usage
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *args: Any,
        merge: Merge = "mean",
        **kwargs: Any,
    ) -> TensorOrTuple:
        """Computes a map for each layer, and merges them.

        The merging is :func:`~captum_groupcam.attr.functional.merge_maps`.

        Args:
            inputs (Tensor or tuple of Tensor): N x C x spatial.
            target (Any, optional): As in the method's own ``attribute``. Default: None.
            *args (Any, optional): As in the method's own ``attribute``.
            merge (str, optional): "mean", "maximum" or "product". Default: "mean".
            **kwargs (Any, optional): As in the method's own ``attribute``.

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x spatial at the resolution
            of the input, in [0, 1].

        Raises:
            TypeError: If the method is not a class that explains a layer, or the layers are not
                a list.
            ValueError: If there are no layers, ``merge`` is none of the three, a class of Captum's
                gives no map of one channel, or as the method.
        """
        check_choice("merge", merge, "mean", "maximum", "product")
        if not isinstance(self.layers, (list, tuple)):
            raise TypeError(f"layers must be a list of modules, got {type(self.layers).__name__}.")
        if not (isinstance(self.method, type) and issubclass(self.method, LayerAttribution)):
            given = getattr(self.method, "__name__", type(self.method).__name__)
            raise TypeError(
                f"method must be a class that explains a layer, such as LayerCAM, got {given}."
            )
        if not self.layers:
            raise ValueError("Expected at least one layer, got none.")
        whole = inputs if isinstance(inputs, tuple) else (inputs,)
        found: list[tuple[Tensor, ...]] = []
        for layer in self.layers:
            place = layer if isinstance(layer, TargetLayer) else TargetLayer(layer)
            method = self.method(self.forward_func, place.module, self.device_ids)
            if issubclass(self.method, Titled):
                options = {**place.keywords, **kwargs}
                ask = partial(method.attribute, inputs, target, *args, **options)
            else:
                ask = partial(captums_map, method, place, inputs, target, args, kwargs)
            maps = expecting_zero_maps(ask)
            found.append(maps if isinstance(maps, tuple) else (maps,))
            check_channels_first(found[-1][0], whole)
            check_grid(found[-1][0], whole)
        merged = tuple(
            merge_maps([one.detach() for one in maps], tensor.shape[2:], merge)
            if min(tensor.dim(), maps[0].dim()) > 2
            else maps[0].new_zeros(len(tensor), 1)
            for tensor, maps in zip(whole, zip(*found, strict=True), strict=True)
        )
        warn_of_zero_maps(None, merged)
        return like_inputs(inputs, merged)
