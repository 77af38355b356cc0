from __future__ import annotations

import captum_groupcam
from captum_groupcam import GroupCAM

NAMES = {
    "AblationCAM": "Ablation-CAM",
    "CAM": "CAM",
    "RISE": "RISE",
    "XRAI": "XRAI",
    "AttentionRollout": "Attention rollout",
    "EigenCAM": "Eigen-CAM",
    "EigenGradCAM": "Eigen-Grad-CAM",
    "ElementWiseCAM": "Element-wise Grad-CAM",
    "FinerCAM": "Finer-CAM",
    "FullGrad": "FullGrad",
    "GradCAM": "Grad-CAM",
    "GradCAMPlusPlus": "Grad-CAM++",
    "GroupCAM": "Group-CAM",
    "HiResCAM": "HiResCAM",
    "KPCACAM": "KPCA-CAM",
    "LayerCAM": "LayerCAM",
    "LeGrad": "LeGrad",
    "ScoreCAM": "Score-CAM",
    "ConsensusGroupCAM": "Consensus Group-CAM",
    "ShapleyCAM": "ShapleyCAM",
    "XGradCAM": "XGrad-CAM",
}


def test_names_are_those_that_a_person_prints():
    found = {name: getattr(captum_groupcam, name).get_name() for name in captum_groupcam.__all__}
    assert found == NAMES


def test_a_class_of_the_user_has_its_own():
    class SharpGroups(GroupCAM):
        pass

    assert SharpGroups.get_name() == "Sharp Groups"
