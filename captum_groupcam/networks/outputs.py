"""Networks that give more than one tensor: adapters that give the one to explain.

An adapter is a module around the network. The network's own modules stay the same objects, so that
a layer of it is a layer of the adapter, too, and ``DataParallel`` may go around both. It goes where
a network goes: to GroupCAM, every other method, and the measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

__all__ = ["BoxScore", "RegionMean", "SelectOutput", "best_box_scores", "region_mean"]
__all__ += ["select_output", "tensors_of"]


def select_output(output: Any, key: str | int) -> Tensor:
    """Takes one tensor of those that a network gives.

    Args:
        output (Any): A mapping (torchvision's segmentation networks give ``{"out": ...}``), a
            tuple, or an object with attributes (``ModelOutput`` of Hugging Face).
        key (str or int): Key of the mapping, or name of the attribute; or the position in a tuple.

    Returns:
        Tensor: The tensor, of its own shape.

    Raises:
        ValueError: If the output has nothing of that name or position.
        TypeError: If that is not a tensor.

    Examples::

        >>> select_output({"out": torch.zeros(2, 5), "aux": None}, "out").shape
        torch.Size([2, 5])
    """
    by_name = isinstance(key, str) and not isinstance(output, Mapping)
    try:
        selected = getattr(output, str(key)) if by_name else output[key]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        kind = type(output).__name__
        if isinstance(output, Mapping):
            kind += f" with the keys {list(output)}"
        elif isinstance(output, (tuple, list)):
            kind += f" of {len(output)}"
        raise ValueError(f"The network's output has no {key!r}, it is a {kind}.") from error
    if not isinstance(selected, Tensor):
        raise TypeError(
            f"Expected {key!r} of the network's output to be a tensor, got "
            f"{type(selected).__name__}."
        )
    return selected


def tensors_of(output: Any) -> dict[str | int, Tensor]:
    """Lists the tensors that a network gives, by what :func:`select_output` calls them.

    Args:
        output (Any): A mapping, a tuple or list, or an object with attributes.

    Returns:
        dict of str or int to Tensor: The tensors, of their own shapes. A named tuple counts its.

    Examples::

        >>> list(tensors_of({"logits": torch.zeros(2, 5), "loss": None}))
        ['logits']
    """
    if isinstance(output, Mapping):
        items = list(output.items())
    elif isinstance(output, (tuple, list)):
        items = list(enumerate(output))
    else:
        items = list(getattr(output, "__dict__", {}).items())
    return {key: value for key, value in items if isinstance(value, Tensor)}


class _Adapter(Module):
    """A module around a network."""

    def __init__(self, model: Module) -> None:
        super().__init__()
        if not isinstance(model, Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
        self.model = model
        # Of the adapter alone: train() would reach layers that the caller has frozen.
        self.training = model.training


class SelectOutput(_Adapter):
    """A network of whose outputs one is explained.

    Args:
        model (torch.nn.Module): Gives a mapping, a tuple or an object with tensors.
        select (str, int or Callable): Which one, see :func:`select_output`; or a function of the
            output that returns the tensor.

    Examples::

        >>> from torch import nn
        >>> from captum_groupcam import GroupCAM
        >>> class Segmenter(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv = nn.Conv2d(3, 5, 3, padding=1)
        ...     def forward(self, images):
        ...         return {"out": self.conv(images)}
        >>> model = Segmenter().eval()
        >>> group_cam = GroupCAM(SelectOutput(model, "out"), model.conv)
        >>> group_cam.attribute(torch.rand(2, 3, 8, 8), (4, 3, 3), gradient_free=True).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, model: Module, select: str | int | Callable[[Any], Tensor]) -> None:
        super().__init__(model)
        self.select = select

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Runs the network and gives the selected tensor.

        Args:
            *args (Any): What the network takes.
            **kwargs (Any): What else it takes.

        Returns:
            Tensor: Of the selected tensor's shape.
        """
        output = self.model(*args, **kwargs)
        if callable(self.select):
            return self.select(output)
        return select_output(output, self.select)


def region_mean(output: Tensor, regions: Tensor) -> Tensor:
    """Averages the output of a segmentation network over a region of each image.

    Args:
        output (Tensor): N x classes x spatial.
        regions (Tensor): N x spatial or N x 1 x spatial, or with batch size 1: true, or a weight
            above zero, inside the region.

    Returns:
        Tensor: N x classes.

    Raises:
        ValueError: If the shape is another one, a weight is negative or not finite, or a region
            is empty.

    Examples::

        >>> region_mean(torch.tensor([[[1.0, 3.0, 8.0]]]), torch.tensor([[True, True, False]]))
        tensor([[2.]])
    """
    if output.dim() < 3:
        raise ValueError(
            f"Expected an output of shape N x classes x spatial, got {tuple(output.shape)}."
        )
    weights = regions.unsqueeze(1) if regions.dim() == output.dim() - 1 else regions
    expected = (1, *output.shape[2:])
    if weights.shape[1:] != expected or weights.shape[0] not in (1, output.shape[0]):
        raise ValueError(
            f"Expected regions of shape {(output.shape[0], *expected)} for an output of shape "
            f"{tuple(output.shape)}, got {tuple(regions.shape)}."
        )
    weights = weights.to(output).flatten(2)
    if not ((weights >= 0) & weights.isfinite()).all():
        raise ValueError("Expected regions with finite weights that are not negative.")
    extent = weights.sum(-1)
    if not (extent > 0).all():
        raise ValueError(f"The regions {(extent <= 0).nonzero()[:, 0].tolist()} are empty.")
    return (output.flatten(2) * weights).sum(-1) / extent


class RegionMean(_Adapter):
    """A segmentation network that is asked about a region rather than a pixel.

    Its output is the mean of the logits over the region, hence the softmax of it the geometric mean
    of the pixels' probabilities, normalised. (The sum would say the same of the gradients, but its
    softmax is 0 or 1 for any region of some size.) Explained are the regions given as
    ``additional_forward_args``, one for each image.

    Source: Vinogradova, Dibrov and Myers, "Towards Interpretable Semantic Segmentation via
    Gradient-weighted Class Activation Mapping", AAAI 2020: a class's logits summed over pixels.

    Args:
        model (torch.nn.Module): Gives N x classes x spatial; :class:`SelectOutput` around a network
            of torchvision.

    Examples::

        >>> from torch import nn
        >>> from captum_groupcam import GroupCAM
        >>> conv = nn.Conv2d(3, 5, 3, padding=1)
        >>> images, regions = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.bool)
        >>> regions[:, 2:5, 2:5] = True
        >>> group_cam = GroupCAM(RegionMean(conv).eval(), conv)
        >>> group_cam.attribute(images, target=4, additional_forward_args=regions).shape
        torch.Size([2, 1, 8, 8])
    """

    def forward(self, inputs: Tensor, regions: Tensor) -> Tensor:
        """Runs the network and averages over the regions, see :func:`region_mean`."""
        return region_mean(self.model(inputs), regions)


def best_box_scores(
    detections: list[dict[str, Tensor]], boxes: Tensor, labels: Tensor, min_iou: float = 0.5
) -> Tensor:
    """Finds a reference box among the detections of each image: the score of the one that fits.

    Args:
        detections (list of dict): For each of N images ``boxes`` (D x 4), ``labels`` (D) and
            ``scores`` (D), as torchvision's detectors give them.
        boxes (Tensor): N x 4 reference boxes (x0, y0, x1, y1) in pixels.
        labels (Tensor): N labels: only detections of this class count.
        min_iou (float, optional): Least intersection over union with the reference box.
            Default: 0.5.

    Returns:
        Tensor: N scores, that of the box with the largest intersection over union; zero if none
        has as much as ``min_iou``.

    Raises:
        ValueError: If there is not one box and label for each image, or min_iou is not in [0, 1].

    Examples::

        >>> found = {
        ...     "boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0]]),
        ...     "labels": torch.tensor([1, 1]),
        ...     "scores": torch.tensor([0.3, 0.9]),
        ... }
        >>> best_box_scores([found], torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([1]))
        tensor([0.3000])
    """
    if not 0 <= min_iou <= 1:
        raise ValueError(f"min_iou must be in [0, 1], got {min_iou}.")
    if boxes.shape != (len(detections), 4) or labels.shape != (len(detections),):
        raise ValueError(
            f"Expected one box and one label for each of {len(detections)} images, N x 4 and N, "
            f"got {tuple(boxes.shape)} and {tuple(labels.shape)}."
        )
    scores = []
    for found, box, label in zip(detections, boxes, labels, strict=True):
        if missing := {"boxes", "labels", "scores"} - {*found}:
            raise ValueError(
                f"Expected boxes, labels and scores of each image, got no {sorted(missing)}."
            )
        from torchvision.ops import box_iou  # takes seconds to import

        overlap = box_iou(found["boxes"].detach(), box.to(found["boxes"]).unsqueeze(0)).squeeze(1)
        overlap = torch.where((found["labels"] == label) & (overlap >= min_iou), overlap, -1)
        # A box of no worth at the end, for images without a detection, is chosen last.
        chosen = torch.cat([overlap, overlap.new_zeros(1)]).argmax()
        scores.append(torch.cat([found["scores"], found["scores"].new_zeros(1)])[chosen])
    return torch.stack(scores)


class BoxScore(_Adapter):
    """A detector of torchvision that is asked about one box: the score of the box that fits best.

    Boxes and labels go as ``additional_forward_args``, one of each for each image; the target is
    None, since there is one score an image. Where masks hide so much that no detection of the
    class overlaps the box by ``min_iou``, the score is zero. For maps the layer must be one of the
    backbone, with one row for each image, and the detector must not pad what it resizes.

    Args:
        model (torch.nn.Module): Takes images and gives a list of ``boxes``, ``labels`` and
            ``scores``.
        min_iou (float, optional): See :func:`best_box_scores`. Default: 0.5.

    Examples::

        >>> from torch import nn
        >>> class Detector(nn.Module):
        ...     def forward(self, images):
        ...         box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
        ...         one = torch.ones(1, dtype=torch.long)
        ...         return [{"boxes": box, "labels": one, "scores": i.mean()[None]} for i in images]
        >>> detector = BoxScore(Detector())
        >>> images, boxes = torch.ones(2, 3, 8, 8), torch.tensor([[0, 0, 8, 8], [6, 6, 8, 8]])
        >>> detector(images, boxes, torch.tensor([1, 1]))
        tensor([1., 0.])
    """

    def __init__(self, model: Module, min_iou: float = 0.5) -> None:
        super().__init__(model)
        self.min_iou = min_iou

    def forward(self, images: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Runs the detector and scores the boxes, see :func:`best_box_scores`."""
        return best_box_scores(self.model(list(images)), boxes, labels, self.min_iou)
