"""The plan of a set of runs: what is left, in which order, for how long."""

import pytest
from helpers import keep

from dcn_study.cluster.plan import plan, schedule
from dcn_study.errors import ConfigurationError
from dcn_study.runs.catalogue import PAPER, find_run, seeds_of
from dcn_study.runs.run import CHECKPOINT


def names(tasks):
    return [task.name for task in tasks]


def test_only_runs_without_a_record_are_left(project):
    keep(find_run("cnn"))
    configurations = [find_run("cnn"), find_run("mini_resnet")]
    assert names(plan(configurations)) == ["mini_resnet"]
    assert set(names(plan(configurations, force=True))) == {"mini_resnet", "cnn"}


def test_an_interrupted_run_is_left_although_it_has_a_record(project):
    run = find_run("cnn")
    keep(run)
    state = run.checkpoint / CHECKPOINT
    state.parent.mkdir(parents=True)
    state.touch()
    assert names(plan([run])) == ["cnn"]


def test_lower_seeds_come_first_and_then_the_longest_with_those_that_wait_for_it(project):
    keep(find_run("cnn", seed=9), seconds=3000.0)  # ten epochs
    keep(find_run("cnn_batch_norm", seed=9, epochs=1), seconds=100.0)
    keep(find_run("cnn_scaled", seed=9, epochs=1), seconds=1.0)
    keep(find_run("mini_resnet", seed=9), seconds=3100.0)
    wanted = ("mini_resnet", "cnn_batch_norm", "cnn_scaled", "cnn")
    tasks = plan([config for run in wanted for config in seeds_of(run, 2)])
    assert names(tasks) == [
        *("cnn", "mini_resnet", "cnn_batch_norm", "cnn_scaled"),
        *("cnn-seed1", "mini_resnet-seed1", "cnn_batch_norm-seed1", "cnn_scaled-seed1"),
    ]
    by_name = {task.name: task for task in tasks}
    assert by_name["cnn"].seconds == 3000  # ten epochs
    assert by_name["cnn_batch_norm"].seconds == 2000
    assert by_name["cnn_batch_norm-seed1"].after == "cnn-seed1"
    assert by_name["mini_resnet"].after == ""


def test_durations_of_another_run_of_the_model_serve_if_there_are_no_others(project):
    keep(find_run("cnn"), seconds=600.0)
    (task,) = plan([find_run("cnn_validation")])
    assert task.seconds == 600
    (task,) = plan([find_run("mini_resnet")])
    assert task.seconds is None


def test_a_run_is_planned_only_with_the_one_that_it_starts_from(project):
    with pytest.raises(ConfigurationError, match=r"cnn-seed1.json is missing"):
        plan([find_run("deformable_cnn", seed=1)])
    keep(find_run("cnn", seed=1))
    (task,) = plan([find_run("deformable_cnn", seed=1)])
    assert task.after == ""


def test_the_schedule_keeps_workers_busy_and_waits_where_it_must(project):
    for run, seconds in (("cnn", 10.0), ("deformable_cnn", 30.0), ("mini_resnet", 20.0)):
        keep(find_run(run, seed=9, epochs=1), seconds=seconds)
    configurations = [find_run(run, epochs=1) for run in ("cnn", "mini_resnet")]
    tasks = plan([*configurations, find_run("cnn", epochs=1, seed=1)])
    slots = {slot.task.name: slot for slot in schedule(tasks, 2)}
    assert max(slot.end for slot in slots.values()) == 20
    assert max(slot.end for slot in schedule(tasks, 1)) == 40
    seeds = plan([find_run(run, seed=9) for run in ("cnn", "deformable_cnn")], force=True)
    slots = {slot.task.name: slot for slot in schedule(seeds, 2)}
    assert slots["deformable_cnn-seed9"].start == slots["cnn-seed9"].end == 100
    assert max(slot.end for slot in slots.values()) == 700


def test_unknown_durations_are_taken_as_the_usual_one(project):
    keep(find_run("cnn", seed=9), seconds=60.0)
    tasks = plan([find_run(run) for run in PAPER])
    ends = {slot.task.name: slot.end - slot.start for slot in schedule(tasks, 4)}
    assert set(ends.values()) == {60.0}
    assert schedule([], 2) == []
