"""Sanity checks: does a map change when what the network has learnt is taken away?"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from quantus.helpers.model.pytorch_model import PyTorchModel
from torch import Tensor, nn

from .explained import Explained
from .measure import Measure
from .similarity import rank_correlation, ssim

__all__ = [
    "N_LAYERS",
    "RANDOMISATION",
    "Order",
    "chosen_layers",
    "parameter_randomisation",
    "randomised_maps",
]

#: ``cascading``: from the output down, each layer in addition to those above it. ``independent``:
#: one layer at a time, the others as they were.
Order: TypeAlias = Literal["cascading", "independent"]

#: At how many layers maps are compared.
N_LAYERS = 12

_QUANTUS_ORDERS = {"cascading": "top_down", "independent": "independent"}


def parameter_randomisation(
    explained: Explained, *, order: Order, n_layers: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Similarity of the map to those of the network with layers drawn anew; low is good.

    Model parameter randomisation (Adebayo et al. 2018, arXiv 1810.03292), on Quantus's order of
    layers and their ``reset_parameters``. A constant map resembles no other: similarity 0.

    Args:
        explained (Explained): Samples with their maps, and a function that explains again.
        order (str): ``cascading`` or ``independent``.
        n_layers (int): Number of layers at which maps are compared: see :func:`chosen_layers`.

    Returns:
        tuple of Tensor: SSIM and Spearman's rank correlation, means over the layers, N each; and
        their curves, N x layers.
    """
    alike, correlated = [], []
    for index in range(len(explained)):
        one = explained.sample(index)
        again = [maps[0] for _, maps in randomised_maps(one, order, n_layers)]
        alike.append([ssim(one.maps[0], other) for other in again])
        correlated.append([rank_correlation(one.maps[0], other) for other in again])
    first, second = (torch.tensor(values, dtype=torch.float64) for values in (alike, correlated))
    return first.mean(1), second.mean(1), first, second


def randomised_maps(explained: Explained, order: Order, n_layers: int) -> list[tuple[str, Tensor]]:
    """The maps of networks with layers drawn anew.

    Args:
        explained (Explained): Samples, and a function that explains again.
        order (str): ``cascading`` or ``independent``.
        n_layers (int): Number of layers.

    Returns:
        list of tuple of str and Tensor: For each of :func:`chosen_layers` its name and the maps
        where it was drawn last, N x 1 x H x W.
    """
    assert explained.explain is not None
    network = _as_written(explained.model)
    chosen = chosen_layers(network, n_layers)
    devices = [explained.inputs.device] if explained.inputs.is_cuda else []
    networks = PyTorchModel(network).get_random_layer_generator(
        _QUANTUS_ORDERS[order], explained.seed
    )
    with torch.random.fork_rng(devices):
        # The network is one and the same, changed from step to step: explained at once.
        maps = {
            name: explained.explain(randomised, explained.inputs, explained.targets)
            for name, randomised in networks
            if name in chosen
        }
    # Quantus goes from the input up in one of the orders.
    return [(name, maps[name]) for name in chosen]


def chosen_layers(network: nn.Module, n_layers: int) -> list[str]:
    """Names of layers with parameters, from the output down to the input, evenly spread.

    The first and the last are among them; all if there are no more than `n_layers`.

    Examples::

        >>> chosen_layers(nn.Sequential(*(nn.Linear(1, 1) for _ in range(5))), 3)
        ['4', '2', '0']
    """
    modules = _as_written(network).named_modules()
    names = [name for name, module in modules if hasattr(module, "reset_parameters")][::-1]
    places = np.linspace(0, len(names) - 1, min(n_layers, len(names))).round().astype(int)
    return [names[place] for place in places]


def _as_written(network: nn.Module) -> nn.Module:
    inner = getattr(network, "_orig_mod", network)
    assert isinstance(inner, nn.Module)
    return inner


def _parameter_randomisation_measure(order: Order) -> Measure:
    return Measure(
        f"ParameterRandomisation.{order}",
        "randomisation",
        {f"{order}.ssim": False, f"{order}.spearman": False},
        parameter_randomisation,
        "Adebayo et al. 2018, arXiv 1810.03292",
        frozenset({"model", "explain"}),
        {"order": order, "n_layers": N_LAYERS},
        explanations=N_LAYERS,
        curves=("ssim", "spearman"),
    )


#: In the order of the registry.
RANDOMISATION = (
    _parameter_randomisation_measure("cascading"),
    _parameter_randomisation_measure("independent"),
)
