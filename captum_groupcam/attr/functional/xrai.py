"""The algorithm of XRAI (arXiv 1906.02825), by way of the saliency package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._extras import imported
from captum_groupcam.attr._integrated_gradients import integrated_gradients
from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.masking.baselines import for_inputs, resolve_baseline
from captum_groupcam.masking.call import Call
from captum_groupcam.masking.checks import check_choice, check_count

__all__ = ["Starts", "xrai"]

_Start: TypeAlias = Tensor | float | Callable[[Tensor], Tensor]
#: Where the paths for one input begin; None for black and white.
Starts: TypeAlias = _Start | list[_Start] | None


@shared_arguments
def xrai(
    call: Call,
    baselines: Starts | tuple[Starts, ...] = None,
    *,
    n_steps: int = 50,
    algorithm: Literal["full", "fast"] = "full",
    show_progress: bool = False,
) -> tuple[Tensor, ...]:
    """Ranks the segments of an image by how dense integrated gradients lie in them.

    Source: Kapishnikov, Bolukbasi, Viégas and Terry, arXiv 1906.02825.

    Args:
        call (Call): The images, N x C x H x W, and the network.
        baselines (Tensor, float, callable, list of these, None or tuple of these, optional):
            Where the path of integrated gradients begins: a tensor of the input's shape (or
            batch size 1), a number, a function of the input; for a list a path from each, whose
            attributions are averaged; or a tuple with one of these for each input.
            Default: None, two paths, from the lowest and the highest value of each sample,
            which stand for black and white.
        n_steps (int, optional): Steps of each path. Default: 50.
        algorithm (str, optional): "full", or "fast", which ranks segments without regard to
            how they overlap. Default: "full".
        show_progress (bool, optional): {show_progress}

    Returns:
        tuple of Tensor: A map for each input, N x 1 x H x W; zero (N x 1) for one that is not an
        image.

    Raises:
        ModuleNotFoundError: If the package saliency is missing.
        ValueError: If there is not one image, or it is constant, which has no segments.

    Examples::

        >>> from captum_groupcam.masking.call import prepare
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 5))
        >>> call = prepare(network, torch.rand(2, 3, 32, 32), 3, None, masked=False)
        >>> xrai(call, n_steps=8)[0].shape
        torch.Size([2, 1, 32, 32])
    """
    core = imported("saliency.core", "saliency", "bench", by="XRAI")
    check_count("n_steps", n_steps)
    check_choice("algorithm", algorithm, "full", "fast")
    place = call.only_spatial()
    images = call.inputs[place]
    starts = _starts(images, for_inputs(baselines, len(call.inputs))[place])

    # Integrated gradients, the mean over the paths.
    gradients = integrated_gradients(call, place, starts, n_steps)

    # Segments and their ranking, one image after the other.
    maps = []
    with _captum.progress_bar("XRAI", len(images), show_progress) as bar:
        for image, gradient in zip(_channels_last(images), _channels_last(gradients), strict=True):
            ranked = core.XRAI().GetMask(
                image,
                None,
                base_attribution=gradient,
                extra_parameters=core.XRAIParameters(algorithm=algorithm),
            )
            maps.append(torch.from_numpy(ranked))
            bar.update(1)
    return call.for_each_input(torch.stack(maps).unsqueeze(1).to(gradients))


def _starts(images: Tensor, chosen: Starts) -> list[Tensor]:
    """Where the paths begin, N x C x H x W each, for images that have segments."""
    if images.dim() != 4:
        raise ValueError(f"Expected images, N x C x H x W, got {tuple(images.shape)}.")
    low, high = images.flatten(1).aminmax(dim=1)
    if (low == high).any():
        constant = (low == high).nonzero().flatten().tolist()
        raise ValueError(f"Samples {constant} are constant: there are no segments to rank.")
    if chosen is None:
        chosen = [end.view(-1, 1, 1, 1).expand_as(images) for end in (low, high)]
    starts = chosen if isinstance(chosen, list) else [chosen]
    if not starts:
        raise ValueError("A list of baselines needs at least one.")
    return [resolve_baseline(start, images) for start in starts]


def _channels_last(images: Tensor) -> np.ndarray:
    return images.movedim(1, -1).double().cpu().numpy()
