"""A mock robot server: SERL's verbs over HTTP, driven by our simulator (`lotj.cells.mock_robot`).

| request | answer |
|---|---|
| ``POST /getstate``, ``/pose``, ``/clearerr``, ``/jointreset``, ``/open_gripper`` ... | as SERL's Franka server |
| ``GET`` or ``POST /image/<camera>`` | PNG, RGB |
| ``POST /mock/reset`` ``{"seed", "scenario", "connector", "offset"}``, all optional | begins a trial |
| ``POST /mock/truth`` | ground truth: for tests, scripted collection and evaluation |
| ``POST /mock/fault`` ``{"fault": name or null, "value"}`` | misbehaves from now on (`FAULTS`), but at ``/mock/`` |

A request that cannot be understood is answered with 400, an unknown path with 404, and a message.
"""

from __future__ import annotations

import io
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from lotj.cells.mock_robot import BadRequestError, MockRobot, numbers

FAULTS: Mapping[str, str] = {
    "freeze_camera": "the cameras show what they showed when this was asked for",
    "hang": "requests are not answered",
    "drop": "connections are closed without an answer",
    "garbage": "answers are neither JSON nor pictures",
    "nan": "the pose is not a number",
    "force": "`value`, three N in the tool's frame, is added to the force",
    "refuse_motion": "poses are answered, and the arm stays where it is",
}
MAX_BODY = 1 << 20
"""Bytes of a request."""
HANG_LIMIT = 60.0
"""s after which even a hanging request ends."""

T = TypeVar("T")


class UnknownVerbError(LookupError):
    """Nothing answers at this path."""


