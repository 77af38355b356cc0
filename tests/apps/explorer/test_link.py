"""Settings as an address: what the page wrote is read again, what others wrote is checked."""

from __future__ import annotations

import sys
from urllib.parse import parse_qsl

import pytest

from captum_groupcam.apps.explorer._link import STEPS, TABS, query_of, read_query
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._options import offered_options
from captum_groupcam.methods import offered_methods
from captum_groupcam.options import Option, Value
from tests.apps.explorer.conftest import LITE0, ON_FEW_CHANNELS, RANDOM


def read(models: Models, **query: str) -> tuple[dict[str, Value], list[str]]:
    return read_query({name.replace("__", "."): text for name, text in query.items()}, models)


def another(option: Option) -> Value:
    """A value that is not the default."""
    if option.optional and option.default is not None:
        return None
    if option.kind is bool:
        return not option.default
    if option.kind is str:
        return option.choices[-1]
    lowest, highest = option.limits
    return highest if option.kind is int else (lowest + highest) / 3


@pytest.mark.parametrize("method", offered_methods())
@pytest.mark.parametrize("side", ["method", "compare"])
def test_a_link_restores_a_method_and_its_options(models: Models, method: str, side: str) -> None:
    settings: dict[str, Value] = {side: method}
    settings |= {f"{side}.{option.name}": another(option) for option in offered_options(method)}
    query = dict(parse_qsl(query_of(settings), keep_blank_values=True, strict_parsing=True))
    assert read_query(query, models) == (settings, [])


def test_a_link_restores_the_rest(models: Models) -> None:
    settings: dict[str, Value] = {
        "network": RANDOM,
        "layer": "features.7",
        "target": 999,
        "opacity": 0.35,
        "step": STEPS["1 % a step (paper)"],
        "tab": TABS["Save"],
    }
    query = dict(parse_qsl(query_of(settings), strict_parsing=True))
    assert read_query(query, models) == (settings, [])
    # Without a network they are those of the first one, whose layers are others.
    found, problems = read(models, layer=ON_FEW_CHANNELS, target="0")
    assert (found, problems) == ({"layer": ON_FEW_CHANNELS, "target": 0}, [])


HOSTILE = {
    "network": ("os:system", "Unknown network 'os:system': expected one of efficientnet_lite0, sq"),
    "layer": ("features.7", "efficientnet_lite0 has no layer 'features.7' with positions"),
    "target": ("1000", "target must be a class of efficientnet_lite0, 0 to 999, got '1000'"),
    "method": ("tests.toy_networks:SmallCNN", "Unknown method 'tests.toy_networks:SmallCNN'"),
    "compare": ("none", "Unknown method 'none'"),
    "opacity": ("1.01", r"opacity must be in \[0, 1\], got 1.01"),
    "step": ("0.001", "step must be one of 0.1, 0.05, 0.02, 0.01, got 0.001"),
    "tab": ("api", "Unknown tab 'api': expected one of groups, curves, save"),
    "n_groups": ("4", "Unknown names: n_groups"),
    "compare__n_groups": ("4", "Unknown names: compare.n_groups"),
}


@pytest.mark.parametrize(("name", "text", "problem"), [(n, *case) for n, case in HOSTILE.items()])
def test_what_the_page_does_not_offer_is_refused(
    models: Models, name: str, text: str, problem: str
) -> None:
    found, problems = read(models, **{name: text})
    assert found == {}
    assert len(problems) == 1
    with pytest.raises(ValueError, match=problem):
        raise ValueError(problems[0])


@pytest.mark.parametrize("text", ["-1", "+1", "1.0", "1e2", "", " 1", "\u0661", "0x10", "nan"])
def test_a_class_is_a_plain_number(models: Models, text: str) -> None:
    assert read(models, target=text)[0] == {}


@pytest.mark.parametrize("text", ["nan", "inf", "-0.1", "", "half"])
def test_an_opacity_is_a_share(models: Models, text: str) -> None:
    found, problems = read(models, opacity=text)
    assert (found, len(problems)) == ({}, 1)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("n_groups", "0"),
        ("n_groups", "4097"),
        ("n_groups", "2.5"),
        ("n_groups", ""),
        ("n_groups", "__import__('os')"),
        ("denoise_percentile", "100"),
        ("denoise_percentile", "nan"),
        ("grouping", "random"),
        ("relu_scores", "1"),
    ],
)
def test_options_are_checked_like_the_fields(models: Models, option: str, text: str) -> None:
    query = {"method": "group_cam", f"method.{option}": text}
    found, problems = read_query(query, models)
    assert found == {"method": "group_cam"}
    assert len(problems) == 1
    assert option in problems[0]


def test_options_that_are_not_on_the_page_are_unknown(models: Models) -> None:
    query = {"method": "group_cam", "method.internal_batch_size": "100000"}
    assert read_query(query, models)[1] == ["Unknown names: method.internal_batch_size."]


def test_what_is_said_is_short_however_long_the_address(models: Models) -> None:
    query = dict.fromkeys(("network", "method", "opacity", "tab"), "x" * 10000)
    query |= {f"{'y' * 1000}{number}": "" for number in range(1000)}
    found, problems = read_query(query, models)
    assert found == {}
    assert len(problems) == 5
    assert problems[-1].endswith("and 990 more.")
    assert sum(map(len, problems)) < 1500


def test_names_of_gradio_are_no_problem(models: Models) -> None:
    assert read_query({"__theme": "dark"}, models) == ({}, [])


def test_nothing_is_imported_or_loaded(models: Models) -> None:
    modules, loaded = set(sys.modules), set(models._loaded)
    read(models, network="antigravity:x", method="antigravity:x", compare="antigravity.y:z")
    assert set(sys.modules) == modules
    assert set(models._loaded) == loaded


def test_a_network_that_cannot_be_loaded_leaves_the_first_one() -> None:
    models = Models([LITE0, "squeezenet1_1=/nowhere.pth"])
    found, problems = read(models, network="squeezenet1_1=/nowhere.pth", target="3", opacity="1")
    assert found == {"opacity": 1.0}
    assert len(problems) == 1
