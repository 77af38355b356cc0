"""One contract for every attribution method, driven by the helpers of Captum's own tests.

A method joins by one entry in METHODS.
"""

from __future__ import annotations

import inspect
import unittest
import warnings
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from captum.attr import LayerAttribution, NoiseTunnel
from torch import Tensor, nn
from torchvision.tv_tensors import Image

import captum_groupcam
from captum_groupcam import (
    CAM,
    KPCACAM,
    RISE,
    XRAI,
    AttentionRollout,
    ConsensusGroupCAM,
    EigenCAM,
    ElementWiseCAM,
    FinerCAM,
    FullGrad,
    GradCAM,
    GradCAMPlusPlus,
    GroupCAM,
    LayerCAM,
    LeGrad,
    ScoreCAM,
)
from captum_groupcam.attr.attention_method import AttentionMethod
from captum_groupcam.attr.layer_formula import LayerFormula
from captum_groupcam.masking.targets import TargetError
from tests.toy_networks import (
    FORMULAS,
    Attentive,
    Recorder,
    classifier,
    hooks,
    images,
    seeded,
)

try:
    from captum.testing.helpers import BaseTest
    from captum.testing.helpers.basic import assertTensorAlmostEqual
    from captum.testing.helpers.basic_models import BasicModel_ConvNet_One_Conv
except ImportError:  # the wheel of captum 0.8 lacks them
    BaseTest = unittest.TestCase
    BasicModel_ConvNet_One_Conv = None

    def assertTensorAlmostEqual(test, actual, expected, delta=0.0001, mode="sum"):
        assert mode == "max"
        torch.testing.assert_close(actual, expected, rtol=0, atol=delta)


needs_captums_networks = pytest.mark.skipif(
    BasicModel_ConvNet_One_Conv is None, reason="this captum has no captum.testing (0.9 has)"
)


@dataclass(frozen=True)
class Configuration:
    """How one method is called.

    Attributes:
        method (type): The class.
        options (dict): Keyword arguments of attribute.
        signed (bool): Whether its maps may have negative values.
        pooled (int): Positions along each axis that reach the linear layer of its network.
        sizes (tuple): Sizes of inputs that it takes.
    """

    method: type
    options: dict[str, Any] = field(default_factory=dict)
    signed: bool = False
    pooled: int = 2
    sizes: tuple[tuple[int, ...], ...] = ((15,), (14, 16), (6, 7, 8))

    @property
    def on_layer(self) -> bool:
        return issubclass(self.method, LayerAttribution)

    @property
    def at_layer(self) -> bool:
        """Whether its maps have the resolution of the layer."""
        return issubclass(self.method, LayerFormula)

    def make(self, forward_func: Any, layer: nn.Module) -> Any:
        return self.method(forward_func, layer) if self.on_layer else self.method(forward_func)

    @property
    def of_attention(self) -> bool:
        """Whether it explains transformers."""
        return issubclass(self.method, AttentionMethod)

    def network(self, dims: int = 2, **options: Any) -> nn.Module:
        if self.of_attention:
            return seeded(lambda: Attentive(**options), 2).eval()
        return classifier(dims, seed=2, pooled=self.pooled, **options)

    def explain(self, network: nn.Module, x: Any, target: Any = 2, **options: Any) -> Any:
        method = self.make(network, network.features)
        return method.attribute(x, target=target, **{**self.options, **options})


