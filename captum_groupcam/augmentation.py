"""Group-CAM as augmentation: what does not matter for the label is blurred (paper, section 5)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from captum_groupcam import _compiled, threads
from captum_groupcam.masking.baselines import Baseline, resolve_baseline
from captum_groupcam.masking.call import expecting_zero_maps, isolated
from captum_groupcam.masking.checks import check_between, check_count, check_seed
from captum_groupcam.masking.queries import blend
from captum_groupcam.methods import METHODS
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.tensors import check_tensor
from captum_groupcam.networks.trace import evaluation_mode

__all__ = [
    "BackgroundBlur",
    "GradCAMBlur",
    "GroupCAMBlur",
    "above_mean",
    "blur_background",
]


def above_mean(maps: Tensor) -> Tensor:
    """Binarises each map at its own mean.

    Args:
        maps (Tensor): N x 1 x spatial.

    Returns:
        Tensor: Booleans of the same shape. All True for a flat map, which carries no information.

    Raises:
        ValueError: If a value is NaN.

    Examples::

        >>> import torch
        >>> above_mean(torch.tensor([[[0.0, 0.0, 3.0]], [[0.1, 0.1, 0.1]]]))
        tensor([[[False, False,  True]],
                [[ True,  True,  True]]])
    """
    if maps.isnan().any():
        raise ValueError("Expected maps without NaN.")
    values = maps.flatten(1)
    above = values >= values.mean(1, keepdim=True)
    # The mean of equal values can be rounded past them.
    flat = values.amax(1, keepdim=True) == values.amin(1, keepdim=True)
    return (above | flat).view_as(maps)


def blur_background(images: Tensor, masks: Tensor, baseline: Baseline = None) -> Tensor:
    r"""Keeps the images where the mask is one and shows the baseline elsewhere.

    :math:`I' = I \cdot M + B \cdot (1 - M)`; pixels under the mask stay exactly what they are.

    Args:
        images (Tensor): N x C x spatial, floating point.
        masks (Tensor): N x 1 x spatial, booleans or values in [0, 1].
        baseline (Tensor, float, callable or None, optional): What takes the background's place, see
            :func:`~captum_groupcam.masking.baselines.resolve_baselines`. Default: None, the image
            blurred as for Group-CAM's queries (51 pixels, sigma 50).

    Returns:
        Tensor: Images of the same shape, dtype, device and memory format.

    Raises:
        ValueError: If the masks have another shape, or a value outside [0, 1].

    Examples::

        >>> import torch
        >>> masks = torch.tensor([[[True, False, False]]])
        >>> blur_background(torch.tensor([[[3.0, 4.0, 5.0]]]), masks, baseline=0.0)
        tensor([[[3., 0., 0.]]])
    """
    if masks.shape != (len(images), 1, *images.shape[2:]):
        raise ValueError(
            f"Expected masks of shape {(len(images), 1, *images.shape[2:])}, got "
            f"{tuple(masks.shape)}."
        )
    if not ((masks >= 0) & (masks <= 1)).all():  # nor NaN
        raise ValueError("Expected masks with values in [0, 1].")
    return blend(images, resolve_baseline(baseline, images), masks)


class BackgroundBlur(ABC):
    """Blurs what a saliency method finds unimportant for the label: :class:`GroupCAMBlur`'s frame.

    A subclass says what is important: :meth:`masks`.

    Args:
        model (torch.nn.Module): The classifier that is trained: N x C x H x W to N x classes. Of
            one wrapped in DistributedDataParallel, AveragedModel or by Fabric it is the module
            behind that answers, so nothing is synchronised. A compiled one answers compiled.
        layer (TargetLayer or torch.nn.Module): The layer of it that is explained, as
            :func:`~captum_groupcam.networks.layers.find_layer` finds it, or a module for its
            output.
        baseline (Tensor, float, callable or None, optional): As in :func:`blur_background`.
            Default: None.
        probability (float, optional): Share of the images that is altered, drawn for each image.
            Default: 1.0, all, as in the paper.
        every_n_steps (int, optional): Of so many calls the first alters images, the others return
            them as they are. Default: 1.
        teacher (torch.nn.Module, optional): A network of the same structure that explains and
            scores in the model's place, such as a moving average of its weights
            (:class:`torch.optim.swa_utils.AveragedModel`). Default: None, the model itself.
        seed (int, optional): Seed of the draws. They depend on it, on :attr:`step` and on the
            image's place in the batch, and leave torch's generators alone. Of W processes, number r
            takes every W-th draw from the r-th on, as ``DistributedSampler`` deals out samples:
            together they draw what one process would for the whole batch. Default: 0.

    Attributes:
        step (int): Number of calls so far. Set it to go on from a checkpoint.

    Raises:
        TypeError: If an option has another type.
        ValueError: If an option is out of range, or the layer is not found in the teacher.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> class LeftHalf(BackgroundBlur):
        ...     def masks(self, images, labels, baseline, draws):
        ...         masks = torch.zeros_like(images[:, :1], dtype=torch.bool)
        ...         masks[..., : masks.shape[-1] // 2] = True
        ...         return masks
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> blur = LeftHalf(net, net[0], baseline=0.0)
        >>> blur(torch.ones(1, 3, 1, 4), torch.tensor([5]))[0, 0]
        tensor([[1., 1., 0., 0.]])
    """

    def __init__(
        self,
        model: Module,
        layer: TargetLayer | Module,
        *,
        baseline: Baseline = None,
        probability: float = 1.0,
        every_n_steps: int = 1,
        teacher: Module | None = None,
        seed: int = 0,
    ) -> None:
        check_between("probability", probability, 0, 1)
        check_count("every_n_steps", every_n_steps)
        check_seed(seed, 0)
        self.network = _unwrapped(model if teacher is None else teacher)
        self.layer = TargetLayer(layer) if isinstance(layer, Module) else layer
        if teacher is not None:
            module = _counterpart(self.layer.module, _unwrapped(model), self.network)
            self.layer = replace(self.layer, module=module)
        self.baseline = baseline
        self.probability = probability
        self.every_n_steps = every_n_steps
        self.seed = seed
        self.step = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Blurs the background of a batch.

        The network answers in evaluation mode and without a graph. Its training flags, buffers,
        gradients and hooks, the grad mode and the state of torch's generators are as before.

        Args:
            images (Tensor): N x C x H x W, as the network takes them.
            labels (Tensor): N, the classes whose evidence is kept.

        Returns:
            Tensor: Images of the same shape, dtype, device and memory format. One whose map is
            flat stays as it is.

        Raises:
            ValueError: If images have not this shape, a label is out of range, or something is not
                finite.
        """
        _check_labels(images, labels)
        check_count("step", self.step, 0)
        step, self.step = self.step, self.step + 1
        draws = self._draws(step, len(images))
        chosen = np.flatnonzero(draws[:, 0] < self.probability)
        if step % self.every_n_steps or not chosen.size:
            return images
        if chosen.size == len(images):
            return self._blurred(images, labels, draws)
        rows = torch.from_numpy(chosen).to(images.device)
        altered = images.clone()
        altered[rows] = self._blurred(images[rows], labels[rows.to(labels.device)], draws[chosen])
        return altered

    @abstractmethod
    def masks(self, images: Tensor, labels: Tensor, baseline: Tensor, draws: np.ndarray) -> Tensor:
        """Says what matters for the label.

        Called with the network in evaluation mode and without a graph.

        Args:
            images (Tensor): N x C x H x W.
            labels (Tensor): N classes.
            baseline (Tensor): N x C x H x W, what takes the background's place.
            draws (array): N x 3, random numbers in [0, 1); the first column has been used.

        Returns:
            Tensor: N x 1 x H x W, booleans.
        """

    @threads.exclusive()
    def _blurred(self, images: Tensor, labels: Tensor, draws: np.ndarray) -> Tensor:
        baseline = resolve_baseline(self.baseline, images)
        with evaluation_mode(self.network), isolated():
            # A flat map leaves the image as it is; in training that is nothing to report.
            masks = expecting_zero_maps(lambda: self.masks(images, labels, baseline, draws))
        return blur_background(images, masks, baseline)

    def _draws(self, step: int, samples: int) -> np.ndarray:
        rank, processes = 0, 1
        if dist.is_available() and dist.is_initialized():
            rank, processes = dist.get_rank(), dist.get_world_size()
        rng = np.random.default_rng([self.seed, step])
        return rng.random((samples * processes, 3))[rank::processes]


class GroupCAMBlur(BackgroundBlur):
    r"""Group-CAM as augmentation for fine-tuning (arXiv 2103.13859, section 5).

    The map of the ground-truth class, by Group-CAM without gradients and without denoising, is
    binarised at its own mean; what lies below is blurred:

    .. math::

        I' = I \cdot M + \mathrm{blur}(I) \cdot (1 - M), \quad M = [L \ge \mathrm{mean}(L)]

    This is the recipe of the paper's text. The script that its authors published differs: it
    takes the mean over the maps of the whole batch, adds the blurred image and the inverted mask
    to the image rather than blending (``I * M + blur(I) + (1 - M)``), and its maps are those of
    its default options, with gradients.

    A batch costs ``n_groups + 2`` forward passes of it, in one stream of queries.

    Args:
        model (torch.nn.Module): As in :class:`BackgroundBlur`.
        layer (TargetLayer or torch.nn.Module): As in :class:`BackgroundBlur`.
        n_groups (int, optional): Number of groups G. Default: 16, as in the paper.
        internal_batch_size (int, optional): Largest number of images in one forward pass, see
            :meth:`captum_groupcam.GroupCAM.attribute`. Default: None.
        **options (Any, optional): The other options of :class:`BackgroundBlur`.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> blur = GroupCAMBlur(nn.Sequential(features, head), features, n_groups=4)
        >>> images, labels = torch.rand(2, 3, 16, 16), torch.tensor([3, 1])
        >>> altered = blur(images, labels)
        >>> altered.shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        model: Module,
        layer: TargetLayer | Module,
        n_groups: int = 16,
        *,
        internal_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        self.n_groups = n_groups
        self.internal_batch_size = internal_batch_size

    def masks(self, images: Tensor, labels: Tensor, baseline: Tensor, _draws: np.ndarray) -> Tensor:
        """Where the map of Group-CAM is not below its mean."""
        method = METHODS["group_cam_gradient_free"](
            self.network,
            self.layer,
            n_groups=self.n_groups,
            denoise_percentile=None,
            baselines=baseline,
            internal_batch_size=self.internal_batch_size,
        )
        return above_mean(method(images, labels))


class GradCAMBlur(BackgroundBlur):
    """The same augmentation by Grad-CAM's maps, at the price of one pass with gradient.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> blur = GradCAMBlur(net, net[0])
        >>> blur(torch.rand(2, 3, 16, 16), torch.tensor([3, 1])).shape
        torch.Size([2, 3, 16, 16])
    """

    def masks(
        self, images: Tensor, labels: Tensor, _baseline: Tensor, _draws: np.ndarray
    ) -> Tensor:
        """Where the map of Grad-CAM is not below its mean."""
        # Compiled code does not call hooks.
        method = METHODS["grad_cam"](_eager(self.network), self.layer)
        return above_mean(method(images, labels))


def _check_labels(images: Tensor, labels: Tensor) -> None:
    check_tensor("images", images)
    check_tensor("labels", labels)
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype is torch.bool)
    if labels.shape != (len(images),) or not whole or (labels < 0).any():
        raise ValueError(
            f"Expected a class from 0 for each of {len(images)} images, {len(images)} integers; "
            f"got {tuple(labels.shape)}, {labels.dtype}"
            + (f", as low as {int(labels.min())}." if whole and labels.numel() else ".")
        )


def _unwrapped(model: Module) -> Module:
    """The network inside what synchronises processes or averages weights; compiled if it is."""
    inner = _eager(model)
    if isinstance(inner, (DistributedDataParallel, AveragedModel)):
        return _unwrapped(cast(Module, inner.module))
    original: Module | None = getattr(
        inner, "_original_module", None
    )  # as Fabric's wrapper calls it
    return model if original is None else _unwrapped(original)


def _eager(model: Module) -> Module:
    return cast(Module, _compiled.eager(model))


def _counterpart(layer: Module, model: Module, teacher: Module) -> Module:
    """The layer of the teacher that a layer of the model stands for."""
    teacher = _eager(teacher)
    if any(module is layer for module in teacher.modules()):
        return layer
    names = [name for name, module in _eager(model).named_modules() if module is layer]
    modules: dict[str, Module] = dict(teacher.named_modules())
    for name in names:
        if type(modules.get(name)) is type(layer):
            return modules[name]
    raise ValueError(
        f"The layer {type(layer).__name__} is not found in the teacher: expected a layer of the "
        f"model whose name ({names[0] if names else 'it has none'}) the teacher has, too, for one "
        "of the same class, or a layer of the teacher."
    )
