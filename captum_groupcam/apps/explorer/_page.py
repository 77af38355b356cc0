"""The page of the explorer: what stands where, and what calls what."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from captum_groupcam.apps.explorer._gradio import gr, needs_gradio
from captum_groupcam.apps.explorer._handlers import PROGRESS, Handlers
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._options import (
    changed_options,
    help_of,
    offered_options,
)
from captum_groupcam.apps.explorer._questions import Question
from captum_groupcam.images import sample_images
from captum_groupcam.methods import offered_methods
from captum_groupcam.options import Option, Value

__all__ = ["build", "serve"]

#: Shares of the pixels that deletion and insertion replace at a time, as the page names them.
STEPS = {"10 % a step": 0.1, "5 % a step": 0.05, "2 % a step": 0.02, "1 % a step (paper)": 0.01}
#: The choice of no second method.
NO_METHOD = "none"
#: The largest file that can be uploaded.
MAX_FILE_SIZE = "20mb"
#: Seconds after which files and answers that nobody has asked for are dropped.
KEPT = 3600

_INTRODUCTION = """
# Which part of an image makes a network decide?

Choose an image, a class, and one method or two. What is bright speaks for the class; in maps with
two colours, orange speaks for it and purple against it. Click on a picture to read the map there.
"""
_GROUPS = """
Group-CAM alone: the groups of channels that speak most for the class, each as the part of the image
that its mask shows, with what it adds to the class's score. Below, how sure the map is: the error
of each pixel, had the channels been split into other groups of this kind. Costs as much as the
explanation.
"""
_MEASURES = """
Deletion blurs the pixels that a map ranks first, insertion brings them back: the score of the class
should fall and rise soon. Published numbers take steps of 1 % of the pixels; larger steps are
coarser and faster.
"""
_CSS = """
#samples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 4px; }
#samples .grid-wrap { min-height: 0; max-height: none; padding-top: 28px; }
#status { min-height: 96px; }
#samples .caption-label { font-size: 11px; padding: 1px 4px; }
.picture img { cursor: crosshair; }
@media (max-width: 640px) { .picture, .picture * { height: auto !important; } }
"""


def build(models: Models, folder: str | Path) -> gr.Blocks:
    """Makes the page.

    Args:
        models (Models): The networks on offer.
        folder (str or Path): Where files go that are served.

    Raises:
        ModuleNotFoundError: If gradio is missing, with the command that installs it.
    """
    needs_gradio()
    on = Handlers(models, folder)
    private: dict[str, Any] = {"api_visibility": "private"}
    # One at a time: what hooks into a network must not meet the queries of somebody else.
    computes: dict[str, Any] = {**private, "concurrency_id": "network", "concurrency_limit": 1}

    page: gr.Blocks = gr.Blocks(
        title="Group-CAM explorer", analytics_enabled=False, delete_cache=(KEPT, KEPT)
    )
    with page:
        # --- what stands where
        photo = gr.State(None, time_to_live=KEPT)
        answers = gr.State((), time_to_live=KEPT)
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                upload = gr.File(label="Image", file_types=["image"], height=130, elem_id="upload")
                samples = gr.Gallery(
                    _thumbnails(),
                    label="or a sample",
                    columns=4,
                    allow_preview=False,
                    buttons=[],
                    elem_id="samples",
                )
                classes = gr.Label(label="Likeliest", show_heading=False, elem_id="classes")
                target = gr.Dropdown([], label="Class to explain", elem_id="target")
                model = gr.Dropdown(models.names, label="Network", elem_id="model")
                layer = gr.Dropdown([], label="Layer", elem_id="layer")
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    settings = [
                        Settings.laid_out("Method", offered_methods(), elem_id="first"),
                        Settings.laid_out(
                            "Compare with", [NO_METHOD, *offered_methods()], elem_id="second"
                        ),
                    ]
                with gr.Row():
                    run = gr.Button("Explain", variant="primary", scale=3, elem_id="explain")
                    stop = gr.Button("Stop", variant="stop", scale=1, elem_id="stop")
                status = gr.Markdown(elem_id="status")
                with gr.Row():
                    pictures = [_picture("first-picture"), _picture("second-picture")]
                with gr.Row():
                    values = [gr.Markdown(elem_id="first-value"), gr.Markdown()]
                alpha = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", elem_id="alpha")
                with gr.Tab("Groups"):
                    gr.Markdown(_GROUPS)
                    divide = gr.Button("Show the groups", elem_id="divide")
                    groups = [_figure(elem_classes="groups") for _ in range(4)]
                with gr.Tab("Curves"):
                    gr.Markdown(_MEASURES)
                    step = gr.Radio([*STEPS.items()], value=0.1, show_label=False)
                    measure = gr.Button("Measure", elem_id="measure")
                    curves = _figure(elem_id="curves")
                with gr.Tab("Save"):
                    with gr.Row():
                        png = gr.DownloadButton("Picture (PNG)", elem_id="png")
                        program = gr.DownloadButton("Program (Python)", elem_id="program")
                    code = gr.Code(language="python", label="Makes this picture", elem_id="code")

        # --- what calls what
        def explain(
            form: dict[Any, Any], request: gr.Request, progress: gr.Progress = PROGRESS
        ) -> Any:
            questions = partial(Question, form[photo], form[model], form[layer], form[target])
            chosen = [one.chosen(form) for one in settings if form[one.method] != NO_METHOD]
            return on.explain([questions(*each) for each in chosen], request, progress)

        results = [*values, *groups, curves]
        look: dict[str, Any] = {
            "fn": on.look,
            "inputs": [photo, model],
            "outputs": [answers, classes, target, status, *pictures, *results],
            **computes,
        }
        show: dict[str, Any] = {
            "fn": on.draw,
            "inputs": [answers, alpha],
            "outputs": pictures,
            **private,
        }
        save: dict[str, Any] = {
            "fn": on.save,
            "inputs": [answers, alpha],
            "outputs": [png, program, code],
            **private,
        }
        page.load(on.list_layers, model, layer, **computes)
        model.change(on.list_layers, model, layer, **computes).success(**look)
        opened = upload.upload(on.open_file, upload, photo, **private)
        opened.success(**look)
        opened.failure(lambda: None, outputs=upload, **private)
        samples.select(on.open_sample, outputs=[photo, upload], **private).success(**look)
        classes.select(on.choose_class, outputs=target, **private)

        explained = run.click(
            explain,
            {photo, model, layer, target, *settings[0].inputs, *settings[1].inputs},
            [answers, status, *results],
            show_progress_on=[status],
            **computes,
        )
        explained.success(**show).success(**save)
        alpha.change(**show, trigger_mode="always_last").success(**save)
        for side, (place, value) in enumerate(zip(pictures, values, strict=True)):
            place.select(on.point_at(side), answers, value, **private)
        divided = divide.click(on.divide, answers, groups, **computes)
        measured = measure.click(on.measure, [answers, step], curves, **computes)
        # What runs is not cancelled by Gradio, but by `stop`; what waits for its turn is.
        running: list[Any] = [explained, divided, measured]
        stop.click(on.stop, outputs=status, queue=False, cancels=running, **private)
        page.unload(on.leave)
    return page


@dataclass(frozen=True)
class Settings:
    """The controls of one of two methods that are compared."""

    method: gr.Dropdown
    options: dict[str, dict[str, Any]]

    @classmethod
    def laid_out(cls, label: str, choices: list[str], elem_id: str) -> Settings:
        """Puts them on the page, each method's options in a group that shows with its method."""
        with gr.Column(min_width=300):
            method = gr.Dropdown(choices, label=label, elem_id=f"{elem_id}-method")
            options, groups = {}, {}
            for name in offered_methods():
                visible = name == choices[0] and bool(offered_options(name))
                with gr.Accordion(
                    "Options", open=False, visible=visible, elem_id=f"{elem_id}-{name}"
                ) as groups[name]:
                    options[name] = {
                        option.name: _control(
                            option,
                            help_of(name, option.name),
                            f"{elem_id}-{name}-{option.name}",
                        )
                        for option in offered_options(name)
                    }
        method.change(
            lambda chosen: [
                gr.Accordion(visible=name == chosen and bool(options[name])) for name in groups
            ],
            method,
            [*groups.values()],
            api_visibility="private",
        )
        return cls(method, options)

    @property
    def inputs(self) -> list[Any]:
        """All of the controls."""
        return [self.method, *(one for each in self.options.values() for one in each.values())]

    def chosen(self, form: Mapping[Any, Any]) -> tuple[str, dict[str, Value]]:
        """The method, and its options that are not at their defaults."""
        method = form[self.method]
        given = {name: form[control] for name, control in self.options[method].items()}
        return method, changed_options(method, given)


