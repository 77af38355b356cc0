"""FullGrad (arXiv 1905.00780)."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._bases import Unmasked
from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.masking.biases import full_gradients, in_full_precision
from captum_groupcam.masking.call import Call, TensorOrTuple
from captum_groupcam.masking.checks import check_choice
from captum_groupcam.masking.masks import normalize, upsample

__all__ = ["FullGrad"]

Rescale: TypeAlias = Literal["layer", "channel", "none"]


@shared_arguments
class FullGrad(Unmasked):
    r"""Adds to the gradient at the input what the biases of all layers contribute.

    .. math::

        S = \psi(g_x \odot x) + \sum_l \sum_k \psi(g_{l,k} \, b_{l,k}), \quad
        \psi = \mathrm{upsample} \circ \mathrm{rescale} \circ |\cdot|

    where b are the biases of convolutions and norms and g the gradients at their outputs. With ReLU
    and batch norms, the terms under :math:`\psi` and the biases of layers without positions add up
    to the output exactly. Half precision is computed in float32. It needs a module with such
    biases, and none on tokens, whose places are not known. It takes no layer and no baseline.

    Source: Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization",
    arXiv 1905.00780, eq. 4.

    Args:
        forward_func (torch.nn.Module): The network, whose biases are found in it.
    """

    title = "FullGrad"

    @_captum.log_usage
    @shared_arguments
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        *,
        rescale: Rescale = "layer",
        internal_batch_size: int | None = None,
    ) -> TensorOrTuple:
        """Computes the map of each sample, at the resolution of the input.

        Args:
            inputs (Tensor or tuple of Tensor): {unmasked_inputs}
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            rescale (str, optional): What is brought to [0, 1]: each "layer" of each sample (the
                published code), each "channel" (pytorch-grad-cam), or "none". Default: "layer".
            internal_batch_size (int, optional): {internal_batch_size}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x spatial at the resolution
            of the input. A tuple if inputs is one, with a zero (N x 1) for one without positions.

        Raises:
            TypeError: If an argument has a wrong type, or the network is not a module.
            ValueError: If no convolution or norm with a bias runs, or biases are added in ways of
                which nothing is known; if the target is out of range; if inputs or outputs are not
                finite; or if batch sizes do not match.

        Examples::

            >>> from torch import nn
            >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            >>> full_grad = FullGrad(nn.Sequential(features, head).eval())
            >>> full_grad.attribute(torch.rand(2, 3, 16, 16), target=3).shape
            torch.Size([2, 1, 16, 16])
        """
        check_choice("rescale", rescale, "layer", "channel", "none")
        algorithm = partial(_maps, rescale=rescale)
        return self._attribute(
            algorithm, inputs, target, additional_forward_args, internal_batch_size
        )


def _maps(call: Call, rescale: Rescale) -> tuple[Tensor, ...]:
    """The sum for each input with positions, zero (N x 1) for others."""
    explained = [which for which in range(len(call.inputs)) if call.has_map(which)]
    network = in_full_precision(call.network)

    def work(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor, ...]:
        terms = full_gradients(network, rows, samples, explained)
        biases, found = [_scaled(term, rescale) for term in terms.at_biases], []
        for place, (which, term) in enumerate(zip(explained, terms.at_inputs, strict=True)):
            size = rows[which].shape[2:]
            reached = (b for b, seen in zip(biases, terms.seen, strict=True) if place in seen)
            parts = [_scaled(term, rescale), *reached]
            whole = [upsample(part, size).sum(1, keepdim=True) for part in parts]
            found.append(torch.cat(whole, 1).sum(1, keepdim=True))
        return tuple(found)

    maps = dict(zip(explained, call.network.by_sample(call.inputs, work), strict=True))
    nothing = call.inputs[0].new_zeros(len(call.inputs[0]), 1, dtype=torch.float32)
    return tuple(maps.get(which, nothing) for which in range(len(call.inputs)))


def _scaled(term: Tensor, rescale: Rescale) -> Tensor:
    """The magnitude of a term, N x C x spatial, rescaled by its channels or as a whole."""
    term = term.abs()
    if rescale == "layer":
        return normalize(term.flatten(1).unsqueeze(1)).view_as(term)
    return normalize(term) if rescale == "channel" else term
