"""Serves a page of Captum Insights that offers Group-CAM, and prints its address."""

import torch
from captum.insights import AttributionVisualizer, Batch
from captum.insights.attr_vis.features import ImageFeature

from captum_groupcam.images import sample_images
from captum_groupcam.insights import register
from captum_groupcam.models import load_model

labels = {"cat": "tabby", "coffee": "espresso", "rocket": "missile", "motorcycle": "moped"}
model = load_model("efficientnet_lite0")
images = sample_images()
batch = Batch(
    torch.stack([model.preprocess(images[name]()) for name in labels]),
    torch.tensor([model.class_names.index(label) for label in labels.values()]),
)

register()
visualizer = AttributionVisualizer(
    models=model.network,
    classes=model.class_names,
    features=ImageFeature(
        "Photo",
        baseline_transforms=None,
        input_transforms=None,
        visualization_transform=model.denormalize,
    ),
    dataset=[batch],
    score_func=lambda output: output.softmax(1),
)
visualizer.serve()