def _control(option: Option, text: str, elem_id: str) -> Any:
    look: dict[str, Any] = {
        "value": option.default,
        "label": option.name,
        "info": text,
        "elem_id": elem_id,
    }
    if option.kind is bool:
        return gr.Checkbox(**look)
    if option.kind is str:
        return gr.Dropdown(option.choices, **look)
    if option.optional:  # a field for numbers cannot be empty
        look["value"] = "" if option.default is None else f"{option.default:g}"
        return gr.Textbox(**look)
    lowest, highest = option.limits
    return gr.Number(minimum=lowest, maximum=highest, **look)


def _picture(elem_id: str) -> gr.Image:
    return gr.Image(
        label="What the network sees",
        interactive=False,
        height=420,
        format="png",
        buttons=["fullscreen"],
        elem_id=elem_id,
        elem_classes="picture",
    )


def _figure(**options: Any) -> gr.Image:
    return gr.Image(
        show_label=False, interactive=False, format="png", visible=False, buttons=[], **options
    )


def _thumbnails() -> list[tuple[Any, str]]:
    """The samples, small; none where the packages that they come with are missing."""
    pictures = []
    for name, load in sample_images().items():
        try:
            image = load()
        except ModuleNotFoundError:
            return []
        image.thumbnail((160, 160))
        pictures.append((image, name))
    return pictures


def serve(
    names: Sequence[str] = ("efficientnet_lite0",),
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    device: torch.device | str | None = None,
) -> None:
    """Serves the explorer until it is interrupted.

    Args:
        names (sequence of str, optional): Networks on offer, see
            :class:`~captum_groupcam.apps.explorer._networks.Models`. Default: EfficientNet-Lite0.
        host (str, optional): Address to listen on; "0.0.0.0" is open to others, who may then
            use this computer. Default: "127.0.0.1", this computer alone.
        port (int, optional): Default: None, the first free one from 7860.
        device (torch.device or str, optional): Where networks go. Default: None, the CPU.

    Raises:
        ModuleNotFoundError: If gradio is missing, with the command that installs it.
        OSError: If the port is taken.
        ValueError: If the first network is unknown.
    """
    needs_gradio()
    models = Models(list(names), device)
    models.load(names[0])  # a wrong name ends here, not on the page
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # photos do not outlive the app
        page = build(models, folder)
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            max_file_size=MAX_FILE_SIZE,
            theme=gr.themes.Default(**fonts),  # fonts of the system, none from elsewhere
            css=_CSS,
            footer_links=[],
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"The explorer is at {address} until you press Ctrl-C.", flush=True)
        page.block_thread()
