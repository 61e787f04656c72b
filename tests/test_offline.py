"""The offline stages: what they start from and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from lotj import offline


def test_calibration_needs_both_classes_somewhere() -> None:
    """Rows are balanced within connectors that have both classes; where none has, the error says what was seen."""
    label, connector = np.array([True, False, False, False]), np.array(["a", "a", "b", "b"])
    rows = offline._rebalanced(label, connector)
    assert sorted(rows.tolist()) == [0, 1]
    with pytest.raises(ValueError, match=r"successes among its frames: b: 0.*collect more"):
        offline._rebalanced(label[2:], connector[2:])
