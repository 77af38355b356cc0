"""The attention of vision transformers: found, watched, and given back as it was."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import Module

from captum_groupcam import _compiled

__all__ = ["AttentionBlock", "SeenAttention", "attention_blocks", "watched_attention"]

_WHICH = (
    "Attention is found in networks like the ViT of torchvision and timm: blocks of N x T x C "
    "tokens one after the other, each with one self-attention, torch.nn.MultiheadAttention with "
    "batch_first=True or a module of timm. Group-CAM and Grad-CAM explain any transformer."
)


class AttentionBlock(NamedTuple):
    """A block of a transformer and the self-attention in it.

    Attributes:
        name (str): Dotted name of the block.
        block (torch.nn.Module): Takes and gives tokens, N x T x C.
        attention (torch.nn.Module): The module that computes the attention.
    """

    name: str
    block: Module
    attention: Module


@dataclass
class SeenAttention:
    """What the blocks of a transformer did in one pass.

    Attributes:
        n_blocks (int): How many blocks there are.
        weights (list of Tensor): The attention of each block, N x heads x T x T, every row a
            distribution over the tokens that are looked at.
        sources (list of Tensor): The same values as tensors that gradients can be taken of.
        tokens (list of Tensor): What each block gave, N x T x C.
    """

    n_blocks: int
    weights: list[Tensor] = field(default_factory=list)
    sources: list[Tensor] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)

    def check(self, n_samples: int) -> None:
        """Checks, when the network has run, that what was seen is a ViT's.

        Args:
            n_samples (int): N.

        Raises:
            ValueError: If a block was not called once, or tokens are not N x T x C throughout.
        """
        counts = (len(self.weights), len(self.tokens))
        shapes = {tuple(tokens.shape) for tokens in self.tokens}
        n_tokens = self.tokens[0].shape[1] if shapes else 0
        attended = {tuple(weights.shape) for weights in self.weights}
        alike = {(n, *sides) for n, _, *sides in attended} == {(n_samples, n_tokens, n_tokens)}
        if counts != (self.n_blocks, self.n_blocks) or len(shapes) != 1 or not alike:
            raise ValueError(
                f"{self.n_blocks} blocks of {n_samples} samples gave {counts[1]} times tokens of "
                f"the shapes {sorted(shapes)}, and {counts[0]} times attention of "
                f"{sorted(attended)}. {_WHICH}"
            )


def attention_blocks(network: object) -> list[AttentionBlock]:
    """Finds the blocks of a vision transformer that have self-attention.

    Args:
        network (torch.nn.Module): The network.

    Returns:
        list of AttentionBlock: The blocks in the order of the network's modules.

    Raises:
        ValueError: If there are none, or they are not like those of a ViT.

    Examples::

        >>> from torchvision.models import VisionTransformer
        >>> sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
        >>> vit = VisionTransformer(image_size=32, patch_size=8, **sizes)
        >>> [block.name for block in attention_blocks(vit)]
        ['encoder.layers.encoder_layer_0', 'encoder.layers.encoder_layer_1']
    """
    if not isinstance(network, Module) or isinstance(network, nn.DataParallel):
        raise ValueError(f"{type(network).__name__} has no modules to watch. {_WHICH}")
    network = cast(Module, _compiled.eager(network))
    found = [
        AttentionBlock(parent, network.get_submodule(parent), module)
        for name, module in network.named_modules()
        for parent in [name.rpartition(".")[0]]
        if name and _is_attention(module)
    ]
    if not found or len({id(each.block) for each in found}) < len(found):
        reason = "several self-attentions in one block" if found else "no self-attention"
        raise ValueError(f"{type(network).__name__} has {reason}. {_WHICH}")
    return found


@contextmanager
def watched_attention(
    blocks: Sequence[AttentionBlock], pooled: Sequence[int] | None = None
) -> Iterator[SeenAttention]:
    """Watches the attention in a pass of the network without a graph.

    Attention that is fused, so that its weights are nowhere, is computed in steps meanwhile.

    Args:
        blocks (sequence of AttentionBlock): The blocks.
        pooled (sequence of int, optional): Blocks that the output is made of, each by itself: what
            follows the last block gets the mean of each one's tokens, instead of every token,
            one after the other as rows of a batch. Gradients of the output go to the block that
            they are from and not beyond. Default: None, the network computes as ever, and gradients
            go to the tokens of the last block.

    Yields:
        SeenAttention: It is filled when the network has run.
    """
    seen = SeenAttention(len(blocks))
    with ExitStack() as stack:
        for number, (_, block, attention) in enumerate(blocks):
            is_last = number == len(blocks) - 1
            hooks = [block.register_forward_hook(partial(_keep_tokens, seen, is_last, pooled))]
            if pooled is not None:
                begin = block.register_forward_pre_hook(_begin_graph, with_kwargs=True)
                hooks.append(begin)
            if isinstance(attention, nn.MultiheadAttention):
                asked: list[tuple[bool, bool]] = []
                hooks += [
                    attention.register_forward_pre_hook(partial(_ask, asked), with_kwargs=True),
                    attention.register_forward_hook(partial(_keep_asked, seen, asked)),
                ]
            else:
                stack.callback(setattr, attention, "fused_attn", attention.fused_attn)
                setattr(attention, "fused_attn", False)  # noqa: B010 - a Tensor for type checkers
                dropout = cast(Module, attention.attn_drop)
                hooks.append(dropout.register_forward_hook(partial(_keep, seen)))
            for hook in hooks:
                stack.callback(hook.remove)
        stack.enter_context(_compiled.uncompiled())
        yield seen


def _is_attention(module: Module) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.batch_first)
    # timm's
    return isinstance(getattr(module, "fused_attn", None), bool) and isinstance(
        getattr(module, "attn_drop", None), Module
    )


def _begin_graph(_block: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Lets the graph of a block begin at its tokens."""
    torch.set_grad_enabled(True)
    return (args[0].detach().requires_grad_(), *args[1:]), kwargs


