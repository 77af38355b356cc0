"""Group-CAM as augmentation, put to the test: fine-tuning in several arms."""

from benchmarks.experiments.finetune.command import finetune

__all__ = ["finetune"]
