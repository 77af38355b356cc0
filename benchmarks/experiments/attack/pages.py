"""The explorer as a program that is attacked, and pages that ask it as a browser does.

As a program, ``python -m benchmarks.experiments.attack.pages``, it is the explorer of the small
network, whose forward passes of more than one image take a while.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .attacks import NotTried
from .toys import toys

__all__ = ["JSON", "Page", "Server", "serving"]

#: What a form is.
JSON: Mapping[str, str] = {"Content-Type": "application/json"}

_ROOT = Path(__file__).parents[__spec__.name.count(".")]
#: Exit status where gradio is missing.
_NO_GRADIO = 4
#: Seconds that an answer may take on a busy computer.
_PATIENCE = 120
#: Seconds of a forward pass of more than one image.
_PASS = 0.5


class Server:
    """An explorer that listens.

    Args:
        process (subprocess.Popen): It.
        port (int): Where it listens.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    @cached_property
    def config(self) -> dict[str, Any]:
        """What stands on its page, and what calls what."""
        config: dict[str, Any] = json.loads(self.ask("/config")[1])
        return config

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """The status and the text of the answer to a GET or, with a body, a POST."""
        connection = self.connection()
        try:
            method = "GET" if body is None else "POST"
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def connection(self) -> HTTPConnection:
        """A new connection."""
        return HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)

    def upload(self, name: str, content: bytes) -> tuple[int, bytes]:
        """Sends a file."""
        head = f'Content-Disposition: form-data; name="files"; filename="{name}"'
        parts = (
            b"--x\r\n",
            head.encode(errors="surrogateescape"),
            b"\r\n\r\n",
            content,
            b"\r\n--x--\r\n",
        )
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        return self.ask("/gradio_api/upload", b"".join(parts), headers)

    def memory(self) -> float | None:
        """Its memory in MB; None where the system does not say."""
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            return None
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status.read_text())[0]) / 1000

    def end(self, number: int) -> None:
        """Sends it a signal, and waits for its end."""
        self.process.send_signal(number)
        self.process.communicate(timeout=_PATIENCE)


class Page:
    """A page that is open at a server.

    Args:
        server (Server): The server.
        session (str): How the page calls itself.
    """

    def __init__(self, server: Server, session: str) -> None:
        self.server = server
        self.session = session
        self._handlers = {each["api_name"]: each for each in server.config["dependencies"]}
        self._controls = {each["id"]: each["props"] for each in server.config["components"]}
        self.asks("restore", [])  # as a page does when it is loaded

    def join(self, handler: str, data: list[Any]) -> int:
        """Asks for something, whose answer :meth:`answers` reads.

        Args:
            handler (str): What is asked for.
            data (list): What it is told.

        Returns:
            int: The status.
        """
        return self.server.ask("/gradio_api/queue/join", self.form(handler, data), JSON)[0]

    def form(self, handler: str, data: list[Any]) -> bytes:
        """What :meth:`join` sends."""
        index = self._handlers[handler]["id"]
        form = {"data": data, "fn_index": index, "session_hash": self.session, "event_data": None}
        return json.dumps(form).encode()

    @contextmanager
    def answers(self) -> Iterator[Iterator[dict[str, Any]]]:
        """Messages on what was asked for, as long as the page is open."""
        connection = self.server.connection()
        connection.request("GET", f"/gradio_api/queue/data?session_hash={self.session}")
        answer = connection.getresponse()
        try:
            yield (
                json.loads(line.removeprefix(b"data: "))
                for line in iter(answer.readline, b"")
                if line.startswith(b"data: ")
            )
        finally:
            answer.close()
            connection.close()

    def asks(self, handler: str, data: list[Any]) -> bool:
        """Asks for something, waits for the answer, and says whether it was no error."""
        if self.join(handler, data) != 200:
            return False
        with self.answers() as answers:
            for message in answers:
                if message["msg"] == "process_completed":
                    return bool(message["success"])
        return False

    def opens(self, name: str, content: bytes) -> bool:
        """Uploads a file and opens it: whether it is shown."""
        status, text = self.server.upload(name, content)
        return status == 200 and self.asks("open_file", self.file(json.loads(text)[0], name))

    @staticmethod
    def file(path: str, name: str) -> list[Any]:
        """What the page tells to open a file."""
        meta = {"_type": "gradio.FileData"}
        return [{"path": path, "orig_name": name, "meta": meta}, name, "attacked"]

    def explains(self, **changes: Any) -> bool:
        """Asks for a map: whether there is one."""
        return self.asks("explain", self.question(**changes))

    def question(self, **changes: Any) -> list[Any]:
        """What the page tells to explain, with other values of some controls by their names."""
        by_name = {name.replace("_", "-"): value for name, value in changes.items()}
        fixed = {"target": 1, "layer": "", "second-method": "none", "first-method": "grad_cam"}
        values = fixed | by_name
        controls = [self._controls[index] for index in self._handlers["explain"]["inputs"]]
        return [
            values.get(str(one.get("elem_id")).replace("_", "-"), one.get("value"))
            for one in controls
        ]


@contextmanager
def serving(temporary: Path) -> Iterator[Server]:
    """An explorer whose temporary files go into a folder; it is killed if it has not ended.

    Args:
        temporary (Path): The folder.

    Yields:
        Server: The explorer.

    Raises:
        NotTried: If gradio is missing.
        RuntimeError: If the explorer has ended by itself.
    """
    temporary.mkdir(exist_ok=True)
    log = temporary.with_name(f"{temporary.name}.log")
    with (
        log.open("w") as stderr,
        subprocess.Popen(  # noqa: S603  this program itself
            [sys.executable, "-u", "-m", __spec__.name],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=_ROOT,
            env=os.environ | {"TMPDIR": str(temporary), "MPLBACKEND": "agg"},
        ) as process,
    ):
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found is None:
                if process.wait() == _NO_GRADIO:
                    raise NotTried("gradio is missing: pip install 'captum_groupcam[explorer]'")
                raise RuntimeError(f"The explorer has ended: {log.read_text()}")
            yield Server(process, int(found[1]))
        finally:
            process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))


def _slow(inputs: Tensor, outputs: Tensor) -> Tensor:
    """A network that takes its time, but computes nothing meanwhile."""
    if len(inputs) > 1:
        time.sleep(_PASS)
    return outputs


def _serve() -> None:
    from captum_groupcam.apps.explorer import explore

    torch.set_num_threads(1)
    with toys({}, trap=_slow):
        try:
            explore("attacked")
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            sys.exit(_NO_GRADIO)


if __name__ == "__main__":
    _serve()
