"""Whether a network is in training mode."""

from __future__ import annotations

import torch
from torch.nn import Module

from captum_groupcam.threads import reached_modules

__all__ = ["has_batch_statistics", "in_training"]

#: What of torch behaves otherwise in training mode.
_OTHER_IN_TRAINING = (
    torch.nn.modules.batchnorm._NormBase,
    torch.nn.modules.dropout._DropoutNd,
    torch.nn.MultiheadAttention,
    torch.nn.RNNBase,
    torch.nn.RReLU,
    torch.nn.TransformerEncoderLayer,
    torch.nn.TransformerDecoderLayer,
)


def in_training(network: object) -> bool:
    """Whether something that a network calls is in training mode and behaves otherwise there.

    That is dropout, batch statistics and the like, and a network that is not of torch, unless it
    only wraps modules in evaluation mode.

    Args:
        network (torch.nn.Module or Callable): The network, or a function that calls one.

    Returns:
        bool: Whether there is such a module.

    Examples::

        >>> wrapped = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Dropout()).eval())
        >>> wrapped.training, in_training(wrapped)
        (True, False)
        >>> in_training(lambda inputs: torch.nn.Dropout()(wrapped(inputs)))
        False
    """

    def matters(module: Module) -> bool:
        if isinstance(module, _OTHER_IN_TRAINING):  # classes derived from them, too
            return True
        if type(module).__module__.startswith("torch."):
            return False
        rates = (getattr(module, name, None) for name in ("p", "drop_prob", "drop_rate"))
        return any(isinstance(rate, float) and rate > 0 for rate in rates) or any(
            child.training and any(True for _ in child.parameters()) for child in module.children()
        )

    return any(module.training and matters(module) for module in reached_modules(network))


def has_batch_statistics(network: object) -> bool:
    """Whether a batch norm goes by the statistics of the batch in evaluation mode, too.

    Args:
        network (torch.nn.Module or Callable): The network, or a function that calls one.

    Returns:
        bool: Whether there is one without statistics of its own.

    Examples::

        >>> has_batch_statistics(torch.nn.BatchNorm2d(3, track_running_stats=False).eval())
        True
    """
    return any(
        isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        and module.running_mean is None
        and module.running_var is None
        for module in reached_modules(network)
    )
