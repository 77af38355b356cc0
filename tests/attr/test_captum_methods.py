"""Captum's own methods by name: Captum called directly, reduced to one channel here by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum import attr
from captum.attr._utils.lrp_rules import EpsilonRule, GammaRule
from torch import Tensor, nn

from captum_groupcam.attr.superpixels import superpixels
from captum_groupcam.methods import METHOD_SETS, METHODS
from captum_groupcam.networks.target_layer import TargetLayer
from tests.toy_networks import SmallCNN, seeded, small_inputs

GRID = {"n_segments": 9, "regions": "grid"}
ZERO = torch.zeros(1, 3, 24, 24, dtype=torch.double)


def grid_of_nine() -> Tensor:
    cells = torch.arange(9).view(1, 1, 3, 3)
    return cells.repeat_interleave(8, 2).repeat_interleave(8, 3)


def at_input_size(maps: Tensor) -> Tensor:
    return F.interpolate(maps, (24, 24), mode="bilinear", align_corners=False)


def with_seed(seed, explain):
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    return explain()


def by_lrp(network, x):
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.rule = GammaRule()
    return attr.LRP(network).attribute(x, target=2)


#: The method's options, and what it should be for the class 2.
EXPECTED = {
    "saliency": ({}, lambda n, x: attr.Saliency(n).attribute(x, 2, abs=True).amax(1, keepdim=True)),
    "deconvolution": (
        {},
        lambda n, x: attr.Deconvolution(n).attribute(x, 2).abs().amax(1, keepdim=True),
    ),
    "deep_lift": (
        {},
        lambda n, x: attr.DeepLift(n).attribute(x, ZERO, target=2).sum(1, keepdim=True),
    ),
    "gradient_shap": (
        {"n_samples": 5, "seed": 3, "noise_level": 0.1},
        lambda n, x: (
            attr.GradientShap(n)
            .attribute(x, ZERO, n_samples=5, stdevs=0.1 * float(x.max() - x.min()), target=2)
            .sum(1, keepdim=True)
        ),
    ),
    "lrp": ({}, lambda n, x: by_lrp(n, x).sum(1, keepdim=True)),
    "feature_ablation": (
        GRID,
        lambda n, x: attr.FeatureAblation(n).attribute(x, target=2, feature_mask=grid_of_nine()),
    ),
    "lime": (
        {**GRID, "n_samples": 30, "seed": 3},
        lambda n, x: attr.Lime(n).attribute(
            x, target=2, feature_mask=grid_of_nine(), n_samples=30, perturbations_per_eval=8
        ),
    ),
    "kernel_shap": (
        {**GRID, "n_samples": 30, "seed": 3},
        lambda n, x: attr.KernelShap(n).attribute(
            x, target=2, feature_mask=grid_of_nine(), n_samples=30
        ),
    ),
    "shapley_value_sampling": (
        {**GRID, "n_samples": 3, "seed": 3},
        lambda n, x: attr.ShapleyValueSampling(n).attribute(
            x, target=2, feature_mask=grid_of_nine(), n_samples=3
        ),
    ),
    "layer_gradient_x_activation": (
        {},
        lambda n, x: at_input_size(
            attr.LayerGradientXActivation(n, n.features).attribute(x, 2).sum(1, keepdim=True)
        ),
    ),
    "internal_influence": (
        {"n_steps": 7},
        lambda n, x: at_input_size(
            attr.InternalInfluence(n, n.features)
            .attribute(x, target=2, n_steps=7)
            .sum(1, keepdim=True)
        ),
    ),
    "layer_conductance": (
        {"n_steps": 7},
        lambda n, x: at_input_size(
            attr.LayerConductance(n, n.features)
            .attribute(x, target=2, n_steps=7)
            .sum(1, keepdim=True)
        ),
    ),
}


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
@pytest.mark.filterwarnings(r"ignore:\s*Setting forward, backward hooks")
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("name", EXPECTED)
def test_it_is_captums(name):
    options, expected = EXPECTED[name]
    network, x = SmallCNN(), small_inputs(1)
    maps = METHODS[name](network, network.features, **options)(x, 2)
    with torch.random.fork_rng():
        state = np.random.get_state()  # noqa: NPY002
        direct = with_seed(3, lambda: expected(network, x.clone())).detach()
        np.random.set_state(state)  # noqa: NPY002
    torch.testing.assert_close(maps, direct[:, :1], check_dtype=False)
    assert maps.any()


def test_all_of_captums_are_named_by_one_word():
    assert METHOD_SETS["captum"][0] == "grad_cam"
    assert {*EXPECTED} < {*METHOD_SETS["captum"]} < {*METHODS}


@pytest.mark.parametrize("name", METHOD_SETS["captum"])
def test_the_cost_is_counted(name):
    network, x = SmallCNN(), small_inputs(1)
    rows: list[int] = []
    network.register_forward_hook(lambda _module, args, _out: rows.append(len(args[0])))
    few = {"n_samples": 11, "n_steps": 12}
    chosen = {option: few[option] for option in few if option in METHODS[name].options}
    METHODS[name](network, network.features, **chosen)(x, 1)
    expected = METHODS[name].n_passes(**chosen)
    assert expected == sum(rows) or expected is None


# --- regions


def test_a_grid_has_cells_of_about_one_size():
    cells = superpixels(torch.zeros(1, 3, 20, 30), 6, "grid")
    assert cells.shape == (1, 1, 20, 30)
    assert cells.unique().tolist() == list(range(6))
    assert cells.flatten().bincount().tolist() == [100] * 6


def test_more_cells_than_pixels_are_pixels():
    assert superpixels(torch.zeros(1, 3, 2, 3), 100, "grid").unique().numel() == 6


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_superpixels_follow_edges(channels):
    pytest.importorskip("skimage")
    image = torch.zeros(1, channels, 24, 24)
    image[..., 10:] = 5  # not where a grid of four has its border
    labels = superpixels(image, 4)
    assert labels.unique().tolist() == list(range(int(labels.max()) + 1))
    assert not {*labels[..., :10].unique().tolist()} & {*labels[..., 10:].unique().tolist()}


def test_one_region_is_refused():
    with pytest.raises(ValueError, match=r"The image is one region.*higher n_segments"):
        METHODS["kernel_shap"](SmallCNN(), n_segments=1, regions="grid")(ZERO + 1, 2)


CLUSTER = r"scikit-learn: pip install 'captum_groupcam\[cluster\]'"


@pytest.mark.parametrize(
    ("package", "name", "message"),
    [
        (
            "skimage.segmentation",
            "feature_ablation",
            r"scikit-image: pip install .*\[bench\].*grid",
        ),
        ("sklearn", "lime", CLUSTER),
        ("sklearn", "kernel_shap", CLUSTER),
        ("sklearn.decomposition", "kpca_cam", CLUSTER),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package, name, message, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    network = SmallCNN()
    with pytest.raises(ModuleNotFoundError, match=message):
        METHODS[name](network, network.features)(small_inputs(1), 0)


@pytest.mark.parametrize("options", [{"n_segments": 0}, {"regions": "hexagons"}])
def test_regions_that_cannot_be(options):
    with pytest.raises(ValueError, match=r"(n_segments|regions) must"):
        METHODS["feature_ablation"](SmallCNN(), **options)(small_inputs(1), 0)


@pytest.mark.parametrize("name", ["gradient_shap", "lime", "kernel_shap", "shapley_value_sampling"])
def test_chance_has_a_seed(name):
    network, x = SmallCNN(), small_inputs(1)
    options = {"n_samples": 6} | (GRID if "regions" in METHODS[name].options else {})
    first = METHODS[name](network, **options)(x, 0)
    assert torch.equal(first, METHODS[name](network, **options)(x, 0))
    assert not torch.equal(first, METHODS[name](network, seed=1, **options)(x, 0))


def test_shapley_values_add_up_to_what_the_image_changes():
    network, x = SmallCNN(), small_inputs(1)
    maps = METHODS["shapley_value_sampling"](network, n_samples=2, **GRID)(x, 2)
    total = (maps / 64).sum()  # each cell has 64 pixels
    changed = (network(x) - network(ZERO))[0, 2].detach()
    torch.testing.assert_close(total, changed, check_dtype=False)


def test_gradient_shap_in_chunks_is_the_mean_of_them():
    network, x = SmallCNN(), small_inputs(1)
    options = {"n_samples": 400, "noise_level": 0.05}
    whole = METHODS["gradient_shap"](network, internal_batch_size=400, **options)(x, 2)
    chunks = METHODS["gradient_shap"](network, internal_batch_size=33, **options)(x, 2)
    assert (whole - chunks).norm() < 0.1 * whole.norm()


# --- DeepLIFT


class Residual(nn.Module):
    """One ReLU6 used twice, a skip connection, windows that overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.activation = nn.ReLU6(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.classifier = nn.Linear(6, 5)
        for layer in (self.first, self.second, self.classifier):
            nn.init.normal_(layer.weight)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.activation(self.first(x)))
        x = self.activation(self.second(x)) + x
        return self.classifier(self.pool(x).mean((2, 3)))


