"""A method that is registered at run time reaches every front end."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from captum.attr import LayerAttribution
from torch import Tensor, nn
from typer.testing import CliRunner

from captum_groupcam import insights
from captum_groupcam.apps.cli import app
from captum_groupcam.methods import (
    METHODS,
    Method,
    MethodSpec,
    find_method,
    load_method,
    offered_methods,
)
from tests.toy_networks import SmallCNN, small_inputs


class Brightest(LayerAttribution):
    """A class in Captum's style, with an option of its own."""

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: object = None,
        additional_forward_args: object = None,
        attribute_to_layer_input: bool = False,
        *,
        power: float = 2.0,
    ) -> Tensor | tuple[Tensor, ...]:
        image = inputs if isinstance(inputs, Tensor) else inputs[0]
        maps = image.amax(1, keepdim=True).relu() ** power
        return maps if isinstance(inputs, Tensor) else (maps,)


def brightness(
    model: nn.Module, inputs: Tensor, target: object, *, power: float = 2.0, floor: int = 0
) -> Tensor:
    return inputs.mean(1, keepdim=True).relu() ** power + floor


@pytest.fixture(params=[brightness, Brightest], ids=["function", "class"])
def registered(request: pytest.FixtureRequest) -> Iterator[Method]:
    method = Method("mine", "My own", request.param, passes=lambda: 0)
    METHODS[method.name] = method
    yield method
    del METHODS[method.name]


def test_in_python(registered: Method) -> None:
    assert offered_methods()[-1] == "mine"
    network = SmallCNN()
    maps = find_method("mine")(network, network.features, power=1.0)(small_inputs(1), 0)
    assert maps.shape == (1, 1, 24, 24)
    assert registered.n_passes(power=1.0) == 0


def test_passes_may_depend_on_fixed_options() -> None:
    method = Method("own", "My own", brightness, {"floor": 3}, passes=lambda power, floor: floor)
    assert method.n_passes(power=1.0) == 3


def test_on_the_command_line(registered: Method, cat_file: Path, tmp_path: Path) -> None:
    arguments = ["explain", str(cat_file), "--method", "mine:power=1.5", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "cat_mine_power=1.5.png").is_file()
    wrong = CliRunner().invoke(app, ["explain", str(cat_file), "--method", "mine:power=low"])
    assert wrong.exit_code == 2
    assert "power must be float, got 'low'" in wrong.stderr


