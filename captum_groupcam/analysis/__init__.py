"""How sure a map is, and which layer explains best."""

from captum_groupcam.analysis.layer_advice import LayerAdvice, candidate_layers, suggest_layer
from captum_groupcam.analysis.uncertainty import (
    ScoredMasks,
    maximum_probability,
    scored_masks,
    standard_error,
)

__all__ = [
    "LayerAdvice",
    "ScoredMasks",
    "candidate_layers",
    "maximum_probability",
    "scored_masks",
    "standard_error",
    "suggest_layer",
]