def _keep_tokens(
    seen: SeenAttention,
    is_last: bool,
    pooled: Sequence[int] | None,
    _block: Module,
    _args: Any,
    output: Any,
) -> Any:
    """Keeps what a block gives; what follows the last one gets what the gradients are taken of."""
    if not isinstance(output, Tensor) or output.dim() != 3:
        raise ValueError(f"A block with attention gives no tokens, N x T x C. {_WHICH}")
    if is_last and pooled is None:
        torch.set_grad_enabled(True)
        output = output.detach().requires_grad_()
    seen.tokens.append(output)
    if not is_last or pooled is None:
        return output
    every = [seen.tokens[number] for number in pooled if number < len(seen.tokens)]
    return torch.cat([tokens.mean(1, keepdim=True).expand_as(tokens) for tokens in every])


def _keep(seen: SeenAttention, _dropout: Module, _args: Any, weights: Tensor) -> None:
    seen.weights.append(weights.detach())
    seen.sources.append(weights)


def _ask(
    asked: list[tuple[bool, bool]],
    attention: Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Lets torch's attention give the weights of each head, and notes what it was asked for."""
    call = inspect.signature(attention.forward).bind(*args, **kwargs)
    given = call.arguments
    asked.append((given.get("need_weights", True), given.get("average_attn_weights", True)))
    given.update(need_weights=True, average_attn_weights=False)
    return call.args, call.kwargs


def _keep_asked(
    seen: SeenAttention,
    asked: list[tuple[bool, bool]],
    _attention: Module,
    _args: Any,
    output: tuple[Tensor, Tensor],
) -> Any:
    """Keeps the weights, and gives what was asked for."""
    values, weights = output
    seen.weights.append(weights.detach())
    # The tokens are mixed by what this is a view of.
    seen.sources.append(weights if weights._base is None else weights._base)
    needed, averaged = asked.pop()
    return values, (weights.mean(1) if averaged else weights) if needed else None
