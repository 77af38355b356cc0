"""Wrong calls of methods and of the augmentation, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_groupcam import (
    CAM,
    RISE,
    XRAI,
    ConsensusGroupCAM,
    GradCAM,
    GradCAMPlusPlus,
    GroupCAM,
    LayerCAM,
    ScoreCAM,
)
from captum_groupcam.augmentation import GroupCAMBlur
from captum_groupcam.methods import METHODS, Explain, MethodSpec
from captum_groupcam.metrics.functional import average_drop, deletion_insertion

from .threads import images, network
from .wrong_measures import other_calls
from .wrong_values import (
    ANSWERS,
    COUNTS,
    NAN,
    NUMBERS,
    SCORE_FUNCS,
    TARGETS,
    TRANSFORMS,
    Answering,
    Call,
    bad_baselines,
    bad_inputs,
    of,
)

__all__ = ["wrong_calls"]


def wrong_calls() -> dict[str, Call]:
    """Wrong calls by name: everything that takes inputs, targets and options, with bad ones.

    Returns:
        dict of str to Callable: Each should raise.
    """
    return dict(_all_calls())


def _all_calls() -> Iterator[tuple[str, Call]]:
    net, good = network(), images(0)
    layer = net[0]
    on_layer = (GroupCAM, ConsensusGroupCAM, ScoreCAM, GradCAM, GradCAMPlusPlus, LayerCAM, CAM)
    classes: dict[str, Any] = {c.__name__: partial(c, layer=layer) for c in on_layer}
    classes |= {"RISE": RISE, "XRAI": XRAI}
    few: dict[str, dict[str, Any]] = {"RISE": {"n_masks": 4}, "XRAI": {"n_steps": 1}}
    explain: dict[str, Callable[..., Any]] = {
        name: partial(make(net).attribute, **few.get(name, {})) for name, make in classes.items()
    }
    few["rise"], few["xrai"] = few["RISE"], few["XRAI"]
    methods: dict[str, Callable[..., Any]] = {
        f"METHODS {name}": _by_name(METHODS[name](net, layer, **few.get(name, {})))
        for name, method in METHODS.items()
        if method.kind == "method"
    }
    maps = torch.rand(2, 1, 16, 16)
    measures: dict[str, Callable[..., Any]] = {
        "deletion_insertion": lambda inputs, target: deletion_insertion(net, maps, inputs, target),
        "average_drop": lambda inputs, target: average_drop(net, maps, inputs, target),
    }
    for name, call in (explain | methods | measures).items():
        for what, inputs in bad_inputs(good).items():
            yield f"{name}, inputs: {what}", of(call, inputs, target=1)
        for what, target in TARGETS.items():
            yield f"{name}, target: {what}", of(call, good, target=target)

    masking = {name: explain[name] for name in ("GroupCAM", "ConsensusGroupCAM", "RISE")}
    options: dict[str, Mapping[str, Any]] = {
        "score_func": SCORE_FUNCS,
        "baselines": bad_baselines(good),
        "internal_batch_size": {repr(v): v for v in COUNTS if v is not None},
    }
    for (name, call), (option, values) in (
        (one, other) for one in masking.items() for other in options.items()
    ):
        for what, value in values.items():
            yield f"{name}, {option}: {what}", of(call, good, target=1, **{option: value})
    for name in ("GroupCAM", "ScoreCAM", "GradCAM", "LayerCAM"):
        for what, value in TRANSFORMS.items():
            wrong = of(explain[name], good, target=1, reshape_transform=value)
            yield f"{name}, reshape_transform: {what}", wrong
    wrong_layers = {
        "a name": "0",
        "None": None,
        "a class": nn.Conv2d,
        "a list": [layer],
        "another network's": network()[0],
        "the whole network": net,
        "a linear one": net[3],
    }
    for explainer in on_layer:
        for what, value in wrong_layers.items():
            wrong = of(explainer(net, value).attribute, good, 1)
            yield f"{explainer.__name__}, layer: {what}", wrong
    for what, answer in ANSWERS.items():
        other = Answering(answer).eval()
        for explainer, more in ((GroupCAM, {}), (GroupCAM, {"gradient_free": True}), (CAM, {})):
            wrong = of(explainer(other, other.features).attribute, good, 1, **more)
            yield f"{explainer.__name__} {more}, the network gives: {what}", wrong
        yield (
            f"RISE, the network gives: {what}",
            of(RISE(other).attribute, good, target=1, n_masks=4),
        )
        wrong = of(deletion_insertion, other, maps, good, 1)
        yield f"deletion_insertion, the network gives: {what}", wrong
    for forward in (None, 3, "net", [net]):
        yield f"forward_func {forward!r:.20}", of(GroupCAM(forward, layer).attribute, good, 1)
        yield f"RISE of {forward!r:.20}", of(RISE(forward).attribute, good, target=1)
    yield from _wrong_options(net, good, explain)
    yield from other_calls(net, good, maps)


def _by_name(explain: Explain) -> Callable[..., Tensor]:
    return lambda inputs, target: explain(inputs, target)


def _wrong_options(
    net: nn.Sequential, good: Tensor, explain: Mapping[str, Callable[..., Any]]
) -> Iterator[tuple[str, Call]]:
    """Options of methods and of the augmentation that are out of range, or of another type."""
    of_classes: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
        "GroupCAM": {
            "n_groups": COUNTS,
            "denoise_percentile": (100, *NUMBERS),
            "denoise_at": ("middle", None, 1, ["layer"]),
            "grouping": ("x", None, 3, lambda *_: "s", lambda *_: torch.zeros(2, 8)),
            "layer_call": (-1, 1, 1.5, "0", True),
        },
        "ConsensusGroupCAM": {
            "n_groups": COUNTS,
            "denoise_percentile": (100, *NUMBERS),
            "shares": ((), (0,), (1,), ("a",), 0.5, None, (NAN,)),
            "flip": (0, 1, "yes", None),
            "edge_radius": (1, *NUMBERS),
            "gradient_sigma": (0, *NUMBERS),
            "gradient_power": (0, *NUMBERS),
        },
        "RISE": {
            "n_masks": COUNTS,
            "grid_size": (0, -1, 1.5, (7,), (7, 7, 7), "7", (1.5, 2), NAN, True, (), None),
            "probability": (0, 1, *NUMBERS),
            "seed": (1.5, "a", 2**70, None, True),
            "generator": (3, "a"),
            "targets": ([], 3, "ab", [1]),
        },
        "ScoreCAM": {"weighting": ("sum", None, 1)},
        "XRAI": {"n_steps": COUNTS, "algorithm": ("slow", None, 1)},
    }
    for name, of_class in of_classes.items():
        for option, values in of_class.items():
            for value in values:
                wrong = of(explain[name], good, target=1, **{option: value})
                yield f"{name}, {option}={value!r:.30}", wrong
    for name, method in METHODS.items():
        if method.kind != "method":
            continue
        for option in method.options:
            wrong = of(METHODS[name], net, net[0], **{option: object()})
            if option not in {"baselines", "show_progress"}:
                yield f"METHODS {name}, {option}", wrong
        yield f"METHODS {name}, unknown option", of(METHODS[name], net, net[0], n_grups=3)
        if method.on_layer:
            yield f"METHODS {name}, no layer", of(METHODS[name], net)
    for text in ("nope", "group_cam:n_grups=3", "group_cam:n_groups", "group_cam:n_groups=x"):
        yield f"MethodSpec {text}", of(MethodSpec.parse, text)
    labels = torch.tensor([1, 2])
    of_blur: Mapping[str, tuple[Any, ...]] = {
        "n_groups": COUNTS,
        "probability": NUMBERS,
        "every_n_steps": COUNTS,
        "seed": (-1, 1.5, "a", None),
        "baseline": ("x", NAN, torch.rand(3, 3, 16, 16)),
        "layer": (network()[0],),
        "teacher": (nn.Sequential(nn.Conv2d(3, 5, 1)),),
    }
    for option, values in of_blur.items():
        for value in values:
            chosen = {"model": net, "layer": net[0], "n_groups": 2} | {option: value}

            def blur(chosen: dict[str, Any] = chosen) -> Tensor:
                return GroupCAMBlur(**chosen)(good, labels)

            yield f"GroupCAMBlur, {option}={value!r:.30}", blur
    blurring = GroupCAMBlur(net, net[0], n_groups=2)
    for what, wrong_labels in {
        "a list": [1, 2],
        "floats": torch.tensor([1.0, 2.0]),
        "booleans": torch.tensor([True, False]),
        "9": torch.tensor([1, 9]),
        "-1": torch.tensor([1, -1]),
        "one for two": torch.tensor([1]),
        "shares": torch.rand(2, 5),
        "None": None,
    }.items():
        yield f"GroupCAMBlur, labels: {what}", of(blurring, good, wrong_labels)
