import dataclasses
import math

import pytest

from dcn_study.errors import ConfigurationError
from dcn_study.names import RESIDUAL
from dcn_study.runs.catalogue import NAMED, PAPER, RATES, RUNS, book_runs, find_run, run_of, seeds_of
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.run import Run

STAND_INS = {name: run.stand_in for name, run in RUNS.items() if run.stand_in}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be from 1 to 100000. Received: epochs=0"),
        ({"epochs": 1.5}, "epochs must be of type int. Received: epochs=1.5"),
        ({"epochs": True}, "epochs must be of type int"),
        ({"model": "vgg"}, "model must be one of cnn, deformable_cnn, .* Received: model='vgg'"),
        ({"optimizer": "lion"}, "optimizer must be one of"),
        ({"train_on": "rotated"}, "train_on must be one of"),
        ({"learning_rate": -0.5}, "learning_rate must be from 0 to 1e38. Received: learning_rate=-0.5"),
        ({"learning_rate": math.nan}, "learning_rate must be from 0"),
        ({"learning_rate": math.inf}, "learning_rate must be from 0"),
        ({"batch_size": 0}, "batch_size must be from 1 to 4096"),
        ({"train_size": -1}, "train_size must be at least 0. Received: train_size=-1"),
        (
            {"test_size": 0, "task": "mnist_pooled", "validation_size": 1},
            "test_size must be at least 1 for task mnist_pooled",
        ),
        ({"zoom_centre": "former"}, "zoom_centre must be 'image' unless train_on is 'scaled'"),
        ({"zoom_centre": "corner", "train_on": "scaled"}, "zoom_centre must be one of"),
        ({"scaled_test_size": 0}, "scaled_test_size must be at least 1"),
        ({"re_estimate": True}, "re_estimate must be False without validation images"),
        ({"seed": -1}, "seed must be from 0"),
        ({"epochs": 10**400}, "epochs must be from 1"),
        ({"corners": "round"}, "corners must be one of published, bilinear. Received: corners='round'"),
        ({"pairing": "bilinear"}, "pairing must be one of published, per_pixel"),
        ({"corners": "bilinear"}, "corners must be 'published' for model cnn, which has no ConvOffset2D"),
        ({"offset_stddev": -0.1}, "offset_stddev must be from 0 to 1000"),
        ({"offset_stddev": 0.1}, "offset_stddev must be 0.0 for model cnn, which has no ConvOffset2D"),
        ({"chained": True}, "chained must be False for a model without residual blocks"),
        ({"validation_size": -1}, "validation_size must be at least 0"),
        ({"initial_run": "vgg"}, "initial_run must be empty or one of"),
        ({"task": "cifar"}, "task must be one of"),
        ({"task": "mnist_scale"}, "validation_size must be at least 1 for task mnist_scale"),
        ({"task": "mnist_scale", "train_on": "scaled"}, "train_on must be one of .* for task mnist_scale"),
        ({"train_on": "rescaled"}, "train_on must be one of .* for task mnist. Received: train_on='rescaled'"),
        ({"decay": "linear"}, "decay must be one of"),
        ({"model": "wide_cnn", "trainable": False}, "trainable must be True for model wide_cnn"),
        ({"weights_seed": -2}, "weights_seed must be from -1 to 4294967295"),
        ({"epoch": 3}, "parameters of a run are .*epochs.* Received: epoch"),
    ],
)
def test_invalid_values_name_field_rule_and_value(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        find_run("cnn", **changes)


def test_none_keeps_the_published_value():
    assert find_run("deformable_cnn", epochs=None, seed=None) == RUNS["deformable_cnn"]


def test_the_published_protocol():
    for model, epochs, optimizer, rate, train_on, trainable, initial_run in (
        ("cnn", 10, "adam", 1e-3, "plain", True, ""),
        ("deformable_cnn", 20, "adam", 5e-4, "scaled", False, "cnn"),
        ("mini_resnet", 10, "sgd", 1e-3, "plain", True, ""),
        ("deformable_mini_resnet", 10, "sgd", 1e-3, "plain", False, ""),
    ):
        published = RunConfig(model, epochs, optimizer, rate, 32, train_on, trainable, initial_run, 60_000, 10_000)
        assert RUNS[model].config == published


def test_every_run_has_a_name_of_its_own():
    assert {name: run.name.partition("-seed")[0] for name, run in NAMED.items()} == {name: name for name in NAMED}
    assert len({dataclasses.replace(run.config, seed=0) for run in NAMED.values()}) == len(NAMED)


def test_controls_keep_the_protocol():
    for name, run in RUNS.items():
        control = run.config
        if control.initial_run:
            assert (control.optimizer, control.train_on, control.batch_size) == ("adam", "scaled", 32), name
        if "resnet" in name:
            assert (control.optimizer, control.learning_rate) == ("sgd", 1e-3), name


def test_the_residual_networks_change_one_thing_at_a_time():
    published, unfrozen, repaired, chained = (RUNS[name].config for name in RESIDUAL if "deformable" in name)
    assert dataclasses.replace(published, trainable=True, epochs=unfrozen.epochs) == unfrozen
    assert dataclasses.replace(unfrozen, corners="bilinear", pairing="per_pixel") == repaired
    assert dataclasses.replace(repaired, chained=True) == chained
    assert RUNS["mini_resnet"].changed(chained=True).config == RUNS["chained_mini_resnet"].config


def test_the_rates_differ_in_nothing_else():
    rates = [RUNS[name].config.learning_rate for name in RATES]
    assert rates == sorted(rates)
    assert len({RUNS[name].changed(learning_rate=1.0, epochs=1) for name in RATES}) == 1


def test_a_stand_in_differs_in_the_model_alone():
    for run, (stand_in, first) in STAND_INS.items():
        assert find_run(stand_in, model=RUNS[run].config.model).config == RUNS[run].config
        names = [config.name for config in seeds_of(run, first + 2)]
        assert names[:first] == [run, *(f"{run}-seed{seed}" for seed in range(1, first))]
        assert names[first:] == [f"{stand_in}-seed{first}", f"{stand_in}-seed{first + 1}"]
        assert seeds_of(run, 1, epochs=1) == [find_run(run, epochs=1)]
    assert [config.name for config in seeds_of("cnn", 2)] == ["cnn", "cnn-seed1"]
    assert seeds_of("cnn", 1, epochs=3) == [find_run("cnn", epochs=3)]
    with pytest.raises(ConfigurationError, match="seeds must be at least 1. Received: seeds=0"):
        seeds_of("cnn", 0)


def test_every_configuration_has_a_name_of_its_own():
    assert find_run("cnn", seed=2).name == "cnn-seed2"
    changes = {
        "epochs": 1, "optimizer": "sgd", "learning_rate": 0.5, "batch_size": 1, "train_on": "scaled",
        "initial_run": "cnn", "train_size": 1, "trainable": False, "test_size": 1, "seed": 1, "data": "x.npz",
        "decay": "cosine", "scaled_test_size": 1, "weights_seed": 1, "order_seed": 1, "augmentation_seed": 1,
        "validation_size": 1,
    }  # fmt: skip
    repairs = {"corners": "bilinear", "pairing": "per_pixel", "chained": True, "offset_stddev": 0.1}
    runs = [find_run("cnn"), find_run("deformable_cnn"), find_run("cnn", train_on="scaled", zoom_centre="former")]
    runs += [find_run("cnn", **{field: value}) for field, value in changes.items()]
    runs += [find_run("cnn", validation_size=1, **other) for other in ({"task": "mnist_scale"}, {"re_estimate": True})]
    runs += [find_run("deformable_mini_resnet", **{field: value}) for field, value in repairs.items()]
    assert len({run.name for run in runs}) == len(runs) == len(dataclasses.fields(RunConfig)) + 1


def test_the_book_shows_all_of_the_paper_and_every_run():
    shown = book_runs()
    assert len(shown) == len(set(shown))
    stand_ins = {find_run(stand_in) for stand_in, _ in STAND_INS.values()}
    assert {config.seeded(0) for config in shown} - stand_ins == set(RUNS.values()) - stand_ins
    for model in PAPER:
        assert len(seeds_of(model)) == len(RUNS[model].seeds)
        assert set(seeds_of(model)) <= set(shown)
    for config in shown:
        if initial := config.config.initial_run:
            assert find_run(initial, seed=config.seed) in shown[: shown.index(config)]


def test_seeds_beyond_the_book_are_named_and_not_in_it():
    assert find_run("cnn", seed=len(RUNS["cnn"].seeds) - 1).in_book
    for run in (find_run("cnn", seed=len(RUNS["cnn"].seeds)), find_run("fast_cnn_batch_norm", seed=1)):
        assert run.entry
        assert not run.in_book
    for run in (find_run("cnn", epochs=1), find_run("cnn", data="x.npz")):
        assert not run.entry
        assert not run.in_book


def test_a_run_is_shown_by_itself_up_to_its_stand_in():
    for name, (stand_in, first) in STAND_INS.items():
        assert [run.in_book for run in (find_run(name, seed=first - 1), find_run(name, seed=first))] == [True, False]
        assert find_run(stand_in, seed=first).in_book


def test_a_run_is_found_by_the_name_of_its_record():
    for name, config in {"cnn": RUNS["cnn"], "cnn-seed12": find_run("cnn", seed=12)}.items():
        assert find_run(name) == config
        assert config.name == name
    for wrong in ("dnn", "dnn-seed1", "cnn-1"):
        with pytest.raises(ConfigurationError, match=f"run must be one of cnn, .*: run='{wrong}', did you mean cnn"):
            find_run(wrong)
    for wrong in ("cnn-seed", "cnn-seed-1", "cnn-seedx", "cnn-seed01", "cnn-seed\u0663", "cnn-seed" + "9" * 5000):
        with pytest.raises(ConfigurationError, match=f"a seed must be a whole number .* Received: {wrong}$"):
            find_run(wrong)


def test_a_record_knows_its_run():
    for run in (find_run("cnn", seed=12), find_run("cnn", epochs=3), *NAMED.values()):
        assert run_of(run.name, run.config) == run
    former = run_of("cnn-seed1", find_run("cnn", seed=1, epochs=3).config)  # of a catalogue that has changed since
    assert (former.name, former.entry) == ("cnn-seed1", "cnn")
    assert Run(find_run("cnn", epochs=3).config).name == find_run("cnn", epochs=3).name


def test_a_new_field_with_a_default_renames_no_run():
    wider = dataclasses.make_dataclass("Wider", [("dropout", float, 0.0)], bases=(RunConfig,), frozen=True)
    narrow = {"epochs": 1, "train_size": 10}
    names = [find_run("cnn").name, find_run("cnn", **narrow).name]
    cnn = dataclasses.replace(RUNS["cnn"], config=wider(**RUNS["cnn"].config.to_dict()))
    assert [cnn.name, cnn.changed(**narrow).name] == names


def test_types_are_checked_in_a_subclass_of_another_module():
    @dataclasses.dataclass(frozen=True)
    class Decayed(RunConfig):
        weight_decay: float = 0.0

    assert Decayed(**RUNS["cnn"].config.to_dict(), weight_decay=1).weight_decay == 1.0
    with pytest.raises(ConfigurationError, match="weight_decay must be of type float. Received: weight_decay='much'"):
        Decayed(**RUNS["cnn"].config.to_dict(), weight_decay="much")
