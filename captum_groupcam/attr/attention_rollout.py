"""Attention rollout (arXiv 2005.00928)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_groupcam import _captum
from captum_groupcam.attr.attention_method import AttentionMethod
from captum_groupcam.masking.call import Call
from captum_groupcam.networks._attention import AttentionBlock, watched_attention

__all__ = ["AttentionRollout", "rollout"]


def rollout(weights: Sequence[Tensor]) -> Tensor:
    r"""How much of each input token is in each output token, if attention only mixes tokens.

    .. math::

        \tilde A = \hat A_L \cdots \hat A_1, \quad
        \hat A_l = \tfrac{1}{2} \mathrm{mean}_h A_{l,h} + \tfrac{1}{2} I

    Args:
        weights (sequence of Tensor): The attention of each block, from the first to the last,
            N x heads x T x T, every row a distribution.

    Returns:
        Tensor: N x T x T, every row a distribution.

    Examples::

        >>> rollout([torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])])
        tensor([[[0.5000, 0.5000],
                 [0.0000, 1.0000]]])
    """
    identity = torch.eye(weights[0].shape[-1], dtype=weights[0].dtype, device=weights[0].device)
    joint = identity.expand(len(weights[0]), -1, -1)
    for attention in weights:
        joint = (0.5 * attention.mean(1) + 0.5 * identity) @ joint
    return joint


class AttentionRollout(AttentionMethod):
    """Follows the attention of a vision transformer from the output back to the patches.

    The map is the share of each patch, by :func:`rollout`, in the tokens that the output is made
    of: the class token, or all patches, whichever the gradient shows. It is the same for all
    classes that are made of the same tokens: it says where the network looks, not what speaks for a
    class. It takes one forward pass.

    For networks like the ViT of torchvision and timm.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", arXiv 2005.00928,
    section 3.

    Examples::

        >>> from torchvision.models import VisionTransformer
        >>> sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
        >>> vit = VisionTransformer(image_size=32, patch_size=8, **sizes).eval()
        >>> AttentionRollout(vit).attribute(torch.rand(2, 3, 32, 32), target=3).shape
        torch.Size([2, 1, 32, 32])
    """

    title = "Attention rollout"

    @staticmethod
    def shares(
        call: Call, blocks: Sequence[AttentionBlock], rows: tuple[Tensor, ...], samples: Tensor
    ) -> Tensor:
        """Of each token in those that the output is made of."""
        with torch.no_grad(), watched_attention(blocks) as seen:
            values = AttentionMethod._outputs(call, seen, rows, samples)
            (gradients,) = _captum.gradients_of(values, seen.tokens[-1:], allow_unused=False)
        assert gradients is not None
        joint = rollout(seen.weights)
        read = gradients.ne(0).any(2).to(joint.dtype).unsqueeze(1)  # N x 1 x T
        return ((read / read.sum(2, keepdim=True)) @ joint).squeeze(1)
