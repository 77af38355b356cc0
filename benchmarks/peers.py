"""The same methods, and others, by other packages: pytorch-grad-cam, torchcam and zennit.

Each runs at the defaults of its package and at the layer that the benchmark explains. They are
found by name, ``peers.PACKAGE.CLASS``; nothing is imported before one of them runs.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_groupcam.masking.targets import TargetType
from captum_groupcam.methods import METHODS, Method
from captum_groupcam.networks.target_layer import TargetLayer

__all__ = ["PEERS", "Tapped"]

#: Package to its name on PyPI, and to where its classes are.
_PACKAGES = {
    "grad_cam": ("grad-cam", "pytorch_grad_cam"),
    "torchcam": ("torchcam", "torchcam.methods"),
    "zennit": ("zennit", "zennit.composites"),
}
_EXTRA = "pip install 'captum_groupcam[peers]'"


class Tapped(nn.Module):
    """A network with one module more, whose output is what the explained layer has.

    Peers watch outputs of modules; the benchmark explains the input of some. What follows gets a
    copy, so that nothing changes in place what a peer has seen.

    Args:
        network (torch.nn.Module): The network.
        layer (TargetLayer): The layer.

    Raises:
        ValueError: If the layer runs several times in a pass, which peers cannot distinguish.

    Examples::

        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> tapped = Tapped(network, TargetLayer.of(network, "input of 1"))
        >>> seen = []
        >>> handle = tapped.tap.register_forward_hook(lambda *call: seen.append(call[2]))
        >>> with tapped.open():
        ...     _ = tapped(torch.ones(1, 3, 5, 5))
        >>> torch.equal(seen[0], network[0](torch.ones(1, 3, 5, 5)))
        True
    """

    def __init__(self, network: nn.Module, layer: TargetLayer) -> None:
        super().__init__()
        if layer.layer_call is not None:
            raise ValueError("Other packages cannot distinguish several calls of a layer.")
        self.network = network
        self.tap: nn.Module = nn.Identity()
        # Not a module of this one: it is in the network.
        self._layer = (layer,)
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """As the network."""
        return cast(Tensor, self.network(inputs))

    @contextmanager
    def open(self) -> Iterator[None]:
        """Leads what the layer has through the tap, as long as it lasts."""
        (layer,) = self._layer

        def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self.tap(args[0]).clone(), *args[1:])

        def after(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
            return cast(Tensor, self.tap(output).clone())

        handle = (
            layer.module.register_forward_pre_hook(before)
            if layer.place_in(self.network).at_input
            else layer.module.register_forward_hook(after)
        )
        try:
            yield
        finally:
            handle.remove()


@contextmanager
def _untouched(network: nn.Module) -> Iterator[None]:
    """Peers call ``backward``: the parameters and their gradients are afterwards as before."""
    before = [(p, p.grad, p.requires_grad) for p in network.parameters()]
    try:
        for parameter, _, _ in before:
            parameter.grad = None
            parameter.requires_grad_(parameter.is_floating_point())
        yield
    finally:
        for parameter, grad, requires_grad in before:
            parameter.grad = grad
            parameter.requires_grad_(requires_grad)


def _class_of(package: str, name: str) -> Any:
    """A class of another package, or an error that says what is missing."""
    distribution, module = _PACKAGES[package]
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"peers.{package}.{name} needs the package {error.name}: {_EXTRA}", name=error.name
        ) from error
    if found is None:
        raise ValueError(
            f"The installed {distribution} {version(distribution)} has no {name}: "
            f"pip install -U {distribution}"
        )
    return found


def _each(
    model: nn.Module, layer: TargetLayer, inputs: Tensor, target: TargetType
) -> Iterator[tuple[Tapped, Tensor, int]]:
    """The network, and each sample with its class, alone: what a batch does differs by package."""
    eager = getattr(model, "_orig_mod", model)
    tapped = Tapped(eager, layer)
    targets = [target] * len(inputs) if isinstance(target, int) else torch.as_tensor(target)
    with _untouched(eager), tapped.open(), torch.enable_grad():
        for index in range(len(inputs)):
            yield tapped, inputs[index : index + 1].contiguous(), int(targets[index])


def _sized(maps: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """One map a sample, each h x w, at the resolution of the inputs."""
    found = torch.stack([one.detach().to(inputs) for one in maps]).unsqueeze(1)
    if found.shape[2:] == inputs.shape[2:]:
        return found
    return F.interpolate(found, inputs.shape[2:], mode="bilinear", align_corners=False)


# --- pytorch-grad-cam -----------------------------------------------------------------------------


def _grad_cam(name: str) -> Callable[..., Tensor]:
    def explain(model: nn.Module, layer: TargetLayer, inputs: Tensor, target: TargetType) -> Tensor:
        made = _class_of("grad_cam", name)
        output_target = importlib.import_module(
            "pytorch_grad_cam.utils.model_targets"
        ).ClassifierOutputTarget
        maps = []
        for tapped, one, index in _each(model, layer, inputs, target):
            # FullGrad prints that it ignores the layer, others draw progress bars.
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                cam = made(tapped, [tapped.tap], reshape_transform=layer.reshape_transform)
                with cam:
                    if name == "FinerCAM":  # it finds the classes to compare with by itself
                        found = cam(one, targets=None, target_idx=index)
                    else:
                        found = cam(one, targets=[output_target(index)])
            maps.append(torch.from_numpy(found[0].copy()))
        return _sized(maps, inputs)

    return explain


# --- torchcam -------------------------------------------------------------------------------------


def _torchcam(name: str) -> Callable[..., Tensor]:
    def explain(model: nn.Module, layer: TargetLayer, inputs: Tensor, target: TargetType) -> Tensor:
        return _torchcam_maps(name, model, layer, inputs, target)

    return explain


def _refine_cam(
    model: nn.Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *,
    earlier: str = "",
) -> Tensor:
    """Multiplies the map of the layer with that of an earlier one, named by the option."""
    if not earlier:
        raise ValueError(
            "RefineCAM is made of several layers: name an earlier one, as in "
            "peers.torchcam.RefineCAM:earlier=features.7."
        )
    eager = getattr(model, "_orig_mod", model)
    other = TargetLayer.of(eager, earlier).module
    return _torchcam_maps("RefineCAM", model, layer, inputs, target, other)


def _torchcam_maps(
    name: str,
    model: nn.Module,
    layer: TargetLayer,
    inputs: Tensor,
    target: TargetType,
    *others: nn.Module,
) -> Tensor:
    made = _class_of("torchcam", name)
    keywords: dict[str, Any] = {}
    if layer.reshape_transform is not None:
        keywords["reshape_transform"] = layer.reshape_transform
    maps = []
    for tapped, one, index in _each(model, layer, inputs, target):
        where = [*others, tapped.tap] if others else tapped.tap
        with made(tapped, where, **keywords) as extractor:
            scores = tapped(one.requires_grad_())
            (found,) = extractor(index, scores)
        maps.append(found[0].relu())
    return _sized(maps, inputs)


def _le_grad(model: nn.Module, layer: TargetLayer, inputs: Tensor, target: TargetType) -> Tensor:
    """Looks at the attention of every block; the layer does not matter."""
    made = _class_of("torchcam", "LeGrad")
    maps = []
    for tapped, one, index in _each(model, layer, inputs, target):
        blocks = getattr(getattr(tapped.network, "encoder", None), "layers", None)
        if blocks is None:
            raise ValueError(
                "torchcam's LeGrad takes transformers like torchvision's VisionTransformer, with "
                f"blocks in encoder.layers; got {type(tapped.network).__name__}."
            )
        with made(tapped.network, list(blocks)) as extractor:
            scores = tapped(one.requires_grad_())
            (found,) = extractor(index, scores)
        maps.append(found[0])
    return _sized(maps, inputs)


# --- zennit ---------------------------------------------------------------------------------------


def _zennit(name: str) -> Callable[..., Tensor]:
    def explain(model: nn.Module, layer: TargetLayer, inputs: Tensor, target: TargetType) -> Tensor:
        made = _class_of("zennit", name)
        merge = importlib.import_module("zennit.canonizers").SequentialMergeBatchNorm
        gradient = importlib.import_module("zennit.attribution").Gradient
        maps = []
        for tapped, one, index in _each(model, layer, inputs, target):
            # A copy, since it rewrites modules, and cannot do with what happens in place.
            network = copy.deepcopy(tapped.network)
            for module in network.modules():
                if getattr(module, "inplace", False):
                    module.inplace = False  # type: ignore[assignment]

            def relevance(scores: Tensor, index: int = index) -> Tensor:
                return F.one_hot(torch.tensor([index]), scores.shape[1]).to(scores)

            with gradient(network, made(canonizers=[merge()])) as attributor:
                _, found = attributor(one.clone().requires_grad_(), relevance)
            maps.append(found[0].sum(0))
        return _sized(maps, inputs)

    return explain


def _entry(package: str, name: str, explain: Callable[..., Tensor], passes: int | None) -> Method:
    cost = None if passes is None else lambda: passes
    return Method(f"peers.{package}.{name}", name, explain, passes=cost, kind="peer")


#: Class to its forward passes, None where that depends on the network.
_GRAD_CAM = {
    "HiResCAM": 1,
    "LayerCAM": 1,
    "XGradCAM": 1,
    "AblationCAM": None,
    "EigenCAM": 1,
    "ShapleyCAM": 1,
    "FinerCAM": 1,
    "FullGrad": 1,
    "KPCA_CAM": 1,
}
_TORCHCAM = {"SSCAM": None, "ISCAM": None, "SmoothGradCAMpp": 5}

#: Every peer, by the name that the benchmark knows it by.
PEERS: dict[str, Method] = {
    entry.name: entry
    for entry in (
        *(_entry("grad_cam", name, _grad_cam(name), passes) for name, passes in _GRAD_CAM.items()),
        *(_entry("torchcam", name, _torchcam(name), passes) for name, passes in _TORCHCAM.items()),
        _entry("torchcam", "RefineCAM", _refine_cam, 1),
        _entry("torchcam", "LeGrad", _le_grad, 1),
        _entry("zennit", "EpsilonPlusFlat", _zennit("EpsilonPlusFlat"), 1),
    )
}
METHODS.update(PEERS)
