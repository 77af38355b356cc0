"""Several inputs, and a layer that does not depend on all of them: no map of one for another."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_groupcam import CAM, AblationCAM, EigenCAM, GradCAM, GroupCAM, ScoreCAM, ShapleyCAM
from captum_groupcam.attr.functional import group_cam
from captum_groupcam.masking.call import prepare
from captum_groupcam.networks import TargetLayer, check_layer, find_layer

METHODS = [AblationCAM, CAM, EigenCAM, GradCAM, GroupCAM, ScoreCAM, ShapleyCAM]


class Separate(nn.Module):
    """An encoder for each input, and a layer where both have met."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(3, 6, 3, padding=1) for _ in range(2))
        self.both = nn.Conv2d(12, 6, 3, padding=1)
        self.fc = nn.Linear(18, 4)

    def forward(self, x, y):
        maps = torch.cat([self.a(x).relu(), self.b(y).relu()], 1)
        return self.fc(torch.cat([maps, self.both(maps).tanh()], 1).mean((2, 3)))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Separate().eval()


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("encoder", "other", "calls"), [("a", 1, "0, None"), ("b", 0, "None, 0")])
def test_the_map_of_one_encoder_is_not_given_for_the_other(
    method, encoder, other, calls, network, pair
):
    explainer = method(network, getattr(network, encoder))
    message = rf"does not depend on input {other},.*additional_forward_args.*layer_call=\({calls}\)"
    with pytest.raises(ValueError, match=message):
        explainer.attribute(pair, 1)


def test_the_advice_works(network, pair):
    x, y = pair
    for method in (GradCAM, GroupCAM):
        explainer = method(network, network.a)
        of_x, of_y = explainer.attribute(pair, 1, layer_call=(0, None))
        assert of_x.abs().max() > 0
        assert of_y.shape == (4, 1)
        assert not of_y.any()
        torch.testing.assert_close(of_x, explainer.attribute(x, 1, additional_forward_args=y))


@pytest.mark.parametrize("calls", [(0, 0), (None, 0)])
def test_a_call_that_sees_another_input(calls, network, pair):
    with pytest.raises(ValueError, match=r"Call 0 of the layer .* does not depend on input 1"):
        GradCAM(network, network.a).attribute(pair, 1, layer_call=calls)


def test_calls_of_a_shared_encoder_in_the_wrong_order(pair):
    encoder, fc = nn.Conv2d(3, 6, 3), nn.Linear(12, 4)

    def network(x, y):
        return fc(torch.cat([encoder(one).relu().mean((2, 3)) for one in (x, y)], 1))

    of_x, of_y = GradCAM(network, encoder).attribute(pair, 1, layer_call=(0, 1))
    assert not torch.equal(of_x, of_y)
    for calls in ((1, 0), 0):
        with pytest.raises(ValueError, match="does not depend on input"):
            GradCAM(network, encoder).attribute(pair, 1, layer_call=calls)


def test_the_function_refuses_it_too(network, pair):
    call = prepare(network, pair, 1, None)
    with pytest.raises(ValueError, match="does not depend on input 1"):
        group_cam(call, TargetLayer(network.a), n_groups=2)


@pytest.mark.parametrize("method", [EigenCAM, GradCAM, GroupCAM, ScoreCAM])
def test_a_layer_where_both_have_met(method, network, pair):
    of_x, of_y = method(network, network.both).attribute(pair, 1)
    assert of_x.shape == of_y.shape == (4, 1, 16, 16)


def test_a_layer_that_depends_on_no_input_is_not_one_of_another(network, pair):
    nn.init.zeros_(network.both.weight)
    of_x, of_y = GradCAM(network, network.both).attribute(pair, 1)
    torch.testing.assert_close(of_x, of_y)


@pytest.mark.parametrize("threshold", [0.5, -1.0])
def test_an_input_of_which_only_the_mean_counts_or_a_threshold(threshold, pair):
    conv, fc = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.here = nn.Identity()

        def forward(self, x, mask):
            return fc(self.here(conv(x) * (mask.mean((1, 2, 3), True) > threshold)).mean((2, 3)))

    network = Gated().eval()
    maps = GradCAM(network, network.here).attribute((pair[0], torch.ones(4, 3, 16, 16)), 1)
    assert len(maps) == 2


def test_a_network_that_checks_its_inputs(pair):
    conv, fc = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)
    mask = (pair[1] > 0).float()

    def network(x, mask):
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError("Expected a mask.")
        return fc((conv(x) * mask[:, :1]).mean((2, 3)))

    with pytest.raises(ValueError, match="does not depend on input 1"):
        GradCAM(network, conv).attribute((pair[0], mask), 1)
    assert GradCAM(network, conv).attribute(pair[0], 1, mask).shape == (4, 1, 16, 16)


@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_only_several_inputs_pay(batch_size, network, pair):
    alone = nn.Sequential(network.a, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    for net, layer, inputs, more in (
        (alone, alone[0], pair[0], 0),
        # As it is, and with each input changed; then five to see where each lies.
        (network, network.both, pair, 3 + 2 * 5),
    ):
        rows = []
        handle = net.register_forward_pre_hook(lambda _, args, rows=rows: rows.append(len(args[0])))
        GradCAM(net, layer).attribute(inputs, 1, internal_batch_size=batch_size)
        handle.remove()
        assert sum(rows) == 4 + more


def test_the_search_says_so():
    torch.manual_seed(0)
    a, b, fc = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1), nn.Linear(12, 4)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = a, b, fc

        def forward(self, x, y):
            pooled = [self.a(x).relu().mean((2, 3)), self.b(y).relu().mean((2, 3))]
            return self.fc(torch.cat(pooled, 1))

    network, pair = Two().eval(), (torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))
    with pytest.warns(UserWarning, match="The layer a does not depend on input 1"):
        assert find_layer(network, pair).name == "a"
    with pytest.warns(UserWarning, match="The layer a does not depend on input 1"):
        check_layer(network, TargetLayer.of(network, "a"), pair)
