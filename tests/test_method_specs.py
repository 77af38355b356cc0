from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.controls import CONTROLS
from benchmarks.experiments.ablation import STUDIES, chosen_studies
from captum_groupcam.methods import METHODS, MethodSpec, offered_methods
from captum_groupcam.options import Option, format_value, parse_value, split_text

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.lists(inner, max_size=3),
    max_leaves=5,
)
#: As modules are called: numbers in a Sequential, names anywhere.
LAYERS = st.from_regex(r"([a-z_]{1,5}|[0-9]{1,2})(\.([a-z_]{1,5}|[0-9]{1,2})){0,2}", fullmatch=True)


def values_of(option: Option) -> st.SearchStrategy[object]:
    """What an option can be set to, by its type."""
    if option.choices:
        return st.sampled_from(option.choices)
    kinds = {bool: st.booleans(), int: st.integers(), float: NUMBERS, str: st.text(max_size=8)}
    strategy = kinds.get(option.kind, st.nothing())
    if "Sequence[int]" in str(option.annotation):
        strategy = strategy | st.lists(st.integers(), min_size=1, max_size=3).map(tuple)
    if "Sequence[float]" in str(option.annotation):
        strategy = st.lists(NUMBERS, min_size=1, max_size=3).map(tuple)
    return strategy | st.none() if option.optional else strategy


@st.composite
def specs(draw: st.DrawFn) -> MethodSpec:
    name = draw(st.sampled_from([*offered_methods(), *CONTROLS]))
    drawn = {
        option.name: draw(values_of(option))
        for option in METHODS[name].options.values()
        if not values_of(option).is_empty and draw(st.booleans())
    }
    layer = draw(st.none() | LAYERS | st.sampled_from(["None", "True", "1e5", "4", "1.0"]))
    return MethodSpec(name, dict(sorted(drawn.items())), layer)


@given(specs())
@settings(max_examples=200, deadline=None)
def test_text_and_spec_are_the_same(spec: MethodSpec) -> None:
    again = MethodSpec.parse(str(spec))
    assert again == spec
    types = [{name: type(value) for name, value in s.options.items()} for s in (again, spec)]
    assert types[0] == types[1]
    assert str(again) == str(spec)
    # Several of them in one argument stay apart.
    assert split_text(f"{spec} grad_cam", " ") == [str(spec), "grad_cam"]


@given(VALUES)
@example("\\")  # what is before the closing quote escapes nothing
@example("\\'")
def test_a_value_is_read_as_it_was_written(value: object) -> None:
    assert parse_value(format_value(value)) == value
    assert split_text(f"a={format_value(value)},b=1", ",") == [f"a={format_value(value)}", "b=1"]


@pytest.mark.parametrize("layer", ["4", "1.0", "1e5", "None", "features.0.conv", "0.1.2"])
def test_a_layer_is_a_name_whatever_it_looks_like(layer: str) -> None:
    assert MethodSpec.parse(f"grad_cam:layer={layer}").layer == layer
    assert MethodSpec.parse(f"grad_cam:layer={layer!r}").layer == layer


def test_tuples() -> None:
    spec = MethodSpec.parse("rise:grid_size=(7, 7),seed=1")
    assert spec.options == {"grid_size": (7, 7), "seed": 1}
    assert str(spec) == "rise:grid_size=(7,7),seed=1"
    shares = MethodSpec.parse("group_cam_consensus:shares=(0.1,0.4)").options["shares"]
    assert shares == (0.1, 0.4)


def test_the_order_of_options_does_not_matter() -> None:
    one = MethodSpec.parse("rise:seed=1,n_masks=8")
    other = MethodSpec.parse("rise:n_masks=8,seed=1")
    assert one == other
    assert str(one) == str(other) == "rise:n_masks=8,seed=1"


@pytest.mark.parametrize("text", ["rise:8", "rise:=8", "rise:n-masks=8"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name:option=value"):
        MethodSpec.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gradcam", "Unknown method 'gradcam'; did you mean grad_cam"),
        ("zzz", "Unknown method 'zzz'; known are group_cam"),
        ("group_cam:n_gruops=8", "group_cam has no option 'n_gruops'; did you mean n_groups"),
        ("centre:zzz=8", "centre has no option 'zzz'; it has sigma"),
        ("group_cam:n_groups=8.5", "n_groups must be int, got 8.5"),
        ("group_cam:n_groups=True", "n_groups must be int, got True"),
        ("group_cam:n_groups=many", "n_groups must be int, got 'many'"),
        ("group_cam:denoise_at=top", "denoise_at must be one of layer, input; got 'top'"),
        ("rise:grid_size=(7,'a')", "grid_size must be"),
        ("group_cam_gradient_free:gradient_free=False", "has no option 'gradient_free'"),
    ],
)
def test_options_are_checked_before_anything_runs(text: str, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        MethodSpec.parse(text)


def test_studies_vary_one_option_and_hold_the_default() -> None:
    for name, specs in STUDIES.items():
        labels = [str(spec) for spec in specs]
        assert len(set(labels)) == len(labels), name
        if name == "weights":
            continue
        others = {"denoise_at"} if name.endswith("_input") else set()
        varied = {option for spec in specs for option in spec.options} - others
        assert len(varied) == 1, name
        for spec in specs:
            assert others <= set(spec.options)
    assert "group_cam" in [str(spec) for spec in STUDIES["theta"]]
    assert str(STUDIES["theta"][0]) == "group_cam:denoise_percentile=0"
    assert str(STUDIES["n_groups_input"][0]) == "group_cam:denoise_at=input,n_groups=1"


def test_chosen_studies() -> None:
    assert list(chosen_studies([])) == list(STUDIES)
    chosen = chosen_studies(["theta"], ["conv1"])
    assert [str(spec) for spec in chosen["layer"]] == ["group_cam", "group_cam:layer=conv1"]
    with pytest.raises(ValueError, match="Unknown study 'thet'"):
        chosen_studies(["thet"])
