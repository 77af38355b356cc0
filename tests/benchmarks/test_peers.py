"""Every peer by its entry: maps of the right form, the network as before, and its own errors."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from benchmarks import peers
from benchmarks.data.planted_network import PlantedNet, vision_transformer
from benchmarks.peers import PEERS, Tapped
from benchmarks.run.network import counted
from captum_groupcam import GradCAM, LayerCAM, LeGrad
from captum_groupcam.methods import METHODS, MethodSpec, offered_methods
from captum_groupcam.networks.target_layer import TargetLayer

every_peer = pytest.mark.parametrize("name", PEERS)
#: Thousands of passes.
COSTLY = {"peers.torchcam.SSCAM", "peers.torchcam.ISCAM"}


def network() -> PlantedNet:
    torch.manual_seed(1)
    return PlantedNet().eval()


def transformer() -> nn.Module:
    torch.manual_seed(1)
    net = vision_transformer().eval()
    nn.init.normal_(net.heads.head.weight)  # torchvision's begins with zeros
    return net


def spec(name: str) -> MethodSpec:
    return MethodSpec(name, {"earlier": "stem"} if name.endswith("RefineCAM") else {})


def explained(name: str, net: nn.Module, where: str, inputs: torch.Tensor, targets: object):
    chosen = spec(name)
    importlib.import_module(name.split(".")[1].replace("grad_cam", "pytorch_grad_cam"))
    return chosen.method(net, TargetLayer.of(net, where), **chosen.options)(inputs, targets)


@every_peer
def test_maps_have_the_inputs_size_and_nothing_is_left_behind(name: str) -> None:
    net, side, where = network(), 32 if name in COSTLY else 48, "blocks"
    if name.endswith("LeGrad"):
        net, side, where = transformer(), 96, "encoder.layers"
    n = 1 if name in COSTLY else 2
    inputs = torch.randn(n, 3, side, side)
    first, *_, last, bias = net.parameters()
    bias.requires_grad_(False)
    last.grad = torch.ones_like(last)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    kept = inputs.clone()
    with counted(net) as queries:
        maps = explained(name, net, where, inputs, torch.tensor([3, 5])[:n])
    assert maps.shape == (n, 1, side, side)
    assert maps.isfinite().all()
    assert not maps.requires_grad
    assert queries.count >= n
    passes = PEERS[name].n_passes()
    assert passes is None or queries.count == n * passes
    assert torch.equal(inputs, kept)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not net.training
    assert not bias.requires_grad
    assert first.grad is None
    assert (last.grad == 1).all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    if name not in COSTLY and "SmoothGradCAMpp" not in name:
        alone = explained(name, net, where, inputs[1:], 5)
        torch.testing.assert_close(alone, maps[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("where", ["blocks", "input of pooling"])
def test_a_peer_and_ours_agree_on_the_output_and_the_input_of_a_layer(where: str) -> None:
    net, inputs = network(), torch.randn(1, 3, 48, 48)
    layer = TargetLayer.of(net, where)
    theirs = explained("peers.grad_cam.LayerCAM", net, where, inputs, 2)
    ours = LayerCAM(net, layer.module).attribute(inputs, 2, **layer.keywords)
    ours = nn.functional.interpolate(ours, (48, 48), mode="bilinear")
    theirs, ours = (maps.flatten() for maps in (theirs, ours))
    assert torch.corrcoef(torch.stack([theirs, ours]))[0, 1] > 0.99


def test_xgrad_cam_is_the_sum_of_activation_times_gradient_for_grad_cam_like_networks() -> None:
    """Behind global average pooling the gradient is constant: HiResCAM is Grad-CAM."""
    net, inputs = network(), torch.randn(1, 3, 48, 48)
    theirs = explained("peers.grad_cam.HiResCAM", net, "blocks", inputs, 2)
    ours = GradCAM(net, net.blocks).attribute(inputs, 2, relu_attributions=True)
    ours = nn.functional.interpolate(ours, (48, 48), mode="bilinear")
    if ours.amax() > 0:
        both = torch.stack([theirs.flatten(), ours.flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.99


def test_le_grad_of_torchcam_is_ours_but_for_its_scale() -> None:
    net, inputs = transformer(), torch.randn(2, 3, 96, 96)
    theirs = explained("peers.torchcam.LeGrad", net, "encoder.layers", inputs, [3, 5])
    ours = LeGrad(net).attribute(inputs, [3, 5])
    for both in zip(theirs, ours, strict=True):
        assert torch.corrcoef(torch.stack(both).flatten(1))[0, 1] > 0.99999


def test_peers_are_in_the_registry_but_not_offered() -> None:
    assert set(PEERS) <= set(METHODS)
    assert not set(PEERS) & set(offered_methods())
    assert all(PEERS[name].kind == "peer" for name in PEERS)


def test_a_class_that_the_installed_version_lacks_is_named(monkeypatch) -> None:
    import pytorch_grad_cam

    monkeypatch.delattr(pytorch_grad_cam, "KPCA_CAM")
    with pytest.raises(ValueError, match=r"The installed grad-cam \d.* has no KPCA_CAM: pip"):
        explained("peers.grad_cam.KPCA_CAM", network(), "blocks", torch.randn(1, 3, 32, 32), 0)


def test_a_missing_package_is_named(monkeypatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("no", name="zennit")

    monkeypatch.setattr(peers.importlib, "import_module", missing)
    net = network()
    method = PEERS["peers.zennit.EpsilonPlusFlat"](net, net.blocks)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package zennit: .*\[peers\]"):
        method(torch.randn(1, 3, 32, 32), 0)


def test_what_peers_cannot_do_is_an_error() -> None:
    net = network()
    with pytest.raises(ValueError, match="name an earlier one"):
        PEERS["peers.torchcam.RefineCAM"](net, net.blocks)(torch.randn(1, 3, 32, 32), 0)
    with pytest.raises(ValueError, match=r"blocks in encoder\.layers; got PlantedNet"):
        PEERS["peers.torchcam.LeGrad"](net, net.blocks)(torch.randn(1, 3, 32, 32), 0)
    again = TargetLayer(net.blocks, layer_call=1)
    with pytest.raises(ValueError, match="several calls"):
        Tapped(net, again)
