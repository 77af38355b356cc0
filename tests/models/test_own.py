"""Networks of one's own: by the name of what makes them, and by a file that describes them."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from captum_groupcam.models import IMAGENET, Preprocessing, load_model

NETS = """
import torch
from torch import nn
from captum_groupcam.models import ImageClassifier, Preprocessing

class Net(nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.more = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.more(self.features(x)).mean((2, 3)))

def fixed():
    return Net(4)

def needs(num_classes):
    return Net(num_classes)

def described():
    preprocess = Preprocessing(24, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    return ImageClassifier(Net(), preprocess, ["a", "b", "c", "d"], "features")

instance = Net()
number = 3
def hungry(depth, width): ...
def failing(): return {}["a"]
def nothing(): return None
def halves(): return Net().half()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    known, path = set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if name.startswith("nets"):
            del sys.modules[name]


def state(n_classes: int, **more: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(NETS, namespace)
    torch.manual_seed(n_classes)
    return {"state_dict": namespace["Net"](n_classes).state_dict(), **more}


def weights_of(network: nn.Module) -> torch.Tensor:
    return network.state_dict()["head.weight"]


@pytest.mark.parametrize("name", ["nets:Net", "nets.py:Net", "nets:fixed", "nets:instance"])
def test_what_gives_a_network(name: str) -> None:
    model = load_model(name, preprocess="imagenet")
    assert (model.name, model.preprocess) == (name, IMAGENET)
    assert model.class_names == [f"class {index}" for index in range(4)]
    assert model.layer.name == "more"
    assert not model.network.training
    assert model.source == {"name": name, "preprocess": "imagenet"}


def test_what_gives_all_about_a_network() -> None:
    model = load_model("nets:described")
    assert model.preprocess == Preprocessing(24, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert model.class_names == ["a", "b", "c", "d"]
    assert model.layer.name == "features"
    other = load_model(
        "nets:described", class_names=list("efgh"), layer="more", preprocess={"image_size": 16}
    )
    assert other.preprocess == Preprocessing(16, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert other.class_names == list("efgh")
    assert other.layer.name == "more"


@pytest.mark.parametrize(
    ("name", "n_classes", "names"),
    [
        ("nets:Net", 4, None),
        ("nets:Net", 10, None),
        ("nets:Net", 10, 10),
        ("nets:needs", 10, None),
        ("nets:needs", 10, 10),
        ("nets:needs", 1000, None),
        ("nets:fixed", 4, 4),
        ("nets:instance", 4, None),
        ("nets:described", 4, None),
    ],
)
def test_weights_bring_their_number_of_classes(
    name: str, n_classes: int, names: int | None
) -> None:
    torch.save(state(n_classes), "best.pt")
    model = load_model(
        name,
        "best.pt",
        class_names=None if names is None else [f"name {index}" for index in range(names)],
        preprocess={"image_size": 24, "mean": [0.5] * 3, "std": [0.5] * 3},
    )
    assert len(model.class_names) == n_classes
    assert torch.equal(weights_of(model.network), state(n_classes)["state_dict"]["head.weight"])
    assert model.notes == ("best.pt: the weights under 'state_dict'",)


def test_the_number_of_names_without_weights() -> None:
    model = load_model("nets:needs", class_names=["no", "yes"], preprocess="imagenet")
    assert model.class_names == ["no", "yes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nets:Nett"}, r"nets\.py has no 'Nett'.* did you mean Net\?"),
        ({"name": "nets:number"}, "nets:number gives int; expected a torch.nn.Module"),
        ({"name": "nets:nothing"}, "nets:nothing gives NoneType; expected"),
        ({"name": "nets:hungry"}, "nets:hungry needs the arguments depth, width: name a function"),
        ({"name": "nets:failing"}, r"nets:failing failed: KeyError: 'a' \(.*nets\.py, line \d+\)"),
        ({"name": "nets:needs"}, "nets:needs needs num_classes: give the names"),
        ({"name": "nets:halves"}, "cannot take what its preprocessing gives"),
        ({"weights": "random"}, "leave out --weights random"),
        ({"weights": "nowhere.pt"}, "Unknown weights 'nowhere.pt'"),
        ({"name": "nets:fixed", "weights": "ten.pt"}, "of 10 classes, which nets:fixed does not"),
        ({"weights": "ten.pt", "class_names": ["a"]}, "of 10 classes; there are 1 names"),
        ({"name": "nets:fixed", "class_names": ["a"]}, "tells 4 classes apart, but there are 1"),
        ({"class_names": "nowhere.txt"}, "There is no file of class names nowhere.txt"),
        ({"layer": "mor"}, "Net has no layer 'mor'; did you mean more"),
        ({"layer": "xyz"}, "Net has no layer 'xyz'; its parts are .*more.*Without a name one is"),
        ({"preprocess": None}, "nets:Net does not say how pictures are prepared .*--image-size"),
        ({"preprocess": {"image_size": 9}}, "nets:Net has no preprocessing, so mean, std are miss"),
        ({"preprocess": "nets:number"}, "nets:number is int; expected what turns a PIL image"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: dict[str, Any], message: str) -> None:
    torch.save(state(10), "ten.pt")
    given = {"name": "nets:Net", "preprocess": "imagenet", **arguments}
    with pytest.raises(ValueError, match=message) as caught:
        load_model(**given)
    assert len(str(caught.value).splitlines()) == 1


# --- names of classes


@pytest.mark.parametrize(
    "text",
    [
        "ant\nbee\ncat\ndog\n",
        "\ufeffant\r\nbee\r\n cat \r\ndog\r\n\r\n",
        '["ant", "bee", "cat", "dog"]',
        '{"0": "ant", "3": "dog", "2": "cat", "1": "bee"}',
        '{"ant": 0, "bee": 1, "cat": 2, "dog": 3}',
        '{"0": ["n01", "ant"], "1": ["n02", "bee"], "2": ["n03", "cat"], "3": ["n04", "dog"]}',
    ],
)
def test_names_of_classes(text: str) -> None:
    Path("names").write_text(text, encoding="utf-8", newline="")
    model = load_model("nets:Net", class_names="names", preprocess="imagenet")
    assert model.class_names == ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "There are no class names in names"),
        (b"ant\n\ncat\ndog\n", "that of class 1 is empty"),
        (b"\xff\xfea", "cannot be read: 'utf-8'"),
        (b'["ant", 2]', "expected a list of names"),
        (b'{"0": "ant", "2": "bee"}', "of 2 classes, index 1 has no name"),
        (b'{"ant": 0, "bee": 0}', "several names have one index"),
        (b'["ant",', "Expecting value"),
        (b"[" * 100_000, "names"),
    ],
)
def test_what_is_no_names_of_classes(content: bytes, message: str) -> None:
    Path("names").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_model("nets:Net", class_names="names", preprocess="imagenet")
    assert len(str(caught.value).splitlines()) == 1


