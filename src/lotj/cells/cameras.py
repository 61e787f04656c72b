"""Cameras of a cell by a word: a snapshot of a server, an OpenCV device, a RealSense."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lotj.cells.serl_client import CellConnectionError, RobotServer

SOURCES = "'/path' on the robot server, 'http://...', 'opencv:<device number>' or 'realsense:<serial number>'"


class MissingPackageError(ImportError, ValueError):
    """An optional library is not installed; says how to install it."""


class Camera(Protocol):
    """A camera that is open."""

    def read(self) -> NDArray[np.uint8]:
        """The newest picture (H, W, 3), RGB."""

    def close(self) -> None:
        """Let the device go."""


def check_source(name: str, source: str) -> None:
    """Raise ValueError unless a source is one of `SOURCES`."""
    kind, _, device = str(source).partition(":")
    snapshot = isinstance(source, str) and source.startswith(("/", "http://", "https://"))
    if not snapshot and not (kind == "opencv" and device.isdigit()) and not (kind == "realsense" and device):
        raise ValueError(f"camera {name!r} must be {SOURCES}, got {source!r}")


def open_camera(
    name: str, source: str, shape: tuple[int, int], timeout_s: float, server: RobotServer | None = None
) -> Camera:
    """Open a camera.

    Args:
        name: for errors.
        source: one of `SOURCES`.
        shape: (H, W) px asked for, where the camera can choose.
        timeout_s: s without a picture after which a device is given up.
        server: answers snapshots; needed for those alone.

    Raises:
        MissingPackageError: a library is missing; names the extra.
        CellConnectionError: there is no such device.
    """
    kind, _, device = source.partition(":")
    if kind == "opencv":
        return _OpenCv(name, int(device), shape)
    if kind == "realsense":
        return _RealSense(name, device, shape, timeout_s)
    if server is None:
        raise ValueError(f"camera {name!r}: {source!r} is a path on a robot server, and there is none here")
    return _Snapshot(server, source)


class _Snapshot:
    def __init__(self, server: RobotServer, source: str) -> None:
        self._server, self._source = server, source

    def read(self) -> NDArray[np.uint8]:
        return self._server.picture(self._source)

    def close(self) -> None:
        """Nothing is held."""


class _OpenCv:
    def __init__(self, name: str, device: int, shape: tuple[int, int]) -> None:
        try:
            import cv2
        except ImportError as error:
            raise MissingPackageError(f"camera {name!r} needs OpenCV: pip install -e '.[cameras]'") from error
        self._name, self._device = name, device
        self._capture: Any = cv2.VideoCapture(device)
        if not self._capture.isOpened():
            raise CellConnectionError(
                f"camera {name!r}: OpenCV cannot open device {device}; is it plugged in, and free?"
            )
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, shape[0])
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, shape[1])
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a picture of now, not of some steps ago

    def read(self) -> NDArray[np.uint8]:
        self._capture.grab()  # drops the picture that waits since the last read
        good, picture = self._capture.read()
        if not good:
            raise CellConnectionError(f"camera {self._name!r}: OpenCV device {self._device} gives no picture")
        return np.ascontiguousarray(picture[..., ::-1])

    def close(self) -> None:
        self._capture.release()


class _RealSense:
    def __init__(self, name: str, serial: str, shape: tuple[int, int], timeout_s: float) -> None:
        try:
            import pyrealsense2 as rs
        except ImportError as error:
            raise MissingPackageError(f"camera {name!r} needs pyrealsense2: pip install -e '.[cameras]'") from error
        self._name, self._serial, self._wait = name, serial, int(1000 * timeout_s)
        self._pipeline: Any = rs.pipeline()
        config = rs.config()
        config.enable_device(serial)
        config.enable_stream(rs.stream.color, shape[1], shape[0], rs.format.rgb8, 30)
        try:
            self._pipeline.start(config)
        except RuntimeError as error:
            raise CellConnectionError(
                f"camera {name!r}: RealSense {serial} does not start at {shape[1]} x {shape[0]} px ({error})"
            ) from error

    def read(self) -> NDArray[np.uint8]:
        try:
            frame = self._pipeline.wait_for_frames(self._wait).get_color_frame()
        except RuntimeError as error:
            raise CellConnectionError(f"camera {self._name!r}: RealSense {self._serial} gives no picture") from error
        return np.array(np.asanyarray(frame.get_data()), np.uint8)

    def close(self) -> None:
        self._pipeline.stop()
