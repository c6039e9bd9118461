"""The second registered study: which rate its pilots choose, and when a verdict is given."""

import dataclasses

import numpy as np
import pytest
from helpers import evaluations, history, make
from scipy import stats

from dcn_study.experiments import unseen
from dcn_study.experiments.statistics import detectable
from dcn_study.runs import records
from dcn_study.runs.unseen import PILOT_REALISATIONS, PILOTS, REALISATIONS, UNSEEN, unseen_runs


def keep(run, number, accuracy, validated=0.9):
    record = make(dataclasses.replace(run, seed=number))
    record.evaluations |= evaluations(0.97, accuracy)
    record.history = history(validation_accuracy=[0.5] * (run.epochs - 1) + [validated])
    records.write(record)


def chosen(arm, **rates):
    tried = {float(rate): values if isinstance(values, list) else [values] * 2 for rate, values in rates.items()}
    return unseen.chosen_rate(arm, tried)


def test_the_smallest_rate_near_the_best_is_chosen():
    assert unseen.chosen_rate("cnn", {}) is None
    assert chosen("cnn", **{"1e-3": 96.0, "3e-3": 97.95, "1e-2": 98.0}) == 3e-3  # a tie
    assert chosen("cnn", **{"1e-3": 96.0, "3e-3": 97.0, "1e-2": 98.0}) is None  # the next rate is missing
    assert chosen("cnn", **{"1e-3": 96.0, "3e-3": 97.0, "1e-2": 98.0, "3e-2": 98.05}) == 1e-2
    assert chosen("cnn", **{"1e-3": 96.0, "3e-3": 97.0, "1e-2": 98.0, "3e-2": 98.5}) == 3e-2
    assert chosen("cnn", **{"1e-3": 98.0, "3e-3": 98.0, "1e-2": 98.0, "3e-4": 97.0}) == 1e-3
    assert chosen("deform_conv_cnn", **{"3e-4": 98.0, "1e-3": 97.0, "3e-3": 97.0}) is None
    assert chosen("cnn", **{"1e-3": 96.0, "3e-3": [97.95], "1e-2": 98.0}) is None  # one realisation is missing


def test_pilots_are_read_from_their_records(project):
    run = PILOTS["cnn"][3e-3]
    keep(run, PILOT_REALISATIONS[0], 0.5, validated=0.97)
    assert unseen.pilot_accuracies()["cnn"] == {3e-3: [pytest.approx(97.0)]}
    keep(run, PILOT_REALISATIONS[1], 0.5, validated=0.98)
    assert unseen.pilot_accuracies()["cnn"] == {3e-3: [pytest.approx(97.0), pytest.approx(98.0)]}


def test_no_verdict_before_all_realisations_of_all_arms_are_there(project, random):
    gains = {"cnn": 0.0, "shared_offsets_cnn": 0.03, "deform_conv_cnn": 0.05, "antialiased_cnn": 0.049}
    for number in REALISATIONS:
        assert all(each.contrast is None for each in unseen.compared(unseen.recorded_runs()).values())
        for arm, gain in gains.items():
            keep(UNSEEN[arm], number, 0.7 + gain + random.normal(0, 1e-4))
    found = unseen.compared(unseen.recorded_runs())
    assert [each.contrast.verdict for each in found.values()] == ["better", "better", "equivalent", "better"]
    assert all(each.numbers == REALISATIONS for each in found.values())
    assert all(each.contrast is None for each in unseen.compared(unseen.recorded_runs(), "plain").values())


def test_realisations_are_fresh_and_each_run_has_a_name_of_its_own():
    from dcn_study.runs import catalogue

    before = {run.seed for run in (*catalogue.registered_runs(), *catalogue.TUNING) if run.task == "mnist_scale"}
    runs = unseen_runs()
    assert not before & {run.seed for run in runs}
    assert not set(PILOT_REALISATIONS) & set(REALISATIONS)
    names = {catalogue.record_name(run) for run in runs}
    assert len(names) == len(runs)
    assert names >= {"unseen_cnn-seed9", "unseen_pilot_cnn_0.003-seed7", "fresh_deform_conv_cnn-seed14"}
    assert all(catalogue.in_book(run) and not catalogue.keeps_weights(run) for run in runs)


def test_the_power_that_the_registration_states():
    """With a standard deviation of 0.7 points between pairs, Holm's strictest step among the primary contrasts."""
    runs, spread = len(REALISATIONS), 0.7
    assert detectable(spread, runs) == pytest.approx(0.7, abs=0.01)
    critical = stats.t.isf(0.025 / len(unseen.PRIMARY), runs - 1)
    drawn = np.random.default_rng(0).normal(0, spread, (20_000, runs))
    half = critical * drawn.std(axis=1, ddof=1) / runs**0.5
    better = np.mean(1.9 + drawn.mean(axis=1) - half > unseen.SMALLEST)
    equivalent = np.mean(np.abs(drawn.mean(axis=1)) + half < unseen.SMALLEST)
    assert (better, equivalent) == (pytest.approx(0.80, abs=0.02), pytest.approx(0.78, abs=0.02))
