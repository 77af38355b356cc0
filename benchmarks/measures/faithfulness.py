"""Our measures of faithfulness: does the decision depend on what the map marks?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from captum_groupcam.metrics.functional import PRESETS, average_drop, deletion_insertion

from .explained import Explained
from .measure import Measure

__all__ = ["FAITHFULNESS"]


def _deletion_insertion(explained: Explained, *, protocol: str) -> tuple[Tensor, ...]:
    """Areas under p(class) while pixels are deleted and inserted by rank, and their difference."""
    result = deletion_insertion(
        explained.model,
        explained.maps,
        explained.inputs,
        explained.targets,
        protocol=protocol,
        seed=explained.each_seed,
    )
    fractions = result.fractions.expand_as(result.deletion_curve)
    curves = fractions, result.deletion_curve, result.insertion_curve
    return result.deletion, result.insertion, result.over_all, *curves


def _deletion_insertion_cost(shape: Sequence[int], *, protocol: str) -> int:
    preset = PRESETS[protocol]
    points = len(preset.counts(math.prod(shape[1:])))
    # Both curves hold the whole image, and where they share a baseline that too.
    return 2 * points - (2 if preset.deletion_baseline == preset.insertion_baseline else 1)


def _deletion_insertion_measure(name: str, protocol: str, source: str, prefix: str) -> Measure:
    return Measure(
        name,
        "faithfulness",
        {prefix + "deletion": False, prefix + "insertion": True, prefix + "over_all": True},
        _deletion_insertion,
        source,
        frozenset({"model"}),
        {"protocol": protocol},
        _deletion_insertion_cost,
        curves=("fraction", "deletion_curve", "insertion_curve"),
        shares_batches=True,
    )


def _average_drop(explained: Explained) -> tuple[Tensor, ...]:
    """Percent of p(class) lost where the input is multiplied by the map, and whether it rises."""
    return tuple(average_drop(explained.model, explained.maps, explained.inputs, explained.targets))


#: In the order of the registry.
FAITHFULNESS = (
    _deletion_insertion_measure(
        "DeletionInsertion", "paper", "Group-CAM, arXiv 2103.13859, section 4", ""
    ),
    _deletion_insertion_measure(
        "DeletionInsertion.rise", "rise", "RISE, arXiv 1806.07421, published code", "rise."
    ),
    _deletion_insertion_measure(
        "DeletionInsertion.official",
        "official",
        "Group-CAM, arXiv 2103.13859, published code",
        "official.",
    ),
    Measure(
        "AverageDrop",
        "faithfulness",
        {"average_drop": False, "increase_in_confidence": True},
        _average_drop,
        "Grad-CAM++, arXiv 1710.11063, section 4.1",
        frozenset({"model"}),
        cost=lambda shape: 2,  # noqa: ARG005
        shares_batches=True,
    ),
)
