"""Attention rollout and LeGrad, against loops that compute the attention from the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam import AttentionRollout, LeGrad
from captum_groupcam.attr.attention_rollout import rollout
from captum_groupcam.masking.network import Shared
from captum_groupcam.methods import METHODS
from tests.toy_networks import (
    Attentive,
    classifier,
    hooks,
    images,
    seeded,
    small_timm,
    small_timm_vit,
    small_vit,
)


class Block(NamedTuple):
    """A block in parts."""

    norm: nn.Module
    qkv: tuple[Tensor, Tensor]
    project: Callable[[Tensor], Tensor]
    rest: Callable[[Tensor], Tensor]
    heads: int


class Plain(NamedTuple):
    """A vision transformer in parts: its tokens before the blocks, the blocks, and its head."""

    tokens: Tensor
    blocks: list[Block]
    head: Callable[[Tensor], Tensor]
    reads: slice


def torchvisions(net: nn.Module, x: Tensor) -> Plain:
    patches = net._process_input(x)
    tokens = torch.cat([net.class_token.expand(len(x), -1, -1), patches], 1)
    blocks = [
        Block(
            layer.ln_1,
            (layer.self_attention.in_proj_weight, layer.self_attention.in_proj_bias),
            layer.self_attention.out_proj,
            lambda t, layer=layer: t + layer.mlp(layer.ln_2(t)),
            layer.self_attention.num_heads,
        )
        for layer in net.encoder.layers
    ]
    return Plain(
        tokens + net.encoder.pos_embedding,
        blocks,
        lambda token: net.heads(net.encoder.ln(token)),
        slice(0, 1),
    )


def timms(net: nn.Module, x: Tensor) -> Plain:
    blocks = [
        Block(
            block.norm1,
            (block.attn.qkv.weight, block.attn.qkv.bias),
            block.attn.proj,
            lambda t, block=block: t + block.mlp(block.norm2(t)),
            block.attn.num_heads,
        )
        for block in net.blocks
    ]
    tokens = net.norm_pre(net._pos_embed(net.patch_embed(x)))
    reads = slice(0, 1) if net.global_pool == "token" else slice(net.num_prefix_tokens, None)
    return Plain(tokens, blocks, lambda token: net.head(net.norm(token)), reads)


def attended(block: Block, tokens: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The attention of a block, N x heads x T x T, and the block as a function of it."""
    query, key, value = (
        part.unflatten(2, (block.heads, -1)).transpose(1, 2)
        for part in F.linear(block.norm(tokens), *block.qkv).chunk(3, dim=2)
    )
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])

    def rest(weights: Tensor) -> Tensor:
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        return block.rest(tokens + block.project(mixed))

    return scores.softmax(-1), rest


def naive_rollout(plain: Plain, grid: tuple[int, int]) -> Tensor:
    tokens, n_tokens = plain.tokens, plain.tokens.shape[1]
    maps = []
    for sample in range(len(tokens)):
        of_sample = tokens[sample : sample + 1]
        joint = torch.eye(n_tokens)
        for block in plain.blocks:
            weights, rest = attended(block, of_sample)
            mixed = torch.zeros(n_tokens, n_tokens)
            for head in weights[0]:
                mixed += head / len(weights[0])
            mixed = mixed + torch.eye(n_tokens)
            mixed = mixed / mixed.sum(1, keepdim=True)
            joint = mixed @ joint
            of_sample = rest(weights)
        maps.append(joint[plain.reads].mean(0)[-math.prod(grid) :].view(1, *grid))
    return torch.stack(maps)


def naive_le_grad(plain: Plain, grid: tuple[int, int], targets: list[int]) -> Tensor:
    maps = []
    for sample, target in enumerate(targets):
        tokens = plain.tokens[sample : sample + 1]
        total = torch.zeros(tokens.shape[1])
        for block in plain.blocks:
            weights, rest = attended(block, tokens.detach())
            leaf = weights.detach().requires_grad_()
            tokens = rest(leaf)
            score = plain.head(tokens.mean(1))[0, target]
            (gradient,) = torch.autograd.grad(score, leaf)
            for head in gradient[0]:
                for row in head:
                    total += row.clamp(min=0) / (gradient.shape[1] * gradient.shape[2])
        total = total / len(plain.blocks)
        maps.append(total[-math.prod(grid) :].view(1, *grid))
    return torch.stack(maps)


