"""Photos that need no download, with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from captum_groupcam.images import sample_images

from ._objects import Box, boxes_tensor
from ._samples import Dataset, Sample
from .categories import N_IMAGENET, names_of_classes

__all__ = ["OBJECTS", "bundled"]

#: Image and label, to the classes that the label stands for and the boxes, drawn by hand.
OBJECTS: dict[tuple[str, str], tuple[tuple[int, ...], list[Box]]] = {
    # tabby, tiger cat, Egyptian cat: it might be any of them
    ("cat", "cat"): ((281, 282, 285), [(0, 0, 402, 300)]),
    ("coffee", "espresso"): ((967,), [(203, 95, 372, 194)]),
    ("coffee", "cup"): ((504, 968), [(172, 17, 409, 308)]),  # coffee mug, cup
    ("camera", "tripod"): ((872,), [(230, 185, 407, 512)]),
    # moped, motor scooter: ImageNet's only ones
    ("motorcycle", "motorcycle"): ((665, 670), [(92, 18, 684, 451)]),
    ("motorcycle", "disk brake"): ((535,), [(533, 318, 616, 409)]),
    ("china", "palace"): ((698,), [(62, 28, 374, 415)]),
    ("china", "tile roof"): (
        (858,),
        [(95, 62, 321, 137), (84, 155, 331, 191), (62, 245, 353, 284), (205, 320, 374, 392)],
    ),
    ("astronaut", "space shuttle"): ((812,), [(354, 0, 462, 275)]),
}


def bundled(
    root: str | Path | None = None,  # noqa: ARG001
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Photos of scikit-image and scikit-learn that show something which ImageNet has a class for.

    Few, and some of it is hard to see: to try things out, not to compare methods by.

    Args:
        root (str or Path, optional): Not used. Default: None.
        class_names (sequence of str, optional): A name for each class of the network. Default:
            None, ImageNet's 1000.

    Returns:
        Dataset: The samples, named ``image:label``.

    Raises:
        ValueError: If the network is not one of ImageNet.

    Examples::

        >>> samples = bundled()
        >>> sample = next(iter(samples))
        >>> len(samples), sample.id, sample.targets
        (9, 'cat:cat', (281, 282, 285))
    """
    n_classes = len(names_of_classes(class_names))
    if n_classes != N_IMAGENET:
        raise ValueError(
            f"The bundled images are labelled with ImageNet's {N_IMAGENET} classes, but the "
            f"network has {n_classes}. Give pictures of your own: --dataset images --root FOLDER."
        )
    return Dataset({f"{image}:{label}": partial(_load, image, label) for image, label in OBJECTS})


def _load(image: str, label: str) -> Sample:
    targets, boxes = OBJECTS[image, label]
    pixels = sample_images()[image]()
    return Sample(f"{image}:{label}", pixels, targets, label, boxes=boxes_tensor(boxes))
