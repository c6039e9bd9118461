"""The statistics: known values, and what they promise, over many synthetic studies."""

import numpy as np
import pytest
from scipy import stats

from dcn_study.experiments.statistics import contrast, contrasts, detectable, holm, interval

STUDIES, RUNS, SMALLEST = 2000, 6, 0.25


def test_an_interval_of_known_values():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # Student's t for two degrees of freedom
    assert f"{found:+.2f}" == "+2.00 (-0.48 to +4.48)"
    assert interval([5.0]).low == -np.inf
    assert f"{interval([5.0]):.2f}" == "5.00 (no interval)"
    with pytest.raises(ValueError, match="at least one number"):
        interval([])


def test_holm_of_known_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.9, 1.0, 1.1, 1.0], "better"),
        ([-0.9, -1.0, -1.1, -1.0], "worse"),
        ([0.01, -0.01, 0.02, 0.0], "equivalent"),
        ([0.3, 0.2, 0.4, 0.1], "undecided"),
        ([0.5, 0.5, 0.5, 0.5], "better"),
        ([0.0, 0.0, 0.0, 0.0], "equivalent"),
    ],
)
def test_verdicts(differences, verdict):
    found = contrast(differences, np.zeros(4), SMALLEST)
    assert found.verdict == verdict
    low, high = found.difference.low, found.difference.high
    assert (verdict == "better") == (low > SMALLEST)
    assert (verdict == "worse") == (high < -SMALLEST)
    assert (verdict == "equivalent") == (low > -SMALLEST and high < SMALLEST)


def test_wins_and_bootstrap():
    found = contrast([1.3, 2.2, 3.4, 4.0], [1.0, 2.0, 3.0, 4.0], SMALLEST)
    assert found.wins == 0.875
    resampled = found.bootstrap()
    assert found.difference.low < resampled.low < found.difference.mean < resampled.high < found.difference.high


def test_runs_that_would_decide_count_the_other_undecided_contrasts():
    """By itself the first would be decided; of five it is not, and then more runs are needed than there are.

    Two more that are decided change nothing.
    """
    values, nothing = [0.312, 0.350, 0.406, 0.216, 0.378, 0.378], [0.0] * 6
    assert contrast(values, nothing, SMALLEST).verdict == "better"
    wide = [0.0, 0.3, 0.6, 0.0, 0.3, 0.6]
    clear = [8.9, 9.0, 9.1, 8.9, 9.0, 9.1]
    family = contrasts([(values, nothing), *[(wide, nothing)] * 4, *[(clear, nothing)] * 2], SMALLEST)
    assert [each.verdict for each in family] == ["undecided"] * 5 + ["better"] * 2
    needed = family[0].runs_to_decide
    assert needed > len(values)
    spread = np.std(values, ddof=1)
    for runs, decides in ((needed, True), (needed - 1, False)):
        p_value = 2 * stats.t.sf((np.mean(values) - SMALLEST) / spread * runs**0.5, runs - 1)
        assert (holm([p_value] + [1.0] * 4)[0] < 0.05) == decides


def test_arms_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="same number of runs"):
        contrast([1.0, 2.0], [1.0], SMALLEST)
    with pytest.raises(ValueError, match="same number of runs"):
        contrast([1.0], [1.0], SMALLEST)
    with pytest.raises(ValueError, match="smallest must be positive"):
        contrast([1.0, 2.0], [1.0, 2.0], 0.0)


def synthetic(random, difference):
    """Accuracies of two arms that share what the realisation does to both."""
    shared = random.normal(97.0, 0.2, RUNS)
    return shared + difference + random.normal(0, 0.15, RUNS), shared + random.normal(0, 0.15, RUNS)


def test_intervals_cover_the_truth_as_often_as_they_say(random):
    covered = 0
    for _ in range(STUDIES):
        first, second = synthetic(random, 0.4)
        found = interval(first - second)
        covered += found.low <= 0.4 <= found.high
    assert 0.93 < covered / STUDIES < 0.97


@pytest.mark.parametrize("truth", [0.0, 0.2499, 0.2501, 0.6])
def test_false_verdicts_over_a_family_are_rare(random, truth):
    """Of five contrasts judged together, no more than one study in twenty may hold any false verdict."""
    false = {"better", "worse"} if truth < SMALLEST else {"equivalent", "worse"}
    wrong = 0
    for _ in range(STUDIES // 5):
        found = contrasts([synthetic(random, truth) for _ in range(5)], SMALLEST)
        wrong += any(each.verdict in false for each in found)
    assert wrong / (STUDIES // 5) <= 0.05


def test_differences_from_zero_are_rarely_found_where_there_are_none(random):
    """And are found with the adjusted p-value of a t-test where there are some."""
    wrong = 0
    for _ in range(STUDIES // 5):
        wrong += any(
            each.zero_p_value < 0.05 for each in contrasts([synthetic(random, 0.0) for _ in range(5)], SMALLEST)
        )
    assert wrong / (STUDIES // 5) <= 0.07
    pairs = [synthetic(random, truth) for truth in (0.3, 0.6, 0.9)]
    expected = holm([stats.ttest_rel(first, second).pvalue for first, second in pairs])
    assert [each.zero_p_value for each in contrasts(pairs, SMALLEST)] == pytest.approx(expected)
    alike = contrast([0.5, 0.5], [0.0, 0.0], SMALLEST), contrast([0.0, 0.0], [0.0, 0.0], SMALLEST)
    assert [each.zero_p_value for each in alike] == [0.0, 1.0]


def test_the_detectable_difference_is_detected_with_the_stated_power(random):
    difference = detectable(0.2, RUNS)
    found = sum(interval(random.normal(difference, 0.2, RUNS)).low > 0 for _ in range(STUDIES))
    assert found / STUDIES == pytest.approx(0.8, abs=0.03)


def test_without_correction_each_contrast_is_judged_by_itself(random):
    pairs = [(random.normal(mean, 0.3, RUNS), np.zeros(RUNS)) for mean in (0.0, 0.3, 0.6, 0.9)]
    found = contrasts(pairs, SMALLEST, corrected=False)
    for each, (first, second) in zip(found, pairs, strict=True):
        alone = contrast(first, second, SMALLEST)
        assert (each.verdict, each.p_value, each.zero_p_value) == (alone.verdict, alone.p_value, alone.zero_p_value)
        assert each.runs_to_decide == alone.runs_to_decide


def test_a_verdict_has_the_confidence_that_is_asked_for():
    differences = [0.4, 0.6, 0.8, 0.6]
    for confidence in (0.9, 0.95, 0.99):
        (found,) = contrasts([(differences, [0.0] * 4)], SMALLEST, confidence=confidence)
        bounds = stats.t.interval(confidence, 3, np.mean(differences), stats.sem(differences))
        assert (found.difference.low, found.difference.high) == pytest.approx(bounds)
        assert found.verdict == ("better" if bounds[0] > SMALLEST else "undecided")
        assert (found.runs_to_decide > 4) == (found.verdict == "undecided")
