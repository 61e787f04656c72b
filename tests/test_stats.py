"""Oracles for the exact statistics: published values, symmetries and brute-force enumeration."""

from __future__ import annotations

from itertools import product
from math import comb, sqrt

import numpy as np
import pytest

from lotj.stats import barnard, clopper_pearson, mcnemar, show_p, signed_ranks


def enumerate_barnard(x_a: int, n_a: int, x_b: int, n_b: int) -> float:
    """Two-sided Barnard by its definition: sup over the common rate of P(|Wald| >= |observed|)."""

    def wald(a: int, b: int) -> float:
        pooled = (a + b) / (n_a + n_b)
        variance = pooled * (1 - pooled) * (1 / n_a + 1 / n_b)
        return abs(a / n_a - b / n_b) / sqrt(variance) if variance > 0 else 0.0

    observed = wald(x_a, x_b)
    extreme = [(a, b) for a in range(n_a + 1) for b in range(n_b + 1) if wald(a, b) >= observed - 1e-9]
    rate = np.linspace(0, 1, 2001)
    total = sum(comb(n_a, a) * comb(n_b, b) * rate ** (a + b) * (1 - rate) ** (n_a + n_b - a - b) for a, b in extreme)
    return float(np.max(total))


def test_barnard_published_oracle() -> None:
    """[[7, 12], [8, 3]], alternative "less", has p = 0.0341 (scipy's and Mato & Andres' worked example)."""
    assert barnard(7, 15, 12, 15, "less") == pytest.approx(0.0341, abs=5e-5)
    assert barnard(12, 15, 7, 15, "greater") == pytest.approx(0.0341, abs=5e-5)
    assert barnard(7, 15, 12, 15, "greater") > 0.9


@pytest.mark.parametrize(
    "counts", [(11, 20, 15, 20), (4, 20, 18, 20), (3, 12, 9, 17), (0, 20, 5, 20), (80, 100, 75, 100)]
)
def test_barnard_equals_enumeration(counts: tuple[int, int, int, int]) -> None:
    """The p-value is the supremum over the nuisance rate of the probability of tables as extreme as the one seen."""
    assert barnard(*counts) == pytest.approx(enumerate_barnard(*counts), rel=1e-3)


def test_barnard_is_symmetric_and_sane_at_the_edges() -> None:
    """Swapping the groups does not change a two-sided p; no evidence gives 1; all against nothing gives almost 0."""
    assert barnard(15, 20, 11, 20) == pytest.approx(barnard(11, 20, 15, 20))
    assert barnard(15, 20, 11, 20) == pytest.approx(0.231, abs=1e-3)
    for x in (0, 7, 20):
        assert barnard(x, 20, x, 20) == pytest.approx(1.0)
    assert barnard(0, 0, 5, 20) == 1.0
    assert barnard(0, 20, 20, 20) < 1e-9


@pytest.mark.parametrize(("gained", "lost"), [(0, 5), (9, 2), (4, 4), (12, 0), (0, 0), (7, 8)])
def test_pairs_are_fair_coins(gained: int, lost: int) -> None:
    """McNemar's exact test: twice the tail of a fair coin, at most 1, and the same with gains and losses exchanged."""
    flips, few = gained + lost, min(gained, lost)
    tail = 2 * sum(comb(flips, heads) for heads in range(few + 1)) / 2**flips
    assert mcnemar(gained, lost) == pytest.approx(min(1.0, tail)) == mcnemar(lost, gained)
    with pytest.raises(ValueError, match="gained"):
        mcnemar(-1, 2)


def test_signed_ranks_by_hand() -> None:
    """Without ties the distribution is that of the 2^n signs: n differences of one sign have p = 2 / 2^n; 0 is no
    difference."""
    assert signed_ranks([1, 2, 3, 4, 5]) == pytest.approx(2 / 2**5)
    # Rank sums of at most 3 among 2^5 signs: {}, {1}, {2}, {3}, {1, 2}.
    assert signed_ranks([-3, 1, 2, 4, 5]) == pytest.approx(2 * 5 / 2**5)
    assert signed_ranks([0, 0]) == 1.0


@pytest.mark.parametrize(
    "differences", [[1, 1, -2, 3], [2, 2, 2, -2, 5, 0], [-1] * 3 + [1] * 9 + [4, -4], [0.5, -1.5, 2.5, 2.5, -0.5]]
)
def test_signed_ranks_equal_enumeration(differences: list[float]) -> None:
    """Equals share their rank: twice the rarer tail of the sum of positive ranks over all 2^n signs."""
    sizes = [abs(one) for one in differences if one]
    ranks = [sum(b < a for b in sizes) + (sizes.count(a) + 1) / 2 for a in sizes]
    seen = sum(rank for rank, one in zip(ranks, filter(None, differences)) if one > 0)
    sums = [sum(rank for rank, sign in zip(ranks, signs) if sign) for signs in product((0, 1), repeat=len(ranks))]
    tails = sum(one <= seen + 1e-9 for one in sums), sum(one >= seen - 1e-9 for one in sums)
    assert signed_ranks(differences) == pytest.approx(min(1.0, 2 * min(tails) / len(sums)))


def test_clopper_pearson_closed_forms() -> None:
    """Without a success the upper end is 1 - (a/2)^(1/n), and the interval mirrors successes against failures."""
    low, high = clopper_pearson(0, 20)
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert clopper_pearson(20, 20) == pytest.approx((0.025 ** (1 / 20), 1.0))
    low, high = clopper_pearson(7, 20)
    assert (1 - high, 1 - low) == pytest.approx(clopper_pearson(13, 20))
    assert low < 7 / 20 < high
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_clopper_pearson_tails() -> None:
    """At either end of the interval the tail beyond what was seen has probability (1 - confidence) / 2."""
    low, high = clopper_pearson(7, 20, confidence=0.9)

    def cumulative(rate: float, upto: int) -> float:
        return sum(comb(20, k) * rate**k * (1 - rate) ** (20 - k) for k in range(upto + 1))

    assert cumulative(high, 7) == pytest.approx(0.05, abs=1e-6)
    assert 1 - cumulative(low, 6) == pytest.approx(0.05, abs=1e-6)


def test_impossible_counts_are_named() -> None:
    """Counts out of range are errors that name the argument."""
    with pytest.raises(ValueError, match="successes_b must lie between 0"):
        barnard(1, 20, 21, 20)
    with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\)"):
        clopper_pearson(1, 20, confidence=95)


def test_no_probability_is_shown_as_zero() -> None:
    assert [show_p(p) for p in (0.5, 0.0001, 0.00009, 0.0)] == ["0.5000", "0.0001", "<0.0001", "<0.0001"]
