"""The command line: ``captum-groupcam explain`` and ``captum-groupcam demo``."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import torch
import typer
from captum.attr import LayerAttribution, LayerGradCam
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from captum_groupcam.group_cam import GroupCAM
from captum_groupcam.images import ImageError, find_images, open_image, sample_images
from captum_groupcam.models import LoadedModel, load_model
from captum_groupcam.visualization import method_grid, overlay, save_figure

__all__ = ["METHODS", "Method", "Options", "app", "find_class", "output_names"]

app = typer.Typer(
    help="Shows which part of an image made a network decide as it did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


# --- methods


@dataclass(frozen=True)
class Options:
    """What the command line lets a user choose about a method.

    Attributes:
        n_groups (int): Number of groups of channels.
        denoise_percentile (float, optional): Percentile for denoising, None for no denoising.
    """

    n_groups: int = 32
    denoise_percentile: float | None = 70.0


#: Model, inputs (N x 3 x H x W), one class a sample and options to maps, N x 1 x H x W.
Method: TypeAlias = Callable[[LoadedModel, Tensor, list[int], Options], Tensor]


def _group_cam(model: LoadedModel, inputs: Tensor, target: list[int], options: Options) -> Tensor:
    maps: Tensor = GroupCAM(model.network, model.layer).attribute(
        inputs,
        target,
        attribute_to_layer_input=model.attribute_to_layer_input,
        n_groups=options.n_groups,
        denoise_percentile=options.denoise_percentile,
    )
    return maps


def _grad_cam(model: LoadedModel, inputs: Tensor, target: list[int], _options: Options) -> Tensor:
    maps = LayerGradCam(model.network, model.layer).attribute(
        inputs,
        target,
        attribute_to_layer_input=model.attribute_to_layer_input,
        relu_attributions=True,
    )
    size = (inputs.shape[-2], inputs.shape[-1])
    upsampled: Tensor = LayerAttribution.interpolate(maps, size, interpolate_mode="bilinear")
    return upsampled.detach()


#: Name on the command line to the method.
METHODS: dict[str, Method] = {"group_cam": _group_cam, "grad_cam": _grad_cam}


# --- commands


@app.command()
def explain(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Image files, and folders of them."),
    ],
    model: Annotated[
        str,
        typer.Option(help="efficientnet_lite0, a torchvision classifier, or timm:NAME."),
    ] = "efficientnet_lite0",
    weights: Annotated[
        str | None,
        typer.Option(help="A state dict's path, 'random', or a name of torchvision's weights."),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Dotted name of a layer. Otherwise the last one with positions."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Index or name of a class. Otherwise the likeliest."),
    ] = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "group_cam",
    n_groups: Annotated[int, typer.Option(min=1, help="Groups of channels.")] = 32,
    denoise_percentile: Annotated[str, typer.Option(help="From 0 to below 100, or 'none'.")] = "70",
    out: Annotated[Path, typer.Option(help="Folder for the overlays.")] = Path("out"),
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ... Otherwise cuda if there is one.")
    ] = None,
) -> None:
    """Prints the top 5 classes of each image and writes an overlay of what decided."""
    console, errors = Console(), Console(stderr=True)
    with _usage_errors():
        if method not in METHODS:
            raise ValueError(f"Unknown method {method!r}; known are {', '.join(METHODS)}.")
        options = Options(n_groups, _percentile(denoise_percentile))
        loaded = load_model(model, weights, _device(device), layer=layer)
        chosen = None if target is None else find_class(target, loaded.class_names)

    failures: list[str] = []
    files: list[Path] = []
    for path in images:
        try:
            files += find_images(path)
        except ImageError as error:
            failures.append(str(error))
            _say(errors, failures[-1], "red")
    files = list(dict.fromkeys(files))

    with _progress(console) as progress:
        for file, name in progress.track(
            list(zip(files, output_names(files, method, out), strict=True)), description=method
        ):
            try:
                _explain_one(console, loaded, file, chosen, METHODS[method], options, out / name)
            except (ValueError, OSError) as error:
                failures.append(str(error) if isinstance(error, ImageError) else f"{file}: {error}")
                _say(errors, failures[-1], "red")
    if failures:
        _say(errors, f"{len(failures)} failed, {len(files)} files were found", "red")
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The picture that is written.")] = Path("demo.png"),
    n_groups: Annotated[int, typer.Option(min=1, help="Groups of channels.")] = 32,
) -> None:
    """Explains sample photos with EfficientNet-Lite0: Group-CAM beside Grad-CAM, in one picture."""
    console = Console()
    with _usage_errors():
        model = load_model("efficientnet_lite0")
        photos = {name: load() for name, load in sample_images().items()}
    inputs = torch.stack([model.preprocess(photo) for photo in photos.values()])
    probabilities, classes = _classify(model, inputs)
    target = classes[:, 0].tolist()
    methods = {"Group-CAM": _group_cam, "Grad-CAM": _grad_cam}
    maps: dict[str, list[Tensor]] = {title: [] for title in methods}
    with _progress(console) as progress:
        # One image at a time, so that the bar moves.
        for row in progress.track(range(len(target)), description="demo"):
            for title, method in methods.items():
                one = inputs[row : row + 1]
                maps[title] += method(model, one, target[row : row + 1], Options(n_groups))
    titles = [
        f"{model.class_names[index]}, {probability:.0%}"
        for index, probability in zip(target, probabilities[:, 0].tolist(), strict=True)
    ]
    figure = method_grid(model.denormalize(inputs), maps, row_titles=titles)
    with _usage_errors():
        _say(console, str(save_figure(figure, out).resolve()))


def _explain_one(
    console: Console,
    model: LoadedModel,
    file: Path,
    chosen: int | None,
    method: Method,
    options: Options,
    path: Path,
) -> None:
    device = next(model.network.parameters()).device
    inputs = model.preprocess(open_image(file)).unsqueeze(0).to(device)
    probabilities, classes = _classify(model, inputs)
    target = int(classes[0, 0]) if chosen is None else chosen

    _say(console, str(file), "bold")
    for index, probability in zip(
        classes[0, :5].tolist(), probabilities[0, :5].tolist(), strict=True
    ):
        _say(console, f"{probability:7.1%}{index:6d}  {model.class_names[index]}")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maps = method(model, inputs, [target], options)
    for warning in caught:
        _say(console, f"{file}: {warning.message}", "yellow")
    figure = overlay(model.denormalize(inputs)[0], maps[0], title=model.class_names[target])
    _say(console, str(save_figure(figure, path)))


def _classify(model: LoadedModel, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and indices of all classes, the likeliest first."""
    with torch.no_grad():
        output = model.network(inputs)
    probabilities, classes = output.softmax(1).sort(1, descending=True)
    return probabilities, classes


