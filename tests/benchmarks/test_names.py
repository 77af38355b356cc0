"""Names that the help of commands lists are those that there are."""

from __future__ import annotations

from typing import get_args

from benchmarks import names
from benchmarks.controls import CONTROLS
from benchmarks.data import DATASETS
from benchmarks.data.planted_network import Architecture
from benchmarks.data.scenes import Variant
from benchmarks.experiments.ablation import STUDIES
from benchmarks.experiments.finetune.training import ARMS
from benchmarks.experiments.speed import COMPARISONS
from benchmarks.measures.registry import DEFAULT_MEASURES, MEASURES


def test_help_lists_what_there_is() -> None:
    assert tuple(CONTROLS) == names.CONTROL_NAMES
    assert tuple(DATASETS) == names.DATASET_NAMES
    assert tuple(MEASURES) == names.MEASURE_NAMES
    assert names.DEFAULT_NAMES == DEFAULT_MEASURES
    assert tuple(STUDIES) == names.STUDY_NAMES
    assert tuple(COMPARISONS) == names.COMPARISON_NAMES
    assert tuple(ARMS) == names.ARM_NAMES
    assert get_args(Variant) == names.VARIANT_NAMES
    assert get_args(Architecture) == names.ARCHITECTURE_NAMES
