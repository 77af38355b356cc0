"""Every method, declared once, and how it is found by name."""

from __future__ import annotations

import difflib
from dataclasses import replace

from captum.attr import Attribution
from torch.nn import Module

from captum_groupcam.attr.ablation_cam import AblationCAM
from captum_groupcam.attr.attention_rollout import AttentionRollout
from captum_groupcam.attr.cam import CAM
from captum_groupcam.attr.consensus import ConsensusGroupCAM
from captum_groupcam.attr.eigen_cam import EigenCAM, EigenGradCAM
from captum_groupcam.attr.element_wise_cam import ElementWiseCAM
from captum_groupcam.attr.finer_cam import FinerCAM
from captum_groupcam.attr.full_grad import FullGrad
from captum_groupcam.attr.grad_cam import GradCAM, GradCAMPlusPlus
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.attr.hires_cam import HiResCAM
from captum_groupcam.attr.kpca_cam import KPCACAM
from captum_groupcam.attr.layer_cam import LayerCAM
from captum_groupcam.attr.le_grad import LeGrad
from captum_groupcam.attr.rise import RISE
from captum_groupcam.attr.score_cam import ScoreCAM
from captum_groupcam.attr.shapley_cam import ShapleyCAM
from captum_groupcam.attr.x_grad_cam import XGradCAM
from captum_groupcam.attr.xrai import XRAI
from captum_groupcam.methods._captum_methods import CAPTUM_METHODS
from captum_groupcam.methods._method import Method
from captum_groupcam.naming import find_object, is_reference, short_reference

#: As in the papers, where Captum keeps the sign.
_POSITIVE = {"relu_attributions": True}
#: Their passes are divided by their rows, so that a sample would cost more beside others.
_ALONE = ("layer_conductance",)

#: Every method by name. A method registered here at run time is known to the command line, the
#: explorer, Insights and the benchmark.
METHODS: dict[str, Method] = {
    method.name: replace(
        method, draws=method.attribution is None, shares_batches=method.name not in _ALONE
    )
    for method in (
        Method(
            "group_cam",
            "Group-CAM",
            GroupCAM,
            grouped=True,
            passes=lambda n_groups: n_groups + 2,
        ),
        Method(
            "group_cam_gradient_free",
            "Group-CAM without gradients",
            GroupCAM,
            {"gradient_free": True},
            grouped=True,
            passes=lambda n_groups: n_groups + 2,
        ),
        Method(
            "group_cam_consensus",
            "Consensus Group-CAM",
            ConsensusGroupCAM,
            # Two maps, shown and hidden; gradients at the layer, three times, and at the input;
            # the baseline.
            passes=lambda n_groups, shares: n_groups + 4 * len(shares) + 5,
        ),
        Method("grad_cam", "Grad-CAM", GradCAM, _POSITIVE, passes=lambda: 1),
        Method("grad_cam_plus_plus", "Grad-CAM++", GradCAMPlusPlus, _POSITIVE, passes=lambda: 1),
        Method("hires_cam", "HiResCAM", HiResCAM, _POSITIVE, passes=lambda: 1),
        Method("layer_cam", "LayerCAM", LayerCAM, _POSITIVE, passes=lambda: 1),
        Method("x_grad_cam", "XGrad-CAM", XGradCAM, _POSITIVE, passes=lambda: 1),
        Method(
            "element_wise_cam", "Element-wise Grad-CAM", ElementWiseCAM, _POSITIVE, passes=lambda: 1
        ),
        Method("eigen_cam", "Eigen-CAM", EigenCAM, _POSITIVE, passes=lambda: 1),
        Method("eigen_grad_cam", "Eigen-Grad-CAM", EigenGradCAM, _POSITIVE, passes=lambda: 1),
        Method("kpca_cam", "KPCA-CAM", KPCACAM, _POSITIVE, passes=lambda: 1),
        Method("shapley_cam", "ShapleyCAM", ShapleyCAM, _POSITIVE, passes=lambda: 1),
        Method("finer_cam", "Finer-CAM", FinerCAM, _POSITIVE, passes=lambda: 1),
        Method("full_grad", "FullGrad", FullGrad, passes=lambda: 1),
        Method("ablation_cam", "Ablation-CAM", AblationCAM, _POSITIVE),
        Method("cam", "CAM", CAM, passes=lambda: 2),
        Method("score_cam", "Score-CAM", ScoreCAM),
        Method("rise", "RISE", RISE, passes=lambda n_masks: n_masks),
        Method("xrai", "XRAI", XRAI, passes=lambda n_steps: 2 * n_steps),
        *CAPTUM_METHODS,
        Method("attention_rollout", "Attention rollout", AttentionRollout, passes=lambda: 1),
        Method("le_grad", "LeGrad", LeGrad, passes=lambda: 1),
    )
}

#: Names that stand for several methods.
METHOD_SETS: dict[str, tuple[str, ...]] = {
    "captum": ("grad_cam", *(method.name for method in CAPTUM_METHODS)),
}


def find_method(name: str) -> Method:
    """Looks a method up.

    Args:
        name (str): A name in :data:`METHODS`.

    Returns:
        Method: The method.

    Raises:
        ValueError: If there is none of this name; names that come close are listed.

    Examples::

        >>> find_method("group_cam").title
        'Group-CAM'
    """
    if name not in METHODS:
        if is_reference(name):
            raise ValueError(f"Unknown method {name!r}: load_method imports it.")
        close = difflib.get_close_matches(name, METHODS, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"known are {', '.join(METHODS)}."
        raise ValueError(f"Unknown method {name!r}; {hint}")
    return METHODS[name]


def load_method(reference: str) -> Method:
    """Imports a method of one's own and puts it into :data:`METHODS`.

    Args:
        reference (str): ``package.module:object`` or ``path/file.py:object``: a :class:`Method`, or
            what its `explain` can be. It runs the module's code.

    Returns:
        Method: The method. Its name is the reference, without the folders of a file.

    Raises:
        ValueError: If there is no such object, it fails, or is not a method.

    Examples::

        >>> load_method("captum.attr:Saliency").on_layer
        False
        >>> del METHODS["captum.attr:Saliency"]
    """
    found = find_object(reference)
    name = short_reference(reference)
    if isinstance(found, Method):
        method = replace(found, name=name)
    elif isinstance(found, type) and issubclass(found, Attribution):
        method = Method(name, found.__name__, found)
    elif callable(found) and not isinstance(found, (type, Module)):
        method = Method(name, name.rpartition(":")[2], found)
    else:
        raise ValueError(
            f"{reference} is {_kind_of(found)}; expected a function (model, inputs, target) or "
            "(model, layer, inputs, target), a class in Captum's style, or a "
            "captum_groupcam.methods.Method."
        )
    try:
        method.check_signature()
    except (TypeError, NameError) as error:
        raise ValueError(f"{reference} is not a method: {error}") from error
    known = METHODS.setdefault(name, method)
    if known.explain is not method.explain:
        raise ValueError(f"Another method is called {name}, too: rename one of the files.")
    METHODS[name] = method
    return method


def _kind_of(found: object) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__


def offered_methods() -> list[str]:
    """Names of the methods that a user is offered: neither controls nor what is on trial.

    Returns:
        list of str: The names.

    Examples::

        >>> offered_methods()[0]
        'group_cam'
    """
    return [method.name for method in METHODS.values() if method.kind == "method"]
