"""A method with some arguments given in advance, for what passes its own on."""

from __future__ import annotations

import inspect
from typing import Any

from captum.attr import Attribution

from captum_groupcam import _captum

__all__ = ["Partial"]


class Partial(Attribution):
    """An attribution method with some arguments of ``attribute`` given, like functools.partial.

    Captum's wrappers pass arguments on, but not all: :class:`captum.attr.NoiseTunnel` and
    ``sensitivity_max`` take baselines apart and accept tensors and numbers only. What is given here
    reaches the method as it is, a function as baseline for example.

    Args:
        method (captum.attr.Attribution): The method, of this package or of Captum.
        **arguments (Any): Arguments of its ``attribute``.

    Raises:
        TypeError: If ``attribute`` has no such argument.

    Examples::

        >>> import torch
        >>> from captum.attr import NoiseTunnel
        >>> from torch import nn
        >>> from captum_groupcam import RISE
        >>> from captum_groupcam.masking.baselines import GaussianBlur
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        >>> blurred = Partial(RISE(net), baselines=GaussianBlur(7, 3.0), n_masks=20)
        >>> maps = NoiseTunnel(blurred).attribute(torch.rand(2, 3, 16, 16), target=3, nt_samples=4)
        >>> maps.shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(self, method: Attribution, **arguments: Any) -> None:
        inspect.signature(method.attribute).bind_partial(**arguments)
        super().__init__(method.forward_func)
        self.method = method
        self.arguments = arguments

    @_captum.log_usage
    def attribute(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the method; what is given here replaces what was given before.

        Args:
            inputs (Tensor or tuple of Tensor): N x C x spatial.
            *args (Any, optional): As in the method's own ``attribute``.
            **kwargs (Any, optional): As in the method's own ``attribute``.

        Returns:
            Any: What the method returns.
        """
        return self.method.attribute(inputs, *args, **{**self.arguments, **kwargs})

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the method multiplies by the inputs.

        Returns:
            bool: What the method says.
        """
        return bool(self.method.multiplies_by_inputs)

    def has_convergence_delta(self) -> bool:
        """Whether the method has a convergence delta.

        Returns:
            bool: What the method says.
        """
        return bool(self.method.has_convergence_delta())
