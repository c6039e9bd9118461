"""The state of registered runs: none is missing from the list, and what an amendment dropped is said to be dropped."""

import dataclasses
import itertools

from helpers import ROOT, history, inside, make

from dcn_study.experiments.registered import FIRST, SECOND, registered
from dcn_study.runs import catalogue, records
from dcn_study.runs.catalogue import all_seeds, find_run, unseen
from dcn_study.show import tables


def names_of(found):
    return [name for state in found.values() for name in itertools.chain(*dataclasses.astuple(state))]


def keep(run, accuracy):
    record = make(run)
    record.history = history(validation_accuracy=[accuracy] * record.config.epochs)
    records.write(record)


def test_every_registered_run_is_listed_once(project):
    listed = names_of(registered())
    assert len(set(listed)) == len(listed)
    runs = [*catalogue.STUDY.values(), *(run for rates in catalogue.RETUNED.values() for run in rates.values())]
    runs += [*unseen.UNSEEN.values(), *unseen.RETUNED.values(), *unseen.FRESH.values(), *unseen.FASHION.values()]
    spread = [run for runs in catalogue.SPREAD.values() for run in runs]
    pilots = {f"pilot_{arm}_{rate:g}" for arm in catalogue.PILOTS for rate in catalogue.PILOT_RATES}
    pilots |= {
        f"unseen_pilot_{arm}_{rate:g}-seed{number}"
        for arm, rates in unseen.PILOT_RATES.items()
        for rate in rates
        for number in unseen.PILOT_REALISATIONS
    }
    assert set(listed) == {*(run.name for run in (*all_seeds(runs), *spread)), *pilots}


def test_a_run_is_done_waits_or_is_dropped(project):
    for run in ("scale_cnn", "rescaled_wider_cnn"):
        records.write(make(find_run(run, seed=1)))
    found = registered()
    assert found[FIRST, "runs", "cnn"].done == ("scale_cnn-seed1",)
    assert len(found[FIRST, "runs", "cnn"].waiting) == 5
    assert found[FIRST, "runs", "modulated_cnn"].waiting == ()
    assert len(found[FIRST, "runs", "modulated_cnn"].dropped) == 6
    assert found[FIRST, "with augmentation", "wider_cnn"].done == ("rescaled_wider_cnn-seed1",)  # done all the same
    assert len(found[FIRST, "pilots", "modulated_cnn"].dropped) == 3  # of an arm without runs
    assert len(found[FIRST, "pilots", "transformer_cnn"].waiting) == 3
    table = tables.registered(found)
    assert "<td>repaired ConvOffset2D<details>" in table
    assert "runs, to be run: <code>scale_cnn</code>, <code>scale_cnn-seed2</code>" in table
    assert table.count("<details>") == len({key[::2] for key in found})
    second = tables.registered({key: state for key, state in found.items() if key[0] == SECOND})
    assert "<th>dropped</th>" in table
    assert "<th>dropped</th>" not in second  # no column of zeros


def test_a_pilot_at_an_end_asks_for_the_next_rate(project):
    for rate, accuracy in zip(unseen.PILOT_RATES["cnn"], (0.9, 0.95, 0.98), strict=True):
        for number in unseen.PILOT_REALISATIONS:
            keep(unseen.PILOTS["cnn"][rate].seeded(number), accuracy)
    for rate, accuracy in zip(catalogue.PILOT_RATES, (0.98, 0.95, 0.9), strict=True):
        keep(catalogue.PILOTS["cnn"][rate], accuracy)
    found = registered()
    assert found[SECOND, "pilots", "cnn"].waiting == ("unseen_pilot_cnn_0.03-seed7", "unseen_pilot_cnn_0.03-seed8")
    assert len(found[SECOND, "pilots", "cnn"].done) == 6
    assert found[FIRST, "pilots", "cnn"].waiting == ("pilot_cnn_0.0001",)


def test_what_the_amendment_says_of_the_committed_runs():
    with inside(ROOT):
        found = registered()
    dropped = {name for state in found.values() for name in state.dropped if not name.startswith("pilot_")}
    assert {name.partition("-")[0] for name in dropped} == set(catalogue.DROPPED)
    assert len(dropped) == 24
    arms = {arm for study, what, arm in found if study == FIRST and what == "runs"}
    fewer = {"conv_offset_cnn": 3, "mini_resnet": 3, "deform_conv_mini_resnet": 3}
    for arm in arms:
        state = found[FIRST, "runs", arm]
        assert len(state.done) == fewer.get(arm, 0 if state.dropped else 6), arm
    assert not any(state.waiting for state in found.values())
    assert "to be run" not in tables.registered(found)
