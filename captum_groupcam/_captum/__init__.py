"""The only place that touches Captum's private helpers."""

from captum_groupcam._captum._calls import (
    LRP_RULES,
    ForwardFunc,
    TargetType,
    log_usage,
    of_inference,
    progress_bar,
    run_forward,
    warn,
    without_class,
)
from captum_groupcam._captum._derivatives import (
    goes_past,
    gradients_of,
    input_gradients,
    layer_activations,
    layer_curvature,
    layer_gradients_and_activations,
)
from captum_groupcam._captum._hooks import check_outside, name_of, replacing
from captum_groupcam._captum._row_order import MIXED, REORDERED, is_in_other_rows, is_mixed_by

__all__ = [
    "LRP_RULES",
    "MIXED",
    "REORDERED",
    "ForwardFunc",
    "TargetType",
    "check_outside",
    "goes_past",
    "gradients_of",
    "input_gradients",
    "is_in_other_rows",
    "is_mixed_by",
    "layer_activations",
    "layer_curvature",
    "layer_gradients_and_activations",
    "log_usage",
    "name_of",
    "of_inference",
    "progress_bar",
    "replacing",
    "run_forward",
    "warn",
    "without_class",
]
