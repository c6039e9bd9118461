"""Small pieces of arithmetic behind the pages: leads, shares, intervals, epochs that are the same."""

import numpy as np
import pytest
from helpers import evaluations, history, make

from dcn_study.experiments import agreement, controls, first_epoch, test_sets
from dcn_study.experiments.statistics import interval, prediction
from dcn_study.runs import published
from dcn_study.runs.catalogue import find_run, seeds_of
from dcn_study.show import tables


def record(run="cnn", scaled=0.5, seed=0, **by_epoch):
    made = make(find_run(run, seed=seed))
    made.evaluations = evaluations(0.9, scaled)
    made.history = history(**by_epoch)
    return made


def test_a_lead_is_paired_by_seed_after_an_epoch_or_the_last():
    runs = [record(validation_accuracy=[0.5, 0.6]), record(validation_accuracy=[0.6, 0.8])]
    base = [record(validation_accuracy=[0.4, 0.5, 0.9]), record(validation_accuracy=[0.4, 0.5, 0.9])]
    assert controls.lead(runs, base).mean == pytest.approx(20)
    assert controls.lead(runs, base, 1).mean == pytest.approx(15)
    assert controls.lead(runs, base[:1]).mean == pytest.approx(10)


def test_a_share_of_a_gain_is_over_the_seeds_that_all_have():
    one, many = [record(scaled=0.6)], [record(scaled=0.5), record(scaled=0.9)]
    assert controls.share_of_gain(one, many, [record(scaled=0.7), record(scaled=0.1)]) == pytest.approx(50)
    assert np.isnan(controls.share_of_gain(one, many, many))


def test_epochs_are_the_same_if_all_numbers_are():
    one = record(validation_accuracy=[0.5, 0.6, 0.7])
    other = record(validation_accuracy=[0.5, 0.61])
    assert controls.same_epochs(one, other) == (1, 2)


def test_a_prediction_interval_is_wider_than_that_of_the_mean_and_covers_one_more():
    values = np.random.default_rng(0).normal(size=(2000, 6))
    inside = [abs(more - (found := prediction(five)).mean) <= found.half for *five, more in values]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    assert prediction(values[0]).half > interval(values[0]).half
    assert prediction([1.0]).low == -np.inf


def test_the_log_is_told_from_runs_that_learn():
    inert = [
        record("deformable_cnn", seed=seed, accuracy=[0.8 + seed / 100], loss=[0.6 + seed / 50]) for seed in range(3)
    ]
    learning = {run: [record(run, accuracy=[0.9], loss=[0.3])] for run in first_epoch.LEARNING}
    found = first_epoch.first_epoch({"deformable_cnn": inert, **learning})
    assert found["training accuracy"].published == 100 * published.curve("deformable_cnn")["train_accuracy"][0]
    assert found["training accuracy"].learning == pytest.approx((90, 90, 90))
    assert found["training loss"].inert == pytest.approx((0.6, 0.62, 0.64))
    assert all(each.as_inert for each in found.values())
    table = tables.first_epoch(found)
    assert table.loc["the author's log"].tolist() == ["81.35", "0.625"]
    assert table.loc["offsets that learn, 3 runs", "training loss"] == "0.30 to 0.30"


def test_differences_of_test_sets():
    accuracies = {"cnn": {"ours": [0.5, 0.6], "keras": [0.7, 0.7]}}
    assert test_sets.spreads({"cnn": [0.5, 0.6]}) == pytest.approx({"cnn": 10})
    assert test_sets.differences(accuracies, "keras") == pytest.approx({"cnn": 15})


def test_the_first_rule_has_bounds():
    assert agreement.first_bounds([0.9]) == pytest.approx((89.5, 90.5))


def test_the_protocol_is_that_of_the_runs():
    table = tables.protocol({model: seeds_of(model) for model in published.ACCURACY})
    assert table.loc["starts from"].tolist() == ["random weights", "the trained CNN's weights", *["random weights"] * 2]
    assert table.loc["epochs, published"].tolist() == ["10", "20", "10", "10"] == table.loc["epochs, here"].tolist()
    assert table.loc["validated on", "deformable CNN"] == "scaled and translated test images"
    assert table.loc["optimiser, learning rate", "mini-ResNet"] == "SGD with Nesterov momentum 0.9, 0.001"


def test_seeds_stand_one_below_the_other():
    table = tables.by_seed({"cnn": [record(scaled=0.5), record(scaled=0.6, seed=3)]})
    assert table[("CNN", "scaled")].to_dict() == pytest.approx({0: 50, 3: 60})