#: Behind a ReLU.
_POSITIVE = (GradCAMPlusPlus, LayerCAM, ElementWiseCAM)
METHODS = {
    **{
        method.__name__: Configuration(method, signed=method not in _POSITIVE)
        for method in FORMULAS
    },
    "CAM": Configuration(CAM, signed=True, pooled=1),
    "GradCAM, positive": Configuration(GradCAM, {"relu_attributions": True}),
    "GroupCAM": Configuration(GroupCAM, {"n_groups": 4}),
    "GroupCAM, signed": Configuration(
        GroupCAM, {"n_groups": 3, "relu_attributions": False}, signed=True
    ),
    "GroupCAM, gradient-free": Configuration(GroupCAM, {"n_groups": 4, "gradient_free": True}),
    "GroupCAM, newest published variant": Configuration(
        GroupCAM,
        {
            "n_groups": 4,
            "denoise_percentile": None,
            "relu_scores": True,
            "merge_normalized": False,
        },
    ),
    "GroupCAM, denoised at the input": Configuration(
        GroupCAM, {"n_groups": 4, "denoise_at": "input"}
    ),
    "ScoreCAM": Configuration(ScoreCAM),
    "ScoreCAM, SS-CAM": Configuration(
        ScoreCAM, {"smoothing": "noise", "n_samples": 2, "noise_level": 0.5}
    ),
    "ScoreCAM, IS-CAM": Configuration(ScoreCAM, {"smoothing": "integral", "n_samples": 3}),
    "ConsensusGroupCAM": Configuration(ConsensusGroupCAM, {"n_groups": 4}),
    "FullGrad": Configuration(FullGrad),
    "FinerCAM of LayerCAM": Configuration(FinerCAM, {"base": LayerCAM}, signed=True),
    "AttentionRollout": Configuration(AttentionRollout, sizes=((16, 20),)),
    "LeGrad": Configuration(LeGrad, sizes=((16, 20),)),
    "RISE": Configuration(RISE, {"n_masks": 10}),
    "XRAI": Configuration(
        XRAI, {"n_steps": 6, "algorithm": "fast"}, signed=True, sizes=((24, 20),)
    ),
}


def test_every_class_is_among_them():
    tested = {configuration.method.__name__ for configuration in METHODS.values()}
    assert tested == set(captum_groupcam.__all__)


class Failing(nn.Module):
    """Fails in the middle of its forward pass when it is called for the n-th time."""

    def __init__(self, plain: nn.Module, fails_at: int):
        super().__init__()
        self.features, self.head = plain.features, plain.head
        self.left = fails_at
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("in the middle")
        return self.head(features)


