"""Starts the explorer, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from captum_groupcam.apps.explorer._files import remove_old, temporary_folder
from captum_groupcam.apps.explorer._gradio import forget_session, gr, needs_gradio
from captum_groupcam.apps.explorer._guard import MAX_FILE_SIZE, Hosts, guarded_by
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._page import CSS, build
from captum_groupcam.apps.explorer._visitors import Visitors
from captum_groupcam.methods import load_method
from captum_groupcam.models import ImageClassifier

__all__ = ["explore"]

#: Of the system, none from elsewhere.
_FONTS: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
#: Seconds between two looks for what is no longer needed.
_SWEEP = 60


def explore(
    networks: str | ImageClassifier | Sequence[str | ImageClassifier] = "efficientnet_lite0",
    *,
    methods: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int | None = None,
    device: torch.device | str | None = None,
    time_limit: float = 300,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Opens a page to explain images on, until it is interrupted.

    Args:
        networks (str, ImageClassifier or sequence of these, optional): Networks on offer: names for
            :func:`~captum_groupcam.models.load_model`, with "=" and weights if they are not the
            default, or one's own. Default: EfficientNet-Lite0.
        methods (sequence of str, optional): Methods of one's own that are offered beside the
            others, as :func:`~captum_groupcam.methods.load_method` takes them. Default: none.
        host (str, optional): Address to listen on; "0.0.0.0" is open to others, who may then
            use this computer. Default: "127.0.0.1", this computer alone.
        port (int, optional): Default: None, the first free one from 7860.
        device (torch.device or str, optional): Where networks go that are given by name.
            Default: None, the CPU.
        time_limit (float, optional): Seconds that one request may compute. Default: 300.
        allowed_hosts (sequence of str, optional): Names that lead to the page, apart from those of
            this computer: of a proxy in front of it, say. Requests for others are refused.
            Default: none.

    Raises:
        ModuleNotFoundError: If gradio is missing, with the command that installs it.
        OSError: If the port is taken.
        ValueError: If the first network or a method is unknown, or the time limit is not positive.

    Examples::

        >>> explore(load_model("resnet50"), port=8000)  # doctest: +SKIP
        The explorer is at http://127.0.0.1:8000/ until you press Ctrl-C.
    """
    needs_gradio()
    if not time_limit > 0:
        raise ValueError(f"time_limit must be positive, got {time_limit}.")
    models = Models(
        [networks] if isinstance(networks, (str, ImageClassifier)) else networks, device
    )
    references = {load_method(reference).name: reference for reference in methods}
    models.layers(models.names[0])  # a wrong name ends here, not on the page
    with (
        _ended_by_signals(),
        temporary_folder() as folder,
        _environment(GRADIO_TEMP_DIR=str(folder), GRADIO_RUN_HISTORY="False"),
    ):
        visitors = Visitors(folder / "pages")
        page = build(models, visitors, references, time_limit)
        try:
            app, address, _ = page.queue(api_open=False).launch(
                server_name=host,
                server_port=port,
                share=False,
                max_file_size=MAX_FILE_SIZE,
                state_session_capacity=4 * visitors.most,
                theme=gr.themes.Default(**_FONTS),
                css=CSS,
                footer_links=[],
                ssr_mode=False,
                quiet=True,
                prevent_thread_lock=True,
                app_kwargs={"middleware": [guarded_by(visitors, Hosts(host, allowed_hosts))]},
            )
            visitors.on_forget = partial(forget_session, app)
            print(f"The explorer is at {address} until you press Ctrl-C.", flush=True)
            own = {folder / "pages", *folder.iterdir()}
            while True:
                time.sleep(_SWEEP)
                visitors.sweep()
                remove_old(folder, keep=own)
        except KeyboardInterrupt:
            print("The explorer has ended.")
        finally:
            visitors.close()
            page.close(verbose=False)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Lets what ends a program from outside unwind it as Ctrl-C does, so that its files go."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can
        return

    def end(number: int, _frame: Any) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)  # once is enough
        raise SystemExit(128 + number)

    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
