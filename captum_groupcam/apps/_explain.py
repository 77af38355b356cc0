"""``captum-groupcam explain`` and ``demo``: what they compute, draw and print."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from captum_groupcam.analysis.uncertainty import scored_masks
from captum_groupcam.apps._passes import accelerated_where_it_pays, passes_per_image
from captum_groupcam.apps.console import printable, progress_bar, say
from captum_groupcam.attr.group_cam import GroupCAM
from captum_groupcam.images import ImageError, open_image, sample_images, scan_images
from captum_groupcam.methods import METHODS, MethodSpec, offered_methods
from captum_groupcam.metrics.functional import deletion_insertion
from captum_groupcam.models import ImageClassifier, load_model
from captum_groupcam.naming import one_line
from captum_groupcam.visualization import (
    curves,
    group_panels,
    is_own_picture,
    method_grid,
    method_sheet,
    overlay,
    save_figure,
)

__all__ = ["ALL", "Explaining", "demo_figure", "file_part", "find_class"]
__all__ += ["find_device", "output_names"]

#: What ``--method`` takes for all of :data:`~captum_groupcam.methods.METHODS`, in one picture.
ALL = "all"
#: The longest name of a file that file systems take, in bytes.
_LONGEST = 255
#: The longest part of it that says the method, in characters.
_LONGEST_PART = 40


@dataclass(frozen=True, eq=False)
class Explaining:
    """What ``explain`` is to do, its arguments checked.

    Attributes:
        model (ImageClassifier): The network.
        specs (dict of str to MethodSpec): The methods, by what was typed.
        sheet (bool): Whether all of them go into one picture.
        target (int or None): The class; None is each picture's likeliest.
        kinds (list of str): What is drawn: "" is the map, "_groups" and "_curves".
        out (Path): Folder for the pictures.
        force (bool): Whether existing files are overwritten, even those of another program.
        accelerate (bool or None): Whether a faster copy of the network answers queries; None, where
            that pays.
        console, errors (rich.console.Console): Where to print.
    """

    model: ImageClassifier
    specs: dict[str, MethodSpec]
    sheet: bool
    target: int | None
    kinds: list[str]
    out: Path
    force: bool
    accelerate: bool | None
    console: Console
    errors: Console
    _failures: list[str] = field(default_factory=list)

    @classmethod
    def checked(
        cls,
        network: Mapping[str, Any],
        *,
        method: str,
        target: str | None,
        groups: bool,
        curves: bool,
        out: Path,
        force: bool,
        device: str | None,
        accelerate: bool | None = None,
    ) -> Explaining:
        """Checks arguments, loads the network, and tries the folder.

        Raises:
            ValueError: If an argument is wrong.
            TypeError: If an option of the method is of another type.
            OSError: If nothing can be written to the folder.
        """
        console = Console()
        names = offered_methods() if method == ALL else [method]
        specs = {name: MethodSpec.parse(name, importing=True) for name in names}
        if groups and not (method in specs and specs[method].method.grouped):
            grouped = [name for name in offered_methods() if METHODS[name].grouped]
            raise ValueError(f"{method} has no groups; with --groups go {', '.join(grouped)}.")
        model = load_model(**network, device=find_device(device))
        model = model.accelerated() if accelerate else model
        for note in model.notes:
            say(console, note)
        for spec in specs.values():
            # Where there is no such layer, or none can be found, nothing need be begun.
            if spec.method.on_layer and method != ALL:
                _ = (model.at_layer(spec.layer) if spec.layer else model).layer
        chosen = None if target is None else find_class(target, model.class_names)
        _ = model.mean  # pictures are shown as the network sees them
        _try_folder(out)
        return cls(
            model=model,
            specs=specs,
            sheet=method == ALL,
            target=chosen,
            kinds=["", *["_groups"] * groups, *["_curves"] * curves],
            out=out,
            force=force,
            accelerate=accelerate,
            console=console,
            errors=Console(stderr=True),
        )

    def explain(self, paths: Sequence[Path]) -> bool:
        """Explains image files, and those in folders.

        Args:
            paths (sequence of Path): Files and folders.

        Returns:
            bool: Whether all went well; what did not is printed, and does not end the rest.
        """
        files = self._found(paths)
        passes = passes_per_image(
            self.specs.values(), groups="_groups" in self.kinds, curves="_curves" in self.kinds
        )
        model = self.model
        if self.accelerate is None:
            model, said = accelerated_where_it_pays(model, len(files) * passes)
            for line in said:
                say(self.console, line)
        replace(self, model=model)._explain_files(files)
        if self._failures:
            say(
                self.errors,
                f"{_counted(len(self._failures), 'failure')}, {_counted(len(files), 'file')} found",
                "red",
            )
        return not self._failures

    def _explain_files(self, files: list[Path]) -> None:
        drawn = ALL if self.sheet else file_part(next(iter(self.specs.values())))
        outputs = {kind: output_names(files, drawn + kind, self.out) for kind in self.kinds}
        steps = len(self.specs) + len(self.kinds)
        with progress_bar(self.console) as progress:
            bar = progress.add_task("", total=len(files) * steps)

            def step(name: str) -> None:
                progress.update(bar, description=printable(name), advance=1)

            for index, file in enumerate(files):
                progress.update(bar, completed=index * steps)
                self._explain_file(
                    file, {kind: self.out / outputs[kind][index] for kind in self.kinds}, step
                )

    def _found(self, paths: Sequence[Path]) -> list[Path]:
        files: list[Path] = []
        for path in paths:
            try:
                scan = scan_images(path)
            except ImageError as error:
                self._fail(str(error))
                continue
            files += scan.images
            for reason, places in scan.left_out.items():
                named = ", ".join(place.name for place in places[:3])
                more = f" and {len(places) - 3} more" if len(places) > 3 else ""
                say(self.console, f"{path}: {named}{more} left out: {reason}", "yellow")
            if not scan.images:
                self._fail(f"{path}: no image in this folder")
        return list(dict.fromkeys(files))

    def _explain_file(
        self, file: Path, outputs: Mapping[str, Path], step: Callable[[str], None]
    ) -> None:
        for path in outputs.values():
            if not self.force and os.path.lexists(path) and not is_own_picture(path):
                self._fail(
                    f"{file}: {path} is there, and not known as a picture of this program: give "
                    "another --out, or --force to overwrite it"
                )
                return
        try:
            inputs = self.model.prepare(open_image(file))
            best = self._print_classes(file, inputs)
        except ImageError as error:
            self._fail(str(error))
            return
        except Exception as error:  # preprocessing and network may be the user's
            self._fail(f"{file}: {one_line(error)}")
            return
        target = best if self.target is None else self.target
        maps: dict[str, Tensor] = {}
        for name, spec in self.specs.items():
            step(name)
            with self._noting(f"{file}: {name}"):
                maps[name] = self._model_of(spec).explain(spec.name, inputs, target, **spec.options)
        spec = next(iter(self.specs.values()))
        draw: dict[str, Callable[[], Figure]] = {
            "": partial(_picture, self.model, inputs, target, maps, sheet=self.sheet),
            "_groups": partial(_groups, self._model_of(spec), spec, inputs, target),
            "_curves": partial(_curves, self.model, inputs, target, maps),
        }
        for kind, path in outputs.items() if maps else ():
            what = kind.removeprefix("_") or "picture"
            step(what)
            with self._noting(f"{file}: {what}"):
                say(self.console, str(save_figure(draw[kind](), path)))

    def _model_of(self, spec: MethodSpec) -> ImageClassifier:
        return self.model.at_layer(spec.layer) if spec.layer else self.model

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Prints warnings and what fails as lines that say what they are about."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            except (ValueError, OSError, ModuleNotFoundError) as error:
                self._fail(f"{what}: {error}")
            except Exception as error:  # a method may be the user's; the next image may do
                self._fail(f"{what}: {one_line(error)}")
        for warning in caught:
            say(self.console, f"{what}: {warning.message}", "yellow")

    def _fail(self, message: str) -> None:
        self._failures.append(message)
        say(self.errors, " ".join(message.splitlines()), "red")

    def _print_classes(self, file: Path, inputs: Tensor) -> int:
        """Prints the five likeliest classes and returns the first."""
        probabilities, classes = self.model.classify(inputs)
        say(self.console, str(file))
        table = Table(show_header=False, box=None)
        for index, probability in zip(
            classes[0, :5].tolist(), probabilities[0, :5].tolist(), strict=True
        ):
            name = printable(self.model.class_names[index], self.console.encoding)
            table.add_row(f"{probability:6.1%}", f"{index:4d}", name)
        self.console.print(table, highlight=False, markup=False, emoji=False)
        return int(classes[0, 0])


def demo_figure(n_groups: int) -> Figure:
    """Explains sample photos with EfficientNet-Lite0: Group-CAM beside Grad-CAM.

    Raises:
        ModuleNotFoundError: If a package is missing, with the command that installs it.
    """
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
    with progress_bar(Console()) as progress:
        # One image at a time, so that the bar moves.
        for row in progress.track(range(len(target)), description="demo"):
            for title, (method, options) in methods.items():
                image = inputs[row : row + 1]
                maps[title] += model.explain(method, image, target[row], **options)
    titles = [
        f"{model.class_names[index]}, {probability:.0%}"
        for index, probability in zip(target, probabilities[:, 0].tolist(), strict=True)
    ]
    return method_grid(model.denormalize(inputs), maps, row_titles=titles, images_per_row=2)


# --- pictures


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


# --- arguments


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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


def file_part(spec: MethodSpec) -> str:
    """A method with its options as part of a file's name: another for any other, always the same.

    Examples::

        >>> file_part(MethodSpec.parse("layer_cam:smooth=flips"))
        'layer_cam_smooth=flips'
        >>> file_part(MethodSpec.parse("layer_cam"))
        'layer_cam'
    """
    # Some systems take no colon.
    whole = str(spec).replace(":", "_", 1)
    part = re.sub(r"[^\w.,=+()-]", "_", whole)[:_LONGEST_PART]
    mark = "" if part == whole else f"_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return part + mark


def output_names(files: list[Path], method: str, folder: Path) -> list[str]:
    """Names the overlays: no two alike, none that of an input in the same folder, none too long.

    Examples::

        >>> output_names([Path("a/cat.png"), Path("b/cat.jpg")], "group_cam", Path("out"))
        ['cat_group_cam.png', 'cat_group_cam_2.png']
    """
    # Case does not tell files apart on every system.
    taken = {file.name.casefold() for file in files if file.resolve().parent == folder.resolve()}
    names = []
    for file in files:
        name, copy = _name(file.stem, method, ""), 1
        while name.casefold() in taken:
            copy += 1
            name = _name(file.stem, method, f"_{copy}")
        taken.add(name.casefold())
        names.append(name)
    return names


def _name(stem: str, method: str, copy: str) -> str:
    end = f"_{method}{copy}.png"
    while len(os.fsencode(stem + end)) > _LONGEST:
        stem = stem[:-1]
    return stem + end


def find_device(name: str | None) -> torch.device:
    """The device of this name; if none is given, a GPU if there is one.

    Raises:
        ValueError: If it cannot be used.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # Only using it shows whether it is there.
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"Device {name!r} cannot be used: {str(error).splitlines()[0]}") from error


def _try_folder(folder: Path) -> None:
    """Finds out whether files can be written to a folder, before anything is computed."""
    trial = folder / f".{os.getpid()}.trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise OSError(f"Nothing can be written to --out {folder}: {error.strerror}.") from error
