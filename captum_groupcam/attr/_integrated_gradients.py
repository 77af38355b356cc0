"""Captum's integrated gradients of one input of a call, whatever goes with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.masking.call import Call

__all__ = ["integrated_gradients"]


def integrated_gradients(call: Call, place: int, starts: Sequence[Tensor], n_steps: int) -> Tensor:
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