# --- a file that describes it


def describe(text: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "own.toml").write_text(textwrap.dedent(text))
    return folder / "own.toml"


def test_a_file_describes_a_network_once(folder: Path) -> None:
    path = describe(
        """
        network = "../nets.py:Net"
        weights = "best.pt"
        class_names = "names.json"
        layer = "features"

        [preprocess]
        image_size = [24, 32]
        mean = [0.1, 0.2, 0.3]
        std = [0.4, 0.5, 0.6]
        resize = "stretch"
        interpolation = "bicubic"
        """,
        folder / "described",
    )
    torch.save(state(3), folder / "described" / "best.pt")
    (folder / "described" / "names.json").write_text(json.dumps(["ant", "bee", "cat"]))
    model = load_model(path)
    assert (model.name, model.class_names) == ("own", ["ant", "bee", "cat"])
    assert model.layer.name == "features"
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    assert model.preprocess == Preprocessing((24, 32), mean, std, "stretch", "bicubic")
    assert torch.equal(weights_of(model.network), state(3)["state_dict"]["head.weight"])
    assert model.source == {"name": str(path)}
    # What is given goes before what the file says.
    torch.save(state(5), folder / "five.pt")
    other = load_model(
        path, "five.pt", layer="more", class_names=list("vwxyz"), preprocess={"image_size": 40}
    )
    assert other.preprocess == Preprocessing(40, mean, std, "stretch", "bicubic")
    assert other.class_names == list("vwxyz")
    assert other.layer.name == "more"


def test_a_transform_is_named_relative_to_the_file_that_describes(folder: Path) -> None:
    (folder / "described").mkdir()
    (folder / "described" / "transforms.py").write_text(
        "from captum_groupcam.models import Preprocessing\n"
        "own = Preprocessing(48, (0.1,) * 3, (0.2,) * 3)\n"
    )
    path = describe(
        """
        network = "squeezenet1_1"
        weights = "random"
        preprocess = {base = "transforms.py:own", interpolation = "bicubic"}
        """,
        folder / "described",
    )
    expected = Preprocessing(48, (0.1,) * 3, (0.2,) * 3, interpolation="bicubic")
    assert load_model(path).preprocess == expected


def test_a_file_describes_a_published_network(folder: Path) -> None:
    path = describe(
        """
        network = "squeezenet1_1"
        weights = "random"
        class_names = ["no", "yes"]
        preprocess = {image_size = 64}
        """,
        folder,
    )
    model = load_model(path)
    assert model.class_names == ["no", "yes"]
    assert model.preprocess == Preprocessing(64, IMAGENET.mean, IMAGENET.std, 73)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network = ", "own.toml cannot be read: Invalid value"),
        ("weights = 'a.pt'", "does not say which network; expected network, weights, layer"),
        ("network = 'nets:Net'\nweigths = 'a.pt'", "has the unknown entry 'weigths'; expected"),
        ("network = 3", "network must be str, got 3"),
        (
            "network = 'nets:Net'\npreprocess = ['a']",
            r"preprocess must be str or dict, got \['a'\]",
        ),
        ("network = 'nets:Net'\n[preprocess]\nimage_side = 3", "Unknown in the preprocessing"),
        ("network = 'nets:Net'\n[preprocess]\nimage_size = 3", "mean, std are missing"),
        (
            "network = 'nets:Net'\n[preprocess]\nimage_size = 'x'\nmean = [0.5]\nstd = [0.5]",
            "The image size is a side",
        ),
        ("network = 'nets.py:Nett'", "has no 'Nett'"),
        ("network = 'nest.py:Net'", "There is no file"),
    ],
)
def test_what_describes_no_network(text: str, message: str, folder: Path) -> None:
    describe(text, folder)
    with pytest.raises(ValueError, match=message):
        load_model("own.toml")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"There is no file nowhere\.toml"):
        load_model("nowhere.toml")
