"""The figures that ``explain`` and ``demo`` draw."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from captum_groupcam.analysis.uncertainty import scored_masks
from captum_groupcam.apps.console import progress_bar
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.images import sample_images
from captum_groupcam.methods import MethodSpec
from captum_groupcam.metrics.functional import deletion_insertion
from captum_groupcam.models import ImageClassifier, load_model
from captum_groupcam.visualization import curves, group_panels, method_grid, method_sheet, overlay

__all__ = ["deletion_insertion_curves", "demo_figure", "groups", "picture"]


def picture(
    model: ImageClassifier, inputs: Tensor, target: int, maps: dict[str, Tensor], *, sheet: bool
) -> Figure:
    """The map over the image, or a sheet of the image and the map of each method."""
    image, title = model.denormalize(inputs)[0], model.class_names[target]
    if sheet:
        return method_sheet(image, {name: one[0] for name, one in maps.items()}, title=title)
    (attributions,) = maps.values()
    return overlay(image, attributions[0], title=title)


def groups(model: ImageClassifier, spec: MethodSpec, inputs: Tensor, target: int) -> Figure:
    """What the groups of the largest scores show of the image."""
    scored = scored_masks(
        GroupCAM(model.network, model.layer.module),
        inputs,
        target,
        **model.layer.keywords,
        **spec.method.fixed,
        **spec.options,
    )
    masks, scores = scored.of_sample(0)
    return group_panels(
        model.denormalize(inputs)[0], masks, scores, title=model.class_names[target]
    )


def deletion_insertion_curves(
    model: ImageClassifier, inputs: Tensor, target: int, maps: dict[str, Tensor]
) -> Figure:
    """Deletion and insertion of each map, by the paper's protocol."""
    results = {
        name: deletion_insertion(model.network, one, inputs, target) for name, one in maps.items()
    }
    return curves(results, title=model.class_names[target])


def demo_figure(n_groups: int) -> Figure:
    """Explains sample photos with EfficientNet-Lite0: Group-CAM beside Grad-CAM.

    Raises:
        ModuleNotFoundError: If a package is missing, with the command that installs it.
    """
    model = load_model("efficientnet_lite0")
    photos = {name: load() for name, load in sample_images().items()}
    inputs = torch.stack([model.preprocess(photo) for photo in photos.values()])
    probabilities, classes = model.classify(inputs)
    target = classes[:, 0].tolist()
    methods: dict[str, tuple[str, dict[str, Any]]] = {
        "Grad-CAM": ("grad_cam", {}),
        "Group-CAM": ("group_cam", {"n_groups": n_groups}),
    }
    maps: dict[str, list[Tensor]] = {title: [] for title in methods}
    with progress_bar(Console()) as progress:
        # One image at a time, so that the bar moves.
        for row in progress.track(range(len(target)), description="demo"):
            for title, (method, options) in methods.items():
                image = inputs[row : row + 1]
                maps[title] += model.explain(method, image, target[row], **options)
    titles = [
        f"{model.class_names[index]}, {probability:.0%}"
        for index, probability in zip(target, probabilities[:, 0].tolist(), strict=True)
    ]
    return method_grid(model.denormalize(inputs), maps, row_titles=titles, images_per_row=2)
