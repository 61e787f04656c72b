"""One way to open any cell: ours by its name (``sawyer-a``), anybody's by its file (``cell.toml``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import gymnasium

from lotj.cells.adapter import Ask, CellEnv, cell_folder, left_in, make_env
from lotj.cells.calibration import load_calibration
from lotj.cells.safety import SafeCell
from lotj.cells.spec import load_cell
from lotj.files import to_json
from lotj.sim.connector import Connector
from lotj.sim.connectors import described as described
from lotj.sim.connectors import get_connector
from lotj.sim.env import ACTION_SCALE, HORIZON, InsertionEnv
from lotj.sim.parts import ConnectorError

Purpose = Literal["collect", "practise", "evaluate"]
"""Who may see ground truth: collection is paid by it, evaluation and reports read it, practice learns without."""


class Identity(NamedTuple):
    """What a connector is called, and which others are the same thing for training."""

    name: str
    group: str


def is_own_cell(robot: str) -> bool:
    """Whether a robot is somebody's own, described by a file, and not one of the simulator."""
    return robot.endswith(".toml")


def robot_name(robot: str) -> str:
    """What its trajectories are stored under."""
    return load_cell(Path(robot)).name if is_own_cell(robot) else robot


def identify(connector: str | Connector, robot: str = "") -> Identity:
    """A connector's name and group. In a cell of one's own any name will do: nothing of it needs to be described.

    Args:
        connector: a name of the catalogue, a TOML file, a description, or on an own cell a new name.
        robot: the cell.

    Raises:
        ConnectorError: it is none of these.
    """
    if isinstance(connector, Connector):
        return Identity(connector.name, connector.group)
    try:
        known = get_connector(connector)
    except ConnectorError:
        if is_own_cell(robot) and re.fullmatch(r"[a-z0-9][a-z0-9._-]*", connector) and not connector.endswith(".toml"):
            return Identity(connector, connector)
        raise
    return Identity(known.name, known.group)


def tells_success(robot: str, connector: str) -> bool:
    """Whether the cell has ground truth of a connector to evaluate by."""
    if not is_own_cell(robot):
        return True
    success = load_cell(Path(robot)).success
    if success == "pose":
        return load_calibration(cell_folder(Path(robot)), identify(connector, robot).name) is not None
    return success is not None


MEANING = (
    *("env", "image", "crop", "state", "tcp_pose", "force_sign", "components", "others", "metres_per_unit"),
    *("horizon", "scenarios", "dislodged"),
)
"""What of an own cell's file says what is seen and done: where it is edited, what was practised before is of another
cell. Limits and addresses may be edited."""
JUDGED = ("success", "success_above")
"""What says what is called success; practice never reads it."""


def cell_described(robot: str, connector: str, judged: bool = False) -> dict[str, Any]:
    """``{"cell": ...}`` of an own cell as JSON, with what is called success there where that is ``judged`` by; nothing
    of a simulated one."""
    if not is_own_cell(robot):
        return {}
    spec = load_cell(Path(robot))
    said = {name: getattr(spec, name) for name in (*MEANING, *(JUDGED if judged else ()))}
    if judged and spec.success == "pose":
        found = load_calibration(cell_folder(Path(robot)), identify(connector, robot).name)
        said["calibration"] = None if found is None else {"position": found.position, "depth": found.depth}
    return {"cell": to_json(said)}


OWN_STARTS: Final = "own"
"""The scenario of a trial that starts wherever the cell begins one."""


def honours_scenarios(robot: str) -> bool:
    """Whether trials can be made to start 10-20 mm beside the socket, which blind presses need."""
    return not is_own_cell(robot) or load_cell(Path(robot)).scenarios


def action_scale(robot: str) -> list[float]:
    """m along x, y, z that an action of 1 asks for, without opening the cell.

    Raises:
        CellSpecError: its file does not say.
    """
    if not is_own_cell(robot):
        return list(ACTION_SCALE[:3])
    spec = load_cell(Path(robot))
    spec.require_contract()
    assert spec.metres_per_unit is not None
    return [spec.metres_per_unit] * 3


def longest_trial(robot: str) -> int:
    """Steps of the longest trial in a cell."""
    return load_cell(Path(robot)).horizon if is_own_cell(robot) else HORIZON


def open_cell(
    connector: str | Connector,
    robot: str,
    scenario: str | None = None,
    *,
    image_size: int,
    cameras: int = 1,
    purpose: Purpose,
    ask: Ask | None = None,
    stop_file: Path | None = None,
    ledger: Path | None = None,
) -> gymnasium.Env[Any, Any]:
    """Open a cell with a connector in it. Use it in a ``with`` statement: an own cell is then left in a safe pose.

    Args:
        connector: as for ``identify``.
        robot: ``sawyer-a``, ``sawyer-b`` or a cell's file.
        scenario: where trials start that do not say otherwise.
        image_size: H in px; a camera's picture is square.
        cameras: how many cameras' pictures an image holds, side by side.
        purpose: who asks.
        ask: asks a person about success, where the cell knows no other way.
        stop_file: an own cell stops as soon as it exists.
        ledger: where the contact of a whole practice on an own cell is kept.

    Raises:
        CellSpecError: the cell's file does not declare what is needed.
        ConnectorError: there is no such connector.
    """
    if not is_own_cell(robot):
        return InsertionEnv(
            connector,
            robot,
            scenario or "I",  # type: ignore[arg-type]
            image_size=image_size,
            cameras=cameras,
            ground_truth=purpose == "collect",
        )
    path = Path(robot)
    spec = load_cell(path)
    name = identify(connector, robot).name
    truth = spec.success is not None and (purpose != "practise" or spec.success != "ask")
    calibration = load_calibration(cell_folder(path), name)
    if purpose == "practise" and spec.success == "pose" and calibration is None:
        truth = False
    cell = CellEnv(
        spec,
        name,
        env=make_env(spec, connector if isinstance(connector, str) else name),
        image_size=image_size,
        cameras=cameras,
        scenario=scenario,
        truth=truth,
        ground_truth=purpose == "collect",
        calibration=calibration,
        ask=ask,
    )
    return SafeCell(cell, stop_file, ledger, left_in(path))
