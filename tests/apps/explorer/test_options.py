from __future__ import annotations

import pytest
import torch

from captum_groupcam.apps.explorer._options import changed_options, help_of, offered_options
from captum_groupcam.methods import METHODS, offered_methods
from captum_groupcam.options import Option
from tests.toy_networks import Attentive, SmallCNN, small_inputs


def test_the_options_of_group_cam() -> None:
    options = {option.name: option for option in offered_options("group_cam")}
    assert {name: (o.kind, o.default, o.optional) for name, o in options.items()} == {
        "n_groups": (int, 32, False),
        "grouping": (str, "contiguous", False),
        "denoise_percentile": (float, 70.0, True),
        "denoise_at": (str, "layer", False),
        "relu_scores": (bool, False, False),
        "merge_normalized": (bool, True, False),
    }
    assert options["grouping"].choices == ("contiguous", "k_means", "agglomerative")
    assert options["denoise_at"].choices == ("layer", "input")


def test_helps_are_what_the_documentation_says() -> None:
    assert help_of("group_cam", "relu_scores") == (
        "Whether groups that lower the score are left out of the sum."
    )
    assert help_of("group_cam", "denoise_percentile") == (
        "theta: positions of a group's map below this percentile are dropped; in [0, 100), empty "
        "keeps all."
    )


@pytest.mark.parametrize("method", offered_methods())
def test_every_method_takes_its_options(method: str) -> None:
    options = offered_options(method)
    for option in options:
        text = help_of(method, option.name)
        assert "`" not in text
        assert "Default" not in text
    few = {"n_masks": 3, "n_steps": 2, "n_samples": 2, "n_segments": 9}
    values = {o.name: few.get(o.name, o.default) for o in options}
    network = (
        Attentive().double().eval() if method in ("attention_rollout", "le_grad") else SmallCNN()
    )

    def explain(given):
        return METHODS[method](network, network.features, **given)(small_inputs()[:1], 1)

    changed = changed_options(method, values)
    assert set(changed) <= set(few)
    torch.testing.assert_close(explain(values), explain(changed), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("option", "value", "parsed"),
    [
        (Option("n", 3, kind=int), 8.0, 8),
        (Option("n", 3, kind=int), "8", 8),
        (Option("p", 70.0, kind=float, optional=True), "", None),
        (Option("p", 70.0, kind=float, optional=True), None, None),
        (Option("p", 70.0, kind=float, optional=True), " 12.5", 12.5),
        (Option("b", True, kind=bool), False, False),
        (Option("s", "a", kind=str, choices=("a", "b")), "b", "b"),
    ],
)
def test_what_a_form_gives(option: Option, value: object, parsed: object) -> None:
    result = option.parse(value)
    assert result == parsed
    assert type(result) is type(parsed)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "n_groups needs a value; its default is 32"),
        ("", "n_groups needs a value; its default is 32"),
        (2.5, "n_groups is a whole number, got 2.5"),
        ("many", "n_groups is a number, got 'many'"),
        ("nan", "n_groups is a whole number, got nan"),
        (float("inf"), "n_groups is a whole number, got inf"),
        ([8], r"n_groups is a number, got \[8\]"),
        (0, "n_groups must be at least 1, got 0"),
        (1e10, "n_groups must be at most 4096 on a page, got 10000000000.0"),
    ],
)
def test_what_is_no_number(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed_options("group_cam", {"n_groups": value})


@pytest.mark.parametrize("method", offered_methods())
def test_every_number_has_an_end(method: str) -> None:
    for option in offered_options(method):
        if option.kind not in (int, float):
            continue
        lowest, highest = option.limits
        assert option.default is None or lowest <= option.default <= highest
        for text in ("1e300", "-1e300", "inf", "nan"):
            with pytest.raises(ValueError, match=f"{option.name} (must be at|is a)"):
                changed_options(method, {option.name: text})


def test_numbers_of_methods_of_ones_own_have_an_end() -> None:
    with pytest.raises(ValueError, match="mine must be at most 10000 on a page"):
        Option("mine", 3, kind=int).parse(10_001)


def test_what_is_no_choice() -> None:
    with pytest.raises(ValueError, match="grouping must be one of contiguous, k_means"):
        changed_options("group_cam", {"grouping": "by_name"})
    with pytest.raises(TypeError, match="relu_scores must be True or False, got 'yes'"):
        changed_options("group_cam", {"relu_scores": "yes"})


def test_only_what_differs_is_passed_on() -> None:
    form = {"n_groups": 32, "denoise_percentile": "", "denoise_at": "layer", "relu_scores": True}
    changed = changed_options("group_cam", form)
    assert changed == {"denoise_percentile": None, "relu_scores": True}
