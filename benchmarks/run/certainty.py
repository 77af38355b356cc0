"""How sure a map of Group-CAM is, as a picture for the report."""

from __future__ import annotations

from matplotlib.figure import Figure
from torch.nn import Module

from captum_groupcam import GroupCAM
from captum_groupcam.analysis.uncertainty import maximum_probability, scored_masks, standard_error
from captum_groupcam.methods import MethodSpec
from captum_groupcam.models import ImageClassifier
from captum_groupcam.visualization import method_sheet

from ..measures.explained import Explained

__all__ = ["certainty_figure"]


def certainty_figure(
    model: ImageClassifier, network: Module, spec: MethodSpec, explained: Explained
) -> Figure:
    """Draws a map beside its standard error, under the chance that it points at an object.

    Args:
        model (ImageClassifier): The network with the layer that is explained.
        network (Module): What answers the queries: the network, or its compiled form.
        spec (MethodSpec): A method that is grouped.
        explained (Explained): One sample and its map.
    """
    scored = scored_masks(
        GroupCAM(network, model.layer.module),
        explained.inputs,
        explained.targets,
        **model.layer.keywords,
        **spec.method.fixed,
        **spec.options,
    )
    drawn = {
        "relu_attributions": spec.options.get("relu_attributions", True),
        "normalized": spec.options.get("merge_normalized", True),
    }
    error = standard_error(scored.masks, scored.scores, scored.size, **drawn)
    title = model.class_names[int(explained.targets)]
    if explained.objects is not None:
        hits = maximum_probability(scored.masks, scored.scores, explained.objects, **drawn)
        title += f"\npoints at it: {float(hits):.0%}"
    return method_sheet(
        model.denormalize(explained.inputs[0]),
        {str(spec): explained.maps[0], "standard error": error[0]},
        title=title,
    )