def test_deep_lift_adds_up_where_modules_are_used_twice_and_windows_overlap():
    network, x = seeded(Residual), small_inputs(2)
    maps = METHODS["deep_lift"](network)(x, [1, 3])
    changed = (network(x) - network(ZERO))[[0, 1], [1, 3]].detach()
    torch.testing.assert_close(maps.flatten(1).sum(1), changed)
    plain = METHODS["input_x_gradient"](network)(x, [1, 3])
    assert (maps - plain).norm() > 0.1 * plain.norm()


class Functions(SmallCNN):
    """What :class:`SmallCNN` computes, with functions instead of modules."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features[2](F.relu(self.features[0](x))))
        return self.classifier(x.mean((2, 3)))


class Gated(SmallCNN):
    """A product of activations, as in squeeze and excitation."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier((x * x.mean((2, 3), keepdim=True)).mean((2, 3)))


@pytest.mark.parametrize("network", [Functions(), Gated()], ids=["functions", "products"])
def test_deep_lift_refuses_what_it_has_no_rule_for(network):
    with pytest.raises(ValueError, match=r"add up to .* Use integrated_gradients"):
        METHODS["deep_lift"](network)(small_inputs(1), 2)


# --- LRP


def chain(*modules: nn.Module) -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), *modules, nn.Flatten(), nn.Linear(4 * 11 * 11, 5))
    return network.double().eval()


