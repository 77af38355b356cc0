"""Weights files as training loops write them, and what is no weights file at all."""

from __future__ import annotations

import argparse
import io
import os
import pathlib
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from captum_groupcam.models import load_model


def small(n_classes: int = 7) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return torchvision.models.squeezenet1_1(weights=None, num_classes=n_classes)


class Lightning(nn.Module):
    """What a LightningModule is to a checkpoint: the network under a name, and what else it has."""

    def __init__(self, network: nn.Module, name: str = "model") -> None:
        super().__init__()
        self.add_module(name, network)
        self.register_buffer("loss_weight", torch.ones(7))


STATE = small().state_dict()
OTHER = {name: tensor + 1 for name, tensor in STATE.items()}

#: Each way to save STATE, with what is said about it.
SAVED: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "plain": (lambda: STATE, []),
    "a dict of tensors": (lambda: dict(STATE), []),
    "state_dict": (lambda: {"epoch": 3, "state_dict": STATE}, ["under 'state_dict'"]),
    "model_state_dict": (
        lambda: {
            "model_state_dict": STATE,
            "optimizer_state_dict": torch.optim.Adam(small().parameters()).state_dict(),
            "loss": torch.tensor(0.5),
        },
        ["under 'model_state_dict'"],
    ),
    "model": (lambda: {"model": STATE, "args": argparse.Namespace(lr=1)}, ["under 'model'"]),
    "ema": (lambda: {"ema": {"decay": 0.9, "module": STATE}}, ["under 'ema.module'"]),
    "numbers of numpy": (
        lambda: {"net": STATE, "best": np.float64(0.5), "at": pathlib.Path("x")},
        ["under 'net'"],
    ),
    "the same twice": (lambda: {"model": STATE, "best": dict(STATE)}, ["under 'model'"]),
    "DataParallel": (lambda: nn.DataParallel(small()).state_dict(), ["'module.'"]),
    "torch.compile": (lambda: torch.compile(small()).state_dict(), ["'_orig_mod.' taken off 52"]),
    "a part compiled": (
        lambda: {
            (f"features._orig_mod.{name[9:]}" if name.startswith("features.") else name): value
            for name, value in STATE.items()
        },
        ["'_orig_mod.' taken off 50"],
    ),
    "Lightning": (
        lambda: {
            "pytorch-lightning_version": "2.5.0",
            "state_dict": Lightning(small()).state_dict(),
            "hyper_parameters": {"lr": 0.1},
            "callbacks": {},
        },
        ["under 'state_dict'", "'model.'", "left out, for the network has none of these: loss_w"],
    ),
    "Lightning, compiled": (
        lambda: {"state_dict": Lightning(torch.compile(small()), "net").state_dict()},
        ["under 'state_dict'", "'_orig_mod.' taken off 52", "'net.'", "loss_weight"],
    ),
    "DataParallel of a compiled one": (
        lambda: nn.DataParallel(torch.compile(small())).state_dict(),
        ["'_orig_mod.' taken off 52", "'module.'"],
    ),
    "half precision": (lambda: small().half().state_dict(), []),
}


def scores(network: nn.Module) -> Tensor:
    with torch.no_grad():
        return network.eval()(torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64))


@pytest.mark.parametrize("kind", SAVED)
def test_weights_as_training_loops_write_them(kind: str, tmp_path: Path) -> None:
    make, said = SAVED[kind]
    path = tmp_path / "best.pt"
    torch.save(make(), path)
    model = load_model("squeezenet1_1", path)
    tolerance = 2e-2 if kind == "half precision" else 1e-5
    torch.testing.assert_close(scores(model.network), scores(small()), rtol=1e-3, atol=tolerance)
    assert len(model.class_names) == 7
    assert len(model.notes) == len(said), model.notes
    for note, part in zip(model.notes, said, strict=True):
        assert note.startswith(f"{path}: ")
        assert part in note


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors(prefix: str, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    for name in ("a.safetensors", "a.pth"):  # the content says what it is
        save_file({prefix + key: value for key, value in STATE.items()}, tmp_path / name)
        model = load_model("squeezenet1_1", tmp_path / name)
        torch.testing.assert_close(scores(model.network), scores(small()), rtol=1e-3, atol=1e-5)


def test_versions_of_modules_go_along(tmp_path: Path) -> None:
    network = torchvision.models.mnasnet0_5(weights=None)  # refuses a state dict without a version
    torch.save({"state_dict": nn.DataParallel(network).state_dict()}, tmp_path / "a.pt")
    model = load_model("mnasnet0_5", tmp_path / "a.pt")
    torch.testing.assert_close(scores(model.network), scores(network), rtol=1e-3, atol=1e-4)


def test_files_from_before_the_counters_of_batch_norm(tmp_path: Path) -> None:
    network = torchvision.models.resnet18(weights=None)
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth")
    model = load_model("resnet18", tmp_path / "old.pth")
    torch.testing.assert_close(scores(model.network), scores(network), rtol=1e-3, atol=1e-4)


def test_of_several_state_dicts_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"model": OTHER, "ema": STATE}, path)
    with pytest.raises(ValueError, match=rf"several state dicts that fit: model, ema.*{path}:ema"):
        load_model("squeezenet1_1", path)
    model = load_model("squeezenet1_1", f"{path}:ema")
    torch.testing.assert_close(scores(model.network), scores(small()), rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match=r"last\.pt has no state dict 'emma'; it has model, ema"):
        load_model("squeezenet1_1", f"{path}:emma")


