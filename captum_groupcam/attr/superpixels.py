"""How an image is divided into regions that are hidden as one."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from captum_groupcam.attr._extras import imported
from captum_groupcam.masking.checks import check_choice, check_count

__all__ = ["Regions", "superpixels"]

#: How an image is divided: into scikit-image's superpixels, or into rectangles.
Regions: TypeAlias = Literal["slic", "grid"]


def superpixels(image: Tensor, n_segments: int, regions: Regions = "slic") -> Tensor:
    """Divides an image into regions that are hidden as one, Captum's ``feature_mask``.

    Args:
        image (Tensor): 1 x C x H x W.
        n_segments (int): About how many regions; the image decides how many SLIC finds.
        regions (str, optional): "slic", superpixels of similar colour (Achanta et al. 2012), or
            "grid", rectangles, which need no other package. Default: "slic".

    Returns:
        Tensor: 1 x 1 x H x W, integers from 0.

    Raises:
        ModuleNotFoundError: If scikit-image is missing.
        ValueError: If an option is out of range.

    Examples::

        >>> superpixels(torch.zeros(1, 3, 2, 4), 2, "grid")
        tensor([[[[0, 0, 1, 1],
                  [0, 0, 1, 1]]]])
    """
    check_count("n_segments", n_segments)
    check_choice("regions", regions, "slic", "grid")
    height, width = image.shape[2:]
    if regions == "grid":
        n_rows = min(max(round((n_segments * height / width) ** 0.5), 1), height)
        n_columns = min(max(round(n_segments / n_rows), 1), width)
        rows = torch.arange(height, device=image.device) * n_rows // height
        columns = torch.arange(width, device=image.device) * n_columns // width
        cells: Tensor = rows.unsqueeze(1) * n_columns + columns
        return cells[None, None]
    segmentation: Any = imported(
        "skimage.segmentation", "scikit-image", "bench", instead=", or choose regions='grid'"
    )
    low, high = image.aminmax()
    pixels = (image[0] - low) / torch.where(high > low, high - low, 1)
    labels = segmentation.slic(
        pixels.movedim(0, -1).double().cpu().numpy(),
        n_segments=n_segments,
        convert2lab=image.shape[1] == 3,
        compactness=10.0 if image.shape[1] == 3 else 0.1,  # Lab has values up to 100
        start_label=0,
        channel_axis=-1,
    )
    return torch.from_numpy(labels).to(image.device, torch.long)[None, None]
