"""The paper's ablations as sets of methods: one option varied, the rest left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from captum_groupcam.methods import MethodSpec

__all__ = ["STUDIES", "chosen_studies", "layers_study"]


def _varied(option: str, values: Sequence[Any], **fixed: Any) -> list[MethodSpec]:
    """Group-CAM with each value of an option; the default stands as it is, without options."""
    return [_group_cam({**fixed, option: value}) for value in values]


def _group_cam(options: Mapping[str, Any]) -> MethodSpec:
    changed = {name: value for name, value in options.items() if value != _DEFAULTS[name]}
    return MethodSpec("group_cam", dict(sorted(changed.items())))


#: The options of GroupCAM that are varied, with their defaults (the paper's).
_DEFAULTS: dict[str, Any] = {
    "denoise_percentile": 70,
    "denoise_at": "layer",
    "n_groups": 32,
    "grouping": "contiguous",
    "baselines": None,
}
_PERCENTILES = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90)
_GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

#: Every study: its title to its variants. ``theta`` is the paper's figure 5, ``n_groups`` its
#: table 2.
STUDIES: dict[str, list[MethodSpec]] = {
    "theta": _varied("denoise_percentile", _PERCENTILES),
    "theta_input": _varied("denoise_percentile", _PERCENTILES, denoise_at="input"),
    "n_groups": _varied("n_groups", _GROUPS),
    "n_groups_input": _varied("n_groups", _GROUPS, denoise_at="input"),
    "grouping": _varied("grouping", ("contiguous", "k_means", "agglomerative")),
    "weights": [MethodSpec("group_cam"), MethodSpec("group_cam_gradient_free")],
    "baseline": _varied("baselines", (None, 0.0)),
    "denoise_at": _varied("denoise_at", ("layer", "input")),
}


def layers_study(layers: Sequence[str]) -> list[MethodSpec]:
    """Group-CAM on the network's own layer and on others.

    Args:
        layers (sequence of str): Their dotted names.
    """
    return [MethodSpec("group_cam"), *(MethodSpec("group_cam", layer=layer) for layer in layers)]


def chosen_studies(names: Sequence[str], layers: Sequence[str] = ()) -> dict[str, list[MethodSpec]]:
    """Studies by name, that of layers among them if there are any.

    Args:
        names (sequence of str): Names of :data:`STUDIES`; none of them stands for all.
        layers (sequence of str, optional): Dotted names of layers. Default: none.

    Raises:
        ValueError: If a name is unknown.
    """
    unknown = [name for name in names if name not in STUDIES]
    if unknown:
        raise ValueError(f"Unknown study {unknown[0]!r}; known are {', '.join(STUDIES)}.")
    chosen = {name: STUDIES[name] for name in (names or STUDIES)}
    if layers:
        chosen["layer"] = layers_study(layers)
    return chosen