def test_another_head_than_the_names_say(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pt")
    names = [f"name {i}" for i in range(7)]
    assert load_model("squeezenet1_1", tmp_path / "a.pt", class_names=names).class_names == names
    with pytest.raises(ValueError, match=r"is of a network of 7 classes; there are 2 names"):
        load_model("squeezenet1_1", tmp_path / "a.pt", class_names=["cat", "dog"])


def changed(**entries: Any) -> dict[str, Any]:
    names = {"weight": "classifier.1.weight", "bias": "classifier.1.bias", "extra": "extra.weight"}
    state = {**STATE, **{names[key]: value for key, value in entries.items()}}
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {}, "to hold a state dict"),
        (lambda: [1, 2], "to hold a state dict"),
        (lambda: {"epoch": 3}, "to hold a state dict"),
        (lambda: {"weight": torch.ones(3)}, "is of another network: 5[0-9] entries"),
        (lambda: changed(bias=None), r"1 entries .* classifier\.1\.bias"),
        (lambda: changed(extra=torch.ones(3)), r"1 entries .* extra\.weight"),
        (lambda: changed(bias=torch.ones(9)), "is of a network of 9 classes; there are 7 names"),
        (lambda: changed(bias=torch.ones(7, dtype=torch.int64)), r"classifier\.1\.bias"),
        (lambda: changed(bias=torch.ones(7, dtype=torch.complex64)), r"classifier\.1\.bias"),
        (lambda: changed(bias=torch.ones(7).to_sparse()), r"classifier\.1\.bias"),
        (lambda: changed(bias=torch.full((7,), torch.nan)), r"NaN or infinite in classifier\.1"),
        (lambda: {"other": {1: STATE}}, "to hold a state dict"),
        (lambda: small(), r"more than tensors .*SqueezeNet"),
        (lambda: {"model": small()}, r"more than tensors .*SqueezeNet"),
    ],
)
def test_what_is_no_weights_of_this_network(content, message: str, tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message) as caught:
        load_model("squeezenet1_1", tmp_path / "a.pt", class_names=list("abcdefg"))
    assert len(str(caught.value).splitlines()) == 1


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda c, p: p.write_bytes(pickle.dumps(c))])
def test_weights_run_no_code(save, tmp_path: Path) -> None:
    save({"weight": Malicious(tmp_path / "broken_in")}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="could run code"):
        load_model("squeezenet1_1", tmp_path / "bad.pth")
    assert not (tmp_path / "broken_in").exists()


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def test_whatever_a_file_holds_it_ends_in_one_line(tmp_path: Path) -> None:
    """Texts, noise, cuts of real files and files with single bytes changed."""
    draw = random.Random(0)
    tiny = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).state_dict()
    whole = [
        saved(tiny),
        saved({"epoch": 1, "state_dict": tiny}, _use_new_zipfile_serialization=False),
        pickle.dumps({"a": [1, 2.0, "x"]}, protocol=2),
        b"hello world",
        b"GIF89a" + bytes(40),
        (20).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}}' + bytes(30),
    ]
    path = tmp_path / "fuzzed.pth"
    seen = set()
    for number in range(600):
        content = bytearray(draw.choice(whole))
        if number >= len(whole):
            kind = draw.randrange(4)
            if kind == 0:
                del content[draw.randrange(len(content)) :]
            elif kind == 1:
                content = bytearray(draw.randbytes(draw.randrange(200)))
            else:
                for _ in range(draw.choice([1, 3, 20])):
                    content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"fuzzed\.pth") as caught:
            load_model("squeezenet1_1", path)
        assert len(str(caught.value).splitlines()) == 1, content
        seen.add(str(caught.value).split(str(path))[0])
    assert {"Cannot read ", "The state dict in "} <= seen


@pytest.mark.parametrize("name", ["", "x" * 300, "folder", "nul\0byte", "a.pt:"])
def test_what_is_no_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for model in ("squeezenet1_1", "efficientnet_lite0", "timm:resnet18"):
        with pytest.raises(ValueError, match="Unknown weights"):
            load_model(model, f"{tmp_path}/{name}" if name else name)
