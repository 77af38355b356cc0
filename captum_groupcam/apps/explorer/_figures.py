"""Figures of the explorer, and the code that reproduces one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

import captum_groupcam
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._questions import Explanation, Groups, Question
from captum_groupcam.visualization import group_panels, method_sheet

__all__ = ["group_figures", "picture", "picture_name", "script", "title_of"]

_SCRIPT = '''\
"""Made by the explorer of captum_groupcam {version}."""

from captum_groupcam.images import {opener}
from captum_groupcam.models import load_model
from captum_groupcam.visualization import method_sheet, save_figure

model = load_model({model})
image = {image}
inputs = model.prepare(image)

questions = [
{questions}
]
maps = {{}}
for title, method, options in questions:
    maps[title] = model.explain(method, inputs, {target}, **options)[0]

figure = method_sheet(model.denormalize(inputs)[0], maps, title={class_name}, alpha={alpha})
print(save_figure(figure, {output}))
'''


def title_of(question: Question) -> str:
    """A method, and its options that are not at their defaults."""
    options = (f"{name}={value}" for name, value in question.options.items())
    return "\n".join([question.method, *options])


def picture(explanations: Sequence[Explanation], alpha: float = 0.5) -> Figure:
    """Makes the figure of a photo and the maps that explain the same decision.

    Args:
        explanations (sequence of Explanation): Answers about one photo, model, layer and class.
        alpha (float, optional): Opacity of the maps. Default: 0.5.
    """
    first = explanations[0]
    maps = {title_of(e.question): e.attribution for e in explanations}
    return method_sheet(first.shown, maps, title=first.class_name, alpha=alpha)


def group_figures(explanation: Explanation, groups: Groups) -> list[Figure]:
    """Makes two figures of the groups behind a map: what they show, and how sure it is."""
    title = f"{title_of(explanation.question)}, {len(groups.scores)} groups"
    attribution, error = explanation.attribution, groups.standard_error
    maps = {
        f"map, up to {float(attribution.max()):.3g}": attribution,
        f"standard error, up to {float(error.max()):.3g}": error,
    }
    return [
        group_panels(explanation.shown, groups.masks, groups.scores, title=title),
        method_sheet(explanation.shown, maps, title=explanation.class_name),
    ]


def picture_name(explanations: Sequence[Explanation]) -> str:
    """Names the file of :func:`picture` after the photo."""
    stem = Path(explanations[0].question.view.photo.name).stem
    # What any file system takes, and as many characters.
    plain = "".join(one if one.isalnum() or one in " ._-()" else "_" for one in stem[:50])
    return f"{plain}_explained.png"


def script(explanations: Sequence[Explanation], models: Models, alpha: float = 0.5) -> str:
    """Writes the program that makes the same maps and :func:`picture`.

    It takes an uploaded image from the folder that it runs in.

    Args:
        explanations (sequence of Explanation): Answers about one photo, model, layer and class.
        models (Models): Where the model is.
        alpha (float, optional): Opacity of the maps. Default: 0.5.
    """
    first = explanations[0]
    question = first.question
    name, _, weights = question.view.model.partition("=")
    device = None if models.device.type == "cpu" else str(models.device)
    keywords = {"weights": weights, "device": device, "layer": question.layer}
    given = (f"{key}={value!r}" for key, value in keywords.items() if value)
    photo = repr(question.view.photo.name)
    is_sample = question.view.photo.is_sample
    return _SCRIPT.format(
        version=captum_groupcam.__version__,
        opener="sample_images" if is_sample else "open_image",
        model=", ".join([repr(name), *given]),
        image=f"sample_images()[{photo}]()" if is_sample else f"open_image({photo})",
        questions="\n".join(
            f"    ({title_of(q)!r}, {q.method!r}, {dict(q.options)!r}),"
            for q in (explanation.question for explanation in explanations)
        ),
        target=question.target,
        class_name=repr(first.class_name),
        alpha=alpha,
        output=repr(picture_name(explanations)),
    )
