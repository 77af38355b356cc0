"""The measures by name: ours and Quantus's, with what they need, cost and mean."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from torch import Tensor

from captum_groupcam.metrics.functional import (
    PRESETS,
    average_drop,
    deletion_insertion,
    pointing_game,
)

from . import quantus_measures as quantus
from .explained import Explained
from .randomisation import N_LAYERS, Order, parameter_randomisation

__all__ = ["DEFAULT_MEASURES", "MEASURES", "Measure"]

Category: TypeAlias = Literal["faithfulness", "localisation", "complexity", "randomisation"]
#: ``model``: asks the network. ``objects``: masks or boxes. ``explain``: an explain function.
#: ``batch``: compares samples with each other, so it wants all of them at once.
Need: TypeAlias = Literal["model", "objects", "explain", "batch"]


def _no_queries(shape: Sequence[int], **_: Any) -> int:  # noqa: ARG001
    return 0


@dataclass(frozen=True)
class Measure:
    """A measure of finished maps: ``measure(explained)`` gives one float a sample and score.

    Args:
        name (str): Its name in :data:`MEASURES`.
        category (str): ``faithfulness``, ``localisation``, ``complexity`` or ``randomisation``.
        higher_is_better (mapping of str to bool): The scores it gives, by name, and whether a
            higher one is better. Most give one, called like the measure.
        compute (callable): Takes :class:`~benchmarks.measures.explained.Explained` and the
            parameters, returns N values a score, in the order of `higher_is_better`.
        source (str): Where it is defined.
        needs (frozenset of str, optional): ``model``, ``objects`` (masks or boxes), ``explain``
            (an explain function), ``batch`` (samples are compared with each other, so a value
            depends on all of them). Default: nothing but maps.
        parameters (mapping, optional): All that was chosen about it. Default: none.
        cost (callable, optional): Forward passes for one sample, from the input's shape (C, H, W)
            and the parameters. Default: none.
        explanations (int, optional): Explanations computed for one sample. Default: 0.
        curves (sequence of str, optional): Names of what `compute` returns after the scores: the
            curves behind them, N x K each. Default: none.

    Examples::

        >>> MEASURES["quantus.Sparseness"].higher_is_better
        {'quantus.Sparseness': True}
        >>> MEASURES["DeletionInsertion"].queries((3, 224, 224))
        200
    """

    name: str
    category: Category
    higher_is_better: Mapping[str, bool]
    compute: Callable[..., Tensor | tuple[Tensor, ...]]
    source: str
    needs: frozenset[Need] = frozenset()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cost: Callable[..., int] = _no_queries
    explanations: int = 0
    curves: tuple[str, ...] = ()

    def __call__(self, explained: Explained) -> dict[str, Tensor]:
        """The scores of :meth:`measure` alone."""
        return self.measure(explained)[0]

    def measure(self, explained: Explained) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Measures every sample.

        Args:
            explained (Explained): The samples and their maps.

        Returns:
            tuple: For each score N finite values, and for each curve N x K, double precision, on
            the CPU.

        Raises:
            ValueError: If masks, boxes or the explain function are missing, or a value is
                undefined; the message names the samples.
        """
        if "objects" in self.needs and explained.objects is None:
            raise ValueError(
                f"{self.name} asks whether a map finds the object: it needs masks or boxes."
            )
        if "explain" in self.needs and explained.explain is None:
            raise ValueError(f"{self.name} explains again: it needs an explain function.")
        values = self.compute(explained, **self.parameters)
        if isinstance(values, Tensor):
            values = (values,)
        names = (*self.higher_is_better, *self.curves)
        found = {
            name: value.detach().double().cpu() for name, value in zip(names, values, strict=True)
        }
        curves = {name: found.pop(name) for name in self.curves}
        return found, curves

    @property
    def description(self) -> str:
        """What it computes, in one line."""
        return (inspect.getdoc(self.compute) or "").partition("\n")[0]

    def queries(self, shape: Sequence[int]) -> int:
        """Forward passes for one sample, without those of its explanations.

        Args:
            shape (sequence of int): Shape of one input: C, H, W.
        """
        return self.cost(shape, **self.parameters)


# --- ours -----------------------------------------------------------------------------------------


def _deletion_insertion(explained: Explained, *, protocol: str) -> tuple[Tensor, ...]:
    """Areas under p(class) while pixels are deleted and inserted by rank, and their difference."""
    result = deletion_insertion(
        explained.model,
        explained.maps,
        explained.inputs,
        explained.targets,
        protocol=protocol,
        seed=explained.seed,
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
    )


