import dataclasses
import math

import pytest

from dcn_study.errors import ConfigurationError
from dcn_study.names import RESIDUAL
from dcn_study.runs import catalogue
from dcn_study.runs.catalogue import (
    PAPER,
    RATES,
    RUNS,
    SEEDS,
    STAND_INS,
    book_runs,
    in_book,
    is_named,
    record_name,
    run_config,
    run_named,
    seeds_of,
)
from dcn_study.runs.configuration import RunConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "epochs must be at least 1. Received: epochs=-1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"epochs": 1.5}, "epochs must be of type int. Received: epochs=1.5"),
        ({"epochs": True}, "epochs must be of type int"),
        ({"model": "vgg"}, "model must be one of .*'deformable_cnn'.* Received: model='vgg'"),
        ({"optimizer": "lion"}, "optimizer must be one of"),
        ({"train_on": "rotated"}, "train_on must be one of"),
        ({"learning_rate": -0.5}, "learning_rate must be finite and not negative. Received: learning_rate=-0.5"),
        ({"learning_rate": math.nan}, "learning_rate must be finite"),
        ({"learning_rate": math.inf}, "learning_rate must be finite"),
        ({"learning_rate": -1e-3}, "learning_rate must be finite"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"train_size": -1}, "train_size must be at least 0 for task mnist"),
        ({"test_size": -5}, "test_size must be at least 0 for task mnist"),
        (
            {"test_size": 0, "task": "mnist_pooled", "validation_size": 1},
            "test_size must be at least 1 for task mnist_pooled",
        ),
        ({"zoom_centre": "former"}, "zoom_centre must be 'image' unless train_on is 'scaled'"),
        ({"zoom_centre": "corner", "train_on": "scaled"}, "zoom_centre must be one of"),
        ({"scaled_test_size": 0}, "scaled_test_size must be at least 1"),
        ({"re_estimate": True}, "re_estimate must be False without validation images"),
        ({"seed": -1}, "seed must be from 0"),
        ({"corners": "round"}, "corners must be 'published' or 'bilinear'. Received: corners='round'"),
        ({"pairing": "bilinear"}, "pairing must be 'published' or 'per_pixel'"),
        ({"corners": "bilinear"}, "corners must be 'published' for model cnn, which has no ConvOffset2D"),
        ({"offset_stddev": -0.1}, "offset_stddev must be finite and not negative"),
        ({"offset_stddev": 0.1}, "offset_stddev must be 0.0 for model cnn, which has no ConvOffset2D"),
        ({"chained": True}, "chained must be False for a model without residual blocks"),
        ({"validation_size": -1}, "validation_size must be 0 or more"),
        ({"initial_run": "vgg"}, "initial_run must be empty or one of"),
        ({"task": "cifar"}, "task must be one of"),
        ({"task": "mnist_scale"}, "validation_size must be at least 1 for task mnist_scale"),
        ({"task": "mnist_scale", "train_on": "scaled"}, "train_on must be one of .* for task mnist_scale"),
        ({"train_on": "rescaled"}, "train_on must be one of .* for task mnist. Received: train_on='rescaled'"),
        ({"decay": "linear"}, "decay must be one of"),
        ({"model": "wide_cnn", "trainable": False}, "trainable must be True for model wide_cnn"),
        ({"weights_seed": -2}, "weights_seed must be -1 or from 0"),
        ({"epoch": 3}, "parameters of a run are .*epochs.* Received: epoch"),
    ],
)
def test_invalid_values_name_field_rule_and_value(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        run_config("cnn", **changes)


def test_unknown_run():
    with pytest.raises(ConfigurationError, match="run must be one of cnn, .*: run='dnn', did you mean cnn"):
        run_config("dnn")


def test_none_keeps_the_published_value():
    assert run_config("deformable_cnn", epochs=None, seed=None) == RUNS["deformable_cnn"]


def test_the_published_protocol():
    cnn, deformable = RUNS["cnn"], RUNS["deformable_cnn"]
    assert (cnn.epochs, cnn.optimizer, cnn.learning_rate, cnn.batch_size) == (10, "adam", 1e-3, 32)
    assert (cnn.train_on, cnn.train_size, cnn.test_size) == ("plain", 60_000, 10_000)
    assert (deformable.optimizer, deformable.learning_rate, deformable.train_on) == ("adam", 5e-4, "scaled")
    assert (deformable.trainable, deformable.initial_run) == (False, "cnn")


def test_the_published_protocol_of_the_residual_networks():
    for name in ("mini_resnet", "deformable_mini_resnet"):
        config = RUNS[name]
        assert (config.epochs, config.optimizer, config.learning_rate) == (10, "sgd", 1e-3)
        assert (config.train_on, config.initial_run) == ("plain", "")
    assert (RUNS["mini_resnet"].trainable, RUNS["deformable_mini_resnet"].trainable) == (True, False)


def test_every_run_has_a_name_of_its_own():
    assert {record_name(config) for config in RUNS.values()} == set(RUNS)
    assert len(set(RUNS.values())) == len(RUNS)


def test_controls_keep_the_protocol():
    for name, control in RUNS.items():
        if control.initial_run:
            assert (control.optimizer, control.train_on, control.batch_size) == ("adam", "scaled", 32), name
        if "resnet" in name:
            assert (control.optimizer, control.learning_rate) == ("sgd", 1e-3), name


def test_the_residual_networks_change_one_thing_at_a_time():
    published, unfrozen, repaired, chained = (RUNS[name] for name in RESIDUAL if "deformable" in name)
    assert dataclasses.replace(published, trainable=True, epochs=unfrozen.epochs) == unfrozen
    assert dataclasses.replace(unfrozen, corners="bilinear", pairing="per_pixel") == repaired
    assert dataclasses.replace(repaired, chained=True) == chained
    assert dataclasses.replace(RUNS["mini_resnet"], chained=True) == RUNS["chained_mini_resnet"]


def test_the_rates_differ_in_nothing_else():
    rates = [RUNS[name].learning_rate for name in RATES]
    assert rates == sorted(rates)
    assert len({dataclasses.replace(RUNS[name], learning_rate=1.0, epochs=1) for name in RATES}) == 1


def test_a_stand_in_differs_in_the_model_alone():
    for run, (stand_in, first) in STAND_INS.items():
        assert run_config(stand_in, model=RUNS[run].model) == RUNS[run]
        names = [record_name(config) for config in seeds_of(run, first + 2)]
        assert names[:first] == [run, *(f"{run}-seed{seed}" for seed in range(1, first))]
        assert names[first:] == [f"{stand_in}-seed{first}", f"{stand_in}-seed{first + 1}"]
        assert seeds_of(run, 1, epochs=1) == [run_config(run, epochs=1)]
    assert [record_name(config) for config in seeds_of("cnn", 2)] == ["cnn", "cnn-seed1"]
    assert seeds_of("cnn", 1, epochs=3) == [run_config("cnn", epochs=3)]
    with pytest.raises(ConfigurationError, match="seeds must be at least 1. Received: seeds=0"):
        seeds_of("cnn", 0)


def test_every_configuration_has_a_name_of_its_own():
    assert record_name(run_config("cnn")) == "cnn"
    assert record_name(run_config("cnn", seed=2)) == "cnn-seed2"
    names = {record_name(run_config("cnn"))}
    changes = {
        "epochs": 1, "optimizer": "sgd", "learning_rate": 0.5, "batch_size": 1, "train_on": "scaled",
        "initial_run": "cnn", "train_size": 1, "trainable": False, "test_size": 1, "seed": 1, "data": "x.npz",
        "decay": "cosine", "scaled_test_size": 1, "weights_seed": 1, "order_seed": 1, "augmentation_seed": 1,
    }  # fmt: skip
    for name, value in changes.items():
        names.add(record_name(run_config("cnn", **{name: value})))
    names.add(record_name(run_config("cnn", validation_size=1)))
    names.add(record_name(run_config("cnn", validation_size=1, task="mnist_scale")))
    names.add(record_name(run_config("cnn", validation_size=1, re_estimate=True)))
    names.add(record_name(run_config("cnn", train_on="scaled", zoom_centre="former")))
    for name, value in {"corners": "bilinear", "pairing": "per_pixel", "chained": True, "offset_stddev": 0.1}.items():
        names.add(record_name(run_config("deformable_mini_resnet", **{name: value})))
    names.add(record_name(run_config("deformable_cnn")))
    assert len(names) == len(dataclasses.fields(RunConfig)) + 1


def test_the_book_shows_all_of_the_paper_and_every_run():
    shown = book_runs()
    assert len(shown) == len(set(shown))
    stand_ins = {run_config(stand_in) for stand_in, _ in STAND_INS.values()}
    assert {dataclasses.replace(config, seed=0) for config in shown} - stand_ins == set(RUNS.values()) - stand_ins
    for model in PAPER:
        assert len(seeds_of(model)) == SEEDS[model]
        assert set(seeds_of(model)) <= set(shown)
    for config in shown:
        if config.initial_run:
            assert run_config(config.initial_run, seed=config.seed) in shown[: shown.index(config)]


def test_seeds_beyond_the_book_are_named_and_not_in_it():
    assert in_book(run_config("cnn", seed=SEEDS["cnn"] - 1))
    for config in (run_config("cnn", seed=SEEDS["cnn"]), run_config("fast_cnn_batch_norm", seed=1)):
        assert is_named(config)
        assert not in_book(config)
    for config in (run_config("cnn", epochs=1), run_config("cnn", data="x.npz")):
        assert not is_named(config)
        assert not in_book(config)


def test_a_run_is_found_by_the_name_of_its_record():
    for name, config in {"cnn": RUNS["cnn"], "cnn-seed12": run_config("cnn", seed=12)}.items():
        assert run_named(name) == config
        assert record_name(config) == name
    for wrong in ("dnn", "dnn-seed1", "cnn-1"):
        with pytest.raises(ConfigurationError, match=f"NAME must be one of cnn, .*: {wrong}, did you mean cnn"):
            run_named(wrong)
    for wrong in ("cnn-seed", "cnn-seed-1", "cnn-seedx", "cnn-seed01", "cnn-seed\u0663"):
        with pytest.raises(ConfigurationError, match=f"a seed must be a whole number .* Received: {wrong}$"):
            run_named(wrong)


def test_a_new_field_with_a_default_renames_no_run(monkeypatch):
    wider = dataclasses.make_dataclass("Wider", [("dropout", float, 0.0)], bases=(RunConfig,), frozen=True)
    narrow = {"epochs": 1, "train_size": 10}
    names = [record_name(run_config("cnn")), record_name(run_config("cnn", **narrow))]
    runs = {name: wider(**config.to_dict()) for name, config in RUNS.items()}
    by_content = {catalogue._but_seed(run): name for name, run in runs.items()}  # noqa: SLF001
    monkeypatch.setattr(catalogue, "_NAMES", by_content)
    assert [record_name(runs["cnn"]), record_name(dataclasses.replace(runs["cnn"], **narrow))] == names


def test_types_are_checked_in_a_subclass_of_another_module():
    @dataclasses.dataclass(frozen=True)
    class Decayed(RunConfig):
        weight_decay: float = 0.0

    assert Decayed(**RUNS["cnn"].to_dict(), weight_decay=1).weight_decay == 1.0
    with pytest.raises(ConfigurationError, match="weight_decay must be of type float. Received: weight_decay='much'"):
        Decayed(**RUNS["cnn"].to_dict(), weight_decay="much")


def test_a_configuration_survives_json():
    config = run_config("deformable_cnn", seed=3)
    assert RunConfig(**config.to_dict()) == config
