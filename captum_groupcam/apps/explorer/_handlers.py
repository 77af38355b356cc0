"""What happens on a click on the page."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from captum_groupcam.apps.explorer._figures import group_figures, picture, script, title_of
from captum_groupcam.apps.explorer._gradio import gr
from captum_groupcam.apps.explorer._networks import Models, OnQuery, classify
from captum_groupcam.apps.explorer._questions import (
    Explanation,
    Photo,
    Question,
    Stopped,
    explain,
    groups_of,
    measure,
    value_at,
)
from captum_groupcam.images import ImageError, sample_images
from captum_groupcam.methods import METHODS, find_method
from captum_groupcam.metrics.functional import DeletionInsertionProtocol
from captum_groupcam.visualization import curves, overlay_pixels, save_figure

__all__ = ["PROGRESS", "Handlers"]

#: The default by which Gradio knows the argument that reports progress.
PROGRESS: Any = gr and gr.Progress()
#: Pixels of a picture on the page for each of the image, as the page does not enlarge it.
SCALE = 3
_FIRST = "Explain an image first."


class Handlers:
    """What happens on the page.

    Between clicks they keep the networks alone: photos and answers are the session's.

    Args:
        models (Models): The networks on offer.
        folder (str or Path): Where files go that are served.
    """

    def __init__(self, models: Models, folder: str | Path) -> None:
        self.models = models
        self.folder = folder
        self.samples = list(sample_images())
        self._running: dict[str, threading.Event] = {}

    # --- choosing

    def open_file(self, path: str | None) -> Photo | None:
        """Opens an uploaded file."""
        if path is None:
            return None
        try:
            return Photo.from_file(path)
        except ImageError as error:
            # Where the server keeps it is nobody's business.
            message = str(error).replace(path, Path(path).name)
            raise gr.Error(message, print_exception=False) from error

    def open_sample(self, event: gr.SelectData) -> tuple[Photo, None]:
        """Opens a sample, which takes the place of an uploaded file."""
        with _messages():
            return Photo.from_sample(self.samples[event.index]), None

    def list_layers(self, model: str) -> Any:
        """Offers the layers of a model, the last first."""
        with _messages():
            default = f"{self.models.default_layer(model)} (default)"
            names = reversed(self.models.layers(model))
        # An empty string, since None would be no choice.
        return gr.Dropdown([(default, ""), *((name, name) for name in names)], value="")

    def look(self, photo: Photo | None, model: str) -> tuple[Any, ...]:
        """Shows a photo as the network sees it, and the likeliest classes; offers all."""
        no_second = gr.Image(None, visible=False)
        if photo is None:
            return (), None, gr.Dropdown([], value=None), "", None, no_second, *_no_results()
        with _messages():
            loaded = self.models.load(model)
            classes = classify(loaded, photo.image)
            (seen,) = loaded.denormalize(loaded.prepare(photo.image)).cpu()
        names = {index: f"{loaded.class_names[index]} ({index})" for index, _ in classes}
        choices = [(f"{names[index]}, {probability:.1%}", index) for index, probability in classes]
        return (
            (),
            {names[index]: probability for index, probability in classes[:5]},
            gr.Dropdown(choices, value=classes[0][0]),
            "",
            gr.Image((seen.permute(1, 2, 0) * 255).byte().numpy(), label="What the network sees"),
            no_second,
            *_no_results(),
        )

    def choose_class(self, event: gr.SelectData) -> int:
        """Takes the class whose bar was clicked."""
        return int(event.value.rpartition("(")[2].rstrip(")"))

    # --- computing

    def explain(
        self,
        questions: Sequence[Question],
        request: gr.Request,
        progress: gr.Progress,
    ) -> tuple[Any, ...]:
        """Answers questions, one after the other."""
        if not questions or questions[0].photo is None:
            raise gr.Error("Choose an image first.", print_exception=False)
        with self._stoppable(request) as stopped:
            answers = tuple(
                explain(
                    self.models,
                    question,
                    _reporter(
                        stopped,
                        progress,
                        question.method,
                        find_method(question.method).n_passes(**question.options),
                    ),
                )
                for question in questions
            )
        return answers, _summary(answers), *_no_results()

    def measure(
        self,
        answers: tuple[Explanation, ...],
        step: float,
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> Any:
        """Draws deletion and insertion curves of all answers."""
        if not answers:
            raise gr.Error(_FIRST, print_exception=False)
        n_points = len(DeletionInsertionProtocol(step).counts(answers[0].attribution.numel()))
        with self._stoppable(request) as stopped:
            results = {
                title_of(answer.question): measure(
                    self.models,
                    answer,
                    step,
                    _reporter(stopped, progress, answer.question.method, 2 * n_points),
                )
                for answer in answers
            }
        title = f"{answers[0].class_name}: {step:.0%} of the pixels at a time"
        return gr.Image(self._save(curves(results, title=title), "curves.png"), visible=True)

    def divide(
        self,
        answers: tuple[Explanation, ...],
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> list[Any]:
        """Draws the groups of each side that has groups, and how sure its map is."""
        if not any(find_method(answer.question.method).grouped for answer in answers):
            grouped = ", ".join(name for name, method in METHODS.items() if method.grouped)
            raise gr.Error(f"{_FIRST} With groups are {grouped}.", print_exception=False)
        hidden = [gr.Image(None, visible=False)] * 2
        pictures = []
        with self._stoppable(request) as stopped:
            for answer in answers:
                question = answer.question
                if not find_method(question.method).grouped:
                    pictures += hidden
                    continue
                total = find_method(question.method).n_passes(**question.options)
                report = _reporter(stopped, progress, question.method, total)
                figures = group_figures(answer, groups_of(self.models, answer, report))
                pictures += [gr.Image(self._save(f, "groups.png"), visible=True) for f in figures]
        return (pictures + hidden)[:4]

    def stop(self, request: gr.Request) -> str:
        """Ends what a session computes, before its next forward pass."""
        if stopped := self._running.get(str(request.session_hash)):
            stopped.set()
        return "Stopped."

    def leave(self, request: gr.Request) -> None:
        """Computes no more for somebody who has closed the page."""
        self.stop(request)

    # --- showing

    def draw(self, answers: tuple[Explanation, ...], alpha: float) -> tuple[Any, ...]:
        """Draws the maps of both sides over what the network saw."""
        pictures = [
            gr.Image(
                overlay_pixels(answer.shown, answer.attribution, alpha=alpha, scale=SCALE),
                label=title_of(answer.question).replace("\n", ", "),
                visible=True,
            )
            for answer in answers
        ]
        missing = [gr.skip(), gr.Image(None, visible=False)]
        return *pictures, *missing[len(pictures) :]

    def point_at(self, side: int) -> Callable[..., str]:
        """Makes what says the value of a side's map where its picture was clicked."""

        def point(answers: tuple[Explanation, ...], event: gr.SelectData) -> str:
            if side >= len(answers) or None in event.index:  # no map yet, or beside the picture
                return ""
            x, y = (position // SCALE for position in event.index)
            return value_at(answers[side], x, y)

        return point

    def save(self, answers: tuple[Explanation, ...], alpha: float) -> tuple[Any, ...]:
        """Writes the picture, and the code that reproduces it."""
        if not answers:
            return None, None, ""
        stem = Path(answers[0].question.photo.name).stem
        code = script(answers, alpha, self.models.device)
        program = self._new(f"{stem}_explained.py")
        program.write_text(code, encoding="utf-8")
        return self._save(picture(answers, alpha), f"{stem}_explained.png"), str(program), code

    def _save(self, figure: Figure, name: str) -> str:
        return str(save_figure(figure, self._new(name)))

    def _new(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / name

    @contextmanager
    def _stoppable(self, request: gr.Request) -> Iterator[threading.Event]:
        session, stopped = str(request.session_hash), threading.Event()
        self._running[session] = stopped
        try:
            with _messages():
                yield stopped
        finally:
            del self._running[session]


def _no_results() -> tuple[Any, ...]:
    """Empties what belongs to a map: values, groups, standard errors and curves."""
    return "", "", *[gr.Image(None, visible=False)] * 5


def _summary(answers: Sequence[Explanation]) -> str:
    first = answers[0]
    queries = ", ".join(f"{answer.question.method} {answer.queries}" for answer in answers)
    lines = [
        f"**{first.class_name}**, {first.probability:.1%}",
        f"Images shown to the network: {queries}",
        *(warning for answer in answers for warning in answer.warnings),
    ]
    return "  \n".join(lines)


def _reporter(
    stopped: threading.Event, progress: gr.Progress, what: str, total: int | None
) -> OnQuery:
    def report(done: int) -> None:
        if stopped.is_set():
            raise Stopped
        # Methods also ask about the whole image and its baseline.
        progress((done if total is None else min(done, total), total), desc=what, unit="queries")

    return report


@contextmanager
def _messages() -> Iterator[None]:
    """Shows what a user can mend as a message on the page, not as a traceback."""
    try:
        yield
    except Stopped as error:
        raise gr.Error("Stopped.", print_exception=False) from error
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        raise gr.Error(str(error), print_exception=False) from error
