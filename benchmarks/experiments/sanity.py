"""Maps of one sample while the network loses what it has learnt: the paper's figure 6."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.figure import Figure

from captum_groupcam.visualization import draw_overlay

from ..data import Sample
from ..measures.randomisation import N_LAYERS, Order, randomised_maps
from ..run.evaluate import Evaluator

__all__ = ["randomisation_figure"]

_INCH = 1.5


def randomisation_figure(
    evaluator: Evaluator, sample: Sample, order: Order, n_layers: int = N_LAYERS
) -> Figure:
    """Draws a row of maps for each method, from the trained network to the last layer drawn anew.

    Args:
        evaluator (Evaluator): The network and the methods.
        sample (Sample): The sample.
        order (str): ``cascading`` or ``independent``.
        n_layers (int, optional): Number of layers. Default:
            :data:`~benchmarks.measures.randomisation.N_LAYERS`.
    """
    prepared = evaluator.prepare(sample)
    image = evaluator.model.denormalize(prepared.inputs[0])
    figure = Figure(
        figsize=(_INCH * (n_layers + 1), (_INCH + 0.25) * len(evaluator.methods)),
        layout="constrained",
    )
    grid = figure.subplots(len(evaluator.methods), n_layers + 1, squeeze=False)
    for row, spec in zip(grid, evaluator.methods, strict=True):
        explain = evaluator.explain(spec)
        explained = replace(prepared, explain=explain)
        maps = [("trained", explain(prepared.model, prepared.inputs, prepared.targets))]
        maps += randomised_maps(explained, order, n_layers)
        for place, (name, attributions) in zip(row, maps, strict=False):
            draw_overlay(place, image, attributions[0])
            place.set_title(name, fontsize=6)
        for place in row[len(maps) :]:
            place.remove()
        row[0].text(
            -0.05, 0.5, str(spec), fontsize=7, rotation=90, ha="right", va="center",
            transform=row[0].transAxes,
        )  # fmt: skip
    return figure
