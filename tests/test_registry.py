"""A method that is registered at run time reaches every front end."""

from __future__ import annotations

import inspect
import json
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
from captum_groupcam.methods import METHODS, Method, find_method, offered_methods
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


def test_on_the_command_line(registered: Method, cat_file: Path, tmp_path: Path) -> None:
    arguments = ["explain", str(cat_file), "--method", "mine:power=1.5", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "cat_mine.png").is_file()
    wrong = CliRunner().invoke(app, ["explain", str(cat_file), "--method", "mine:power=low"])
    assert wrong.exit_code == 2
    assert "power must be float, got 'low'" in wrong.stderr


def test_in_the_benchmark(registered: Method, tmp_path: Path) -> None:
    main = pytest.importorskip("benchmarks.__main__")
    arguments = ["compare", "--methods", "mine:power=1.0 centre", "--limit", "1", "--out"]
    measures = ["--measures", "quantus.Sparseness"]
    result = CliRunner().invoke(main.app, [*arguments, str(tmp_path / "run"), *measures])
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "run" / "results.jsonl").read_text()
    assert '"mine:power=1.0"' in rows


#: In a process of its own, since Gradio leaves an event loop open.
EXPLORER = """
import json
import tests.test_registry as here
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._page import build
from captum_groupcam.methods import METHODS, Method

METHODS["mine"] = Method("mine", "My own", here.{function})
page = build(Models(["efficientnet_lite0"]), "")
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
