"""The command line: ``captum-groupcam explain``, ``explore`` and ``demo``."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor

from captum_groupcam.analysis.uncertainty import scored_masks
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.images import ImageError, find_images, open_image, sample_images
from captum_groupcam.methods import METHODS, MethodSpec, offered_methods
from captum_groupcam.metrics.functional import deletion_insertion
from captum_groupcam.models import ImageClassifier, load_model
from captum_groupcam.visualization import (
    curves,
    group_panels,
    method_grid,
    method_sheet,
    overlay,
    save_figure,
)

__all__ = ["ALL", "app", "find_class", "output_names"]

app = typer.Typer(
    help="Shows which part of an image made a network decide as it did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


#: What ``--method`` takes for all of :data:`~captum_groupcam.methods.METHODS`, in one picture.
ALL = "all"


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
    method: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(offered_methods())}, with options as in "
            f"rise:n_masks=1000,seed=1; or {ALL} of them in one picture."
        ),
    ] = "group_cam",
    groups: Annotated[
        bool, typer.Option("--groups", help="Draw the groups that speak most for the class, too.")
    ] = False,
    curves: Annotated[
        bool,
        typer.Option("--curves", help="Draw deletion and insertion, too: 200 passes a map."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out"),
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ... Otherwise cuda if there is one.")
    ] = None,
) -> None:
    """Prints the top 5 classes of each image and writes an overlay of what decided."""
    console, errors = Console(), Console(stderr=True)
    with _usage_errors():
        names = offered_methods() if method == ALL else [method]
        specs = {name: MethodSpec.parse(name) for name in names}
        if groups and not (method in specs and specs[method].method.grouped):
            grouped = [name for name in offered_methods() if METHODS[name].grouped]
            raise ValueError(f"{method} has no groups; with --groups go {', '.join(grouped)}.")
        loaded = load_model(model, weights, _device(device), layer=layer)
        at = {name: loaded.at_layer(s.layer) if s.layer else loaded for name, s in specs.items()}
        chosen = None if target is None else find_class(target, loaded.class_names)

    failures: list[str] = []

    def fail(message: str) -> None:
        failures.append(message)
        _say(errors, message, "red")

    files: list[Path] = []
    for path in images:
        try:
            files += find_images(path)
        except ImageError as error:
            fail(str(error))
    files = list(dict.fromkeys(files))

    kinds = ["", *["_groups"] * groups, *["_curves"] * curves]
    drawn = ALL if method == ALL else specs[method].name
    paths = {kind: output_names(files, drawn + kind, out) for kind in kinds}

    with _progress(console) as progress:
        bar = progress.add_task(method, total=len(files) * (len(names) + len(kinds)))
        for index, file in enumerate(files):
            try:
                inputs = loaded.prepare(open_image(file))
            except ImageError as error:
                fail(str(error))
                progress.advance(bar, len(names) + len(kinds))
                continue
            best = _print_classes(console, loaded, file, inputs)
            explained = best if chosen is None else chosen
            maps: dict[str, Tensor] = {}
            for name in names:
                progress.update(bar, description=name)
                try:
                    with _warnings_of(console, f"{file}: {name}"):
                        maps[name] = at[name].explain(
                            specs[name].name, inputs, explained, **specs[name].options
                        )
                except (ValueError, RuntimeError, ModuleNotFoundError) as error:
                    fail(f"{file}: {name}: {error}")
                progress.advance(bar)
            draw: dict[str, Callable[[], Figure]] = {
                "": partial(_picture, loaded, inputs, explained, maps, sheet=method == ALL),
                "_groups": partial(_groups, at[names[0]], specs[names[0]], inputs, explained),
                "_curves": partial(_curves, loaded, inputs, explained, maps),
            }
            for kind in kinds if maps else []:
                what = kind.removeprefix("_") or method
                progress.update(bar, description=what)
                try:
                    with _warnings_of(console, f"{file}: {what}"):
                        _say(console, str(save_figure(draw[kind](), out / paths[kind][index])))
                except (ValueError, OSError) as error:
                    fail(f"{file}: {error}")
                progress.advance(bar)
    if failures:
        _say(errors, f"{len(failures)} failed, {len(files)} files were found", "red")
        raise typer.Exit(1)


@app.command()
def explore(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A network on offer, as for 'explain', with '=' and weights if not the default. "
            "Can be repeated. Otherwise efficientnet_lite0."
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. With 0.0.0.0, others can use this computer."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Otherwise the first free from 7860.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ... Otherwise cuda if there is one.")
    ] = None,
) -> None:
    """Opens a page to explain images on: classes, methods side by side, groups, curves, code."""
    with _usage_errors():
        from captum_groupcam.apps.explorer import serve

        serve(model or ["efficientnet_lite0"], host=host, port=port, device=_device(device))


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
    probabilities, classes = model.classify(inputs)
    target = classes[:, 0].tolist()
    methods: dict[str, tuple[str, dict[str, Any]]] = {
        "Grad-CAM": ("grad_cam", {}),
        "Group-CAM": ("group_cam", {"n_groups": n_groups}),
    }
    maps: dict[str, list[Tensor]] = {title: [] for title in methods}
    with _progress(console) as progress:
        # One image at a time, so that the bar moves.
        for row in progress.track(range(len(target)), description="demo"):
            for title, (method, options) in methods.items():
                image = inputs[row : row + 1]
                maps[title] += model.explain(method, image, target[row], **options)
    titles = [
        f"{model.class_names[index]}, {probability:.0%}"
        for index, probability in zip(target, probabilities[:, 0].tolist(), strict=True)
    ]
    figure = method_grid(model.denormalize(inputs), maps, row_titles=titles, images_per_row=2)
    with _usage_errors():
        _say(console, str(save_figure(figure, out).resolve()))


def _picture(
    model: ImageClassifier, inputs: Tensor, target: int, maps: dict[str, Tensor], *, sheet: bool
) -> Figure:
    """The map over the image, or a sheet of the image and the map of each method."""
    image, title = model.denormalize(inputs)[0], model.class_names[target]
    if sheet:
        return method_sheet(image, {name: one[0] for name, one in maps.items()}, title=title)
    (attributions,) = maps.values()
    return overlay(image, attributions[0], title=title)


def _groups(model: ImageClassifier, spec: MethodSpec, inputs: Tensor, target: int) -> Figure:
    """What the groups of the largest scores show of the image."""
    scored = scored_masks(
        GroupCAM(model.network, model.layer.module),
        inputs,
        target,
        **model.layer.keywords,
        **spec.method.fixed,
        **spec.options,
    )
    masks, scores = scored.of_sample(0)
    return group_panels(
        model.denormalize(inputs)[0], masks, scores, title=model.class_names[target]
    )


def _curves(model: ImageClassifier, inputs: Tensor, target: int, maps: dict[str, Tensor]) -> Figure:
    """Deletion and insertion of each map, by the paper's protocol."""
    results = {
        name: deletion_insertion(model.network, one, inputs, target) for name, one in maps.items()
    }
    return curves(results, title=model.class_names[target])


def _print_classes(console: Console, model: ImageClassifier, file: Path, inputs: Tensor) -> int:
    """Prints the five likeliest classes and returns the first."""
    probabilities, classes = model.classify(inputs)
    _say(console, str(file))
    table = Table(show_header=False, box=None)
    for index, probability in zip(
        classes[0, :5].tolist(), probabilities[0, :5].tolist(), strict=True
    ):
        table.add_row(f"{probability:6.1%}", f"{index:4d}", model.class_names[index])
    console.print(table, highlight=False)
    return int(classes[0, 0])


@contextmanager
def _warnings_of(console: Console, what: str) -> Iterator[None]:
    """Prints warnings as lines that say what they are about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        _say(console, f"{what}: {warning.message}", "yellow")


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
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
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
