"""The pointing game: does the highest point of the map lie on the object?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_groupcam.masking.checks import check_between
from captum_groupcam.metrics.functional._boxes import (
    ImageSize,
    check_boxes,
    covered_pixels,
    image_sizes,
)
from captum_groupcam.metrics.functional._maps import check_maps

__all__ = ["pointing_game"]


def pointing_game(
    maps: Tensor,
    *,
    boxes: Sequence[Tensor] | None = None,
    masks: Tensor | Sequence[Tensor] | None = None,
    image_size: ImageSize | None = None,
    tolerance: float = 15.0,
) -> Tensor:
    r"""Pointing game (Zhang et al., *Top-down Neural Attention by Excitation Backprop*, ECCV 2016).

    A map points at its maximum: at the pixel of the annotated image that holds the centre of the
    map's highest pixel, so that map and annotation may differ in resolution. It hits if this
    pixel belongs to the object, or the centre of a pixel of the object is nearer than the
    tolerance, in pixels of the annotated image (the circle of TorchRay's benchmark). Several equal
    maxima count by the share of them that hits, the expectation over a random choice.

    Args:
        maps (Tensor): N x 1 x H x W or N x H x W, larger values more important.
        boxes (sequence of Tensor, optional): For each sample B_i x 4 boxes (x0, y0, x1, y1) of its
            class, in pixels of the annotated image, ends exclusive; a box covers every pixel that
            it touches. Default: None.
        masks (Tensor or sequence of Tensor, optional): Instead of boxes, N x H' x W' or a list of
            H_i x W_i, true or nonzero on the object. Their size is the annotated image's.
            Default: None.
        image_size (sequence of int or Tensor, optional): Height and width of the image that the
            boxes belong to, for all samples (2) or each (N x 2). Only with boxes. Default: None,
            the size of the maps.
        tolerance (float, optional): In pixels; 0 asks for the object itself. Default: 15.0.

    Returns:
        Tensor: N hits in [0, 1].

    Raises:
        TypeError: If boxes or the tolerance are not numbers.
        ValueError: If there is not exactly one of boxes and masks, their number or shape does not
            fit, a map or mask is not finite, a sample has nothing to hit (no box, a box outside the
            image, an empty mask), or the tolerance is negative.

    Examples::

        >>> import torch
        >>> maps = torch.zeros(2, 10, 10)
        >>> maps[:, 4, 8] = 1.0  # points at x = 8, y = 4
        >>> boxes = [torch.tensor([[8, 4, 10, 10]]), torch.tensor([[0, 0, 6, 6]])]
        >>> pointing_game(maps, boxes=boxes, tolerance=0)
        tensor([1., 0.])
        >>> pointing_game(maps, boxes=boxes, tolerance=3.5)
        tensor([1., 1.])
    """
    check_between("tolerance", tolerance, 0, math.inf, ends="[)", hint=" It is in pixels.")
    tolerance = float(tolerance)  # an integer may be more than a tensor is compared with
    maps = check_maps(maps, 2).squeeze(1)
    objects = masks if boxes is None else boxes
    if objects is None or (boxes is not None and masks is not None):
        raise ValueError("Expected either boxes or masks.")
    if len(objects) != len(maps):
        raise ValueError(
            f"Expected boxes or masks for each of {len(maps)} maps, got {len(objects)}."
        )

    if boxes is None:
        if image_size is not None:
            raise ValueError("image_size belongs to boxes: the size of a mask is the image's.")
        padded, sizes = _masks(objects, maps.device)
        samples, y, x = _points(maps, sizes)
        hits = _within(padded, tolerance)[samples, y, x]
    else:
        size = maps.shape[1:] if image_size is None else image_size
        sizes = image_sizes(size, len(maps)).to(maps.device)
        padded = _boxes(boxes, sizes)
        samples, y, x = _points(maps, sizes)
        hits = _near_boxes(padded[samples], x, y, tolerance)
    share = torch.zeros(2, len(maps), device=maps.device)
    share.index_add_(1, samples, torch.stack([hits, torch.ones_like(hits)]).to(share))
    return share[0] / share[1]


def _points(maps: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sample, y and x of all P maxima, in pixels of the annotated images."""
    samples, *position = (maps == maps.amax((1, 2), keepdim=True)).nonzero().unbind(1)
    # The pixel of the annotated image that holds the centre of the map's pixel.
    y, x = (
        (2 * place + 1) * sizes[samples, axis] // (2 * maps.shape[axis + 1])
        for axis, place in enumerate(position)
    )
    return samples, y, x


def _boxes(boxes: Sequence[Tensor], sizes: Tensor) -> Tensor:
    """Checks boxes and pads them with NaN to N x B x 4."""
    tensors = [
        check_boxes(of_sample, sample).to(sizes.device) for sample, of_sample in enumerate(boxes)
    ]
    for sample, tensor in enumerate(tensors):
        if tensor.numel() == 0:
            raise ValueError(f"Sample {sample} has no box: there is nothing to hit.")
    padded = torch.nn.utils.rnn.pad_sequence(
        [tensor.float() for tensor in tensors], batch_first=True, padding_value=math.nan
    )
    (x0, y0, x1, y1), (height, width) = padded.unbind(-1), sizes.unsqueeze(-1).unbind(1)
    counts = torch.tensor([len(tensor) for tensor in tensors], device=sizes.device)
    real = torch.arange(padded.shape[1], device=sizes.device) < counts.unsqueeze(1)
    inside = (x0 < x1) & (y0 < y1) & (x0 < width) & (y0 < height) & (x1 > 0) & (y1 > 0)
    wrong = (real & ~inside).any(1)
    if wrong.any():
        samples = wrong.nonzero().flatten().tolist()
        raise ValueError(
            "Expected boxes (x0, y0, x1, y1) with x0 < x1 and y0 < y1 that lie in the image, at "
            f"least in part; got {tensors[samples[0]].tolist()} for an image of height and width "
            f"{sizes[samples[0]].tolist()}. Samples with such boxes: {samples}."
        )
    return padded


def _near_boxes(boxes: Tensor, x: Tensor, y: Tensor, tolerance: float) -> Tensor:
    """Whether each of P points hits one of its P x B x 4 boxes; boxes of NaN are never hit."""
    covered = covered_pixels(boxes)
    first, last = covered[..., :2], covered[..., 2:] - 1
    point = torch.stack([x, y], dim=-1).unsqueeze(1)
    squared = torch.maximum(first - point, point - last).clamp(min=0).square().sum(-1)
    return ((squared == 0) | (squared < tolerance * tolerance)).any(1)


def _masks(masks: Tensor | Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Checks masks and pads them to N x H x W; their sizes, N x 2."""
    tensors = [torch.as_tensor(mask, device=device) for mask in masks]
    for sample, mask in enumerate(tensors):
        if mask.dim() != 2:
            raise ValueError(
                f"Expected masks of shape H x W, got {tuple(mask.shape)} for sample {sample}."
            )
        if not mask.isfinite().all():
            raise ValueError(f"The mask of sample {sample} contains NaN or infinite values.")
    sizes = torch.tensor([mask.shape for mask in tensors], device=device)
    height, width = (max(mask.shape[axis] for mask in tensors) for axis in (0, 1))
    padded = torch.stack(
        [F.pad(m != 0, (0, width - m.shape[1], 0, height - m.shape[0])) for m in tensors]
    )
    empty = ~padded.flatten(1).any(1)
    if empty.any():
        raise ValueError(
            f"The mask is empty in samples {empty.nonzero().flatten().tolist()}: there is nothing "
            "to hit."
        )
    return padded, sizes


def _within(masks: Tensor, tolerance: float) -> Tensor:
    """The pixels of masks (N x H x W), and those whose centre is nearer to one than tolerance."""
    squared = _squared_distances(masks)
    return (squared == 0) | (squared < tolerance * tolerance)


def _squared_distances(masks: Tensor) -> Tensor:
    """Of each pixel to the nearest one of its mask: N x H x W."""
    height, width = masks.shape[1:]
    rows = torch.arange(height, device=masks.device, dtype=torch.float32).view(-1, 1)
    above = torch.where(masks, rows, -math.inf).cummax(1).values
    below = torch.where(masks, rows, math.inf).flip(1).cummin(1).values.flip(1)
    in_column = torch.minimum(rows - above, below - rows).square()
    columns = torch.arange(width, device=masks.device, dtype=torch.float32)
    sideways = (columns - columns.view(-1, 1)).square()
    # A row at a time: memory must not grow with the image's area times its width.
    nearest = [(row.unsqueeze(1) + sideways).amin(-1) for row in in_column.unbind(1)]
    return torch.stack(nearest, dim=1)
