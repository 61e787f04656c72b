"""`lotj cell mock-server`: our simulator as a robot server, to rehearse with."""

from __future__ import annotations

from typing import Literal

from lotj.console import say


def mock_server(
    connector: str = "usb-a",
    robot: Literal["sawyer-a", "sawyer-b"] = "sawyer-a",
    scenario: Literal["I", "II", "mixed"] = "I",
    image_size: int = 128,
    host: str = "127.0.0.1",
    port: int = 5000,
) -> None:
    """Serve SERL's HTTP verbs from the simulator until Ctrl-C, as a robot's server would.

    Example: ``lotj cell mock-server --connector usb-a``

    Args:
        connector: in the clamp and the hand: a name of the catalogue or a TOML file.
        robot: which of the simulated ones.
        scenario: where trials start that do not say otherwise.
        image_size: px of the cameras ``wrist_1`` and ``wrist_2``.
        host: address to listen on; whoever reaches it moves the simulated robot.
        port: to listen on; 0 takes a free one.
    """
    from lotj.cells.mock_server import MockServer

    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, got {port}")
    settings = {"robot": robot, "scenario": scenario, "image_size": image_size}
    try:
        server = MockServer(connector, host, port, **settings).start()
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port} ({error}); another --port, or 0 for a free one") from error
    try:
        say(f"{connector} in {robot}: {server.url}   (Ctrl-C stops it)")
        say("Next, in another terminal: lotj cell check --cell examples/serl_http.toml --connector " + connector)
        server.wait()
    except KeyboardInterrupt:
        say("Stopped")
    finally:
        server.close()