class MockServer:
    """A simulated robot that answers HTTP. ``start`` it; ``close`` it, or use it in a ``with`` statement.

    Args:
        connector: in the clamp and the hand.
        host: address to listen on. Anybody who reaches it can move the robot: it is a simulated one.
        port: 0 takes a free one.
        settings: others of `MockRobot`.
    """

    def __init__(self, connector: str = "usb-a", host: str = "127.0.0.1", port: int = 0, **settings: Any) -> None:
        self._address = (host, port)
        self._make = lambda: MockRobot(connector, **settings)
        self._released = threading.Event()
        self._http: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        assert self._http is not None, "start it first"
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> MockServer:
        """Build the simulator and begin to answer.

        Raises:
            ConnectorError: there is no such connector.
            OSError: the port is taken.
        """
        # MuJoCo's graphics contexts belong to the thread that made them: one thread does all that the simulator does.
        self._thread = ThreadPoolExecutor(1, "simulator")
        try:
            self.robot = self._on_simulator(self._make)
            self._verbs = self._on_simulator(self.robot.verbs)
            self._fault: str | None = None
            self._extra_force = np.zeros(3)
            self._frozen: dict[str, bytes] = {}
            self._http = _HttpServer(self._address, _handler(self))
        except BaseException:
            self._thread.shutdown()
            raise
        self._serving = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._serving.start()
        return self

    def close(self) -> None:
        """Stop answering, and free the simulator."""
        if self._http is None:
            return
        self._released.set()
        self._http.shutdown()
        self._http.server_close()
        self._serving.join()
        self._on_simulator(self.robot.close)
        self._thread.shutdown()
        self._http = None

    def wait(self) -> None:
        """Until it is closed, or Ctrl-C."""
        while self._serving.is_alive():
            self._serving.join(0.5)

    def __enter__(self) -> MockServer:
        return self.start()

    def __exit__(self, *error: Any) -> None:
        self.close()

    def answer(self, path: str, body: Mapping[str, Any]) -> tuple[str, bytes]:
        """Content type and content of an answer.

        Raises:
            BadRequestError: the body is not what the verb takes.
            UnknownVerbError: there is no such verb; lists those that there are.
        """
        if path == "mock/fault":
            return _text(self._misbehave(body))
        fault = None if path.startswith("mock/") else self._fault
        if fault == "garbage":
            return "text/html", b"<html>it works!</html>"
        if path.startswith("image/"):
            return "image/png", self._picture(path.removeprefix("image/"))
        if path not in self._verbs:
            raise UnknownVerbError(f"there are {', '.join(sorted([*self._verbs, 'mock/fault', 'image/<camera>']))}")
        verb = self._verbs[path]
        found = self._on_simulator(lambda: verb(body))
        if isinstance(found, str):
            return _text(found)
        if fault == "nan" and "pose" in found:
            found["pose"] = [float("nan")] * 7
        if fault == "force" and "force" in found:
            found["force"] = np.add(found["force"], self._extra_force)
        return "application/json", json.dumps(found, default=np.ndarray.tolist).encode()

    def stays_silent(self, path: str) -> bool:
        """Whether a request gets no answer; where requests hang, after hanging."""
        if path.startswith("mock/"):
            return False
        if self._fault == "hang":
            self._released.wait(HANG_LIMIT)
            return True
        return self._fault == "drop"

    def _misbehave(self, body: Mapping[str, Any]) -> str:
        fault = body.get("fault")
        if fault is not None and fault not in FAULTS:
            raise BadRequestError(f"'fault' must be null or one of {', '.join(FAULTS)}; got {fault!r}")
        extra = numbers(body, "value", 3) if fault == "force" else np.zeros(3)
        # Requests that hang are let go, those to come wait for the next event.
        released, self._released = self._released, threading.Event()
        released.set()
        self._fault, self._extra_force, self._frozen = fault, extra, {}
        self.robot.refuses_motion = fault == "refuse_motion"
        return f"Fault: {fault}"

    def _picture(self, camera: str) -> bytes:
        if camera in self._frozen:
            return self._frozen[camera]
        out = io.BytesIO()
        Image.fromarray(self._on_simulator(lambda: self.robot.image(camera))).save(out, "PNG", compress_level=1)
        if self._fault == "freeze_camera":
            self._frozen[camera] = out.getvalue()
        return out.getvalue()

    def _on_simulator(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()


@contextmanager
def mock_robot(connector: str = "usb-a", **settings: Any) -> Iterator[MockServer]:
    """A mock robot server on a free port, in threads of this process, for as long as the ``with`` statement lasts."""
    with MockServer(connector, **settings) as server:
        yield server


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no defect; others come with their traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _text(message: str) -> tuple[str, bytes]:
    return "text/plain; charset=utf-8", message.encode()


def _handler(server: MockServer) -> type[BaseHTTPRequestHandler]:
    """The class that reads requests for one server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10.0
        wbufsize = -1  # head and content leave in one piece

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            if not path.startswith("image/"):
                return self._send(HTTPStatus.METHOD_NOT_ALLOWED, *_text(f"/{path}: send POST"))
            self._answer(path, {})

        def do_POST(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            try:
                body = self._body()
            except BadRequestError as error:
                self.close_connection = True
                return self._send(HTTPStatus.BAD_REQUEST, *_text(f"/{path}: {error}"))
            self._answer(path, body)

        def _body(self) -> Mapping[str, Any]:
            try:
                length = int(self.headers.get("Content-Length") or 0)
            except ValueError as error:
                raise BadRequestError("Content-Length must be a number") from error
            if not 0 <= length <= MAX_BODY:
                raise BadRequestError(f"the body must have at most {MAX_BODY} bytes, got {length}")
            content = self.rfile.read(length)
            if not content.strip():
                return {}
            try:
                body = json.loads(content)
            except ValueError as error:  # UnicodeDecodeError is one
                raise BadRequestError(f"the body is not JSON: {error}") from error
            if not isinstance(body, dict):
                raise BadRequestError(f"the body must be a JSON object, got {type(body).__name__}")
            return body

        def _answer(self, path: str, body: Mapping[str, Any]) -> None:
            if server.stays_silent(path):
                self.close_connection = True
                with suppress(OSError):  # the client may have gone
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            try:
                kind, content = server.answer(path, body)
            except BadRequestError as error:
                return self._send(HTTPStatus.BAD_REQUEST, *_text(f"/{path}: {error}"))
            except UnknownVerbError as error:
                return self._send(HTTPStatus.NOT_FOUND, *_text(f"no /{path}; {error}"))
            except Exception as error:
                self._send(HTTPStatus.INTERNAL_SERVER_ERROR, *_text(f"/{path}: {type(error).__name__}: {error}"))
                raise
            self._send(HTTPStatus.OK, kind, content)

        def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: only the command line prints."""

    return Handler
