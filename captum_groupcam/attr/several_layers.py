"""One map of several layers, for every method that explains a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from captum.attr import Attribution, LayerAttribution
from torch import Tensor
from torch.nn import Module

from captum_groupcam import _captum
from captum_groupcam.masking.call import TensorOrTuple, like_inputs
from captum_groupcam.masking.checks import check_choice
from captum_groupcam.masking.masks import normalize, upsample
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["Merge", "SeveralLayers", "merge_maps"]

Merge: TypeAlias = Literal["mean", "maximum", "product"]


def merge_maps(maps: Sequence[Tensor], size: Sequence[int], merge: Merge = "mean") -> Tensor:
    """Merges maps of one input, each on a scale and at a resolution of its own.

    Of each map the positive part is brought to [0, 1] by its minimum and maximum, then to the size.

    Args:
        maps (sequence of Tensor): N x 1 x spatial each.
        size (sequence of int): Spatial size of the result.
        merge (str, optional): "mean" (pytorch-grad-cam), "maximum" (torchcam's ``fuse_cams``) or
            "product" (RefineCAM, arXiv 2605.14641). Default: "mean".

    Returns:
        Tensor: N x 1 x size, in [0, 1].

    Raises:
        ValueError: If there are no maps, or none of the three is meant.

    Examples::

        >>> first, second = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[1.0, 3.0, 2.0, 3.0]]])
        >>> merge_maps([first, second], (4,), "product")
        tensor([[[0.0000, 0.2500, 0.3750, 1.0000]]])
    """
    check_choice("merge", merge, "mean", "maximum", "product")
    if not maps:
        raise ValueError("Expected at least one map to merge, got none.")
    merged = upsample(normalize(maps[0].relu()), size)
    for one in maps[1:]:
        other = upsample(normalize(one.relu()), size)
        if merge == "mean":
            merged = merged + other
        else:
            merged = merged * other if merge == "product" else torch.maximum(merged, other)
    return merged / len(maps) if merge == "mean" else merged


class SeveralLayers(Attribution):
    """A method of one layer, asked about several, and its maps merged into one.

    Args:
        method (type): A class that explains a layer, of this package or of Captum.
        forward_func (Callable): The forward function of the model or any modification of it.
        layers (sequence of torch.nn.Module or TargetLayer): The layers;
            :class:`~captum_groupcam.networks.target_layer.TargetLayer` says how to read one.
        device_ids (list of int, optional): As in Captum. Default: None.

    Examples::

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
        """Computes a map for each layer, and merges them (:func:`merge_maps`).

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
            ValueError: If there are no layers, ``merge`` is none of the three, or as the method.
        """
        check_choice("merge", merge, "mean", "maximum", "product")
        if not self.layers:
            raise ValueError("Expected at least one layer, got none.")
        whole = inputs if isinstance(inputs, tuple) else (inputs,)
        found: list[tuple[Tensor, ...]] = []
        for layer in self.layers:
            place = layer if isinstance(layer, TargetLayer) else TargetLayer(layer)
            method = self.method(self.forward_func, place.module, self.device_ids)
            maps = method.attribute(inputs, target, *args, **{**place.keywords, **kwargs})
            # Captum's have one map, whatever the inputs.
            found.append(maps if isinstance(maps, tuple) else (maps,) * len(whole))
        merged = tuple(
            merge_maps([one.detach() for one in maps], tensor.shape[2:], merge)
            if min(tensor.dim(), maps[0].dim()) > 2
            else maps[0].new_zeros(len(tensor), 1)
            for tensor, maps in zip(whole, zip(*found, strict=True), strict=True)
        )
        return like_inputs(inputs, merged)