class Contract:
    """The tests; a class for each method is made of it below."""

    method: Configuration

    def setUp(self):
        super().setUp()
        if self.method.method is XRAI:
            pytest.importorskip("saliency.core")
        self.network = self.method.network()
        self.x = images(3, *next(size for size in self.method.sizes if len(size) == 2))

    def explain(self, *args, **options):
        return self.method.explain(*args, **options)

    def same(self, actual, expected):
        delta = 1e-5 * max(1.0, float(expected.abs().max()))  # maps of logits are large
        assertTensorAlmostEqual(self, actual, expected, delta=delta, mode="max")

    def test_call_begins_like_captums(self):
        names = list(inspect.signature(self.method.method.attribute).parameters)
        of_layer = ["self", "inputs", "target", "additional_forward_args"]
        of_input = ["self", "inputs", "baselines", "target", "additional_forward_args"]
        if self.method.method is FullGrad:
            of_input.remove("baselines")
        if self.method.on_layer:
            assert names[:5] == [*of_layer, "attribute_to_layer_input"]
        elif self.method.of_attention:  # nothing is hidden
            assert names[:4] == of_layer
        else:
            assert names[: len(of_input)] == of_input
        method = self.method.make(self.network, self.network.features)
        assert callable(method.attribute.__wrapped__)

    def test_constructor_stores_and_does_nothing_else(self):
        method = self.method.make(self.network, self.network.features)
        assert vars(method).keys() <= {"forward_func", "layer", "device_ids"}
        assert method.forward_func is self.network
        assert not hooks(self.network).total()

    def test_maps_have_the_resolution_of_the_input_or_the_layer(self):
        for size in self.method.sizes:
            network, x = self.method.network(len(size)), images(2, *size)
            attributions = self.explain(network, x)
            expected = network.features(x).shape[2:] if self.method.at_layer else size
            assert attributions.shape == (2, 1, *expected)
            assert attributions.dtype == torch.float32
            assert attributions.device == x.device
            assert attributions.isfinite().all()
            assert not attributions.requires_grad
            if not self.method.signed:
                assert attributions.min() >= 0

    def test_maps_say_something_that_depends_on_sample_and_class(self):
        # Class 4 of this network has positive scores, see the values in its logits.
        attributions = self.explain(self.network, self.x, 4)
        assert attributions.flatten(1).abs().amax(1).gt(1e-4).all()
        assert attributions.flatten(1).std(1).gt(1e-5).all()
        assert (attributions[0] - attributions[1]).abs().max() > 1e-4
        other = self.explain(self.network, self.x, 2)
        differs = (attributions - other).abs().max() > 1e-4
        assert differs == (
            self.method.method not in (EigenCAM, KPCACAM, AttentionRollout)
        )  # whatever the class

    def test_tuple_in_tuple_out(self):
        alone = self.explain(self.network, self.x)
        attributions = self.explain(self.network, (self.x,))
        assert isinstance(attributions, tuple)
        assert len(attributions) == 1
        self.same(attributions[0], alone)

    def test_other_inputs_reach_the_network_as_they_are(self):
        class Shifted(nn.Module):
            def __init__(self, plain):
                super().__init__()
                self.plain, self.features = plain, plain.features

            def forward(self, x, shift):
                assert shift.dtype == torch.int64
                return self.plain(x + 0 * shift.view(-1, *[1] * (x.dim() - 1)))

        shift = torch.arange(3)
        attributions, nothing = self.explain(Shifted(self.network).eval(), (self.x, shift))
        self.same(attributions, self.explain(self.network, self.x))
        assert torch.equal(nothing, torch.zeros(3, 1))

    def test_subclasses_of_tensors_are_plain_tensors(self):
        x = Image(self.x)
        assert type(x) is Image
        attributions = self.explain(self.network, x)
        assert type(attributions) is Tensor
        self.same(attributions, self.explain(self.network, self.x))

    def test_batch_is_its_samples(self):
        targets = [4, 2, 0]
        whole = self.explain(self.network, self.x, targets)
        for n, target in enumerate(targets):
            self.same(self.explain(self.network, self.x[n : n + 1], target), whole[n : n + 1])

    def test_chunks_change_nothing(self):
        expected = self.explain(self.network, self.x, 4)
        for size in (1, 2, 5, 1000):
            self.same(self.explain(self.network, self.x, 4, internal_batch_size=size), expected)

    def test_forms_of_a_target(self):
        expected = self.explain(self.network, self.x, 4)
        for target in (torch.tensor(4), torch.tensor([4]), [4, 4, 4], [(4,)] * 3, -1):
            self.same(self.explain(self.network, self.x, target), expected)

    def test_wrong_targets(self):
        wrong = [9999, -6, None, (9999,) * 20, (1, 1), [1, 2], [9999] * 3, torch.tensor([0, 1])]
        for target in wrong:
            with pytest.raises(TargetError) as caught:
                self.explain(self.network, self.x, target)
            assert isinstance(caught.value, ValueError)
            assert isinstance(caught.value, AssertionError)
            assert not hooks(self.network).total()

    def test_inside_noise_tunnel(self):
        tunnel = NoiseTunnel(self.method.make(self.network, self.network.features))
        attributions = tunnel.attribute(
            self.x, nt_samples=2, stdevs=0.0, target=[4, 2, 0], **self.method.options
        )
        self.same(attributions, self.explain(self.network, self.x, [4, 2, 0]))

    def test_additional_forward_args_go_with_their_samples(self):
        if self.method.method is CAM:
            pytest.skip("CAM explains what a linear layer returns")

        class Scaled(nn.Module):
            def __init__(self, plain):
                super().__init__()
                self.plain, self.features = plain, plain.features

            def forward(self, x, scale):
                return self.plain(x) * scale.unsqueeze(1)

        scale = torch.tensor([0.5, 1.0, 2.0])
        scaled = Scaled(self.network).eval()
        whole = self.explain(scaled, self.x, 4, additional_forward_args=scale)
        for n in range(3):
            alone = self.explain(
                scaled, self.x[n : n + 1], 4, additional_forward_args=scale[n : n + 1]
            )
            self.same(alone, whole[n : n + 1])

    def test_nothing_is_left_behind(self):
        self.network.features[0].requires_grad_(False)
        self.x.requires_grad_()
        before = self.x.detach().clone()
        rng = torch.get_rng_state()
        self.explain(self.network, self.x)
        assert not hooks(self.network).total()
        assert torch.equal(self.x.detach(), before)
        assert self.x.grad is None
        assert torch.equal(rng, torch.get_rng_state())
        assert [p.requires_grad for p in self.network.parameters()] == [
            name not in ("features.0.weight", "features.0.bias")
            for name, _ in self.network.named_parameters()
        ]
        assert all(p.grad is None for p in self.network.parameters())
        assert not any(m.training for m in self.network.modules())
        assert torch.is_grad_enabled()

    def test_nothing_is_left_behind_by_a_failure(self):
        recorder = Recorder(self.network)
        recorder.features = self.network.features
        self.explain(recorder, self.x, internal_batch_size=2)
        assert recorder.calls
        for fails_at in range(1, min(len(recorder.calls), 3) + 1):
            failing = Failing(self.network, fails_at)
            with pytest.raises(RuntimeError, match="in the middle"):
                self.explain(failing, self.x, internal_batch_size=2)
            assert not hooks(failing).total()
            assert torch.is_grad_enabled()

    def test_modes_around_the_call_change_nothing(self):
        expected = self.explain(self.network, self.x, 4)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                self.same(self.explain(self.network, self.x, 4), expected)
        self.network.requires_grad_(False)
        self.same(self.explain(self.network, self.x, 4), expected)

    def test_inplace_relu(self):
        inplace = self.method.network(inplace=True)
        self.same(self.explain(inplace, self.x, 4), self.explain(self.network, self.x, 4))

    @needs_captums_networks
    def test_captums_network(self):
        """The exact values of GroupCAM on it are in TestCaptumsNetwork."""
        network = BasicModel_ConvNet_One_Conv().eval()
        x = torch.arange(16.0).view(1, 1, 4, 4)
        method = self.method.make(network, network.conv1)
        if self.method.method is CAM:
            with pytest.raises(ValueError, match="pool the layer by its mean"):
                method.attribute(x, target=0)
            return
        if self.method.of_attention:
            with pytest.raises(ValueError, match="Attention is found in networks like"):
                method.attribute(x, target=0)
            return
        with warnings.catch_warnings():
            # Its output is saturated.
            warnings.filterwarnings("ignore", "The maps of samples .* no mask moved")
            attributions = method.attribute(x, target=0, **self.method.options)
        assert attributions.shape == (1, 1, 2, 2) if self.method.at_layer else (1, 1, 4, 4)
        assert attributions.isfinite().all()


