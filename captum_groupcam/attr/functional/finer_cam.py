"""What sets a class apart from others (Finer-CAM, arXiv 2501.11309)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from captum_groupcam.attr._mirrored import can_be_mirrored, mirrored
from captum_groupcam.attr.maps import divide_by_maximum, mean_gradients, weighted_sum
from captum_groupcam.masking.call import Call
from captum_groupcam.masking.masks import upsample
from captum_groupcam.masking.targets import Contrast, Target
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["contrasted", "finer_cam"]


def contrasted(
    call: Call, strength: float = 0.6, n_references: int = 3, references: tuple[int, ...] = ()
) -> Call:
    """The call of a class's output less a share of the mean of those that come closest.

    Args:
        call (Call): The call of the class.
        strength (float, optional): The share. Default: 0.6.
        n_references (int, optional): How many others. Default: 3, or all if they are fewer.
        references (tuple of int, optional): The others themselves. Default: (), those whose outputs
            come closest, for each sample.

    Returns:
        Call: The same, with another target.

    Examples::

        >>> import torch
        >>> from captum_groupcam.masking.call import prepare
        >>> call = contrasted(prepare(torch.nn.Flatten().eval(), torch.ones(2, 3, 4), 0, None))
        >>> call.network.select(torch.tensor([[5.0, 2.0, 1.0], [3.0, 3.0, 3.0]]), torch.arange(2))
        tensor([4.1000, 1.2000])
    """
    target = call.network.target
    assert isinstance(target, Target)
    contrast = Contrast(target, strength, n_references, references)
    return call._replace(network=replace(call.network, target=contrast))


def finer_cam(call: Call, layer: TargetLayer, place: int, flip: bool = True) -> Tensor:
    """Finer-CAM at the input's resolution, also averaged over the input and its mirror image.

    Where the output has no classes to set one apart from, or does not say which of its dimensions
    has them (N x A x B), it is Grad-CAM.

    Args:
        call (Call): The call of the class, of which a pass has shown the output.
        layer (TargetLayer): The layer.
        place (int): The place of the input that is explained.
        flip (bool, optional): Whether its mirror image is looked at, too, where it can be.
            Default: True.

    Returns:
        Tensor: Maps with a maximum of one, N x 1 x spatial.

    Examples::

        >>> import torch
        >>> from captum_groupcam.masking.call import prepare
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten())
        >>> call = prepare(network, torch.rand(2, 3, 8, 8), 3, None)
        >>> gradients = call.network.input_gradients(call.inputs, 0)  # a pass
        >>> finer_cam(call, TargetLayer(network[0]), 0).shape
        torch.Size([2, 1, 8, 8])
    """
    target, output = call.network.target, call.network.once.output
    assert isinstance(target, Target)
    has_classes = output is not None and len(output) != 2 and output[:1].numel() > 1
    asked = contrasted(call) if has_classes and target.indices is not None else call

    def look(seen: Call) -> Tensor:
        gradients, activations = seen.gradients_and_activations(layer)
        maps = weighted_sum(activations, mean_gradients(gradients)).relu()
        return divide_by_maximum(upsample(maps, call.inputs[place].shape[2:]))

    maps = look(asked)
    if not (flip and can_be_mirrored(call, place)):
        return maps
    network = replace(asked.network, follows=True)
    return (maps + look(asked._replace(inputs=mirrored(call.inputs), network=network)).flip(-1)) / 2
