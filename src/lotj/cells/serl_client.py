"""A client of robot servers that speak SERL's verbs: POST with JSON, checked answers, clear errors.

Verbs and fields: ``serl_robot_infra/robot_servers/franka_server.py`` (HIL-SERL, Luo et al. 2024).
"""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

FIELDS: Mapping[str, int] = {"pose": 7, "vel": 6, "force": 3, "torque": 3, "gripper_pos": 1}
"""What of ``/getstate`` is used, and how many numbers each has."""
MAX_ANSWER = 64 << 20
"""Bytes; more is not a robot."""


class CellConnectionError(RuntimeError, ConnectionError):
    """The robot's server or a camera does not answer, or not with what a robot would say."""


class NotFollowingError(CellConnectionError):
    """The server answers, but the robot does not do what it is told."""


class RobotState(NamedTuple):
    """What ``/getstate`` tells."""

    pose: Vector
    """(7,) m, and quaternion x, y, z, w, of the tool in the base frame."""
    vel: Vector
    """(6,) m/s and rad/s."""
    force: Vector
    """(3,) N, in the server's frame."""
    torque: Vector
    """(3,) N m, likewise."""
    gripper_pos: Vector
    """(1,), 0 closed .. 1 open."""


class RobotServer:
    """Asks one server; does nothing until it is asked to.

    Args:
        url: as in ``http://192.168.1.10:5000``.
        timeout_s: s without an answer after which it is given up.

    Raises:
        ValueError: this is no such URL.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ValueError(f"url must be the robot server's, as in 'http://192.168.1.10:5000', got {url!r}")
        if not timeout_s > 0 or not np.isfinite(timeout_s):
            raise ValueError(f"timeout_s must be a number of seconds above 0, got {timeout_s!r}")
        self.url, self._timeout = url.rstrip("/"), timeout_s
        # A robot stands in the local network: no proxy of the environment's leads to it.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, verb: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None) -> bytes:
        """POST a verb.

        Raises:
            CellConnectionError: no answer in time, or the server refused; says what it said.
        """
        content = b"" if body is None else json.dumps(body, allow_nan=False).encode()
        request = urllib.request.Request(f"{self.url}/{verb}", content, {"Content-Type": "application/json"})
        return self._fetch(request, timeout_s or self._timeout)

    def ask(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """POST a verb that answers with a JSON object.

        Raises:
            CellConnectionError: as for ``call``, or the answer is something else.
        """
        answer = self.call(verb, body)
        try:
            found = json.loads(answer)
        except ValueError as error:
            raise CellConnectionError(f"{self.url}/{verb} answered {_short(answer)}, not JSON; {REMEDY}") from error
        if not isinstance(found, dict):
            raise CellConnectionError(f"{self.url}/{verb} answered {_short(answer)}, not a JSON object; {REMEDY}")
        return found

    def state(self) -> RobotState:
        """The measured state.

        Raises:
            CellConnectionError: as for ``ask``; or a field is missing, has another length or is not finite.
        """
        told, where = self.ask("getstate"), f"{self.url}/getstate"
        values = {}
        for name, size in FIELDS.items():
            if name not in told:
                raise CellConnectionError(f"{where} told no {name!r}, only {', '.join(told) or 'nothing'}; {REMEDY}")
            try:
                value = np.asarray(told[name], np.float64).ravel()
            except (TypeError, ValueError) as error:
                raise CellConnectionError(f"{where}: {name!r} is {told[name]!r}, not numbers; {REMEDY}") from error
            if value.size != size:
                raise CellConnectionError(f"{where}: {name!r} has {value.size} numbers, expected {size}; {REMEDY}")
            if not np.isfinite(value).all():
                raise CellConnectionError(
                    f"{where}: {name!r} is {value.tolist()}, not finite; the sensor or its driver failed. "
                    "Restart the robot server"
                )
            values[name] = value
        length = float(np.linalg.norm(values["pose"][3:]))
        if abs(length - 1) > 0.01:
            raise CellConnectionError(
                f"{where}: 'pose' must end in a unit quaternion x, y, z, w, got {values['pose'][3:].tolist()} of "
                f"length {length:.3f}; {REMEDY}"
            )
        return RobotState(**values)

    def picture(self, path: str) -> NDArray[np.uint8]:
        """GET a snapshot: a path of this server or a whole URL; (H, W, 3) RGB.

        Raises:
            CellConnectionError: no answer in time, or it is no picture.
        """
        from PIL import Image

        url = self.url + path if path.startswith("/") else path
        content = self._fetch(urllib.request.Request(url), self._timeout)
        try:
            with Image.open(io.BytesIO(content)) as image:
                return np.array(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise CellConnectionError(f"{url} answered {_short(content)}, not a picture; is the path right?") from error

    def _fetch(self, request: urllib.request.Request, timeout_s: float) -> bytes:
        url = request.full_url
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                content = answer.read(MAX_ANSWER + 1)
        except HTTPError as error:
            with error:
                said = _short(error.read(1000))
            raise CellConnectionError(f"{url} refused with HTTP {error.code}: {said}") from error
        except (TimeoutError, URLError) as error:
            if isinstance(error, TimeoutError) or isinstance(error.reason, TimeoutError):
                raise CellConnectionError(
                    f"{url} did not answer within {timeout_s:g} s; is the robot server alive? Look at its terminal, "
                    "and raise timeout_s if it is only slow"
                ) from error
            raise CellConnectionError(
                f"{url} cannot be reached ({error.reason}); start the robot server, or correct url"
            ) from error
        except (OSError, HTTPException) as error:
            raise CellConnectionError(
                f"{url} closed the connection without an answer ({error}); restart the robot server"
            ) from error
        if len(content) > MAX_ANSWER:
            raise CellConnectionError(f"{url} answered more than {MAX_ANSWER} bytes; is this a robot server?")
        return content


REMEDY = "is this a robot server that speaks SERL's verbs?"


def _short(content: bytes) -> str:
    text = content[:200].decode("utf-8", "replace")
    return repr(text[:120] + ("..." if len(text) > 120 else ""))
