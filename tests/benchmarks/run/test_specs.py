from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.experiments.ablation import STUDIES, chosen_studies
from benchmarks.methods import METHODS
from benchmarks.run.specs import MethodSpec

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(lambda name: name != "layer")


@given(
    st.sampled_from(sorted(METHODS)),
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.none() | st.just("features.0.conv"),
)
@settings(max_examples=40, deadline=None)
def test_text_and_spec_are_the_same(
    name: str, options: dict[str, object], layer: str | None
) -> None:
    spec = MethodSpec(name, dict(sorted(options.items())), layer)
    assert MethodSpec.parse(str(spec)) == spec


def test_the_order_of_options_does_not_matter() -> None:
    one, other = (
        MethodSpec.parse("rise:seed=1,n_masks=8"),
        MethodSpec.parse("rise:n_masks=8,seed=1"),
    )
    assert one == other
    assert str(one) == str(other) == "rise:n_masks=8,seed=1"


@pytest.mark.parametrize("text", ["rise:8", "rise:=8", "rise:n-masks=8"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name:option=value"):
        MethodSpec.parse(text)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown method 'gradcam'; known are group_cam"):
        MethodSpec.parse("gradcam")


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