# --- arguments


def find_class(text: str, class_names: list[str]) -> int:
    """Finds the class that is meant by an index or a name, whatever its case.

    Raises:
        ValueError: If there is none or more than one, with names that come close.

    Examples::

        >>> find_class("Tabby", ["lynx", "tabby"])
        1
    """
    wanted = text.strip().casefold()
    if wanted.isdecimal():
        if int(wanted) < len(class_names):
            return int(wanted)
        raise ValueError(f"Class {text} is out of range, there are {len(class_names)} classes.")
    names = [name.casefold() for name in class_names]
    found = [index for index, name in enumerate(names) if name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"Several classes are named {text!r}; give one of the indices {found}.")
    parts = [name for name in names if wanted in name]
    close = list(dict.fromkeys(parts + difflib.get_close_matches(wanted, names, n=8)))[:8]
    listed = ", ".join(f"{class_names[i]} ({i})" for i in map(names.index, close))
    hint = f"did you mean one of {listed}?" if close else "give its index."
    raise ValueError(f"No class is named {text!r}; {hint}")


def output_names(files: list[Path], method: str, folder: Path) -> list[str]:
    """Names the overlays: no two alike, and none that of an input in the same folder.

    Examples::

        >>> output_names([Path("a/cat.png"), Path("b/cat.jpg")], "group_cam", Path("out"))
        ['cat_group_cam.png', 'cat_group_cam_2.png']
    """
    # Case does not tell files apart on every system.
    taken = {file.name.casefold() for file in files if file.resolve().parent == folder.resolve()}
    names = []
    for file in files:
        stem = f"{file.stem}_{method}"
        name, copy = f"{stem}.png", 1
        while name.casefold() in taken:
            copy += 1
            name = f"{stem}_{copy}.png"
        taken.add(name.casefold())
        names.append(name)
    return names


def _percentile(text: str) -> float | None:
    if text.casefold() == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 100:
        raise ValueError(f"denoise-percentile is from 0 to below 100, or 'none'; got {text!r}.")
    return value


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # Only using it shows whether it is there.
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"Device {name!r} cannot be used: {str(error).splitlines()[0]}") from error


# --- output


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Turns what a wrong argument raises into a message and exit status 2."""
    try:
        yield
    except (ValueError, OSError, ModuleNotFoundError) as error:
        _say(Console(stderr=True), str(error), "red")
        raise typer.Exit(2) from error


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # Where nobody watches, a bar is only an empty line.
    unseen = not console.is_terminal
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=unseen)


def _say(console: Console, text: str, style: str = "") -> None:
    # Names are no markup, and a path that is broken over lines cannot be copied.
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
