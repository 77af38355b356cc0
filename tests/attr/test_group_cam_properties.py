"""Properties of the algorithm, for networks, inputs and options of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_groupcam import GroupCAM
from tests.attr.naive_group_cam import MODES, naive_group_cam
from tests.toy_networks import classifier, images


def cases():
    """A network, inputs and options, small and of every kind."""
    return st.fixed_dictionaries(
        {
            "size": st.integers(1, 3).flatmap(
                lambda d: st.tuples(*[st.integers(4, 11 if d < 3 else 6) for _ in range(d)])
            ),
            "n": st.integers(1, 3),
            "channels": st.integers(1, 9),
            "n_groups": st.integers(1, 12),
            "percentile": st.one_of(st.none(), st.floats(0, 99)),
            "denoise_at": st.sampled_from(["layer", "input"]),
            "dtype": st.sampled_from([torch.float32, torch.float64]),
            "seed": st.integers(0, 10_000),
        }
    )


def build(case):
    network = classifier(len(case["size"]), channels=case["channels"], seed=case["seed"])
    x = images(case["n"], *case["size"], seed=case["seed"]).to(case["dtype"])
    targets = [(case["seed"] + n) % 5 for n in range(case["n"])]
    options = {
        "n_groups": case["n_groups"],
        "denoise_percentile": case["percentile"],
        "denoise_at": case["denoise_at"],
        "relu_attributions": False,
        "return_group_scores": True,
    }
    return network.to(case["dtype"]), x, targets, options


# A group may be dead in a random network: its map is zero, which the package warns of.
may_be_dead = pytest.mark.filterwarnings("ignore:The maps of samples")


@may_be_dead
@settings(max_examples=30, deadline=None)
@given(cases())
def test_property_equals_the_equations(case):
    network, x, targets, options = build(case)
    attributions, scores = GroupCAM(network, network.features).attribute(
        x, targets, baselines=0.0, **options
    )
    assert attributions.dtype == case["dtype"]
    for n in range(len(x)):
        expected, alphas = naive_group_cam(
            network,
            x[n],
            torch.zeros_like(x[n]),
            targets[n],
            case["n_groups"],
            theta=case["percentile"],
            theta_at=case["denoise_at"],
        )
        np.testing.assert_allclose(attributions[n].numpy(), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(scores[n].numpy(), alphas, rtol=0, atol=1e-5)


@may_be_dead
@settings(max_examples=30, deadline=None)
@given(cases())
def test_property_one_group_without_denoising_is_grad_cam(case):
    network, x, targets, options = build(case)
    options |= {"n_groups": 1, "denoise_percentile": None}
    attributions, scores = GroupCAM(network, network.features).attribute(x, targets, **options)
    grad_cam = LayerGradCam(network, network.features).attribute(x, targets, relu_attributions=True)
    upsampled = LayerAttribution.interpolate(grad_cam, case["size"], MODES[len(case["size"])])
    flat = upsampled.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    per_sample = (len(x), *[1] * (x.dim() - 1))
    normalized = (upsampled - low.view(per_sample)) / (high - low).clamp_min(1e-30).view(per_sample)
    torch.testing.assert_close(
        attributions, scores.view(per_sample) * normalized.detach(), rtol=1e-4, atol=1e-5
    )


@may_be_dead
@settings(max_examples=25, deadline=None)
@given(cases(), st.integers(1, 40))
def test_property_neither_batch_nor_chunks_change_the_result(case, batch_size):
    network, x, targets, options = build(case)
    group_cam = GroupCAM(network, network.features)
    whole, scores = group_cam.attribute(x, targets, **options)
    chunked, chunked_scores = group_cam.attribute(
        x, targets, internal_batch_size=batch_size, **options
    )
    torch.testing.assert_close(chunked, whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(chunked_scores, scores, rtol=0, atol=1e-5)
    for n in range(len(x)):
        alone, alone_scores = group_cam.attribute(x[n : n + 1], targets[n], **options)
        torch.testing.assert_close(alone, whole[n : n + 1], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone_scores, scores[n : n + 1], rtol=0, atol=1e-5)


@may_be_dead
@settings(max_examples=20, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_property_order_of_groups_changes_nothing(case, random):
    network, x, targets, options = build(case)
    n_groups = min(case["n_groups"], case["channels"])
    assignment = torch.tensor([random.randrange(n_groups) for _ in range(case["channels"])])
    order = list(range(n_groups))
    random.shuffle(order)
    group_cam = GroupCAM(network, network.features)
    plain, scores = group_cam.attribute(
        x, targets, grouping=lambda a, g: assignment.expand(a.shape[:2]), **options
    )
    permuted, permuted_scores = group_cam.attribute(
        x,
        targets,
        grouping=lambda a, g: torch.tensor(order)[assignment].expand(a.shape[:2]),
        **options,
    )
    torch.testing.assert_close(permuted, plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(permuted_scores[:, order], scores, rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(cases(), st.floats(-3, 3))
def test_property_constant_image_gives_zeros_and_a_warning(case, value):
    network, x, targets, options = build(case)
    constant = torch.full_like(x, value)
    with pytest.warns(UserWarning, match=r"The maps of samples \[0.*are zero") as caught:
        attributions, scores = GroupCAM(network, network.features).attribute(
            constant, targets, **options
        )
    assert not attributions.any()
    assert not scores.any()
    assert caught[0].filename == __file__
