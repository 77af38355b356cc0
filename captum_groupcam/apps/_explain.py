"""``captum-groupcam explain``: what it computes and prints."""

from __future__ import annotations

import difflib
import os
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

from captum_groupcam.apps._figures import deletion_insertion_curves, groups, picture
from captum_groupcam.apps._files import check_folder, file_part, output_names
from captum_groupcam.apps._passes import accelerated_where_it_pays, passes_per_image
from captum_groupcam.apps.console import printable, progress_bar, say
from captum_groupcam.images import ImageError, open_image, scan_images
from captum_groupcam.methods import METHODS, MethodSpec, offered_methods
from captum_groupcam.models import ImageClassifier, load_model
from captum_groupcam.naming import one_line
from captum_groupcam.visualization import is_own_picture, save_figure

__all__ = ["ALL", "Explaining", "find_class", "find_device"]

#: What ``--method`` takes for all of :data:`~captum_groupcam.methods.METHODS`, in one picture.
ALL = "all"


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
        check_folder(out)
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
        if self._failures and files:
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
            "": partial(picture, self.model, inputs, target, maps, sheet=self.sheet),
            "_groups": partial(groups, self._model_of(spec), spec, inputs, target),
            "_curves": partial(deletion_insertion_curves, self.model, inputs, target, maps),
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