def _average_drop(explained: Explained) -> tuple[Tensor, ...]:
    """Percent of p(class) lost where the input is multiplied by the map, and whether it rises."""
    return tuple(average_drop(explained.model, explained.maps, explained.inputs, explained.targets))


def _pointing_game(explained: Explained, *, tolerance: float) -> Tensor:
    """1 if the map's maximum is nearer to the object than the tolerance in pixels, else 0."""
    masks = explained.masks
    return pointing_game(
        explained.maps,
        boxes=explained.boxes,
        masks=None if masks is None else masks.squeeze(1),
        image_size=explained.image_sizes,
        tolerance=tolerance,
    )


def _pointing_game_measure(name: str, score: str, tolerance: float) -> Measure:
    return Measure(
        name,
        "localisation",
        {score: True},
        _pointing_game,
        "Zhang et al. 2018, arXiv 1608.00507",
        frozenset({"objects"}),
        {"tolerance": tolerance},
    )


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


_OURS = (
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
    ),
    _pointing_game_measure("PointingGame", "pointing_game", 15.0),
    _pointing_game_measure("PointingGame.0px", "pointing_game.0px", 0.0),
    _parameter_randomisation_measure("cascading"),
    _parameter_randomisation_measure("independent"),
)

# --- Quantus's ------------------------------------------------------------------------------------


def _quantus(
    kind: str,
    category: Category,
    higher_is_better: bool,
    compute: Callable[..., Tensor],
    source: str,
    *needs: Need,
    cost: Callable[..., int] = _no_queries,
    explanations: int = 0,
    **parameters: Any,
) -> Measure:
    name = f"quantus.{kind}"
    return Measure(
        name,
        category,
        {name: higher_is_better},
        compute,
        source,
        frozenset(needs),
        parameters,
        cost,
        explanations,
    )


def _feature_steps(shape: Sequence[int], steps: int) -> int:
    return math.ceil(math.prod(shape) / quantus.features_in_step(shape, steps))


def _patches(shape: Sequence[int], size: int) -> int:
    return math.ceil(shape[-2] / size) * math.ceil(shape[-1] / size)