for _name, _method in METHODS.items():
    _class = f"Test{_name.title().replace(' ', '').replace(',', '').replace('-', '')}"
    globals()[_class] = type(_class, (Contract, BaseTest), {"method": _method})


@needs_captums_networks
class TestCaptumsNetwork(BaseTest):
    def test_exact_values(self):
        """One image, two groups, the logit as score."""
        network = BasicModel_ConvNet_One_Conv().eval()
        x = torch.arange(16.0).view(1, 1, 4, 4)
        # conv1 gives (-5 4 31 40) and (-30 -21 6 15); the weights behind its ReLU are 1 1 1 1 and
        # 1 -1 -1 -1. So w = 3/4 and -1/2, M = (0 3 93/4 30) and (15 21/2 0 0); what the second
        # shows is too dark for the first ReLU: its score is 0.
        first = nn.functional.interpolate(
            torch.tensor([[[[0.0, 3.0], [23.25, 30.0]]]]),
            (4, 4),
            mode="bilinear",
            align_corners=False,
        )
        mask = first / 30
        alpha = network(x * mask)[0, 0] - network(x * 0)[0, 0]
        assert alpha > 1
        attributions, scores = GroupCAM(network, network.conv1).attribute(
            x,
            0,
            baselines=0.0,
            n_groups=2,
            denoise_percentile=None,
            score_func=lambda y: y,
            return_group_scores=True,
        )
        assertTensorAlmostEqual(self, scores[0], [alpha.item(), 0.0], 1e-3)
        assertTensorAlmostEqual(self, attributions, (alpha * mask).detach(), 1e-3, mode="max")
