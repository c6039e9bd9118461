"""Whether published accuracies agree with ours, by the rule and by its forerunners, and what the rule promises."""

import numpy as np
import pytest
from helpers import ROOT, inside
from scipy import stats

from dcn_study.experiments.agreement import MOST, Choices, agreement, agreements, first_rule, left_out, of_runs
from dcn_study.experiments.statistics import holm
from dcn_study.names import TEST_IMAGES
from dcn_study.runs import records
from dcn_study.runs.catalogue import PAPER, seeds_of

IMAGES, SEEDS, FAMILIES = 10_000, 10, 600


def test_the_interval_is_that_of_one_more_run_on_the_logit_scale():
    accuracies, images = [0.97, 0.98, 0.985], 10_000
    found = agreement(accuracies, images, 0.975)
    logits = np.log([(each * images + 0.5) / (images - each * images + 0.5) for each in accuracies])
    half = stats.t.ppf(0.975, 2) * logits.std(ddof=1) * (4 / 3) ** 0.5
    for bound, logit in ((found.low, logits.mean() - half), (found.high, logits.mean() + half)):
        assert bound == pytest.approx(100 / (1 + np.exp(-logit)))


@pytest.mark.parametrize(
    ("accuracies", "published", "outcome"),
    [
        ([0.970, 0.971, 0.972], 0.971, "agrees"),
        ([0.970, 0.971, 0.972], 0.95, "differs"),
        ([0.6, 0.7, 0.8], 0.7, "undecided"),  # inside, but so is nearly everything
        ([0.6, 0.7, 0.8], 0.01, "differs"),  # a wide interval excludes what is far outside
        ([0.9, 0.9, 0.9], 0.9001, "differs"),  # without spread there is no room
        ([0.97], 0.97, "undecided"),
        ([1.0, 1.0, 1.0], 1.0, "differs"),  # the interval ends below 100, so that its logit is finite
    ],
)
def test_outcomes(accuracies, published, outcome):
    found = agreement(accuracies, 10_000, published)
    assert 0 <= found.low <= found.mean <= found.high <= 100
    assert found.outcome == outcome


def test_the_limit_of_the_width_is_that_of_the_wider_side():
    for spread, outcome in ((0.004, "agrees"), (0.02, "undecided")):
        found = agreement([0.9 - spread, 0.9, 0.9 + spread], 10_000, 0.9)
        assert found.outcome == outcome
        assert (max(found.mean - found.low, found.high - found.mean) <= MOST) == (outcome == "agrees")


def test_the_first_rule_allows_half_a_point():
    for accuracy, outcome in ((0.9951, "agrees"), (0.9952, "differs"), (0.9851, "agrees"), (0.985, "differs")):
        for accuracies in ([accuracy], [accuracy] * 3):
            assert first_rule(accuracies, 0.9901) == (0.5, outcome)


def drawn(random, mean, spread, count):
    """Accuracies whose logits are normal."""
    return 1 / (1 + np.exp(-random.normal(mean, spread, count)))


def test_the_p_value_is_below_one_in_twenty_exactly_outside(random):
    for _ in range(200):
        *ours, theirs = drawn(random, 1.0, 0.3, SEEDS + 1)
        found = agreement(ours, IMAGES, theirs)
        assert (found.p_value < 0.05) == (not found.low <= 100 * theirs <= found.high) == (found.outcome == "differs")
    assert agreement([0.9] * 3, IMAGES, 1.0).p_value == 0
    assert agreement([0.9], IMAGES, 0.9).p_value == 1


def test_accuracies_outside_differ_only_beyond_what_chance_puts_there():
    ours, count = [0.970, 0.971, 0.972], 8
    outside = agreement(ours, IMAGES, 0.9645)
    assert 0.05 / count < outside.p_value < 0.05
    found = agreements([(ours, IMAGES, 0.9645)] + [(ours, IMAGES, 0.971)] * (count - 1))
    assert (found[0].alone, found[0].outcome, found[0].insignificant) == ("differs", "undecided", True)
    assert [each.outcome for each in found[1:]] == ["agrees"] * (count - 1)
    assert not any(each.insignificant for each in found[1:])
    assert found[0].p_value == pytest.approx(holm([outside.p_value] + [1.0] * (count - 1))[0])
    far = agreements([(ours, IMAGES, 0.5)] + [(ours, IMAGES, 0.971)] * (count - 1))[0]
    assert (far.outcome, far.insignificant) == ("differs", False)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_a_family_of_eight_seldom_has_one_that_differs_by_chance(random, rho):
    """Also where the accuracies on plain and on scaled digits are those of the same runs."""
    together = alone = 0
    for _ in range(FAMILIES):
        shared = random.normal(size=(4, 1, SEEDS + 1))
        logits = 1 + 0.3 * (rho**0.5 * shared + (1 - rho) ** 0.5 * random.normal(size=(4, 2, SEEDS + 1)))
        accuracies = (1 / (1 + np.exp(-logits))).reshape(8, -1)
        found = agreements([(each[:-1], IMAGES, each[-1]) for each in accuracies])
        together += any(each.outcome == "differs" for each in found)
        alone += any(each.alone == "differs" for each in found)
    assert together / FAMILIES < 0.07  # one in twenty, and what so few families vary
    assert alone / FAMILIES > 0.2