def spread(net: nn.Module) -> nn.Module:
    """Weights that are large enough for attention which tells tokens apart."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net.eval()


CASES = {
    "torchvision": (lambda: small_vit(), torchvisions, (32, 32), (4, 4)),
    "timm": (lambda: small_timm_vit(), timms, (32, 48), (4, 6)),
    "timm, registers": (lambda: small_timm_vit(reg_tokens=2), timms, (32, 48), (4, 6)),
    "timm, mean of patches": (
        lambda: small_timm_vit(global_pool="avg", fc_norm=False),
        timms,
        (32, 48),
        (4, 6),
    ),
}


@pytest.fixture(params=CASES)
def case(request) -> Iterator[tuple[nn.Module, Tensor, Plain, tuple[int, int]]]:
    make, in_parts, size, grid = CASES[request.param]
    net, x = seeded(lambda: spread(make())), images(3, *size)
    plain = in_parts(net, x)
    tokens = plain.tokens
    for block in plain.blocks:
        weights, rest = attended(block, tokens)
        tokens = rest(weights)
    head = plain.head(tokens)[:, plain.reads].mean(1)
    torch.testing.assert_close(head, net(x))  # the parts are those of the network
    return net, x, plain, grid


def at_input(maps: Tensor, x: Tensor) -> Tensor:
    return F.interpolate(maps, x.shape[2:], mode="bilinear", align_corners=False)


def test_rollout_is_the_loop_over_the_weights(case):
    net, x, plain, grid = case
    maps = AttentionRollout(net).attribute(x, [0, 1, 2])
    torch.testing.assert_close(maps, at_input(naive_rollout(plain, grid), x).detach())
    assert maps.flatten(1).std(1).min() > 1e-4
    torch.testing.assert_close(AttentionRollout(net).attribute(x, 4), maps)


def test_le_grad_is_the_loop_over_the_gradients(case):
    net, x, plain, grid = case
    maps = LeGrad(net).attribute(x, [0, 1, 2])
    torch.testing.assert_close(maps, at_input(naive_le_grad(plain, grid, [0, 1, 2]), x).detach())
    assert maps.flatten(1).std(1).min() > 1e-4
    assert (LeGrad(net).attribute(x, 4) - maps).abs().max() > 1e-4


def test_le_grad_is_torchcams():
    methods = pytest.importorskip("torchcam", minversion="0.5").methods  # needs Python 3.11
    net, x = seeded(lambda: spread(small_vit())), images(1, 32, 32)
    with methods.LeGrad(net, list(net.encoder.layers)) as theirs:
        (expected,) = theirs(2, net(x), normalized=False)
    maps = LeGrad(net).attribute(x, 2)
    torch.testing.assert_close(maps, at_input(expected.unsqueeze(1), x))


def test_rollout_of_attention_that_only_looks_at_one_token():
    one = torch.zeros(1, 2, 3, 3)
    one[..., 2] = 1
    expected = torch.tensor([[[0.25, 0, 0.75], [0, 0.25, 0.75], [0, 0, 1]]])
    torch.testing.assert_close(rollout([one, one]), expected)


@pytest.mark.parametrize("method", [AttentionRollout, LeGrad])
def test_nothing_is_left_behind(method):
    net, x = spread(small_timm_vit()), images(2, 32, 48)
    fused = [block.attn.fused_attn for block in net.blocks]
    assert all(fused)
    before = net(x)
    net.blocks[0].mlp.requires_grad_(False)
    required = [parameter.requires_grad for parameter in net.parameters()]
    for target in (1, 99):
        if target == 99:
            with pytest.raises(ValueError, match="out of range"):
                method(net).attribute(x, target)
        else:
            method(net).attribute(x, target)
        assert [block.attn.fused_attn for block in net.blocks] == fused
        assert not hooks(net).total()
        assert torch.is_grad_enabled()
        assert [parameter.requires_grad for parameter in net.parameters()] == required
        assert all(parameter.grad is None for parameter in net.parameters())
        torch.testing.assert_close(net(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("method", [AttentionRollout, LeGrad])
def test_fused_or_not_is_the_same(method):
    net, x = seeded(lambda: spread(small_timm_vit())), images(2, 32, 48)
    maps = method(net).attribute(x, 1)
    for block in net.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(method(net).attribute(x, 1), maps)
    assert not any(block.attn.fused_attn for block in net.blocks)


@pytest.mark.parametrize("method", ["attention_rollout", "le_grad"])
def test_by_name_for_a_real_size(method):
    net = seeded(lambda: small_timm("vit_tiny_patch16_224")).eval()
    passes: list[int] = []
    net.register_forward_hook(lambda _module, args, _out: passes.append(len(args[0])))
    maps = METHODS[method](net)(images(1, 224, 224), 3)
    assert maps.shape == (1, 1, 224, 224)
    assert maps.any()
    assert sum(passes) == METHODS[method].n_passes()


class Weighed(nn.Module):
    """A network whose caller asks attention for its weights, and a second input."""

    def __init__(self, average: bool) -> None:
        super().__init__()
        self.inner = Attentive()
        self.average = average
        self.asked: list[Tensor] = []
        for block in self.inner.blocks:
            block.forward = lambda tokens, block=block: self.block(block, tokens)

    def block(self, block: nn.Module, tokens: Tensor) -> Tensor:
        seen = block.norm(tokens)
        mixed, weights = block.attention(seen, seen, seen, average_attn_weights=self.average)
        self.asked.append(weights.detach())
        return tokens + mixed

    def forward(self, x: Tensor, factor: float | Tensor = 1.0) -> Tensor:
        return self.inner(x) * factor


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("method", [AttentionRollout, LeGrad])
def test_callers_of_attention_get_what_they_asked_for(method, average):
    net, x = Weighed(average).eval(), images(1, 16, 20)
    net(x)
    expected = net.asked.copy()
    net.asked.clear()
    method(net).attribute(x, 1)
    for found, before in zip(net.asked, expected, strict=True):
        torch.testing.assert_close(found, before)


def test_le_grad_with_arguments_of_samples_is_the_same():
    net, x = seeded(lambda: Weighed(True)).eval(), images(3, 16, 20)
    maps = LeGrad(net).attribute(x, 1)
    factors = torch.tensor([[1.0], [2.0], [3.0]])
    scaled = LeGrad(net).attribute(x, 1, factors)
    torch.testing.assert_close(scaled, maps * factors.view(3, 1, 1, 1))
    shared = LeGrad(net).attribute(x, 1, Shared(2.0))
    torch.testing.assert_close(shared, 2 * maps)


def timms_swin() -> nn.Module:
    return small_timm("swin_tiny_patch4_window7_224", img_size=(32, 32), window_size=4)


class Twice(Attentive):
    """One block that is used twice."""

    def forward(self, inputs: Tensor) -> Tensor:
        tokens, blocks, mean, classifier = self.head
        return classifier(mean(blocks(blocks(tokens(self.features(inputs))))))


@pytest.mark.parametrize("method", [AttentionRollout, LeGrad])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (classifier, "Classifier has no self-attention"),
        (
            timms_swin,
            "blocks of 1 samples gave|several self-attentions|gives no tokens",
        ),
        (Twice, "gave 4 times tokens"),
        (lambda: nn.DataParallel(Attentive()), "DataParallel has no modules to watch"),
        (lambda: Attentive().eval().forward, "method has no modules to watch"),
    ],
    ids=["no attention", "windows", "twice", "DataParallel", "a function"],
)
def test_other_networks_are_refused_and_left_as_they_were(method, make, message):
    net = make()
    if isinstance(net, nn.Module):
        net.eval()
    pattern = f"({message}).*Attention is found in networks like the ViT of torchvision and timm"
    with pytest.raises(ValueError, match=pattern):
        method(net).attribute(images(1, 32, 32), 1)
    assert not isinstance(net, nn.Module) or not hooks(net).total()


def test_an_output_with_other_rows_is_refused():
    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Attentive()

        def forward(self, x):
            return self.inner(x).mean(0, keepdim=True).expand(len(x), -1)

    with pytest.raises(ValueError, match="whose head takes each sample by itself"):
        LeGrad(Summed().eval()).attribute(images(2, 16, 20), 1)
