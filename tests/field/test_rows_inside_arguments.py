"""Additional arguments that hold rows inside: dicts, lists, tuples, dataclasses."""

from __future__ import annotations

import copy
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_groupcam import GroupCAM
from captum_groupcam.masking import Shared

from .beside_arguments import CONV, METHODS

Named = namedtuple("Named", ["shift", "bank"])


@dataclass(frozen=True)
class Frozen:
    shift: Tensor
    bank: Any
    name: str = "frozen"


@dataclass
class Open:
    shift: Tensor
    bank: Any


@dataclass(frozen=True, slots=True)
class Slotted:
    shift: Tensor
    bank: Any


class Users(UserDict):
    """As Hugging Face's BatchEncoding."""


KINDS = {
    "dict": lambda shift, bank: {"shift": shift, "bank": bank},
    "ordered": lambda shift, bank: OrderedDict(shift=shift, bank=bank),
    "user": lambda shift, bank: Users(shift=shift, bank=bank),
    "list": lambda shift, bank: [shift, bank],
    "tuple": lambda shift, bank: (shift, bank),
    "named": Named,
    "frozen": Frozen,
    "open": Open,
    "slotted": Slotted,
    "nested": lambda shift, bank: {"a": [{"b": (shift, 1.5)}], "bank": bank, "text": "word"},
}


def taken(kind: str, argument: Any) -> tuple[Tensor, Tensor]:
    if kind == "nested":
        return argument["a"][0]["b"][0], argument["bank"]
    if kind in ("dict", "ordered", "user"):
        return argument["shift"], argument["bank"]
    if kind in ("list", "tuple", "named"):
        return argument[0], argument[1]
    return argument.shift, argument.bank


def network_of(kind: str) -> Any:
    def forward(images: Tensor, argument: Any) -> Tensor:
        assert type(argument) is type(KINDS[kind](1, 2))
        shift, bank = taken(kind, argument)
        seen = CONV(images).mean((2, 3)) * shift - bank.mean(0)
        return torch.cat([seen, shift], 1)  # needs a row for each

    return forward


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("internal_batch_size", [1, 2, None])
def test_rows_go_with_their_samples(
    kind: str, method: str, internal_batch_size: int | None
) -> None:
    images, shift, bank = torch.rand(3, 3, 16, 16), torch.rand(3, 8) + 0.1, torch.rand(3, 8)
    make, options = METHODS[method]
    argument = KINDS[kind](shift, Shared(bank))
    before = copy.copy(argument)
    maps = make(network_of(kind)).attribute(
        images,
        target=1,
        additional_forward_args=(argument,),
        internal_batch_size=internal_batch_size,
        **options,
    )
    assert all(
        one is other for one, other in zip(taken(kind, argument), taken(kind, before), strict=True)
    )
    for n in range(3):
        rows = slice(n, n + 1)

        def alone(pixels: Tensor, n: int = n) -> Tensor:
            row = shift[n : n + 1].expand(len(pixels), -1)
            return network_of("tuple")(pixels, (row, bank))

        expected = make(alone).attribute(images[rows], target=1, **options)
        torch.testing.assert_close(maps[rows], expected)


def test_a_tensor_of_all_samples_inside_is_named() -> None:
    images, shift, bank = torch.rand(3, 3, 16, 16), torch.rand(3, 8), torch.rand(3, 8)
    argument = {"shift": shift, "bank": bank}
    with pytest.raises(ValueError, match=r"^additional_forward_args\[0\]\['bank'\], \(3, 8\), has"):
        GroupCAM(network_of("dict"), CONV).attribute(images, 1, (argument,))


def test_a_container_that_cannot_be_made_anew_is_refused() -> None:
    images, shift = torch.rand(2, 3, 16, 16), torch.rand(2, 8)
    argument = MappingProxyType({"shift": shift})
    with pytest.raises(TypeError, match=r"A mappingproxy.*arguments of their own"):
        GroupCAM(lambda x, a: CONV(x).mean((2, 3)) + a["shift"], CONV).attribute(
            images, 1, (argument,)
        )
    # Without rows it goes to the network as it is.
    fixed = MappingProxyType({"shift": 0.5})
    maps = GroupCAM(lambda x, a: CONV(x).mean((2, 3)) + a["shift"], CONV).attribute(
        images, 1, (fixed,), relu_attributions=False
    )
    assert maps.shape == (2, 1, 16, 16)


def test_a_factor_of_one_value_beside_one_image() -> None:
    image, factor = torch.rand(1, 3, 16, 16), torch.tensor([2.0])
    options = {"n_groups": 4, "relu_attributions": False}
    expected = GroupCAM(lambda x: 2 * CONV(x).mean((2, 3)), CONV).attribute(image, 1, **options)
    for argument, take in ((factor, lambda a: a), ({"factor": factor}, lambda a: a["factor"])):
        explainer = GroupCAM(lambda x, a, take=take: CONV(x).mean((2, 3)) * take(a), CONV)
        found = explainer.attribute(image, 1, (argument,), **options)
        torch.testing.assert_close(found, expected)
