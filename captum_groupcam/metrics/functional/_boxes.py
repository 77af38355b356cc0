"""Where objects are: boxes, masks, and the pixels that they cover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ImageSize", "boxes_to_masks", "check_boxes", "covered_pixels", "image_sizes"]
__all__ += ["resize_masks"]

#: Height and width of all images (2), or of each (N x 2).
ImageSize: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Tensor


def boxes_to_masks(
    boxes: Sequence[Tensor], size: Sequence[int], *, image_size: ImageSize | None = None
) -> Tensor:
    """Marks the pixels that the boxes of each image touch.

    Args:
        boxes (sequence of Tensor): For each of N images B_i x 4 boxes (x0, y0, x1, y1) in pixels of
            the annotated image, ends exclusive; what lies outside of it is cut off.
        size (sequence of int): Height and width of the masks.
        image_size (sequence of int or Tensor, optional): Height and width of the image that the
            boxes belong to, for all images (2) or each (N x 2), where the masks show the whole of
            it at another size. Default: None, that of the masks.

    Returns:
        Tensor: N x 1 x H x W booleans, on the device of the boxes; empty where there is no box.

    Raises:
        ValueError: If boxes are not B x 4 finite numbers with x0 < x1 and y0 < y1, or image_size is
            no height and width.

    Examples::

        >>> boxes = [torch.tensor([[1, 0, 2.5, 1]])]
        >>> boxes_to_masks(boxes, (2, 4)).int()
        tensor([[[[0, 1, 1, 0],
                  [0, 0, 0, 0]]]], dtype=torch.int32)
        >>> boxes_to_masks(boxes, (2, 4), image_size=(2, 8)).int()
        tensor([[[[1, 1, 0, 0],
                  [0, 0, 0, 0]]]], dtype=torch.int32)
    """
    sizes = None if image_size is None else image_sizes(image_size, len(boxes))
    height, width = size
    masks = []
    for index, of_image in enumerate(boxes):
        corners = check_boxes(of_image, index).double().view(-1, 4)
        if sizes is not None:
            annotated = sizes[index].flip(0).repeat(2).to(corners.device)
            corners = corners * corners.new_tensor([width, height, width, height]) / annotated
        x0, y0, x1, y1 = covered_pixels(corners).view(-1, 4, 1, 1).unbind(1)
        y = torch.arange(height, device=corners.device).view(-1, 1)
        x = torch.arange(width, device=corners.device)
        masks.append(((x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)).any(0, keepdim=True))
    return torch.stack(masks)


def resize_masks(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Brings masks of objects to another size: a pixel is marked if it touches the object.

    So a mask keeps at least a pixel, however small its object, and the mask of a box is what
    :func:`boxes_to_masks` makes of the box.

    Args:
        masks (Tensor): N x 1 x H x W booleans, true on the object.
        size (sequence of int): Height and width to bring them to.

    Returns:
        Tensor: N x 1 x height x width booleans, on the device of the masks.

    Raises:
        ValueError: If the masks are not N x 1 x H x W booleans.

    Examples::

        >>> mask = torch.zeros(1, 1, 2, 6, dtype=torch.bool)
        >>> mask[0, 0, 0, 3] = True
        >>> resize_masks(mask, (1, 2)).int()
        tensor([[[[0, 1]]]], dtype=torch.int32)
    """
    if masks.dim() != 4 or masks.shape[1] != 1 or masks.dtype != torch.bool:
        raise ValueError(
            "Expected masks of shape N x 1 x H x W, boolean, got shape "
            f"{tuple(masks.shape)}, {masks.dtype}."
        )
    # Its windows are the pixels that a pixel of the new size touches.
    return F.adaptive_max_pool2d(masks.float(), tuple(size)) > 0


def covered_pixels(boxes: Tensor) -> Tensor:
    """The pixels that boxes touch.

    Args:
        boxes (Tensor): ... x 4 boxes (x0, y0, x1, y1), ends exclusive.

    Returns:
        Tensor: ... x 4, first column and row, and those after the last ones; whole numbers.
    """
    return torch.cat([boxes[..., :2].floor(), boxes[..., 2:].ceil()], dim=-1)


def check_boxes(boxes: Any, sample: int) -> Tensor:
    """Checks the boxes of a sample, a tensor or lists of numbers; there may be none.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If they are not B x 4 finite numbers with x0 < x1 and y0 < y1.
    """
    try:
        checked: Tensor = torch.as_tensor(boxes)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"Expected boxes of shape B x 4, got {boxes!r:.80} for sample {sample}."
        ) from error
    if checked.numel() and (checked.dim() != 2 or checked.shape[1] != 4):
        raise ValueError(
            f"Expected boxes of shape B x 4, got {tuple(checked.shape)} for sample {sample}."
        )
    for corners in checked.tolist():
        x0, y0, x1, y1 = corners
        if not (-math.inf < x0 < x1 < math.inf and -math.inf < y0 < y1 < math.inf):
            raise ValueError(
                "Expected boxes (x0, y0, x1, y1) with x0 < x1 and y0 < y1, finite numbers, got "
                f"{corners} for sample {sample}."
            )
    return checked


def image_sizes(image_size: ImageSize, n: int) -> Tensor:
    """Height and width of each of N annotated images.

    Args:
        image_size (sequence of int or Tensor): Of all images (2) or each (N x 2).
        n (int): N.

    Returns:
        Tensor: N x 2 integers.

    Raises:
        TypeError: If it is not made of numbers.
        ValueError: If it has another shape, or a size is not a whole number from 1.
    """
    try:
        sizes = torch.as_tensor(image_size)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"image_size must be numbers of pixels, got {image_size!r}.") from error
    if sizes.shape not in ((2,), (n, 2)) or sizes.is_floating_point() or (sizes < 1).any():
        raise ValueError(
            f"image_size is the height and width in pixels, for all or for each of {n} samples, "
            f"got {image_size!r}."
        )
    return sizes.expand(n, 2)
