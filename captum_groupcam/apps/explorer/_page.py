"""The page of the explorer: what stands where, and what calls what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captum_groupcam.apps.explorer._figures import legend
from captum_groupcam.apps.explorer._gradio import gr, needs_gradio
from captum_groupcam.apps.explorer._handlers import PROGRESS, Handlers, messages
from captum_groupcam.apps.explorer._link import SIDES, STEPS, TABS, query_of
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._options import (
    changed_options,
    help_of,
    offered_options,
)
from captum_groupcam.apps.explorer._visitors import Visitors
from captum_groupcam.images import sample_images
from captum_groupcam.methods import offered_methods
from captum_groupcam.options import Option, Value

__all__ = ["CSS", "build"]

#: The choice of no second method.
NO_METHOD = "none"

_INTRODUCTION = """
# Which part of an image makes a network decide?

Choose an image, a class, and one method or two. Click on a picture to read the map there.
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
#: Its style.
CSS = """
#samples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 4px; }
#samples .grid-wrap { min-height: 0; max-height: none; padding-top: 28px; }
#status { min-height: 96px; }
#samples .caption-label { font-size: 11px; padding: 1px 4px; }
.map img { cursor: crosshair; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 24px; font-size: 13px; }
.legend div { display: flex; gap: 8px; align-items: center; }
.legend i { flex: none; width: 120px; height: 12px; border-radius: 2px; }
:focus-visible { outline: 3px solid #2563eb !important; outline-offset: 2px; }
@media (max-width: 640px) { #photo, #photo *, .map, .map * { height: auto !important; } }
"""
#: Saves a file that the server has just written.
_DOWNLOAD = """
(file) => {
    const link = document.createElement("a");
    link.href = file.url;
    link.download = file.orig_name;
    link.click();
}
"""
#: Puts the settings into the address of the page, with what stands below the maps now.
_LINK = """
(query) => {
    const shown = document.querySelector("#tabs button[role=tab][aria-selected=true]");
    const address = new URL(location.href);
    address.search = query;
    if (shown) address.searchParams.set("tab", shown.textContent.trim().toLowerCase());
    address.hash = "";
    history.replaceState(history.state, "", address);
    return address.href;
}
"""


