"""What benchmarks/looser.py counts by ground truth."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lotj.judge import SuccessRule


@pytest.fixture
def looser(benchmark: Callable[[str], Any]) -> Any:
    """The benchmark."""
    return benchmark("looser")


def test_a_claim_counts_by_the_image_at_which_the_rule_fires(looser: Any) -> None:
    """In and claimed; in, but too faint; claimed before it was in, which is both false and a miss; neither."""
    late, never = (False, False, True, True), (False,) * 4
    trials = [
        SimpleNamespace(probability=(0.1, 0.2, 0.8, 0.9), success=late, true=True),
        SimpleNamespace(probability=(0.1, 0.2, 0.5, 0.6), success=late, true=True),
        SimpleNamespace(probability=(0.8, 0.9, 0.9, 0.9), success=late, true=True),
        SimpleNamespace(probability=(0.1, 0.1, 0.2, 0.1), success=never, true=False),
    ]
    evaluation = SimpleNamespace(trials=trials)
    expected = {"true": 3, "missed": 2, "false": 1, "trials": 4}
    assert looser.judged(evaluation, SuccessRule(0.7, 2)) == expected
    assert looser.judged(evaluation, SuccessRule(0.5, 2)) == {**expected, "missed": 1}
