"""N x H x W x C: the network says that the channels come last, whatever the method looks at."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam import RISE, XRAI, FullGrad
from captum_groupcam.methods import METHODS
from captum_groupcam.metrics.functional import deletion_insertion
from tests.toy_networks import classifier, small_vit


class Permuting(nn.Module):
    """Takes its channels last."""

    def __init__(self, inner: nn.Module, prepare: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.inner, self.prepare = inner, prepare

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(-1, 1)
        return self.inner(x if self.prepare is None else self.prepare(x))


ON_THE_INPUT = [name for name, method in METHODS.items() if not method.on_layer]


@pytest.mark.parametrize(
    "name", [n for n in ON_THE_INPUT if n not in ("attention_rollout", "le_grad")]
)
def test_every_method_on_the_input_refuses_it(name: str) -> None:
    network = Permuting(classifier()).eval()
    with pytest.raises(ValueError, match=r"\(2, 16, 16, 3\) looks as if its channels came last"):
        METHODS[name](network)(torch.rand(2, 16, 16, 3), 1)


@pytest.mark.parametrize("name", ["grad_cam", "group_cam", "score_cam", "ablation_cam"])
def test_so_do_methods_of_layers_that_small_grids_do_not_tell(name: str) -> None:
    network = Permuting(classifier()).eval()
    x = torch.rand(1, 12, 12, 3)
    with pytest.raises(ValueError, match="looks as if its channels came last"):
        METHODS[name](network, network.inner.features[1])(x, 1)


@pytest.mark.parametrize(
    "explain",
    [
        lambda net, x: RISE(net).attribute(x, target=1, n_masks=4),
        lambda net, x: FullGrad(net).attribute(x, 1),
        lambda net, x: XRAI(net).attribute(x, target=1),
        lambda net, x: deletion_insertion(net, torch.rand(2, 16, 3), x, 1),
        lambda net, x: RISE(lambda one: net(one)).attribute(x, target=1, n_masks=4),
        lambda net, x: RISE(lambda one, k: net(one) * k).attribute(
            x, target=1, n_masks=4, additional_forward_args=torch.ones(2, 1)
        ),
    ],
)
def test_in_captums_form(explain: Callable[[nn.Module, Tensor], object]) -> None:
    network = Permuting(classifier()).eval()
    with pytest.raises(ValueError, match="looks as if its channels came last"):
        explain(network, torch.rand(2, 16, 16, 3))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_any_number_of_channels(dims: int, channels: int) -> None:
    network = Permuting(classifier(dims=dims, in_channels=channels)).eval()
    x = torch.rand(1, *(10, 11, 12)[:dims], channels)
    with pytest.raises(ValueError, match="looks as if its channels came last"):
        RISE(network).attribute(x, target=1, n_masks=4)
    RISE(network.inner).attribute(x.movedim(-1, 1), target=1, n_masks=4)


def test_resized_or_padded_first() -> None:
    for prepare in (lambda x: F.interpolate(x, (24, 24)), lambda x: F.pad(x, (2, 2, 2, 2))):
        network = Permuting(classifier(), prepare).eval()
        with pytest.raises(ValueError, match="looks as if its channels came last"):
            RISE(network).attribute(torch.rand(1, 16, 16, 3), target=1, n_masks=4)


@pytest.mark.parametrize("shape", [(64, 50, 3), (22, 100, 1), (5, 6, 4), (3, 3, 3), (32, 32, 32)])
def test_a_narrow_input_is_no_alarm(shape: tuple[int, ...]) -> None:
    """Skeletons, electrodes and the like have few columns, and their channels first."""
    network = classifier(in_channels=shape[0])
    x = torch.rand(2, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = RISE(network).attribute(x, target=1, n_masks=4)
        METHODS["saliency"](network)(x, 1)
    assert maps.shape == (2, 1, *shape[1:])


def test_networks_that_begin_otherwise_are_no_alarm() -> None:
    class Stacked(nn.Module):
        """Tiles as channels, then convolutions of as many channels as the input has columns."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = classifier(in_channels=48)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(F.pixel_unshuffle(x, 4))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RISE(Stacked().eval()).attribute(torch.rand(1, 3, 48, 48), target=1, n_masks=4)
        vit = small_vit().eval()
        nn.init.normal_(vit.heads.head.weight)  # which would be zero
        RISE(vit).attribute(torch.rand(1, 3, 32, 32), target=1, n_masks=4)
        RISE(lambda x: x.mean((2, 3))).attribute(torch.rand(1, 3, 32, 32), target=1, n_masks=4)


def test_what_cannot_be_decided_is_a_warning() -> None:
    head = nn.Linear(3, 5)

    def network(x: Tensor) -> Tensor:
        return head(x.mean((1, 2)))

    with pytest.warns(UserWarning, match=r"\(1, 16, 16, 3\) looks as if its channels came last\."):
        RISE(network).attribute(torch.rand(1, 16, 16, 3), target=1, n_masks=4)


def test_nothing_is_asked_where_the_sizes_give_no_reason() -> None:
    rows: list[int] = []
    network = classifier()
    network.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    RISE(network).attribute(torch.rand(1, 3, 16, 16), target=1, n_masks=4)
    assert rows == [4]
