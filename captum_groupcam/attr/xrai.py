"""XRAI: attributions of regions (arXiv 1906.02825), by way of the saliency package."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from captum_groupcam import _captum
from captum_groupcam.attr._bases import Unmasked
from captum_groupcam.attr._shared import arguments_of, shared_arguments
from captum_groupcam.attr.functional.xrai import Starts, xrai
from captum_groupcam.masking.call import TensorOrTuple

__all__ = ["XRAI"]


@shared_arguments
class XRAI(Unmasked):
    r"""Ranks the segments of an image by how dense integrated gradients lie in them.

    Integrated gradients are Captum's, the mean over the paths; segments and their ranking come
    from the package ``saliency`` of the authors, which also takes the largest attribution of a
    pixel's channels. The ranking runs on the CPU, one image after the other. The arguments begin
    like those of Captum's methods on the input: inputs, baselines, target.

    Source: Kapishnikov, Bolukbasi, Viégas and Terry, "XRAI: Better Attributions Through Regions",
    arXiv 1906.02825.

    Args:
        forward_func (Callable): {forward_func}
    """

    title = "XRAI"

    @_captum.log_usage
    @arguments_of(xrai)
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Starts | tuple[Starts, ...] = None,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        *,
        n_steps: int = 50,
        algorithm: Literal["full", "fast"] = "full",
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> TensorOrTuple:
        """Computes the map of each sample, at the resolution of the input.

        Args:
            inputs (Tensor or tuple of Tensor): Images, N x C x H x W. Of a tuple exactly one has
                spatial dimensions; others reach the network as they are.
            baselines (Tensor, float, callable, list of these, None or tuple of these, optional):
                {baselines}
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            n_steps (int, optional): {n_steps}
            algorithm (str, optional): {algorithm}
            internal_batch_size (int, optional): {internal_batch_size}
            show_progress (bool, optional): {show_progress}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x H x W. A tuple if inputs
            is one, with a zero (N x 1) for an input that is not an image.

        Raises:
            ModuleNotFoundError: If the package saliency is missing.
            TypeError: If an argument has a wrong type.
            ValueError: If there is not one image (N x C x H x W), or it is constant, which has no
                segments; if the target is out of range; or if the input is not finite.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            >>> XRAI(net.eval()).attribute(torch.rand(2, 3, 32, 32), target=3).shape
            torch.Size([2, 1, 32, 32])
        """
        ranking = partial(
            xrai,
            baselines=baselines,
            n_steps=n_steps,
            algorithm=algorithm,
            show_progress=show_progress,
        )
        return self._attribute(
            ranking, inputs, target, additional_forward_args, internal_batch_size
        )
