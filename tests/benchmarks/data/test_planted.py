"""Planted evidence: the truth of a scene is the truth, by intervention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.data import DATASETS, open_dataset, planted, to_inputs
from benchmarks.data.planted import Proof, picture, prove
from benchmarks.data.planted_network import model_name, weights_file
from benchmarks.data.scenes import CLASSES, NOTHING, SIZE, make_scene
from captum_groupcam.models import MODELS, load_model

VARIANTS = ("patch", "mark")
NETWORKS = (("patch", "residual"), ("mark", "residual"), ("patch", "transformer"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_interventions_change_what_they_should(variant: str) -> None:
    scene, other = make_scene(variant, (5, 1)), make_scene(variant, (5, 2), side=20)
    x0, y0, x1, y1 = scene.box
    inside = np.zeros((SIZE, SIZE), dtype=bool)
    inside[y0:y1, x0:x1] = True
    assert (scene.pixels[inside].reshape(scene.evidence.shape) == scene.evidence).all()
    without = scene.without
    assert (without[~inside] == scene.pixels[~inside]).all()
    assert (without[inside] != scene.pixels[inside]).any()
    swapped = make_scene(variant, (5, 3), side=len(scene.evidence))
    changed = scene.with_evidence_of(swapped)
    assert changed.label == swapped.label
    assert (changed.pixels[~inside] == scene.pixels[~inside]).all()
    rest = scene.with_rest_of(other)
    assert (rest.pixels[inside] == scene.pixels[inside]).all()
    assert (rest.pixels[~inside] != scene.pixels[~inside]).mean() > 0.9


@pytest.mark.parametrize("variant", VARIANTS)
def test_scenes_are_seeded_and_varied(variant: str) -> None:
    scenes = [make_scene(variant, (0, index)) for index in range(40)]
    again = make_scene(variant, (0, 3))
    assert (again.pixels == scenes[3].pixels).all()
    assert again.label == scenes[3].label
    assert {scene.label for scene in scenes} == set(range(len(CLASSES) - 1))
    assert len({len(scene.evidence) for scene in scenes}) > 4
    assert len({scene.place for scene in scenes}) > 35
    for scene in scenes:
        x0, y0, x1, y1 = scene.box
        assert 0 <= x0 < x1 <= SIZE
        assert 0 <= y0 < y1 <= SIZE
        assert scene.pixels.min() >= 0
        assert scene.pixels.max() <= 1


@pytest.mark.parametrize(("variant", "architecture"), NETWORKS)
def test_the_network_decides_by_the_evidence_and_nothing_else(
    variant: str, architecture: str
) -> None:
    model = load_model(model_name(variant, architecture))
    assert weights_file(variant, architecture).stat().st_size < 1_000_000
    proof = prove(model, variant, 150, seed=3)  # other scenes than those that are measured
    assert proof.convinces, str(proof)
    assert proof.holds.double().mean() > 0.97


def test_without_a_patch_there_is_nothing_to_the_network() -> None:
    model = load_model("planted")
    data = planted(model=model, n=20)
    sample = next(iter(data))
    scene = make_scene("patch", (0, 0, int(sample.id)))
    blank = type(sample)("blank", picture(scene.without), (0,), "")
    with torch.no_grad():
        best = model.network(to_inputs([sample, blank], model)).argmax(1)
    assert [CLASSES[index] for index in best.tolist()] == [sample.label, NOTHING]
    assert sample.boxes.tolist() == [list(map(float, scene.box))]


def test_scenes_where_the_proof_fails_are_left_out_and_counted() -> None:
    right = torch.tensor([True, True, True, False, True])
    proof = Proof(
        right,
        other=torch.tensor([True, False, True, True, True]),
        without=torch.tensor([True, True, False, True, True]),
        rest=torch.tensor([False, False, False, False, True]),
    )
    assert proof.holds.tolist() == [True, False, False, False, False]
    assert not proof.convinces
    data = open_dataset(DATASETS, "planted:n=300,seed=4", None, load_model("planted"))
    assert len(data) + sum(data.left_out.values()) == 300
    assert "of 300 images" in data.about["evidence"]


def test_a_network_that_does_not_decide_by_the_evidence_is_refused() -> None:
    with pytest.raises(ValueError, match="does not decide by the evidence of the variant patch"):
        planted(model=load_model("planted", "random"), n=20)
    with pytest.raises(ValueError, match="does not decide by the evidence of the variant mark"):
        planted(model=load_model("planted"), variant="mark", n=50)
    with pytest.raises(ValueError, match="give --model planted"):
        planted(model=load_model("squeezenet1_1", "random"))
    with pytest.raises(ValueError, match="give --model planted"):
        DATASETS["planted"]()
    with pytest.raises(ValueError, match="at least one scene"):
        planted(model=load_model("planted"), n=0)
    with pytest.raises(ValueError, match="has 9 classes, not 10"):
        MODELS["planted"]("planted", None, 10)
