"""Compares GroupCAM with Captum's LayerGradCam: python measure.py FOLDER [IMAGES]."""

import sys
from itertools import islice

import torch

from benchmarks.data import DATASETS, to_inputs
from benchmarks.measures.explained import Explained
from benchmarks.measures.registry import MEASURES
from captum_groupcam.metrics.bootstrap import bootstrap_mean, paired_bootstrap
from captum_groupcam.models import load_model

folder, n_images = sys.argv[1], int((sys.argv[2:] or [20])[0])
measures = ["DeletionInsertion", "PointingGame", "PointingGame.0px"]
measures += ["quantus.RelevanceRankAccuracy", "quantus.AUC", "quantus.Sparseness"]

model = load_model("efficientnet_lite0")
samples = list(islice(DATASETS["folder"](folder), n_images))
inputs = to_inputs(samples, model)
targets = torch.tensor([one.targets[0] for one in samples])
boxes = [one.boxes for one in samples]
sizes = torch.tensor([one.image_size for one in samples])
scores = []
for method in ("group_cam", "grad_cam"):
    maps = model.explain(method, inputs, targets)
    seen = Explained(model.network, inputs, targets, maps, boxes=boxes, image_sizes=sizes)
    scores.append({k: v for name in measures for k, v in MEASURES[name](seen).items()})

print(f"{model.name}, {len(samples)} samples: {samples[0].id} to {samples[-1].id}")
print("labelled class; deletion and insertion: preset paper; ", end="")
print("mean [95 % bootstrap interval]\n")
print(f"{'':29}  {'GroupCAM':24}  {'LayerGradCam':24}  paired difference")
for name, ours in scores[0].items():
    theirs = scores[1][name]
    means = bootstrap_mean(ours), bootstrap_mean(theirs), paired_bootstrap(ours, theirs)
    cells = [f"{one.mean:6.3f} [{one.low:6.3f}, {one.high:6.3f}]" for one in means]
    print(f"{name:29}  {cells[0]:24}  {cells[1]:24}  {cells[2]}")
