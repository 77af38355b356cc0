"""XRAI: attributions of regions (arXiv 1906.02825), by way of the saliency package."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from captum.attr import Attribution, IntegratedGradients
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr._shared import Titled, shared_arguments
from captum_groupcam.masking.baselines import for_inputs, resolve_baseline
from captum_groupcam.masking.call import Call, TensorOrTuple, isolated, like_inputs, prepare
from captum_groupcam.masking.checks import check_choice, check_count

__all__ = ["XRAI"]

_Start: TypeAlias = Tensor | float | Callable[[Tensor], Tensor]
#: Where the paths for one input begin; None for black and white.
Starts: TypeAlias = _Start | list[_Start] | None


@shared_arguments
class XRAI(Titled, Attribution):
    r"""Ranks the segments of an image by how dense integrated gradients lie in them.

    Integrated gradients are Captum's, the mean over the paths; segments and their ranking come
    from the package ``saliency`` of the authors, which also takes the largest attribution of a
    pixel's channels. The ranking runs on the CPU, one image after the other. The arguments begin
    like those of Captum's methods on the input: inputs, baselines, target.

    Source: Kapishnikov, Bolukbasi, Viégas and Terry, "XRAI: Better Attributions Through Regions",
    arXiv 1906.02825.

    Args:
        forward_func (Callable): {forward_func}
    """

    title = "XRAI"

    @_captum.log_usage
    @shared_arguments
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Starts | tuple[Starts, ...] = None,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        *,
        n_steps: int = 50,
        algorithm: Literal["full", "fast"] = "full",
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> TensorOrTuple:
        """Computes the map of each sample, at the resolution of the input.

        Args:
            inputs (Tensor or tuple of Tensor): Images, N x C x H x W. Of a tuple exactly one has
                spatial dimensions; others reach the network as they are.
            baselines (Tensor, float, callable, list of these, None or tuple of these, optional):
                Where the path of integrated gradients begins: a tensor of the input's shape (or
                batch size 1), a number, a function of the input; for a list a path from each, whose
                attributions are averaged; or a tuple with one of these for each input.
                Default: None, two paths, from the lowest and the highest value of each sample,
                which stand for black and white.
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            n_steps (int, optional): Steps of each path. Default: 50.
            algorithm (str, optional): "full", or "fast", which ranks segments without regard to
                how they overlap. Default: "full".
            internal_batch_size (int, optional): {internal_batch_size}
            show_progress (bool, optional): {show_progress}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x H x W. A tuple if inputs
            is one, with a zero (N x 1) for an input that is no image.

        Raises:
            ModuleNotFoundError: If the package saliency is missing.
            TypeError: If an argument has a wrong type.
            ValueError: If there is not one image (N x C x H x W), or it is constant, which has no
                segments; if the target is out of range; or if the input is not finite.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> _ = torch.manual_seed(0)
            >>> net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            >>> XRAI(net.eval()).attribute(torch.rand(2, 3, 32, 32), target=3).shape
            torch.Size([2, 1, 32, 32])
        """
        core = _saliency()
        check_count("n_steps", n_steps)
        check_choice("algorithm", algorithm, "full", "fast")
        with isolated():
            call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                masked=False,
                internal_batch_size=internal_batch_size,
            )
            place = call.only_spatial()
            images = call.inputs[place]
            if images.dim() != 4:
                raise ValueError(f"Expected images, N x C x H x W, got {tuple(images.shape)}.")
            low, high = images.flatten(1).aminmax(dim=1)
            if (low == high).any():
                constant = (low == high).nonzero().flatten().tolist()
                raise ValueError(f"Samples {constant} are constant: there are no segments to rank.")
            chosen = for_inputs(baselines, len(call.inputs))[place]
            if chosen is None:
                chosen = [end.view(-1, 1, 1, 1).expand_as(images) for end in (low, high)]
            starts = chosen if isinstance(chosen, list) else [chosen]
            if not starts:
                raise ValueError("A list of baselines needs at least one.")
            paths = [resolve_baseline(start, images) for start in starts]
            gradients = _integrated_gradients(call, place, paths, n_steps)

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
        return like_inputs(
            inputs, call.for_each_input(torch.stack(maps).unsqueeze(1).to(gradients))
        )


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


def _integrated_gradients(call: Call, place: int, starts: list[Tensor], n_steps: int) -> Tensor:
    """Captum's integrated gradients of one input, the mean over the paths: N x C x H x W."""
    network = call.network

    def work(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor]:
        def forward(steps: Tensor) -> Tensor:
            # Captum stacks the steps of a path, the samples beside each other.
            repeats = len(steps) // len(samples)
            given = tuple(
                steps if index == place else row.repeat(repeats, *(1 for _ in row.shape[1:]))
                for index, row in enumerate(rows)
            )
            which = samples.repeat(repeats)
            output = _captum.run_forward(network.forward_func, given, network.arguments(which))
            return network.target.select(output, which)

        method = IntegratedGradients(forward)
        image = rows[place].clone()  # out of inference mode, if it was made there
        size = max(network.batch_size(image.device), len(samples))
        paths = [
            method.attribute(image, start[samples], n_steps=n_steps, internal_batch_size=size)
            for start in starts
        ]
        return (torch.stack(paths).mean(0).detach(),)

    return network.by_sample(call.inputs, work)[0]
