"""Captum's methods that hide several superpixels at a time, by chance, and look at the output."""

from __future__ import annotations

from collections.abc import Callable

from captum.attr import KernelShap, Lime, PerturbationAttribution, ShapleyValueSampling
from torch import Tensor
from torch.nn import Module

from captum_groupcam._captum import TargetType
from captum_groupcam.attr._around_captum import by_regions, scores_of
from captum_groupcam.attr._extras import imported
from captum_groupcam.attr.superpixels import Regions

__all__ = ["kernel_shap", "lime", "shapley_value_sampling"]

#: What all of them take and give.
_REST = """

    Args:
        model (torch.nn.Module): The network.
        inputs (Tensor): N x C x H x W.
        target (int, Tensor or list): The class.
        n_samples (int, optional): {samples} Default: {n_samples}.
        n_segments (int, optional): About how many superpixels an image is divided into.
            Default: 50.
        regions (str, optional): "slic" or "grid", see
            :func:`~captum_groupcam.attr.superpixels.superpixels`. Default: "slic".
        seed (int, optional): Seed of {chance}. Default: 0.
        internal_batch_size (int, optional): Largest number of inputs in one forward pass.
            Default: 8.
        show_progress (bool, optional): Whether to show a progress bar. Default: False.

    Returns:
        Tensor: N x 1 x H x W.
    """


def _function(
    name: str,
    description: str,
    method: type[PerturbationAttribution],
    *,
    n_samples: int,
    samples: str,
    chance: str,
    needs: tuple[str, str, str] | None = None,
) -> Callable[..., Tensor]:
    """A function around one of Captum's classes, from what sets it apart from the others."""
    default = n_samples

    def explain(
        model: Module,
        inputs: Tensor,
        target: TargetType,
        *,
        n_samples: int = default,
        n_segments: int = 50,
        regions: Regions = "slic",
        seed: int = 0,
        internal_batch_size: int = 8,
        show_progress: bool = False,
    ) -> Tensor:
        if needs is not None:
            imported(*needs)
        return by_regions(
            method(scores_of(model, inputs.dtype)).attribute,
            inputs,
            target,
            (n_segments, regions),
            seed=seed,
            n_samples=n_samples,
            perturbations_per_eval=internal_batch_size,
            show_progress=show_progress,
        )

    explain.__name__ = explain.__qualname__ = name
    explain.__doc__ = description + _REST.format(
        samples=samples, n_samples=n_samples, chance=chance
    )
    return explain


_SCIKIT_LEARN = ("sklearn", "scikit-learn", "cluster")

lime = _function(
    "lime",
    """LIME (Ribeiro et al. 2016): a sparse linear model of which superpixels can be seen.

    The map has the model's coefficients, signed. A hidden superpixel is zero, the mean colour where
    inputs are normalised; the linear model is Captum's, a Lasso weighted by cosine similarity.""",
    Lime,
    n_samples=200,
    samples="Images with random superpixels hidden.",
    chance="which are hidden",
    needs=_SCIKIT_LEARN,
)
kernel_shap = _function(
    "kernel_shap",
    """Kernel SHAP (Lundberg and Lee 2017): Shapley values of superpixels by a linear regression.

    Signed. A hidden superpixel is zero, the mean colour where inputs are normalised.""",
    KernelShap,
    n_samples=200,
    samples="Images with random superpixels hidden.",
    chance="which are hidden",
    needs=_SCIKIT_LEARN,
)
shapley_value_sampling = _function(
    "shapley_value_sampling",
    """Shapley values of superpixels over random orders (Strumbelj and Kononenko 2010).

    Signed: what a superpixel adds to the output when it appears, averaged over orders. Before it
    appears it is zero, the mean colour where inputs are normalised.""",
    ShapleyValueSampling,
    n_samples=25,
    samples="Orders in which the superpixels appear.",
    chance="the orders",
)
