"""Adapters (LoRA) around a projection change nothing about the layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_groupcam.networks import find_layer
from tests.toy_networks import small_timm_vit


class Adapter(nn.Module):
    """A linear layer and a low-rank one beside it, which begins as zero."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.base = linear
        self.down = nn.Parameter(torch.randn(2, linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.out((self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1) @ self.v(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention, self.mlp = Attention(), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(
            self.blocks(torch.cat([self.token.expand(len(x), -1, -1), patches], 1))[:, 0]
        )


@pytest.mark.parametrize("wrapped", ["", "q", "k", "v", "qkv"])
def test_separate_projections(wrapped: str) -> None:
    net = Vit().eval()
    for block in net.blocks:
        for name in wrapped:
            setattr(block.attention, name, Adapter(getattr(block.attention, name)))
    layer = find_layer(net, torch.rand(1, 3, 32, 32))
    assert layer.name == "blocks.1.norm1"
    assert layer.reshape_transform.keywords == {"grid": (4, 4), "n_prefix": 1}


def test_one_projection_for_all_three() -> None:
    net = small_timm_vit().eval()
    for block in net.blocks:
        block.attn.qkv = Adapter(block.attn.qkv)
    assert find_layer(net, torch.rand(1, 3, 32, 48)).name == "blocks.1.norm1"


@pytest.mark.parametrize("pool", ["avg", "map"])
def test_where_tokens_are_pooled(pool: str) -> None:
    net = small_timm_vit(global_pool=pool, class_token=False).eval()
    expected = find_layer(net, torch.rand(1, 3, 32, 48))
    for name, module in list(net.named_modules()):
        for child, linear in list(module.named_children()):
            if isinstance(linear, nn.Linear) and child in ("qkv", "q", "kv", "fc1", "fc2"):
                setattr(net.get_submodule(name), child, Adapter(linear))
    assert str(find_layer(net.eval(), torch.rand(1, 3, 32, 48))) == str(expected)


def test_peft() -> None:
    peft = pytest.importorskip("peft")
    net = small_timm_vit()
    config = peft.LoraConfig(r=2, target_modules=["qkv", "fc1"])
    found = find_layer(peft.get_peft_model(net, config).eval(), torch.rand(1, 3, 32, 48)).name
    assert found == "base_model.model.blocks.1.norm1"