def test_lrp_with_epsilon_is_input_times_gradient_of_a_relu_network():
    network = seeded(lambda: chain(nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2)))
    x = small_inputs(2)
    maps = METHODS["lrp"](network, rule="epsilon")(x, [1, 3])
    torch.testing.assert_close(maps, METHODS["input_x_gradient"](network)(x, [1, 3]))
    for rule in ("gamma", "alpha1_beta0"):
        other = METHODS["lrp"](network, rule=rule)(x, [1, 3])
        assert (other - maps).norm() > 0.1 * maps.norm()


@pytest.mark.parametrize("nothing", [nn.Identity(), nn.Sequential()])
def test_lrp_passes_through_modules_that_do_nothing(nothing: nn.Module):
    features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    x = torch.rand(2, 3, 16, 16)
    expected = METHODS["lrp"](nn.Sequential(features, head).eval())(x, 1)
    found = METHODS["lrp"](nn.Sequential(features, nothing, head).eval())(x, 1)
    torch.testing.assert_close(found, expected)


def test_lrp_passes_relevance_through_relu6_as_it_is():
    network = seeded(lambda: chain(nn.ReLU6(), nn.MaxPool2d(2)))
    x = 20 * small_inputs(1)  # beyond six
    maps = METHODS["lrp"](network, rule="epsilon")(x, 2)
    network[3].rule = EpsilonRule()
    network[1] = nn.ReLU()
    network[1].forward = F.relu6
    expected = attr.LRP(network).attribute(x.requires_grad_(), target=2).sum(1, keepdim=True)
    torch.testing.assert_close(maps, expected)
    assert (maps - METHODS["input_x_gradient"](network)(x, 2)).norm() > 0.1 * maps.norm()


@pytest.mark.parametrize("rule", ["gamma", "epsilon", "alpha1_beta0"])
def test_lrp_leaves_weights_and_modules_as_they_are(rule):
    network = SmallCNN()
    before = {
        name: (value.data_ptr(), value.clone()) for name, value in network.state_dict().items()
    }
    METHODS["lrp"](network, rule=rule)(small_inputs(1), 2)
    for name, value in network.state_dict().items():
        assert before[name][0] == value.data_ptr()
        assert torch.equal(before[name][1], value)
    assert not any(hasattr(m, "rule") or hasattr(m, "activations") for m in network.modules())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (seeded(Residual), "is used several times"),
        (Functions(), "between its modules"),
        (seeded(lambda: chain(nn.GELU(), nn.MaxPool2d(2))), "no rule for a module .*GELU"),
    ],
    ids=["twice", "functions", "GELU"],
)
def test_lrp_refuses_what_it_cannot_explain(network, message):
    with pytest.raises(ValueError, match=f"LRP .*{message}.* Use integrated_gradients"):
        METHODS["lrp"](network)(small_inputs(1), 2)


# --- layers


def test_layers_that_run_several_times_are_refused():
    network = seeded(Residual)
    x = small_inputs(1)
    for name in ("layer_gradient_x_activation", "internal_influence", "layer_conductance"):
        with pytest.raises(ValueError, match="runs 2 times"):
            METHODS[name](network, network.activation)(x, 1)
        with pytest.raises(ValueError, match="which take layer_call"):
            METHODS[name](network, TargetLayer(network.activation, layer_call=1))(x, 1)


def test_conductance_adds_up_to_what_the_image_changes():
    network, x = SmallCNN(), small_inputs(1)
    explain = METHODS["layer_conductance"](network, network.features, n_steps=300)
    total = explain(x, 2).sum() / 9  # interpolated from 8 x 8 to 24 x 24
    changed = (network(x) - network(ZERO))[0, 2].detach()
    torch.testing.assert_close(total, changed, rtol=0.05, atol=0.02)