def build(
    models: Models,
    visitors: Visitors,
    references: Mapping[str, str] | None = None,
    time_limit: float = 300,
) -> gr.Blocks:
    """Makes the page.

    Args:
        models (Models): The networks on offer.
        visitors (Visitors): Who has it open.
        references (mapping of str to str, optional): What methods of one's own were loaded by, by
            their names. Default: none.
        time_limit (float, optional): Seconds that one click may compute. Default: 300.

    Raises:
        ModuleNotFoundError: If gradio is missing, with the command that installs it.
    """
    needs_gradio()
    on = Handlers(models, visitors, references, time_limit)
    private: dict[str, Any] = {"api_visibility": "private"}
    # They wait in `Turns`, which lets no visitor block the others.
    computes: dict[str, Any] = {**private, "concurrency_limit": None}

    page: gr.Blocks = gr.Blocks(title="Group-CAM explorer", analytics_enabled=False)
    with page:
        # --- what stands where
        gr.State()  # a page that has one stays connected, which shows that it is still open
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                upload = gr.File(label="Image", file_types=["image"], height=130, elem_id="upload")
                upload_name = gr.Textbox(visible=False)
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
                    controls = [
                        MethodControls.laid_out("Method", offered_methods(), elem_id="first"),
                        MethodControls.laid_out(
                            "Compare with", [NO_METHOD, *offered_methods()], elem_id="second"
                        ),
                    ]
                with gr.Row():
                    run = gr.Button("Explain", variant="primary", scale=3, elem_id="explain")
                    stop = gr.Button("Stop", variant="stop", scale=1, elem_id="stop")
                status = gr.Markdown(elem_id="status")
                with gr.Row():
                    photo = _picture("Photo", "photo")
                    maps = [
                        _picture("What the network sees", "first-picture", elem_classes="map"),
                        _picture("", "second-picture", elem_classes="map", visible=False),
                    ]
                gr.HTML(legend(), elem_id="legend")
                with gr.Row():
                    values = [gr.Markdown(elem_id="first-value"), gr.Markdown()]
                with gr.Row(equal_height=True):
                    alpha = gr.Slider(
                        0, 1, 0.5, step=0.05, label="Opacity", scale=3, elem_id="alpha"
                    )
                    link = gr.Button("Link to these settings", scale=1, elem_id="link")
                address = gr.Textbox(
                    label="Restores network, methods and class; the reader chooses the image",
                    buttons=["copy"],
                    visible=False,
                    elem_id="address",
                )
                with gr.Tabs(elem_id="tabs") as tabs:
                    with gr.Tab("Groups", id=TABS["Groups"]):
                        gr.Markdown(_GROUPS)
                        divide = gr.Button("Show the groups", elem_id="divide")
                        groups = [_figure(elem_classes="groups") for _ in range(4)]
                    with gr.Tab("Curves", id=TABS["Curves"]):
                        gr.Markdown(_MEASURES)
                        step = gr.Radio(
                            [*STEPS.items()], value=0.1, show_label=False, elem_id="step"
                        )
                        measure = gr.Button("Measure", elem_id="measure")
                        curves = _figure(elem_id="curves")
                    with gr.Tab("Save", id=TABS["Save"]):
                        with gr.Row():
                            png = gr.Button("Picture (PNG)", elem_id="png")
                            program = gr.Button("Program (Python)", elem_id="program")
                        saved = gr.DownloadButton(visible=False)
                        code = gr.Code(
                            language="python", label="Makes this picture", elem_id="code"
                        )

        # --- what calls what
        def explain(
            form: dict[Any, Any], request: gr.Request, progress: gr.Progress = PROGRESS
        ) -> Any:
            with messages():
                chosen = [one.chosen(form) for one in controls if form[one.method] != NO_METHOD]
            return on.explain(form[model], form[layer], form[target], chosen, request, progress)

        def make_link(form: dict[Any, Any]) -> Any:
            with messages():
                settings = {"network": form[model]}
                settings |= {"layer": form[layer]} if form[layer] else {}
                settings |= {} if form[target] is None else {"target": form[target]}
                for side, one in zip(SIDES, controls, strict=True):
                    if form[one.method] != NO_METHOD:
                        method, options = one.chosen(form)
                        settings[side] = method
                        settings |= {f"{side}.{name}": value for name, value in options.items()}
                settings |= {"opacity": form[alpha], "step": form[step]}
            return gr.update(value=query_of(settings), visible=True)

        def restore(request: gr.Request) -> dict[Any, Any]:
            settings, *found = on.restore(request)
            restored: dict[Any, Any] = dict(zip((layer, target), found, strict=True))
            for side, one in zip(SIDES, controls, strict=True):
                restored |= one.restored(settings, side)
            for name, place in {"network": model, "opacity": alpha, "step": step}.items():
                if name in settings:
                    restored[place] = settings[name]
            if "tab" in settings:
                restored[tabs] = gr.Tabs(selected=str(settings["tab"]))
            return restored

        results = [status, code, *values, *groups, curves]
        looked = [photo, classes, target, *maps, *results]
        draw: dict[str, Any] = {"fn": on.draw, "inputs": alpha, "outputs": [*maps, code], **private}

        inputs = {model, layer, target, *controls[0].inputs, *controls[1].inputs}
        page.load(restore, outputs=[*inputs, alpha, step, tabs], **computes)
        link.click(make_link, inputs | {alpha, step}, address, **private).success(
            fn=None, inputs=address, outputs=address, js=_LINK, **private
        )
        # Not what a link has changed: that comes with its layer and its class.
        model.input(on.choose_model, model, [layer, *looked], **computes)
        # The file's own name: the server has it without the characters that it does not like.
        opened = upload.upload(
            on.open_file,
            [upload, upload_name, model],
            [upload, *looked],
            js="(file, _, model) => [file, file?.orig_name ?? '', model]",
            **computes,
        )
        opened.failure(lambda: None, outputs=upload, **private)
        samples.select(on.open_sample, model, looked, **computes)
        classes.select(on.choose_class, outputs=target, **private).success(
            on.show_classes, target, classes, **private
        )
        target.input(on.show_classes, target, classes, **private)

        explained = run.click(explain, inputs, results, show_progress_on=[status], **computes)
        explained.success(**draw)
        alpha.change(**draw, trigger_mode="always_last")
        for side, (place, value) in enumerate(zip(maps, values, strict=True)):
            place.select(on.point_at(side), outputs=value, **private)
        divided = divide.click(on.divide, outputs=groups, **computes)
        measured = measure.click(on.measure, step, curves, **computes)
        # What runs is not cancelled by Gradio, but by `stop`; what waits for its turn is.
        running: list[Any] = [explained, divided, measured]
        stop.click(on.stop, outputs=status, queue=False, cancels=running, **private)
        for button, write in ((png, on.save_picture), (program, on.save_program)):
            button.click(write, alpha, saved, **private).success(
                fn=None, inputs=saved, js=_DOWNLOAD, **private
            )
    return page


@dataclass(frozen=True)
class MethodControls:
    """The controls of one of two methods that are compared."""

    method: gr.Dropdown
    options: dict[str, dict[str, Any]]

    @classmethod
    def laid_out(cls, label: str, choices: list[str], elem_id: str) -> MethodControls:
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

    def restored(self, settings: Mapping[str, Value], side: str) -> dict[Any, Value]:
        """What the controls show of a link's settings."""
        if side not in settings:
            return {}
        method = str(settings[side])
        shown: dict[Any, Value] = {self.method: method}
        for option in offered_options(method):
            if (name := f"{side}.{option.name}") in settings:
                shown[self.options[method][option.name]] = _shown(option, settings[name])
        return shown


def _control(option: Option, text: str, elem_id: str) -> Any:
    look: dict[str, Any] = {
        "value": _shown(option, option.default),
        "label": option.name,
        "info": text,
        "elem_id": elem_id,
    }
    if option.kind is bool:
        return gr.Checkbox(**look)
    if option.kind is str:
        return gr.Dropdown(option.choices, **look)
    # The limits are not given to the fields, as Gradio's message would not say which field it is.
    lowest, highest = option.limits
    look["info"] = f"{text} From {lowest} to {highest}."
    if option.optional:
        return gr.Textbox(**look)
    return gr.Number(**look)


def _shown(option: Option, value: Value) -> Value:
    """What the control of an option has as its value: text where it can be empty."""
    if option.optional and option.kind in (int, float):  # a field for numbers cannot be empty
        return "" if value is None else f"{value:.12g}"
    return value


def _picture(label: str, elem_id: str, **options: Any) -> gr.Image:
    return gr.Image(
        label=label,
        interactive=False,
        height="clamp(260px, min(60vh, 32vw), 900px)",
        format="png",
        buttons=["fullscreen"],
        elem_id=elem_id,
        **options,
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