def test_the_limit_is_the_width_that_more_seeds_approach(random):
    many = agreement(drawn(random, 1.0, 0.3, 20_000), IMAGES, 0.73)
    few = agreement([0.68, 0.73, 0.78], IMAGES, 0.73)
    assert max(many.mean - many.low, many.high - many.mean) == pytest.approx(many.limit, rel=0.01)
    assert few.limit < max(few.mean - few.low, few.high - few.mean) / 2
    assert few.wide
    assert np.isnan(agreement([0.9], IMAGES, 0.9).limit)


def test_left_out_runs_are_outside_as_often_as_the_interval_says(random):
    outside = sum(left_out(drawn(random, 1.0, 0.3, SEEDS), IMAGES) for _ in range(150))
    assert outside / (150 * SEEDS) == pytest.approx(0.05, abs=0.02)
    assert left_out([0.9, 0.9001, 0.9002, 0.5], IMAGES) == 1


def test_the_committed_runs_are_outside_each_others_intervals_no_more_often_than_expected():
    with inside(ROOT):
        runs = {model: [records.read(run) for run in seeds_of(model)] for model in PAPER}
    families = [
        [record.evaluations[kind].accuracy for record in found] for found in runs.values() for kind in TEST_IMAGES
    ]
    expected = 0.05 * sum(map(len, families))
    assert abs(sum(left_out(each, IMAGES) for each in families) - expected) <= 2 * expected**0.5
    found = [each for kinds in of_runs(runs).values() for each in kinds.values()]
    assert [each.alone for each in found if each.insignificant] == ["differs"] * 2  # README: two are, and differed
    assert not any(each.limit <= MOST for each in found if each.wide)  # more seeds would not test what is wide


def test_other_choices_are_those_of_other_textbooks():
    ours, count = [0.970, 0.971, 0.972], 3
    linear = agreement(ours, IMAGES, 0.971, Choices(logit=False))
    assert (linear.low, linear.high) == pytest.approx(
        [100 * each for each in stats.t.interval(0.95, count - 1, 0.971, 0.001 * (1 + 1 / count) ** 0.5)]
    )
    mean = agreement(ours, IMAGES, 0.971, Choices(logit=False, one_more=False, confidence=0.9))
    assert (mean.low, mean.high) == pytest.approx(
        [100 * each for each in stats.t.interval(0.9, count - 1, 0.971, 0.001 / count**0.5)]
    )
    assert mean.limit == pytest.approx(0)
    for published in (0.969, 0.9735):
        found = agreement(ours, IMAGES, published, Choices(logit=False, one_more=False))
        test = stats.ttest_1samp(ours, published)
        assert found.p_value == pytest.approx(test.pvalue)
        assert found.outcome == ("differs" if test.pvalue < 0.05 else "agrees")


def test_one_choice_flips_an_outcome():
    ours, inside, outside = [0.970, 0.971, 0.972], 0.971, 0.9645
    several = [(ours, IMAGES, outside)] + [(ours, IMAGES, inside)] * 7
    outcomes = {
        name: agreements(several, choices)[0].outcome
        for name, choices in {
            "stated": Choices(),
            "none": Choices(corrected=False),
            "first": Choices(amended=False),
            "first, none": Choices(amended=False, corrected=False),
            "mean, none": Choices(one_more=False, corrected=False),
        }.items()
    }
    assert outcomes == {
        "stated": "undecided",
        "none": "differs",
        "first": "agrees",
        "first, none": "differs",
        "mean, none": "differs",
    }
    wide = [0.6, 0.7, 0.8]
    assert agreement(wide, IMAGES, 0.7, Choices(amended=False)).outcome == "agrees"
