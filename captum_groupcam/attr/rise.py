"""RISE: Randomized Input Sampling for Explanation (arXiv 1806.07421)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from captum.attr import Attribution
from torch import Tensor
from typing_extensions import Unpack

from captum_groupcam import _captum
from captum_groupcam.attr._bases import explained
from captum_groupcam.attr._shared import Titled, options_of, shared_arguments
from captum_groupcam.attr._typing import RISEOptions
from captum_groupcam.attr.functional.rise import rise
from captum_groupcam.masking.baselines import Baselines
from captum_groupcam.masking.call import Call, TensorOrTuple, warn_of_zero_maps
from captum_groupcam.masking.network import ScoreFunc, class_probability

__all__ = ["RISE"]


@shared_arguments
class RISE(Titled, Attribution):
    r"""Explains a network from outside, by what it says of the input seen through random masks.

    .. math::

        S(\lambda) = \frac{1}{E[M] \cdot N} \sum_i f(I \cdot M_i) \, M_i(\lambda)

    Its arguments begin like those of Captum's methods on the input: inputs, baselines, target.

    Source: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models", arXiv 1806.07421, eq. 6.

    Args:
        forward_func (Callable): {forward_func}
    """

    title = "RISE"

    @_captum.log_usage
    @options_of(rise)
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = None,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        *,
        targets: Sequence[_captum.TargetType] | None = None,
        score_func: ScoreFunc = class_probability,
        internal_batch_size: int | None = None,
        **options: Unpack[RISEOptions],
    ) -> TensorOrTuple:
        r"""Computes the map of each sample, at the resolution of the input.

        The defaults are the paper's for VGG-16; it takes ``n_masks=8000`` for ResNet-50. The code
        that its authors published takes ``n_masks=6000, grid_size=8, probability=0.1``.

        Args:
            inputs (Tensor or tuple of Tensor): {inputs}
            baselines (Tensor, float, callable, None or tuple of these, optional): {baselines}
                Default: None, zero, as in the paper and in Captum.
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            targets (sequence, optional): Instead of target, T of them, each in any form that
                target has: explained by the same queries, at the price of one. Default: None.
            score_func (Callable, optional): {score_func} Default: softmax over dimension 1.
            internal_batch_size (int, optional): {internal_batch_size}
            **options: {options}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x spatial (with targets,
            N x T x spatial) at the resolution of the input. A tuple if inputs is one, with a zero
            (N x 1) for an input that is not masked.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: As for :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`,
                or if target and targets are both given.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            >>> rise = RISE(net.eval())
            >>> rise.attribute(torch.rand(2, 3, 16, 16), target=3, n_masks=20).shape
            torch.Size([2, 1, 16, 16])
            >>> rise.attribute(torch.rand(2, 3, 16, 16), targets=[0, 3, [1, 2]], n_masks=20).shape
            torch.Size([2, 3, 16, 16])
        """
        if targets is not None and not isinstance(targets, (list, tuple)):
            raise TypeError(f"targets must be a list of targets, got {targets!r}.")
        if targets is not None and (target is not None or len(targets) == 0):
            raise ValueError("Give target, or at least one of targets, not both.")

        def algorithm(call: Call) -> tuple[Tensor, ...]:
            asked = call if targets is None else call.with_targets(targets)
            result = rise(asked, **options)
            warn_of_zero_maps(result.queried, result.maps, unmoved=result.unmoved)
            return result.maps

        return explained(
            self.forward_func,
            algorithm,
            inputs,
            target,
            additional_forward_args,
            baselines=baselines,
            default_baseline=0,
            score_func=score_func,
            internal_batch_size=internal_batch_size,
        )
