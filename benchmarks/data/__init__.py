"""The data sets by name: images with the class to explain and where its objects are."""

from __future__ import annotations

from ._objects import is_difficult
from ._samples import Dataset, LeftOut, Sample, Source, printable, to_inputs
from .bundled import bundled
from .categories import imagenet_classes
from .coco import coco, coco_masks
from .folder import folder
from .grid import grid
from .imagenet import imagenet
from .images import images
from .planted import planted
from .sources import open_dataset
from .voc import voc

__all__ = ["DATASETS", "Dataset", "LeftOut", "Sample", "Source", "bundled", "coco"]
__all__ += ["coco_masks", "folder", "imagenet", "imagenet_classes", "images", "is_difficult"]
__all__ += ["grid", "open_dataset", "planted", "printable", "to_inputs", "voc"]

#: Every data set: name to a function of its root folder and the names of the network's classes.
#:
#: :meta hide-value:
DATASETS: dict[str, Source] = {
    "bundled": bundled,
    "images": images,
    "folder": folder,
    "imagenet": imagenet,
    "coco": coco,
    "coco_masks": coco_masks,
    "voc": voc,
    "grid": grid,
    "planted": planted,
}