OWN = """
from captum.attr import LayerAttribution
from captum_groupcam.methods import Method

def bright(model, inputs, target, *, power: float = 2.0):
    return inputs.mean(1, keepdim=True).relu() ** power

def on_layer(model, layer, inputs, target):
    return inputs[:, :1]

class Brightest(LayerAttribution):
    def attribute(self, inputs, target=None, additional_forward_args=None,
                  attribute_to_layer_input=False, *, power: float = 2.0):
        return inputs.amax(1, keepdim=True) ** power

declared = Method("declared", "Declared", bright, {"power": 3.0})
number = 3
class Other: ...
def misses(model, inputs): ...
def untyped(model, inputs, target, *, power: Nowhere = 2): ...
untyped.__annotations__["power"] = "Nowhere"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of methods that nobody has registered."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "own_cams.py"
    path.write_text("from __future__ import annotations\n" + OWN)
    known = dict(METHODS)
    yield path
    METHODS.clear()
    METHODS.update(known)


@pytest.mark.parametrize(
    ("name", "options", "power"),
    [("bright", "", 2.0), ("bright", ":power=1.5", 1.5), ("declared", "", 3.0)],
)
def test_named_on_the_command_line(
    name: str, options: str, power: float, own: Path, cat_file: Path, tmp_path: Path
) -> None:
    spec = MethodSpec.parse(f"{own}:{name}{options}", importing=True)
    assert str(spec) == f"own_cams.py:{name}{options}"
    assert MethodSpec.parse(str(spec)) == spec
    inputs = torch.rand(1, 3, 24, 24)
    maps = spec.method(SmallCNN(), **spec.options)(inputs, 0)
    assert torch.equal(maps, inputs.mean(1, keepdim=True) ** power)
    out = tmp_path / "out"
    arguments = ["explain", cat_file, "--method", f"{own}:{name}{options}", "--out", out]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    (written,) = out.iterdir()
    told = options.replace(":", "_")
    assert re.fullmatch(
        rf"cat_own_cams\.py_{name}{re.escape(told)}(_[0-9a-f]{{8}})?\.png", written.name
    )


def test_classes_and_methods_on_layers_are_named(own: Path) -> None:
    network = SmallCNN()
    for name in ("Brightest", "on_layer"):
        method = load_method(f"{own}:{name}")
        assert METHODS[f"own_cams.py:{name}"] is method
        assert method.on_layer
        assert method(network, network.features)(small_inputs(1), 0).shape == (1, 1, 24, 24)
    assert load_method(f"{own}:Brightest") == load_method(f"{own}:Brightest")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "is int; expected a function"),
        ("Other", "is the class Other; expected a function"),
        ("misses", "misses is not a method: too many positional arguments"),
        ("untyped", "untyped is not a method: name 'Nowhere' is not defined"),
        ("nothing", "has no 'nothing'"),
    ],
)
def test_what_is_no_method(name: str, message: str, own: Path, cat_file: Path) -> None:
    result = CliRunner().invoke(app, ["explain", str(cat_file), "--method", f"{own}:{name}"])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_only_what_is_typed_is_imported(own: Path) -> None:
    own.write_text("raise SystemExit('imported')")
    for look_up in (find_method, MethodSpec.parse):
        with pytest.raises(ValueError, match=r"Unknown method '.*bright': load_method imports it"):
            look_up(f"{own}:bright")


def test_two_files_of_one_name(own: Path, tmp_path: Path) -> None:
    load_method(f"{own}:bright")
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "own_cams.py"
    other.write_text(own.read_text())
    with pytest.raises(ValueError, match=r"Another method is called own_cams\.py:bright, too"):
        load_method(f"{other}:bright")


def test_in_the_benchmark(registered: Method, tmp_path: Path) -> None:
    main = pytest.importorskip("benchmarks.__main__")
    arguments = ["compare", "--methods", "mine:power=1.0 centre", "--limit", "1", "--out"]
    measures = ["--measures", "quantus.Sparseness"]
    result = CliRunner().invoke(main.app, [*arguments, str(tmp_path / "run"), *measures])
    assert result.exit_code == 0, result.output
    folder = pytest.importorskip("benchmarks.run.folder").RunFolder(tmp_path / "run")
    assert "mine:power=1.0" in {row.method for row in folder.rows()}


#: In a process of its own, since Gradio leaves an event loop open.
EXPLORER = """
import json
from pathlib import Path
import tests.test_registry as here
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._page import build
from captum_groupcam.apps.explorer._visitors import Visitors
from captum_groupcam.methods import METHODS, Method

METHODS["mine"] = Method("mine", "My own", here.{function})
page = build(Models(["efficientnet_lite0"]), Visitors(Path("pages")))
fields = {{getattr(block, "elem_id", None): block for block in page.blocks.values()}}
methods = [fields[name].choices for name in ("first-method", "second-method")]
print(json.dumps({{"methods": methods, "power": fields["first-mine-power"].value}}))
"""


def test_in_the_explorer(registered: Method) -> None:
    pytest.importorskip("gradio")
    assert callable(registered.explain)
    done = subprocess.run(
        [sys.executable, "-c", EXPLORER.format(function=registered.explain.__name__)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    shown = json.loads(done.stdout.splitlines()[-1])
    assert all(["mine", "mine"] in each for each in shown["methods"])
    assert shown["power"] == 2.0


def test_in_insights(registered: Method) -> None:
    # A function has no form in Captum's style, which Insights needs.
    assert ("My own" in insights.offered()) == inspect.isclass(registered.explain)
    if registered.attribution is None:
        return
    registration = insights.Registration(registered, lambda model, _inputs: model.features)
    cls = type("Registered", (insights.InsightsMethod,), {"registration": registration})
    (maps,) = cls(SmallCNN()).attribute((torch.rand(1, 3, 24, 24).double(),))
    assert maps.any()
