"""What Group-CAM and Finer-CAM agree on."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from captum_groupcam import _captum
from captum_groupcam.attr._bases import MaskedLayer, check_one_call
from captum_groupcam.attr._shared import options_of, shared_arguments
from captum_groupcam.attr._typing import ConsensusOptions, typed_consensus
from captum_groupcam.attr.functional.consensus import consensus_group_cam
from captum_groupcam.masking.call import TensorOrTuple

__all__ = ["ConsensusGroupCAM"]


@shared_arguments
class ConsensusGroupCAM(MaskedLayer):
    r"""Shows what Group-CAM and Finer-CAM agree on, each with the weight that the network gives it.

    1. Finer-CAM of the input and its mirror image: what sets a class apart from those like it.
    2. Group-CAM of fewer groups, whose masks the network has seen, with half of that map added.
    3. Both follow the edges of the input, by a guided filter.
    4. The network is asked how much the positions that a map ranks first matter, alone and missing:

       .. math::

           e_m = \frac{1}{|S|} \sum_{s \in S} F_c(I \cdot T_{ms} + B \cdot (1 - T_{ms}))
               - F_c(I \cdot (1 - T_{ms}) + B \cdot T_{ms})

       where :math:`T_{ms}` is one at the share s of positions that map m ranks first.
    5. The geometric mean of both maps, with weights in proportion to
       :math:`\mathrm{ReLU}(e_m)^4`: where one of them shows nothing, it shows little.
    6. It is multiplied by :math:`D^{0.2}`, D the blurred magnitudes of the input's gradient.

    With its defaults it takes no more forward passes than :class:`~captum_groupcam.GroupCAM`: three
    with gradients at the layer, one with gradients at the input, which costs as much as three, 19
    groups, the baseline, and 2 maps of 2 shares shown and hidden. Step 4 asks what deletion and
    insertion ask: judge it by others, too (:doc:`/research/a-map-that-is-best`).

    The mirror image is left out for sequences, and where the target, another input or an argument
    that is more than a number may name a place; give ``flip=False`` if the forward function picks
    one. Where the output has no classes, step 1 is Grad-CAM.

    Sources: Group-CAM (arXiv 2103.13859), Finer-CAM (arXiv 2501.11309), gradients of the input
    (arXiv 1312.6034); He, Sun and Tang, "Guided Image Filtering" (2010); deletion and insertion
    (arXiv 1806.07421, section 4.1).

    Args:
        forward_func (Callable): {forward_func}
        layer (torch.nn.Module): {layer} Its activations are grouped.
        device_ids (list of int, optional): {device_ids}
    """

    title = "Consensus Group-CAM"
    unmoved_maps = "Finer-CAM's, to which Group-CAM adds nothing"

    @typed_consensus
    @_captum.log_usage
    @options_of(consensus_group_cam, MaskedLayer._attribute)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        *,
        return_effects: bool = False,
        **options: Unpack[ConsensusOptions],
    ) -> TensorOrTuple | tuple[TensorOrTuple, Tensor]:
        r"""Computes the map of each sample, at the resolution of the input.

        Args:
            inputs (Tensor or tuple of Tensor): N x C x spatial, with one to three spatial
                dimensions. Of a tuple exactly one has them; others reach the network as they are.
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            attribute_to_layer_input (bool, optional): {attribute_to_layer_input}
            return_effects (bool, optional): Whether the effects :math:`e_m` are returned too.
                Default: False.
            **options: {options}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**; with **effects**, a tuple:

            - **attributions** (*Tensor* or *tuple[Tensor, ...]*): N x 1 x spatial at the resolution
              of the input, not negative. A tuple if inputs is one, with a zero (N x 1) for an input
              that is not masked.
            - **effects** (*Tensor*): N x 2, if ``return_effects``: of Finer-CAM and of Group-CAM.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If several inputs have spatial dimensions, if the output has no gradient
                with respect to the input, if an option is out of range, or as for
                :meth:`GroupCAM.attribute() <captum_groupcam.GroupCAM.attribute>`.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            >>> consensus = ConsensusGroupCAM(nn.Sequential(features, head).eval(), features)
            >>> consensus.attribute(torch.rand(2, 3, 16, 16), target=3).shape
            torch.Size([2, 1, 16, 16])
        """
        if return_effects:
            check_one_call(options.get("layer_call"), "Effects")
        attributions, result = self._attribute(
            consensus_group_cam,
            inputs,
            target,
            additional_forward_args,
            attribute_to_layer_input,
            **options,
        )
        return (attributions, result.effects) if return_effects else attributions
