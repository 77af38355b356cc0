"""How many forward passes a command takes, and whether they pay for a faster network."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from torch import nn

from captum_groupcam.methods import MethodSpec
from captum_groupcam.models import ImageClassifier

__all__ = ["MANY_PASSES", "accelerated_where_it_pays", "passes_per_image"]

#: From how many forward passes on a faster copy of the network, which costs a dozen, is made.
MANY_PASSES = 500
#: What deletion and insertion of one map take.
_CURVES = 200


def passes_per_image(specs: Collection[MethodSpec], *, groups: bool, curves: bool) -> int:
    """How many forward passes the maps of one image take, and what is drawn beside them.

    Args:
        specs (collection of MethodSpec): The methods. One that cannot say how many it takes asks
            about each channel of a layer, which is many.
        groups (bool): Whether the groups are drawn, too, at the price of the map.
        curves (bool): Whether deletion and insertion are drawn, too.

    Returns:
        int: The number, roughly.

    Examples::

        >>> passes_per_image([MethodSpec("grad_cam")], groups=False, curves=True)
        201
    """
    passes = [spec.method.n_passes(**spec.options) for spec in specs]
    maps = sum(MANY_PASSES if number is None else number for number in passes)
    return maps * (1 + groups) + len(passes) * _CURVES * curves


def accelerated_where_it_pays(
    model: ImageClassifier, passes: int
) -> tuple[ImageClassifier, tuple[str, ...]]:
    """Gives a network a faster copy that answers queries, where that pays.

    It does from :data:`MANY_PASSES` passes on, if the network has batch normalisations to fold.

    Args:
        model (ImageClassifier): The network.
        passes (int): How many passes there will be.

    Returns:
        tuple of ImageClassifier and tuple of str: The network, with a copy or without, and what to
        say of it.
    """
    if passes < MANY_PASSES or not _has_norms(model.network):
        return model, ()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fast = model.accelerated()
        except (TypeError, ValueError) as error:
            return model, (f"Queries are answered by the network as it is: {error}",)
    return fast, (*(str(one.message) for one in caught), *fast.notes[len(model.notes) :])


def _has_norms(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
