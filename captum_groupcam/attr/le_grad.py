"""LeGrad (arXiv 2404.03214)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr.attention_method import AttentionMethod
from captum_groupcam.masking.call import Call
from captum_groupcam.masking.network import finite
from captum_groupcam.networks._attention import AttentionBlock, watched_attention

__all__ = ["LeGrad"]


class LeGrad(AttentionMethod):
    r"""Explains vision transformers by the gradient of the output with respect to the attention.

    .. math::

        E_j = \frac{1}{L} \sum_l \frac{1}{hT} \sum_{h,i}
            \Big( \frac{\partial s_l}{\partial A_{l,h,i,j}} \Big)^+

    :math:`A_l` is the attention of block l, and :math:`s_l` what the network would say if it ended
    there: its own head, applied to the mean of that block's tokens. One pass with gradient serves
    all blocks; with several inputs or additional arguments each block takes a pass of its own. The
    paper brings the map to [0, 1] in the end; here it keeps its scale.

    For networks like the ViT of torchvision and timm.

    Source: Bousselham, Boggust, Chaybouti, Strobelt and Kuehne, "LeGrad: An Explainability Method
    for Vision Transformers via Feature Formation Sensitivity", arXiv 2404.03214, section 3.

    Examples::

        >>> from torchvision.models import VisionTransformer
        >>> sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
        >>> vit = VisionTransformer(image_size=32, patch_size=8, **sizes).eval()
        >>> LeGrad(vit).attribute(torch.rand(2, 3, 32, 32), target=3).shape
        torch.Size([2, 1, 32, 32])
    """

    title = "LeGrad"

    @staticmethod
    def shares(
        call: Call, blocks: Sequence[AttentionBlock], rows: tuple[Tensor, ...], samples: Tensor
    ) -> Tensor:
        """The mean over blocks, heads and tokens that look, of positive gradients."""
        every = list(range(len(blocks)))
        # Rows of several blocks could not be told which argument is theirs.
        alone = len(call.inputs) > 1 or bool(call.network.additional_forward_args)
        maps = []
        for pooled in [[number] for number in every] if alone else [every]:
            with torch.no_grad(), watched_attention(blocks, pooled) as seen:
                values = AttentionMethod._outputs(call, seen, rows, samples, len(pooled))
                places = [seen.sources[n] for n in pooled]
                gradients = _captum.gradients_of(values, places, allow_unused=False)
            for number, gradient in zip(pooled, gradients, strict=True):
                assert gradient is not None
                of_heads = gradient.view_as(seen.weights[number])
                maps.append(of_heads.relu().mean((1, 2)))
        return finite(torch.stack(maps).mean(0), "gradients at the attention")