_QUANTUS = (
    _quantus(
        "FaithfulnessCorrelation",
        "faithfulness",
        True,
        quantus.faithfulness_correlation,
        "Bhatt et al. 2020, arXiv 2005.00631",
        "model",
        cost=lambda shape, nr_runs, **_: nr_runs + 1,  # noqa: ARG005
        nr_runs=100,
        subset_size=224,
        perturb_baseline="black",
    ),
    _quantus(
        "FaithfulnessEstimate",
        "faithfulness",
        True,
        quantus.faithfulness_estimate,
        "Alvarez-Melis & Jaakkola 2018, arXiv 1806.07538",
        "model",
        cost=lambda shape, steps, **_: _feature_steps(shape, steps) + 1,
        steps=32,
        perturb_baseline="black",
    ),
    _quantus(
        "MonotonicityCorrelation",
        "faithfulness",
        True,
        quantus.monotonicity_correlation,
        "Nguyen & Martinez 2020, arXiv 2007.07584",
        "model",
        cost=lambda shape, steps, nr_samples, **_: _feature_steps(shape, steps) * nr_samples + 1,
        steps=8,
        nr_samples=10,
        perturb_baseline="uniform",
    ),
    _quantus(
        "PixelFlipping",
        "faithfulness",
        False,
        quantus.pixel_flipping,
        "Bach et al. 2015, PLoS ONE 10(7)",
        "model",
        cost=lambda shape, steps, **_: _feature_steps(shape, steps),
        steps=32,
        perturb_baseline="black",
    ),
    _quantus(
        "RegionPerturbation",
        "faithfulness",
        True,
        quantus.region_perturbation,
        "Samek et al. 2015, arXiv 1509.06321",
        "model",
        cost=lambda shape, patches, regions_evaluation, **_: (
            min(_patches(shape, quantus.patch_size(shape, patches)), regions_evaluation) + 1
        ),
        patches=14,
        regions_evaluation=100,
        perturb_baseline="black",
    ),
    _quantus(
        "Selectivity",
        "faithfulness",
        False,
        quantus.selectivity,
        "Montavon et al. 2018, arXiv 1706.07979",
        "model",
        cost=lambda shape, patches, **_: _patches(shape, quantus.patch_size(shape, patches)),
        patches=14,
        perturb_baseline="black",
    ),
    _quantus(
        "SensitivityN",
        "faithfulness",
        True,
        quantus.sensitivity_n,
        "Ancona et al. 2018, arXiv 1711.06104",
        "model",
        cost=lambda shape, steps, **_: _feature_steps(shape, steps) + 1,
        steps=32,
        n_max_fraction=0.8,
        perturb_baseline="black",
    ),
    _quantus(
        "IROF",
        "faithfulness",
        True,
        quantus.irof,
        "Rieger & Hansen 2020, arXiv 2003.08747",
        "model",
        cost=lambda shape, **_: 101,  # noqa: ARG005 - SLIC makes about 100 segments
        segmentation_method="slic",
    ),
    _quantus(
        "ROAD",
        "faithfulness",
        False,
        quantus.road,
        "Rong et al. 2022, arXiv 2202.00449",
        "model",
        cost=lambda shape, percentages, **_: len(percentages),  # noqa: ARG005
        percentages=(10, 20, 30, 40, 50, 60, 70, 80, 90),
        noise=0.01,
    ),
    _quantus(
        "Infidelity",
        "faithfulness",
        False,
        quantus.infidelity,
        "Yeh et al. 2019, arXiv 1901.09392",
        "model",
        cost=lambda shape, patches, **_: (
            _patches(shape, quantus.dividing_patch_size(shape, patches)) + 1
        ),
        patches=14,
        perturb_baseline="black",
    ),
    _quantus(
        "Sufficiency",
        "faithfulness",
        True,
        quantus.sufficiency,
        "Dasgupta et al. 2022, arXiv 2202.00734",
        "model",
        "batch",
        cost=lambda shape, **_: 1,  # noqa: ARG005
        threshold=0.6,
    ),
    _quantus(
        "PointingGame",
        "localisation",
        True,
        quantus.pointing_game,
        "Zhang et al. 2018, arXiv 1608.00507",
        "objects",
    ),
    _quantus(
        "AttributionLocalisation",
        "localisation",
        True,
        quantus.attribution_localisation,
        "Kohlbrenner et al. 2020, arXiv 1910.09840",
        "objects",
    ),
    _quantus(
        "TopKIntersection",
        "localisation",
        True,
        quantus.top_k_intersection,
        "Theiner et al. 2021, arXiv 2104.14995",
        "objects",
        k=1000,
    ),
    _quantus(
        "RelevanceRankAccuracy",
        "localisation",
        True,
        quantus.relevance_rank_accuracy,
        "Arras et al. 2021, arXiv 2003.07258",
        "objects",
    ),
    _quantus(
        "RelevanceMassAccuracy",
        "localisation",
        True,
        quantus.relevance_mass_accuracy,
        "Arras et al. 2021, arXiv 2003.07258",
        "objects",
    ),
    _quantus(
        "AUC",
        "localisation",
        True,
        quantus.auc,
        "Fawcett 2006, doi 10.1016/j.patrec.2005.10.010",
        "objects",
    ),
    _quantus(
        "Sparseness",
        "complexity",
        True,
        quantus.sparseness,
        "Chalasani et al. 2020, arXiv 1810.06583",
    ),
    _quantus(
        "Complexity",
        "complexity",
        False,
        quantus.complexity,
        "Bhatt et al. 2020, arXiv 2005.00631",
    ),
    _quantus(
        "MPRT",
        "randomisation",
        False,
        quantus.mprt,
        "Adebayo et al. 2018, arXiv 1810.03292",
        "model",
        "explain",
        explanations=2,
        layer_order="top_down",
    ),
    _quantus(
        "RandomLogit",
        "randomisation",
        False,
        quantus.random_logit,
        "Sixt et al. 2020, arXiv 1912.09818",
        "model",
        "explain",
        cost=lambda shape: 1,  # noqa: ARG005
        explanations=1,
    ),
)

#: Every measure by name.
MEASURES: dict[str, Measure] = {measure.name: measure for measure in (*_OURS, *_QUANTUS)}

#: A set that says something in each category that needs no further explanations, for 202 forward
#: passes a sample and map; most of the others take about 100 more each (:meth:`Measure.queries`).
#: Measures that need objects can be used only where the data have them.
DEFAULT_MEASURES: tuple[str, ...] = (
    "DeletionInsertion",
    "AverageDrop",
    "PointingGame",
    "PointingGame.0px",
    "quantus.RelevanceRankAccuracy",
    "quantus.RelevanceMassAccuracy",
    "quantus.Sparseness",
)
