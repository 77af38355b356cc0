"""How sure a map is, and which layer explains best."""

from captum_groupcam.analysis.layer_advice import LayerAdvice, candidate_layers, suggest_layer
from captum_groupcam.analysis.uncertainty import (
    ScoredMasks,
    boxes_to_regions,
    maximum_probability,
    scored_masks,
    standard_error,
)

__all__ = [
    "LayerAdvice",
    "ScoredMasks",
    "boxes_to_regions",
    "candidate_layers",
    "maximum_probability",
    "scored_masks",
    "standard_error",
    "suggest_layer",
]
