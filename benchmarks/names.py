"""Names for the help of commands, which is shown before anything heavy is imported."""

from __future__ import annotations

__all__ = ["ARCHITECTURE_NAMES", "ARM_NAMES", "COMPARISON_NAMES", "CONTROL_NAMES", "DATASET_NAMES"]
__all__ += ["DEFAULT_NAMES", "MEASURE_NAMES", "STUDY_NAMES", "VARIANT_NAMES"]

#: Of :data:`~benchmarks.controls.CONTROLS`.
CONTROL_NAMES = ("random", "centre", "edges")

#: Of :data:`~benchmarks.data.DATASETS`.
DATASET_NAMES = (
    "bundled",
    "images",
    "folder",
    "imagenet",
    "coco",
    "coco_masks",
    "voc",
    "grid",
    "planted",
)

#: Of :data:`~benchmarks.data.scenes.Variant`.
VARIANT_NAMES = ("patch", "mark")

#: Of :data:`~benchmarks.data.planted_network.Architecture`.
ARCHITECTURE_NAMES = ("residual", "transformer")

#: Of :data:`~benchmarks.measures.registry.MEASURES`.
MEASURE_NAMES = (
    "DeletionInsertion",
    "DeletionInsertion.rise",
    "DeletionInsertion.official",
    "AverageDrop",
    "PointingGame",
    "PointingGame.0px",
    "GridPointingGame",
    "PlantedEvidence",
    "MaxSensitivity",
    "Agreement",
    "ADCC",
    "ParameterRandomisation.cascading",
    "ParameterRandomisation.independent",
    "quantus.FaithfulnessCorrelation",
    "quantus.FaithfulnessEstimate",
    "quantus.MonotonicityCorrelation",
    "quantus.PixelFlipping",
    "quantus.RegionPerturbation",
    "quantus.Selectivity",
    "quantus.SensitivityN",
    "quantus.IROF",
    "quantus.ROAD",
    "quantus.Infidelity",
    "quantus.Sufficiency",
    "quantus.PointingGame",
    "quantus.AttributionLocalisation",
    "quantus.TopKIntersection",
    "quantus.RelevanceRankAccuracy",
    "quantus.RelevanceMassAccuracy",
    "quantus.AUC",
    "quantus.Sparseness",
    "quantus.Complexity",
    "quantus.MPRT",
    "quantus.RandomLogit",
)

#: :data:`~benchmarks.measures.registry.DEFAULT_MEASURES`.
DEFAULT_NAMES = (
    "DeletionInsertion",
    "AverageDrop",
    "PointingGame",
    "PointingGame.0px",
    "quantus.RelevanceRankAccuracy",
    "quantus.RelevanceMassAccuracy",
)

#: Of :data:`~benchmarks.experiments.ablation.STUDIES`.
STUDY_NAMES = (
    "theta",
    "theta_input",
    "n_groups",
    "n_groups_input",
    "grouping",
    "weights",
    "baseline",
    "denoise_at",
)

#: Of :data:`~benchmarks.experiments.speed.COMPARISONS`.
COMPARISON_NAMES = (
    "group_cam",
    "accelerate",
    "accelerate_queries",
    "batch_sizes",
    "score_cam",
    "deletion_insertion",
    "evaluate",
)

#: Of :data:`~benchmarks.experiments.finetune.training.ARMS`.
ARM_NAMES = ("plain", "group_cam", "random", "grad_cam")
