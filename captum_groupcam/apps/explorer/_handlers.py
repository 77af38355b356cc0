"""What happens on a click on the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from captum_groupcam.apps.explorer._figures import group_figures, picture, title_of
from captum_groupcam.apps.explorer._gradio import gr
from captum_groupcam.apps.explorer._link import read_query
from captum_groupcam.apps.explorer._networks import Models, OnQuery
from captum_groupcam.apps.explorer._program import picture_name, program
from captum_groupcam.apps.explorer._questions import (
    Explanation,
    Photo,
    Question,
    Stopped,
    View,
    explain,
    groups_of,
    look,
    measure,
    value_at,
)
from captum_groupcam.apps.explorer._turns import Turns
from captum_groupcam.apps.explorer._visitors import Refused, Visitor, Visitors
from captum_groupcam.images import sample_images
from captum_groupcam.methods import METHODS, find_method
from captum_groupcam.metrics.functional import DeletionInsertionProtocol
from captum_groupcam.options import Value
from captum_groupcam.visualization import curves, overlay_pixels, save_figure

__all__ = ["PROGRESS", "Handlers", "messages"]

#: The default by which Gradio knows the argument that reports progress.
PROGRESS: Any = gr and gr.Progress()
#: Pixels of a picture on the page for each of the image, as the page does not enlarge it.
SCALE = 3
#: Classes that are shown whether they were asked for or not.
SHOWN_CLASSES = 5
#: Of what is wrong with a link.
_SHOWN_PROBLEMS = 8


class Handlers:
    """What happens on the page.

    Between clicks they keep the networks alone: photos and answers are the visitor's.

    Args:
        models (Models): The networks on offer.
        visitors (Visitors): Who has the page open.
        references (mapping of str to str, optional): What methods of one's own were loaded by, by
            their names. Default: none.
        time_limit (float, optional): Seconds that one click may compute. Default: 300.
        clock (Callable, optional): Gives seconds. Default: a clock that never goes back.
    """

    def __init__(
        self,
        models: Models,
        visitors: Visitors,
        references: Mapping[str, str] | None = None,
        time_limit: float = 300,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models = models
        self.visitors = visitors
        self.references = references or {}
        self.time_limit = time_limit
        self.clock = clock
        self.turns = Turns()
        self.samples = list(sample_images())

    # --- choosing

    def open_file(
        self, path: str | None, name: str, model: str, request: gr.Request
    ) -> tuple[Any, ...]:
        """Opens an uploaded file, and clears the field that it was uploaded by."""
        with self._turn(request) as turn:
            if path is None:
                raise ValueError("Choose an image first.")
            name = PurePath(name).name or Path(path).name
            try:
                photo = Photo(name, turn.visitor.copy(Path(path)))
            except OSError as error:
                raise ValueError(f"{name} is no longer there: upload it again.") from error
            try:
                return None, *self._look(turn.visitor, photo, model)
            except BaseException:
                photo.remove()
                raise

    def open_sample(self, model: str, event: gr.SelectData, request: gr.Request) -> tuple[Any, ...]:
        """Opens a sample, which takes the place of an uploaded file."""
        with self._turn(request) as turn:
            if event.index not in range(len(self.samples)):
                raise ValueError("There is no such sample.")
            return self._look(turn.visitor, Photo(self.samples[event.index]), model)

    def choose_model(self, model: str, request: gr.Request) -> tuple[Any, ...]:
        """Offers the layers of a network, and shows it the photo."""
        with self._turn(request) as turn:
            layers, view = self._layers(model), turn.visitor.view
            turn.visitor.target = None
            looked = _nothing() if view is None else self._look(turn.visitor, view.photo, model)
            return layers, *looked

    def restore(self, request: gr.Request) -> tuple[dict[str, Value], Any, Any]:
        """Reads the settings that the page's address names.

        Offers the layers of the network, and the class, which is kept for the first photo. What is
        wrong with an address is a message.
        """
        query = dict(request.query_params)
        known = self.models.are_listed(query.get("network", self.models.names[0]))
        # To load a network takes its time.
        with messages() if known else self._turn(request):
            settings, problems = read_query(query, self.models)
            network = str(settings.get("network", self.models.names[0]))
            layers = self._layers(network, str(settings.get("layer", "")))
            target = settings.get("target")
            if isinstance(target, int):
                self.visitors[str(request.session_hash)].target = target
                name = self.models.load(network).class_names[target]
                classes = gr.update(choices=[(f"{name} ({target})", target)], value=target)
            else:
                classes = gr.skip()
        if problems:
            # Somebody else's text: not all of it, and without its markup.
            lines = [escape(problem) for problem in problems[:_SHOWN_PROBLEMS]]
            gr.Warning("<br>".join(["The link is not restored in full.", *lines]))
        return settings, layers, classes

    def show_classes(self, target: int, request: gr.Request) -> dict[str, float]:
        """Shows the likeliest classes, and the one that is asked for."""
        with messages():
            view = self.visitors[str(request.session_hash)].view
            return {} if view is None else self._bars(view, target)

    def choose_class(self, event: gr.SelectData) -> int:
        """Takes the class whose bar was clicked."""
        with messages():
            return int(str(event.value).rpartition("(")[2].rstrip(")"))

    # --- computing

    def explain(
        self,
        model: str,
        layer: str,
        target: int | None,
        methods: Sequence[tuple[str, Mapping[str, Any]]],
        request: gr.Request,
        progress: gr.Progress,
    ) -> tuple[Any, ...]:
        """Answers a question by one method, or two of them one after the other."""
        with self._turn(request) as turn:
            view = turn.visitor.view
            if view is None or target is None:
                raise ValueError("Choose an image first.")
            if view.model != model:
                raise ValueError(
                    f"{model} has not seen the image. Wait for its classes, or choose it again."
                )
            answers = tuple(
                explain(
                    self.models,
                    Question(view, layer, target, method, dict(options)),
                    turn.reporter(progress, method, find_method(method).n_passes(**options)),
                )
                for method, options in methods
            )
            turn.visitor.answers = answers
        _, *others = _no_results()
        return _summary(answers), *others

    def measure(self, step: float, request: gr.Request, progress: gr.Progress = PROGRESS) -> Any:
        """Draws deletion and insertion curves of all answers."""
        with self._turn(request) as turn:
            answers = _answers_of(turn.visitor)
            n_points = len(DeletionInsertionProtocol(step).counts(answers[0].attribution.numel()))
            results = {
                title_of(answer.question): measure(
                    self.models,
                    answer,
                    step,
                    turn.reporter(progress, answer.question.method, 2 * n_points),
                )
                for answer in answers
            }
            title = f"{answers[0].class_name}: {step:.0%} of the pixels at a time"
            return _shown(turn.visitor, "curves", curves(results, title=title))

    def divide(self, request: gr.Request, progress: gr.Progress = PROGRESS) -> list[Any]:
        """Draws the groups of each side that has groups, and how sure its map is."""
        hidden = [gr.update(value=None, visible=False)] * 2
        pictures = []
        with self._turn(request) as turn:
            answers = _answers_of(turn.visitor)
            if not any(find_method(answer.question.method).grouped for answer in answers):
                grouped = ", ".join(name for name, method in METHODS.items() if method.grouped)
                raise ValueError(f"These maps have no groups. With groups are {grouped}.")
            for side, answer in enumerate(answers):
                question = answer.question
                method = find_method(question.method)
                if not method.grouped:
                    pictures += hidden
                    continue
                report = turn.reporter(
                    progress, question.method, method.n_passes(**question.options)
                )
                figures = group_figures(answer, groups_of(self.models, answer, report))
                pictures += [
                    _shown(turn.visitor, f"groups-{side}-{place}", figure)
                    for place, figure in enumerate(figures)
                ]
        return (pictures + hidden)[:4]

    def stop(self, request: gr.Request) -> str:
        """Ends what is computed for a page, before the network's next forward pass."""
        with messages():
            self.visitors[str(request.session_hash)].stop()
        self.turns.look_again()
        return "Stopped."

    # --- showing

    def draw(self, alpha: float, request: gr.Request) -> tuple[Any, ...]:
        """Draws the maps of both sides over what the network saw, and writes the program."""
        with messages():
            visitor = self.visitors[str(request.session_hash)]
            answers = visitor.answers
            pictures = [
                _shown(
                    visitor,
                    f"map-{side}",
                    Image.fromarray(
                        overlay_pixels(answer.shown, answer.attribution, alpha=alpha, scale=SCALE)
                    ),
                    title_of(answer.question).replace("\n", ", "),
                )
                for side, answer in enumerate(answers)
            ]
            code = program(answers, self.models, alpha, self.references) if answers else ""
        missing = [gr.skip(), gr.update(value=None, visible=False)]
        return *pictures, *missing[len(pictures) :], code

    def point_at(self, side: int) -> Callable[..., str]:
        """Makes what says the value of a side's map where its picture was clicked."""

        def point(event: gr.SelectData, request: gr.Request) -> str:
            with messages():
                answers = self.visitors[str(request.session_hash)].answers
                if side >= len(answers) or None in event.index:  # no map yet, or beside the picture
                    return ""
                x, y = (int(position) // SCALE for position in event.index)
                return value_at(answers[side], x, y)

        return point

    def save_picture(self, alpha: float, request: gr.Request) -> str:
        """Writes the photo and its maps as one picture."""
        with messages():
            visitor = self.visitors[str(request.session_hash)]
            answers = _answers_of(visitor)
            path = visitor.new_file("picture", picture_name(answers))
            return str(save_figure(picture(answers, alpha), path))

    def save_program(self, alpha: float, request: gr.Request) -> str:
        """Writes the program that makes the same picture."""
        with messages():
            visitor = self.visitors[str(request.session_hash)]
            answers = _answers_of(visitor)
            path = visitor.new_file("program", picture_name(answers)).with_suffix(".py")
            path.write_text(program(answers, self.models, alpha, self.references), encoding="utf-8")
            return str(path)

    # --- parts

    def _layers(self, model: str, chosen: str = "") -> Any:
        default = f"{self.models.default_layer(model)} (default)"
        names = reversed(self.models.layers(model))
        # An empty string, since None would be no choice.
        return gr.update(choices=[(default, ""), *((name, name) for name in names)], value=chosen)

    def _look(self, visitor: Visitor, photo: Photo, model: str) -> tuple[Any, ...]:
        """Shows a photo as it is and as the network sees it, and its classes; offers all."""
        view = look(self.models, photo, model)
        visitor.show(view)
        names = self.models.load(model).class_names
        choices = [
            (f"{names[index]} ({index}), {probability:.1%}", index)
            for index, probability in view.ranked
        ]
        linked, visitor.target = visitor.target, None
        first = choices[0][1] if linked not in range(len(names)) else linked
        seen = Image.fromarray((view.shown.permute(1, 2, 0) * 255).byte().numpy())
        return (
            _shown(visitor, "thumbnail", view.thumbnail, photo.name),
            self._bars(view, first),
            gr.update(choices=choices, value=first),
            _shown(visitor, "map-0", seen, "What the network sees"),
            gr.update(value=None, visible=False),
            *_no_results(),
        )

    def _bars(self, view: View, target: int | None) -> dict[str, float]:
        names = self.models.load(view.model).class_names
        return {
            f"{names[index]} ({index})": probability
            for place, (index, probability) in enumerate(view.ranked)
            if place < SHOWN_CLASSES or index == target
        }

    @contextmanager
    def _turn(self, request: gr.Request) -> Iterator[Turn]:
        """Waits until nothing else is computed, and shows errors as messages."""
        with messages():
            session = str(request.session_hash)
            visitor = self.visitors[session]
            stopped = visitor.stopped

            def check() -> None:
                if stopped.is_set() or not self.visitors.is_there(visitor):
                    raise Stopped("Stopped.")

            with self.turns.take(visitor.address, session, check):
                ends = self.clock() + self.time_limit

                def check_time_too() -> None:
                    check()
                    if self.clock() > ends:
                        raise Stopped(
                            f"Stopped after {self.time_limit:g} seconds, the limit of one request. "
                            "Ask for less, or start the explorer with another --time-limit."
                        )

                yield Turn(visitor, check_time_too)


@dataclass(frozen=True)
class Turn:
    """The time in which a visitor's request is computed, and nothing else is.

    Attributes:
        visitor (Visitor): Whose request it is.
        check (Callable): Raises :class:`Stopped` when it is over.
    """

    visitor: Visitor
    check: Callable[[], None]

    def reporter(self, progress: gr.Progress, what: str, total: int | None) -> OnQuery:
        """Makes what is called before each forward pass."""

        def report(done: int) -> None:
            self.check()
            # Methods also ask about the whole image and its baseline.
            progress(
                (done if total is None else min(done, total), total), desc=what, unit="queries"
            )

        return report


def _answers_of(visitor: Visitor) -> tuple[Explanation, ...]:
    if not visitor.answers:
        raise ValueError("Explain an image first.")
    return visitor.answers


def _shown(visitor: Visitor, kind: str, picture: Figure | Image.Image, label: str = "") -> Any:
    """Shows a picture, in place of the last one of its kind."""
    path = visitor.new_file(kind, f"{kind}.png")
    if isinstance(picture, Figure):
        save_figure(picture, path)
    else:
        picture.save(path)
    return gr.update(value=str(path), label=label, visible=True)


def _no_results() -> tuple[Any, ...]:
    """Empties what belongs to maps: status, program, values, groups and their errors, curves."""
    return "", "", "", "", *[gr.update(value=None, visible=False)] * 5


def _nothing() -> tuple[Any, ...]:
    """Empties what belongs to a photo."""
    return (
        gr.update(value=None, label="Photo"),
        None,
        gr.update(choices=[], value=None),
        None,
        gr.update(value=None, visible=False),
        *_no_results(),
    )


def _summary(answers: Sequence[Explanation]) -> str:
    first = answers[0]
    queries = ", ".join(f"{answer.question.method} {answer.queries}" for answer in answers)
    lines = [
        f"**{first.class_name}**, {first.probability:.1%}",
        f"Images shown to the network: {queries}",
        *(warning for answer in answers for warning in answer.warnings),
    ]
    return "  \n".join(lines)


@contextmanager
def messages() -> Iterator[None]:
    """Shows what a user can mend as a message on the page, not as a traceback."""
    try:
        yield
    except (
        *(Refused, Stopped),
        *(ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError),
    ) as error:
        raise gr.Error(str(error), print_exception=False) from error
