"""Group-CAM as augmentation, put to the test: fine-tuning in several arms."""
