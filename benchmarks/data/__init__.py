"""The data sets by name: images with the class to explain and where its objects are."""

from __future__ import annotations

from benchmarks.data._objects import is_difficult
from benchmarks.data._samples import Dataset, LeftOut, Sample, Source, printable, to_inputs
from benchmarks.data.bundled import bundled
from benchmarks.data.categories import imagenet_classes
from benchmarks.data.coco import coco, coco_masks
from benchmarks.data.folder import folder
from benchmarks.data.imagenet import imagenet
from benchmarks.data.images import images
from benchmarks.data.voc import voc

__all__ = ["DATASETS", "Dataset", "LeftOut", "Sample", "Source", "bundled", "coco"]
__all__ += ["coco_masks", "folder", "imagenet", "imagenet_classes", "images", "is_difficult"]
__all__ += ["printable", "to_inputs", "voc"]

#: Every data set: name to a function of its root folder and the names of the network's classes.
DATASETS: dict[str, Source] = {
    "bundled": bundled,
    "images": images,
    "folder": folder,
    "imagenet": imagenet,
    "coco": coco,
    "coco_masks": coco_masks,
    "voc": voc,
}
