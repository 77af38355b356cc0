"""The base of methods whose map is made of the attention of a vision transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from captum_groupcam import _captum, _compiled
from captum_groupcam.attr._bases import Unmasked
from captum_groupcam.attr._shared import shared_arguments
from captum_groupcam.masking.call import Call, TensorOrTuple
from captum_groupcam.networks._attention import AttentionBlock, SeenAttention, attention_blocks
from captum_groupcam.networks.transformers import tokens_to_grid

__all__ = ["AttentionMethod"]


@shared_arguments
class AttentionMethod(Unmasked):
    """A map by a share of each token, :meth:`shares`.

    For networks like the ViT of torchvision and timm; the error for others says which.

    Args:
        forward_func (torch.nn.Module): The network.

    Examples::

        >>> import torch
        >>> from torchvision.models import VisionTransformer
        >>> from captum_groupcam.networks._attention import watched_attention
        >>> class Looks(AttentionMethod):
        ...     @staticmethod
        ...     def shares(call, blocks, rows, samples):
        ...         with torch.no_grad(), watched_attention(blocks) as seen:
        ...             AttentionMethod._outputs(call, seen, rows, samples)
        ...         return seen.weights[-1].mean((1, 2))
        >>> sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
        >>> vit = VisionTransformer(image_size=32, patch_size=8, **sizes).eval()
        >>> Looks(vit).attribute(torch.rand(2, 3, 32, 32), target=3).shape
        torch.Size([2, 1, 32, 32])
    """

    @_captum.log_usage
    @shared_arguments
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: _captum.TargetType = None,
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = None,
    ) -> TensorOrTuple:
        """Computes the map of each sample, at the resolution of the input.

        Args:
            inputs (Tensor or tuple of Tensor): Images, N x C x H x W. Of a tuple one has spatial
                dimensions.
            target (int, tuple, Tensor or list, optional): {target}
            additional_forward_args (Any, optional): {additional_forward_args}
            internal_batch_size (int, optional): {internal_batch_size}

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**: N x 1 x H x W, not negative. A
            tuple if inputs is one, with a zero (N x 1) for an input that is not an image.

        Raises:
            TypeError: If an argument has a wrong type.
            ValueError: If the network is not like a ViT; if the target is out of range; or if the
                input is not finite.
        """
        return self._attribute(
            self._maps, inputs, target, additional_forward_args, internal_batch_size
        )

    def _maps(self, call: Call) -> tuple[Tensor, ...]:
        """The shares of the patches, as a map."""
        size = call.inputs[call.only_spatial()].shape[2:]
        blocks = attention_blocks(self.forward_func)

        def work(rows: tuple[Tensor, ...], samples: Tensor) -> tuple[Tensor]:
            shares = self.shares(call, blocks, rows, samples)
            return (tokens_to_grid(shares.unsqueeze(2), input_size=size),)

        (maps,) = call.network.by_sample(call.inputs, work)
        return call.upsample(maps)

    @staticmethod
    def shares(
        call: Call, blocks: Sequence[AttentionBlock], rows: tuple[Tensor, ...], samples: Tensor
    ) -> Tensor:
        """The method itself.

        Args:
            call (Call): The call, whose network is asked.
            blocks (sequence of AttentionBlock): The blocks of the network.
            rows (tuple of Tensor): Inputs of some samples, N x C x H x W.
            samples (Tensor): N indices of these samples.

        Returns:
            Tensor: N x T, of all tokens.

        Raises:
            NotImplementedError: If a class has none.
        """
        raise NotImplementedError("A method of attention has shares of the tokens.")

    @staticmethod
    def _outputs(
        call: Call, seen: SeenAttention, rows: tuple[Tensor, ...], samples: Tensor, repeats: int = 1
    ) -> Tensor:
        """The output at the target while the attention is watched, repeats x N values."""
        network = call.network
        forward_func = _compiled.eager(network.forward_func)
        output = _captum.run_forward(forward_func, rows, network.arguments(samples))
        seen.check(len(samples))
        if repeats > 1 and output.shape[:1] != (repeats * len(samples),):
            raise ValueError(
                f"The output has the shape {tuple(output.shape)} for {repeats * len(samples)} rows "
                "after the last block. Explain a network whose head takes each sample by itself."
            )
        return network.select(output, samples.repeat(repeats))
