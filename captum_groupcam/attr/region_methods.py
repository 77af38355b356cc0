"""Captum's methods that hide parts of the input and look at the output."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, cast

import torch
from captum.attr import FeatureAblation, KernelShap, Lime, Occlusion, ShapleyValueSampling
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._around_captum import each_sample, scores_of, seeded
from captum_groupcam.masking.checks import check_choice, check_count

__all__ = [
    "Regions",
    "feature_ablation",
    "kernel_shap",
    "lime",
    "occlusion",
    "shapley_value_sampling",
    "superpixels",
]

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
    segmentation: Any = _imported("skimage.segmentation", "scikit-image", "bench")
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


def occlusion(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    window: int | None = None,
    stride: int | None = None,
    internal_batch_size: int = 8,
    show_progress: bool = False,
) -> Tensor:
    """Occlusion (Zeiler and Fergus 2014): how far the output falls when a square is set to zero.

    Signed; all channels are covered at once.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        window (int, optional): Side of the square. Default: None, a seventh of the shorter side
            (32 pixels of 224).
        stride (int, optional): Its step. Default: None, half of the window.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass, at least
            N. Default: 8.
        show_progress (bool, optional): Whether to show a progress bar. Default: False.

    Returns:
        Tensor: N x 1 x H x W.
    """
    window = window or max(min(inputs.shape[2:]) // 7, 1)
    stride = stride or max(window // 2, 1)
    attributions = Occlusion(model).attribute(
        inputs,
        sliding_window_shapes=(inputs.shape[1], window, window),
        strides=(inputs.shape[1], stride, stride),
        target=target,
        perturbations_per_eval=max(internal_batch_size // len(inputs), 1),
        show_progress=show_progress,
    )
    return cast(Tensor, attributions)[:, :1]


def feature_ablation(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    n_segments: int = 50,
    regions: Regions = "slic",
    internal_batch_size: int = 8,
    show_progress: bool = False,
) -> Tensor:
    """Feature ablation: how far the output falls when a superpixel is set to zero.

    As Zeiler and Fergus 2014 do it with squares. Signed; all channels of a superpixel are hidden at
    once. Zero is the mean colour where inputs are normalised.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_segments (int, optional): About how many superpixels an image is divided into.
            Default: 50.
        regions (str, optional): "slic" or "grid", see :func:`superpixels`. Default: "slic".
        internal_batch_size (int, optional): Largest number of inputs in one forward pass.
            Default: 8.
        show_progress (bool, optional): Whether to show a progress bar. Default: False.

    Returns:
        Tensor: N x 1 x H x W.
    """
    return _by_regions(
        FeatureAblation(scores_of(model, inputs.dtype)).attribute,
        inputs,
        target,
        (n_segments, regions),
        perturbations_per_eval=internal_batch_size,
        show_progress=show_progress,
    )


def lime(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    n_samples: int = 200,
    n_segments: int = 50,
    regions: Regions = "slic",
    seed: int = 0,
    internal_batch_size: int = 8,
    show_progress: bool = False,
) -> Tensor:
    """LIME (Ribeiro et al. 2016): a sparse linear model of which superpixels can be seen.

    The map has the model's coefficients, signed. A hidden superpixel is zero, the mean colour where
    inputs are normalised; the linear model is Captum's, a Lasso weighted by cosine similarity.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_samples (int, optional): Images with random superpixels hidden. Default: 200.
        n_segments (int, optional): About how many superpixels an image is divided into.
            Default: 50.
        regions (str, optional): "slic" or "grid", see :func:`superpixels`. Default: "slic".
        seed (int, optional): Seed of which are hidden. Default: 0.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass.
            Default: 8.
        show_progress (bool, optional): Whether to show a progress bar. Default: False.

    Returns:
        Tensor: N x 1 x H x W.
    """
    _imported("sklearn", "scikit-learn", "cluster")
    return _by_regions(
        Lime(scores_of(model, inputs.dtype)).attribute,
        inputs,
        target,
        (n_segments, regions),
        seed=seed,
        n_samples=n_samples,
        perturbations_per_eval=internal_batch_size,
        show_progress=show_progress,
    )


def kernel_shap(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    n_samples: int = 200,
    n_segments: int = 50,
    regions: Regions = "slic",
    seed: int = 0,
    internal_batch_size: int = 8,
    show_progress: bool = False,
) -> Tensor:
    """Kernel SHAP (Lundberg and Lee 2017): Shapley values of superpixels by a linear regression.

    Signed. A hidden superpixel is zero, the mean colour where inputs are normalised.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_samples (int, optional): Images with random superpixels hidden. Default: 200.
        n_segments (int, optional): About how many superpixels an image is divided into.
            Default: 50.
        regions (str, optional): "slic" or "grid", see :func:`superpixels`. Default: "slic".
        seed (int, optional): Seed of which are hidden. Default: 0.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass.
            Default: 8.
        show_progress (bool, optional): Whether to show a progress bar. Default: False.

    Returns:
        Tensor: N x 1 x H x W.
    """
    _imported("sklearn", "scikit-learn", "cluster")
    return _by_regions(
        KernelShap(scores_of(model, inputs.dtype)).attribute,
        inputs,
        target,
        (n_segments, regions),
        seed=seed,
        n_samples=n_samples,
        perturbations_per_eval=internal_batch_size,
        show_progress=show_progress,
    )


def shapley_value_sampling(
    model: Module,
    inputs: Tensor,
    target: TargetType,
    *,
    n_samples: int = 25,
    n_segments: int = 50,
    regions: Regions = "slic",
    seed: int = 0,
    internal_batch_size: int = 8,
    show_progress: bool = False,
) -> Tensor:
    """Shapley values of superpixels over random orders (Strumbelj and Kononenko 2010).

    Signed: what a superpixel adds to the output when it appears, averaged over orders. Before it
    appears it is zero, the mean colour where inputs are normalised.

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_samples (int, optional): Orders in which the superpixels appear. Default: 25.
        n_segments (int, optional): About how many superpixels an image is divided into.
            Default: 50.
        regions (str, optional): "slic" or "grid", see :func:`superpixels`. Default: "slic".
        seed (int, optional): Seed of the orders. Default: 0.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass.
            Default: 8.
        show_progress (bool, optional): Whether to show a progress bar. Default: False.

    Returns:
        Tensor: N x 1 x H x W.
    """
    return _by_regions(
        ShapleyValueSampling(scores_of(model, inputs.dtype)).attribute,
        inputs,
        target,
        (n_segments, regions),
        seed=seed,
        n_samples=n_samples,
        perturbations_per_eval=internal_batch_size,
        show_progress=show_progress,
    )


def _by_regions(
    attribute: Callable[..., Any],
    inputs: Tensor,
    target: TargetType,
    division: tuple[int, Regions],
    *,
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """Explains each sample by regions of its own; every one has the same value in all channels."""

    def explain(sample: Tensor, of_sample: TargetType) -> Tensor:
        mask = superpixels(sample, *division)
        if not mask.any():
            raise ValueError(
                f"The image is one region, n_segments={division[0]}: there is nothing to compare. "
                "Choose a higher n_segments, or regions='grid'."
            )
        with seeded(seed, sample.device):
            attributions = attribute(sample, target=of_sample, feature_mask=mask, **options)
        return cast(Tensor, attributions)[:, :1].to(sample.device)

    return each_sample(inputs, target, explain)


def _imported(module: str, package: str, extra: str) -> Any:
    """A module of a package that an extra brings, or an error that names the extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        instead = ", or choose regions='grid'" if extra == "bench" else ""
        raise ModuleNotFoundError(
            f"This needs the package {package}: pip install 'captum_groupcam[{extra}]'{instead}.",
            name=error.name,
        ) from error
