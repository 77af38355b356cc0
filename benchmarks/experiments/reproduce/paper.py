"""What the Group-CAM paper (arXiv 2103.13859) reports: each table and figure that can be measured.

The paper's tables are not repeated here; what is said of each is the claim that it is there for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["EXHIBITS", "Exhibit", "Kind"]

#: What has to be done: runs of these commands.
Kind = Literal["compare", "theta", "n_groups", "pointing", "sanity", "speed", "finetune"]


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of the paper.

    Args:
        kind (str): What has to be done.
        title (str): What it is about.
        says (str): What the paper says of it.
        network (str): The paper's network, as torchvision calls it.
        data (str): ``imagenet``, ``coco`` or ``train``, which has ``train/`` and ``val/``.
        n_images (int): Number of the paper's images; of ``train`` those of each class.
    """

    kind: Kind
    title: str
    says: str
    network: str
    data: Literal["imagenet", "coco", "train"]
    n_images: int


#: By the name that ``--only`` takes. Tables and figures have the paper's numbers as far as they are
#: known to us; the others are called by what they are about.
EXHIBITS: dict[str, Exhibit] = {
    "table1": Exhibit(
        "compare",
        "Deletion and insertion",
        "Group-CAM has the highest over-all AUC of all methods.",
        "vgg19",
        "imagenet",
        10_000,
    ),
    "figure5": Exhibit(
        "theta",
        "The percentile theta",
        "Over-all AUC is highest near theta = 70.",
        "resnet50",
        "imagenet",
        5_000,
    ),
    "table2": Exhibit(
        "n_groups",
        "The number of groups G",
        "Over-all AUC gains with G.",
        "resnet50",
        "imagenet",
        5_000,
    ),
    "pointing": Exhibit(
        "pointing",
        "Pointing game",
        "Group-CAM is 0.8 points ahead of Grad-CAM.",
        "resnet50",
        "coco",
        5_000,
    ),
    "speed": Exhibit(
        "speed",
        "Run time",
        "A map with G = 32 takes 0.09 s, on the authors' GPU.",
        "resnet50",
        "imagenet",
        5_000,
    ),
    "figure6": Exhibit(
        "sanity",
        "Sanity check",
        "The map depends on the weights: it changes as layers are drawn anew.",
        "vgg19",
        "imagenet",
        10,
    ),
    "finetune": Exhibit(
        "finetune",
        "Fine-tuning",
        "Top-1 of ResNet-50 rises from 76.15 to 76.74 % (+0.59 points).",
        "resnet50",
        "train",
        1_300,
    ),
}
