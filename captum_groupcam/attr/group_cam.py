"""Group-CAM: Group Score-Weighted Visual Explanations (arXiv 2103.13859)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from captum.attr import LayerAttribution
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.masking.baselines import Baselines
from captum_groupcam.masking.call import isolated, prepare, warn_of_zero_maps
from captum_groupcam.masking.groups import Grouping, group_maps, split_channels
from captum_groupcam.masking.masks import LayerMasks, denoise
from captum_groupcam.masking.network import ScoreFunc, class_probability
from captum_groupcam.masking.queries import score_masks, score_samples
from captum_groupcam.networks.target_layer import TargetLayer
from captum_groupcam.networks.transformers import ReshapeTransform

__all__ = ["GroupCAM"]


class GroupCAM(LayerAttribution):
    r"""Explains a network's decision by the parts of the input that its own features point at.

    Group-CAM splits the activations of a layer into groups, turns each group into a mask, lets the
    network score the input seen through each mask, and merges the masks by their scores:

    .. math::

        L = \mathrm{ReLU}\Big(\sum_l \alpha_l M'_l\Big), \quad
        \alpha_l = F_c(I \cdot M'_l + B \cdot (1 - M'_l)) - F_c(B)

    It is a drop-in for :class:`captum.attr.LayerGradCam`, at the price of one forward pass for
    each group, and its maps have the resolution of the input.

    Source: Zhang, Rao and Yang, "Group-CAM: Group Score-Weighted Visual Explanations for Deep
    Convolutional Networks", arXiv 2103.13859.

    Args:
        forward_func (Callable): The forward function of the model or any modification of it.
        layer (torch.nn.Module): The layer whose activations are grouped, usually the last one with
            spatial dimensions.
        device_ids (list of int, optional): Device IDs, necessary only if forward_func applies a
            DataParallel model; not if it is one. Default: None.
    """

    @_captum.log_usage
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = True,
        *,
        baselines: Baselines = None,
        n_groups: int = 32,
        grouping: str | Grouping = "contiguous",
        gradient_free: bool = False,
        denoise_percentile: float | None = 70.0,
        denoise_at: Literal["layer", "input"] = "layer",
        score_func: ScoreFunc = class_probability,
        relu_scores: bool = False,
        merge_normalized: bool = True,
        reshape_transform: ReshapeTransform | None = None,
        internal_batch_size: int | None = None,
        return_group_scores: bool = False,
        return_group_masks: bool = False,
        show_progress: bool = False,
    ) -> Any:
        r"""Computes the map of each sample, at the resolution of the input.

        The defaults are the paper's. The variant that its authors published last is
        ``denoise_percentile=None, relu_scores=True, merge_normalized=False``.

        Args:
            inputs (Tensor or tuple of Tensor): N x C x spatial, with one to three spatial
                dimensions. Every floating-point input with spatial dimensions is masked, with the
                same groups; others reach the network as they are.
            target (int, tuple, Tensor or list, optional): The output that is explained, in any of
                Captum's forms: an int or a tensor with one element, or a tuple for outputs with
                more than two dimensions, for all samples; a list or a 1-D tensor with one for each
                sample. Not needed where the network gives one value a sample. Default: None.
            additional_forward_args (Any, optional): Arguments of forward_func after the inputs, a
                tuple if several. Tensors of batch size N go with their samples. Default: None.
            attribute_to_layer_input (bool, optional): Whether the input of the layer is grouped
                rather than its output. Default: False.
            relu_attributions (bool, optional): Whether only positive attributions are returned, as
                in the paper; otherwise the signed sum. Default: True.
            baselines (Tensor, float, callable, None or tuple of these, optional): What is seen
                where a mask hides the input, B: a tensor of the input's shape (or batch size 1), a
                number, a function of the input, or one of these for each input. Default: None, the
                input blurred by :class:`~captum_groupcam.masking.baselines.GaussianBlur` (51
                pixels, sigma 50).
            n_groups (int, optional): Number of groups G, hence of forward passes; capped at the
                number of channels. Default: 32.
            grouping (str or Callable, optional): How channels are split: "contiguous" (paper),
                "k_means" or "agglomerative" (by where they are active), or a function, see
                :mod:`~captum_groupcam.masking.groups`. Default: "contiguous".
            gradient_free (bool, optional): Whether all channels weigh the same, so that the
                network needs no gradients. Default: False.
            denoise_percentile (float, optional): :math:`\theta`: positions of a group's map below
                this percentile are dropped; in [0, 100), None keeps all. Default: 70.0.
            denoise_at (str, optional): "layer" denoises at the resolution of the layer (paper),
                "input" after upsampling, which gives sharper masks. Default: "layer".
            score_func (Callable, optional): Turns the network's output (N x classes x ...) into the
                scores F. Default: softmax over dimension 1; an output without classes (N or
                N x 1) is its own score.
            relu_scores (bool, optional): Whether groups that lower the score are left out of the
                sum. Default: False.
            merge_normalized (bool, optional): Whether the merged masks are those that the network
                saw, normalised to [0, 1] (paper), or the maps before normalisation. Default: True.
            reshape_transform (Callable, optional): Brings activations without spatial dimensions to
                N x K x spatial: those of a transformer, for which
                :func:`~captum_groupcam.networks.layers.find_layer` finds it. Default: None.
            internal_batch_size (int, optional): Largest number of inputs in one forward pass; sets
                the peak of memory, not the result. Default: None, a size that runs fast on the
                device (:data:`~captum_groupcam.masking.network.DEFAULT_BATCH_SIZE`).
            return_group_scores (bool, optional): Whether the scores :math:`\alpha_l` are returned
                too. Default: False.
            return_group_masks (bool, optional): Whether to return the masks, too, as
                :class:`~captum_groupcam.masking.masks.LayerMasks`: map, scores, masks.
                Default: False.
            show_progress (bool, optional): Whether to show a progress bar. Default: False.

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**; with **group scores**, and
            **group masks**, a tuple:

            - **attributions** (*Tensor* or *tuple[Tensor, ...]*): N x 1 x spatial at the
              resolution of the input, float32 or wider. A tuple if inputs is one, with a zero
              (N x 1) for an input that is not masked.
            - **group scores** (*Tensor*): N x G, if ``return_group_scores`` or
              ``return_group_masks``. Zero for a group whose mask is flat.
            - **group masks** (*LayerMasks*): G masks a sample, if ``return_group_masks``.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If the layer is never called, has several outputs or no spatial dimensions;
                if the target is out of range; if inputs or outputs are not finite; if batch sizes
                do not match; or if an option is out of range.

        Examples::

            >>> import torch
            >>> from torch import nn
            >>> _ = torch.manual_seed(0)
            >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
            >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            >>> group_cam = GroupCAM(nn.Sequential(features, head).eval(), features)
            >>> attributions = group_cam.attribute(torch.rand(2, 3, 16, 16), target=3, n_groups=4)
            >>> attributions.shape
            torch.Size([2, 1, 16, 16])
        """
        with isolated():
            inputs_, baselines_, network = call = prepare(
                self.forward_func,
                inputs,
                target,
                additional_forward_args,
                baselines,
                score_func=score_func,
                internal_batch_size=internal_batch_size,
                device_ids=self.device_ids,
            )

            # 1. Weights: w_k, the mean gradient of the class's output over a channel's positions.
            layer = TargetLayer(self.layer, "", attribute_to_layer_input, reshape_transform)
            if gradient_free:
                activations = call.activations(layer)
                gradients = torch.ones_like(activations)
            else:
                gradients, activations = call.gradients_and_activations(layer)
            weights = gradients.flatten(2).mean(2)

            # 2. Split: M_l = ReLU(sum of w_k A_k over the group).
            groups = split_channels(activations, n_groups, grouping)
            maps = group_maps(activations, weights, groups, n_groups)

            # 3. Denoise: keep what exceeds the percentile of its map.
            if denoise_at not in ("layer", "input"):
                raise ValueError(f"denoise_at must be 'layer' or 'input', got {denoise_at!r}.")
            if denoise_percentile is not None and denoise_at == "layer":
                maps = denoise(maps, denoise_percentile)

            # 4. Upsample and normalise to M'_l in [0, 1], when they are rendered.
            masks = LayerMasks(maps, denoise_percentile if denoise_at == "input" else None)

            # 5. Transform and 6. score: alpha_l = F_c(I * M'_l + B * (1 - M'_l)) - F_c(B).
            scores, queried = score_masks(
                network,
                inputs_,
                baselines_,
                masks,
                description="Group-CAM",
                show_progress=show_progress,
            )
            hidden = score_samples(network, call.hidden)
            alphas = torch.where(queried, scores - hidden.unsqueeze(1), 0)
            if relu_scores:
                alphas = alphas.relu()

            # 7. Merge: L = ReLU(sum of alpha_l M'_l).
            attributions = call.merge(masks, alphas, normalized=merge_normalized)
            if relu_attributions:
                attributions = tuple(attribution.relu() for attribution in attributions)

        warn_of_zero_maps(queried)
        result = attributions if isinstance(inputs, tuple) else attributions[0]
        if return_group_masks:
            return result, alphas, masks
        return (result, alphas) if return_group_scores else result
