"""XRAI: attributions of regions (arXiv 1906.02825), by way of the saliency package."""

from __future__ import annotations

import importlib
from typing import Any, Literal

import numpy as np
import torch
from captum.attr import Attribution, IntegratedGradients
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.masking.baselines import resolve_baselines
from captum_groupcam.masking.call import isolated, prepare
from captum_groupcam.masking.network import Network

__all__ = ["XRAI"]


class XRAI(Attribution):
    r"""Ranks the segments of an image by how dense integrated gradients lie in them.

    Integrated gradients are Captum's, the mean over the baselines; segments and their ranking come
    from the package ``saliency`` of the authors, which also takes the largest attribution of a
    pixel's channels. The ranking runs on the CPU, one image after the other.

    Source: Kapishnikov, Bolukbasi, Viégas and Terry, "XRAI: Better Attributions Through Regions",
    arXiv 1906.02825.

    Args:
        forward_func (Callable): The forward function of the model or any modification of it.
    """

    @_captum.log_usage
    def attribute(
        self,
        inputs: Tensor,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        *,
        baselines: tuple[Tensor | float, ...] | None = None,
        n_steps: int = 50,
        algorithm: Literal["full", "fast"] = "full",
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> Tensor:
        """Computes the map of each sample, at the resolution of the input.

        Args:
            inputs (Tensor): N x C x H x W. For what is not explained here see
                :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`.
            target (int, tuple, Tensor or list, optional): The output that is explained.
                Default: None.
            additional_forward_args (Any, optional): Arguments of forward_func after the inputs.
                Default: None.
            baselines (tuple of Tensor or float, optional): Where the paths of integrated gradients
                begin, each a number or a tensor of the input's shape; their attributions are
                averaged. Default: None, for each sample its lowest and its highest value, which
                stand for black and white.
            n_steps (int, optional): Steps of each path. Default: 50.
            algorithm (str, optional): "full", or "fast", which ranks segments without regard to
                how they overlap. Default: "full".
            internal_batch_size (int, optional): Largest number of inputs in one pass of the
                network. Default: None.
            show_progress (bool, optional): Whether to show a progress bar. Default: False.

        Returns:
            *Tensor* of **attributions**: N x 1 x H x W.

        Raises:
            ModuleNotFoundError: If the package saliency is missing.
            TypeError: If an argument has a wrong type.
            ValueError: If the input is not N x C x H x W, or is constant, which has no segments;
                if the target is out of range; or if the input is not finite.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> _ = torch.manual_seed(0)
            >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            >>> XRAI(net.eval()).attribute(torch.rand(2, 3, 32, 32), target=3).shape
            torch.Size([2, 1, 32, 32])
        """
        core = _saliency()
        if algorithm not in ("full", "fast"):
            raise ValueError(f"algorithm must be 'full' or 'fast', got {algorithm!r}.")
        if not isinstance(inputs, Tensor) or inputs.dim() != 4:
            found = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise ValueError(f"Expected one input of shape N x C x H x W, got {found}.")
        with isolated():
            (images,), _, network = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                baselines=0,
                internal_batch_size=internal_batch_size,
            )
            low, high = images.flatten(1).aminmax(dim=1)
            if (low == high).any():
                constant = (low == high).nonzero().flatten().tolist()
                raise ValueError(f"Samples {constant} are constant: there are no segments to rank.")
            if baselines is None:
                baselines = tuple(end.view(-1, 1, 1, 1).expand_as(images) for end in (low, high))
            if not isinstance(baselines, tuple) or not baselines:
                raise TypeError(
                    "baselines must be a tuple of tensors or numbers, one for each path, got "
                    f"{baselines if baselines == () else type(baselines).__name__}."
                )
            starts = resolve_baselines(baselines, (images,) * len(baselines))
            gradients = _integrated_gradients(network, images, starts, n_steps)

        parameters = core.XRAIParameters(algorithm=algorithm)
        maps = []
        with _captum.progress_bar("XRAI", len(images), show_progress) as bar:
            for image, gradient in zip(
                _channels_last(images), _channels_last(gradients), strict=True
            ):
                ranked = core.XRAI().GetMask(
                    image, None, base_attribution=gradient, extra_parameters=parameters
                )
                maps.append(torch.from_numpy(ranked))
                bar.update(1)
        return torch.stack(maps).unsqueeze(1).to(gradients)


def _saliency() -> Any:
    try:
        return importlib.import_module("saliency.core")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "XRAI needs the package saliency: pip install 'captum_groupcam[bench]'.",
            name=error.name,
        ) from error


def _channels_last(images: Tensor) -> np.ndarray:
    return images.movedim(1, -1).double().cpu().numpy()


def _integrated_gradients(
    network: Network, images: Tensor, starts: tuple[Tensor, ...], n_steps: int
) -> Tensor:
    """Captum's integrated gradients for all samples, the mean over the paths: N x C x H x W."""
    size = network.batch_size(images.device)

    def work(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor]:
        def forward(steps: Tensor) -> Tensor:
            # Captum stacks the steps of a path, the samples beside each other.
            which = samples.repeat(len(steps) // len(samples))
            output = _captum.run_forward(network.forward_func, (steps,), network.arguments(which))
            return network.target.select(output, which)

        method = IntegratedGradients(forward)
        paths = [
            method.attribute(
                rows[0].clone(),  # out of inference mode, if it was made there
                start[samples],
                n_steps=n_steps,
                internal_batch_size=max(size, len(samples)),
            )
            for start in starts
        ]
        return (torch.stack(paths).mean(0).detach(),)

    return network.by_sample((images,), work)[0]
