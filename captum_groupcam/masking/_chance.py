"""A warning of networks whose answers depend on chance."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.masking._call import Call
from captum_groupcam.masking._rows import random_states
from captum_groupcam.networks.training import in_training

__all__ = ["warn_of_chance"]

#: How often a sample is asked again.
_TRIES = 20


def warn_of_chance(call: Call, before: list[Tensor]) -> None:
    """Warns of a network that draws random numbers, though it is in evaluation mode.

    Nothing is asked unless numbers have been drawn. Another thread may have drawn them, so the
    first sample is asked again, up to 20 times: dropout of a few values with a low rate often drops
    none.

    Args:
        call (Call): A call that is done.
        before (list of Tensor): What :func:`random_states` gave before, K bytes each.

    Warns:
        UserWarning: If the answers differ.

    Examples::

        >>> from captum_groupcam.masking.call import prepare
        >>> call = prepare(torch.nn.Flatten().eval(), torch.ones(2, 3, 4), 0, None, 0.5)
        >>> warn_of_chance(call, random_states(torch.device("cpu")))
    """
    network, device = call.network, call.inputs[0].device
    after = random_states(device)
    if all(map(torch.equal, before, after)) or in_training(network.forward_func):
        return
    first = torch.zeros(1, dtype=torch.long, device=device)

    def answer() -> Tensor:
        return _captum.run_forward(
            network.forward_func,
            tuple(tensor[:1].clone() for tensor in call.inputs),
            network.arguments(first),
        )

    one = answer()
    others = (answer() for _ in range(_TRIES))
    if any(
        one.shape != other.shape or not torch.allclose(one, other, equal_nan=True)
        for other in others
    ):
        _captum.warn(
            "The network draws random numbers in evaluation mode, too, as F.dropout(x) does "
            "without training=self.training: its scores depend on chance, and so does the map."
        )
