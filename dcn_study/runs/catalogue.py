"""The runs of the book by name, and the names of all other runs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from typing import Any

from dcn_study import names
from dcn_study.errors import ConfigurationError, did_you_mean
from dcn_study.runs.configuration import TEST_IMAGES, TRAIN_IMAGES, RunConfig
from dcn_study.runs.unseen import FRESH, UNSEEN, unseen_runs
from dcn_study.runs.unseen import PILOTS as UNSEEN_PILOTS

__all__ = [
    "CONTROL_SEEDS",
    "DEFORMABLE_ARM",
    "DROPPED",
    "EVALUATED_ARMS",
    "FINISHED",
    "LADDER",
    "NAMED",
    "PAPER",
    "PILOTS",
    "PILOT_RATES",
    "RATES",
    "REALISATIONS",
    "RETUNED",
    "RUNS",
    "SEEDS",
    "SMOKE",
    "SOURCES",
    "STAND_INS",
    "STUDY",
    "TUNING",
    "TWO_BY_TWO",
    "UNSEEN",
    "arm_run",
    "book_runs",
    "in_book",
    "is_finished",
    "is_named",
    "keeps_weights",
    "planned_runs",
    "realisations_of",
    "record_name",
    "registered_runs",
    "retuned_runs",
    "run_config",
    "run_named",
    "seeds_of",
    "spread_run",
    "study_runs",
]

# The paper's runs, at the published protocol.
RUNS: dict[str, RunConfig] = {
    "cnn": RunConfig(model="cnn", epochs=10, optimizer="adam", learning_rate=1e-3),
    "deformable_cnn": RunConfig(
        model="deformable_cnn",
        epochs=20,
        optimizer="adam",
        learning_rate=5e-4,
        train_on="scaled",
        trainable=False,
        initial_run="cnn",
    ),
    "mini_resnet": RunConfig(model="mini_resnet", epochs=10, optimizer="sgd", learning_rate=1e-3),
    "deformable_mini_resnet": RunConfig(
        model="deformable_mini_resnet", epochs=10, optimizer="sgd", learning_rate=1e-3, trainable=False
    ),
}

PAPER = tuple(RUNS)

# Controls: each differs from a run of the paper in what its line says, and in the epochs where it states them.
_DEFORMABLE, _DEFORMABLE_RESIDUAL = RUNS["deformable_cnn"], RUNS["deformable_mini_resnet"]
_REPAIRED: dict[str, Any] = {"corners": "bilinear", "pairing": "per_pixel"}
_VALIDATED_APART: dict[str, Any] = {"train_size": TRAIN_IMAGES - TEST_IMAGES, "validation_size": TEST_IMAGES}
RUNS |= {
    # in place of deformable_cnn: the plain network, of which batch normalisation, its running statistics, or all train
    "cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", epochs=20),
    "cnn_statistics": dataclasses.replace(_DEFORMABLE, model="cnn", learning_rate=0.0, epochs=2),
    "cnn_scaled": dataclasses.replace(_DEFORMABLE, model="cnn", trainable=True, epochs=5),
    # offsets that learn, in scrambled pairs, after the random start that the published code has commented out, and with
    # repaired corners; with its own pairs; in a true deformable convolution
    "random_start_cnn": dataclasses.replace(_DEFORMABLE, offset_stddev=0.01, epochs=1),
    "scrambled_cnn": dataclasses.replace(_DEFORMABLE, corners="bilinear", epochs=5),
    "repaired_cnn": dataclasses.replace(_DEFORMABLE, **_REPAIRED, epochs=5),
    "deform_conv_cnn": dataclasses.replace(_DEFORMABLE, model="deform_conv_cnn", epochs=5),
    # at a learning rate that falls to zero
    "decayed_cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", decay="cosine", epochs=5),
    "decayed_deform_conv_cnn": dataclasses.replace(_DEFORMABLE, model="deform_conv_cnn", decay="cosine", epochs=5),
    # validated on images that are neither trained nor tested on
    "cnn_validation": dataclasses.replace(RUNS["cnn"], **_VALIDATED_APART),
    "cnn_batch_norm_validation": dataclasses.replace(
        _DEFORMABLE, model="cnn", initial_run="cnn_validation", epochs=5, **_VALIDATED_APART
    ),
    # at a tenth and at ten times the learning rate
    "slow_cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", learning_rate=5e-5, epochs=3),
    "fast_cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", learning_rate=5e-3, epochs=3),
    # the residual networks, one change after the other
    "chained_mini_resnet": dataclasses.replace(RUNS["mini_resnet"], chained=True),
    "unfrozen_deformable_mini_resnet": dataclasses.replace(_DEFORMABLE_RESIDUAL, trainable=True, epochs=5),
    "repaired_deformable_mini_resnet": dataclasses.replace(_DEFORMABLE_RESIDUAL, trainable=True, epochs=5, **_REPAIRED),
    "chained_deformable_mini_resnet": dataclasses.replace(
        _DEFORMABLE_RESIDUAL, trainable=True, epochs=5, **_REPAIRED, chained=True
    ),
    # the published residual networks for four times as many epochs; the deformable one without its idle offset layers
    "long_mini_resnet": dataclasses.replace(RUNS["mini_resnet"], epochs=40),
    "long_frozen_mini_resnet": dataclasses.replace(_DEFORMABLE_RESIDUAL, model="mini_resnet", epochs=40),
}

# The study on MNIST-Scale: arm → its model and the learning rate that its pilots chose, see `PILOTS`.
_MNIST_SCALE: dict[str, Any] = {
    "task": "mnist_scale",
    "epochs": 30,
    "optimizer": "adam",
    "decay": "cosine",
    "batch_size": 128,
    "train_size": 10_000,
    "validation_size": 2_000,
    "test_size": 50_000,
}
_CONV_OFFSET: dict[str, Any] = {"model": "deformable_cnn", **_REPAIRED}
_ARMS: dict[str, tuple[float, dict[str, Any]]] = {
    "cnn": (3e-3, {"model": "cnn"}),
    "wide_cnn": (3e-3, {"model": "wide_cnn"}),
    "wider_cnn": (1e-2, {"model": "wider_cnn"}),
    "dilated_cnn": (3e-3, {"model": "dilated_cnn"}),
    "deform_conv_cnn": (1e-3, {"model": "deform_conv_cnn"}),
    "modulated_cnn": (1e-3, {"model": "modulated_deform_conv_cnn"}),
    "shared_offsets_cnn": (3e-3, {"model": "shared_offsets_cnn"}),
    "transformer_cnn": (1e-3, {"model": "transformer_cnn"}),
    "conv_offset_cnn": (1e-3, _CONV_OFFSET),
    "mini_resnet": (1e-3, {"model": "mini_resnet", "chained": True}),
    "deform_conv_mini_resnet": (1e-3, {"model": "deform_conv_mini_resnet", "chained": True}),
}
STUDY: dict[str, RunConfig] = {
    f"scale_{arm}": RunConfig(**_MNIST_SCALE, learning_rate=rate, **model) for arm, (rate, model) in _ARMS.items()
}
_AUGMENTED = ("cnn", "wider_cnn", "deform_conv_cnn", "modulated_cnn", "transformer_cnn")
STUDY |= {f"rescaled_{arm}": dataclasses.replace(STUDY[f"scale_{arm}"], train_on="rescaled") for arm in _AUGMENTED}
# Without and with deformable convolutions, without and with augmentation.
TWO_BY_TWO = ("scale_cnn", "scale_deform_conv_cnn", "rescaled_cnn", "rescaled_deform_conv_cnn")
REALISATIONS = 6
FEW_REALISATIONS = {"scale_conv_offset_cnn": 3, "scale_mini_resnet": 3, "scale_deform_conv_mini_resnet": 3}
# Registered runs that an amendment dropped, with all their realisations; none of them has been begun.
DROPPED = ("rescaled_wider_cnn", "rescaled_modulated_cnn", "rescaled_transformer_cnn", "scale_modulated_cnn")
DEFORMABLE_ARM = "scale_deform_conv_cnn"
EVALUATED_ARMS = ("scale_cnn", DEFORMABLE_ARM)  # whose networks measurements evaluate

# Pilots of the study, on a realisation of their own, for a third of the epochs: each arm with three learning rates, and
# with the next one as long as the best is at an end.
LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
PILOT_RATES = (3e-4, 1e-3, 3e-3)
PILOTS: dict[str, dict[float, RunConfig]] = {
    arm: {
        rate: dataclasses.replace(STUDY[f"scale_{arm}"], learning_rate=rate, epochs=10, seed=REALISATIONS)
        for rate in LADDER
    }
    for arm in _ARMS
}

# Arms at other learning rates than their pilots chose, as amended: arm → rate → number of realisations.
RETUNED_REALISATIONS: dict[str, dict[float, int]] = {
    "cnn": {1e-2: REALISATIONS},
    "wide_cnn": {1e-2: 3},
    "deform_conv_cnn": {2e-3: 3},
    "shared_offsets_cnn": {1e-3: 3, 1e-2: 3},
}
RETUNED: dict[str, dict[float, RunConfig]] = {
    arm: {rate: dataclasses.replace(STUDY[f"scale_{arm}"], learning_rate=rate) for rate in realisations}
    for arm, realisations in RETUNED_REALISATIONS.items()
}

# Where the spread comes from: a small network with one source of chance varied, and all others kept at 0.
SOURCES = ("weights", "order", "augmentation", "realisation")
_SMALL = dataclasses.replace(STUDY["rescaled_cnn"], model="small_cnn", learning_rate=3e-3)
_FIXED: dict[str, Any] = {"weights_seed": 0, "order_seed": 0, "augmentation_seed": 0}


def spread_run(source: str, number: int) -> RunConfig:
    """Returns the configuration of a run for the share of one source of chance in the spread.

    Args:
        source: one of `SOURCES`.
        number: of the draw of this source; 0 is the same run for all of them.
    """
    varied = {"seed": number} if source == "realisation" else {f"{source}_seed": number}
    return dataclasses.replace(_SMALL, **{**_FIXED, **varied})


_SPREAD = {
    f"spread_{source}_{number}": spread_run(source, number)
    for source in SOURCES
    for number in range(1, REALISATIONS)
    if source != "realisation"  # these differ in their seed, and are called by it
}
_PILOTS = {f"pilot_{arm}_{rate:g}": run for arm, runs in PILOTS.items() for rate, run in runs.items()}
_RETUNED = {f"scale_{arm}_{rate:g}": run for arm, runs in RETUNED.items() for rate, run in runs.items()}
# What the registration rests on.
TUNING = [run for runs in PILOTS.values() for run in runs.values()]
TUNING += dict.fromkeys(spread_run(source, number) for number in range(REALISATIONS) for source in SOURCES)
# The deformable mini-ResNet without its offset layers: the weights that train are the same.
_STAND_IN = {"frozen_mini_resnet": dataclasses.replace(_DEFORMABLE_RESIDUAL, model="mini_resnet")}
_UNSEEN = {f"unseen_{arm}": run for arm, run in UNSEEN.items()} | {f"fresh_{arm}": run for arm, run in FRESH.items()}
_UNSEEN |= {f"unseen_pilot_{arm}_{rate:g}": run for arm, runs in UNSEEN_PILOTS.items() for rate, run in runs.items()}
# With the repaired layer at a rate that falls to zero, which no page shows yet.
_OTHERS = _STAND_IN | {"decayed_repaired_cnn": dataclasses.replace(RUNS["repaired_cnn"], decay="cosine")}
NAMED = RUNS | STUDY | _RETUNED | _UNSEEN | _PILOTS | {"spread": spread_run("weights", 0)} | _SPREAD | _OTHERS

# The runs of the studies whose records are there for all of their seeds, so that a missing one is an error: a name is
# added with the last of its records. Of other runs those are shown that have a record.
_FINISHED_PILOTS = {
    **dict.fromkeys(("cnn", "wide_cnn", "dilated_cnn", "shared_offsets_cnn"), LADDER[1:5]),
    "wider_cnn": LADDER[1:],
    "deform_conv_cnn": LADDER[1:4],
}
FINISHED = (
    "spread",
    *(f"pilot_{arm}_{rate:g}" for arm, rates in _FINISHED_PILOTS.items() for rate in rates),
    *(f"scale_{arm}" for arm in _FINISHED_PILOTS),
    "scale_cnn_0.01",
    "scale_wide_cnn_0.01",
    "scale_deform_conv_cnn_0.002",
    "scale_shared_offsets_cnn_0.001",
    "scale_shared_offsets_cnn_0.01",
    "rescaled_cnn",
    "rescaled_deform_conv_cnn",
)

_ONE_OF_THE_RUNS = f"must be one of {', '.join(RUNS)}, or a run of the studies, see: dcn check -v"

# The rate of the optimiser, where batch normalisation alone trains, from the lowest.
RATES = ("slow_cnn_batch_norm", "cnn_batch_norm", "fast_cnn_batch_norm")

# A cheaper run with the same results replaces a run from this seed on. A test compares both bit by bit.
STAND_INS = {"deformable_cnn": ("cnn_batch_norm", 1), "deformable_mini_resnet": ("frozen_mini_resnet", 3)}

# How many seeds of a run the book shows, from 0; of every other run one, and of the study's its realisations.
CONTROL_SEEDS = 3
SEEDS = dict.fromkeys(names.CONTROLS, CONTROL_SEEDS) | dict.fromkeys((*PAPER, "cnn_batch_norm"), 10)

# What the profile "smoke" changes in every run: enough to see that all of it works, in seconds. Six whole batches.
SMOKE: dict[str, Any] = {"epochs": 1, "train_size": 192, "test_size": 100}


def run_config(run: str, **changes: Any) -> RunConfig:
    """Returns the configuration of a named run with some fields changed; `None` keeps a field as it is.

    With other data than MNIST the sizes that are not given are those of the data file, for task "mnist".

    Args:
        run: a name in `NAMED`.
        **changes: fields of `RunConfig` with their new values.

    Raises:
        ConfigurationError: if the run or a field is unknown, or a value breaks its rule.
    """
    if run not in NAMED:
        raise ConfigurationError(f"run {_ONE_OF_THE_RUNS}. Received: run={run!r}{did_you_mean(run, NAMED)}")
    fields = [field.name for field in dataclasses.fields(RunConfig)]
    for name in changes:
        if name not in fields:
            raise ConfigurationError(f"parameters of a run are {', '.join(fields)}. Received: {name}")
    given = {name: value for name, value in changes.items() if value is not None}
    if given.get("data") and NAMED[run].task == "mnist":
        given = {"train_size": 0, "test_size": 0} | given
    return dataclasses.replace(NAMED[run], **given)


def seeds_of(run: str, seeds: int | None = None, **changes: Any) -> list[RunConfig]:
    """Returns the configurations of a named run with the seeds from 0; higher ones of its stand-in, see `STAND_INS`.

    Args:
        run: a name in `NAMED`.
        seeds: how many; by default as many as the book shows.
        **changes: as for `run_config`.

    Raises:
        ConfigurationError: as `run_config`, and if `seeds` is not positive.
    """
    if seeds is None:
        seeds = realisations_of(run) if run in STUDY else SEEDS.get(run, 1)
    if seeds < 1:
        raise ConfigurationError(f"seeds must be at least 1. Received: seeds={seeds!r}")
    stand_in, first = STAND_INS.get(run, (run, 0))
    return [run_config(stand_in if seed >= first else run, seed=seed, **changes) for seed in range(seeds)]


def book_runs() -> list[RunConfig]:
    """Returns the configurations of all runs that the book shows, each after the run that it starts from."""
    return list(dict.fromkeys(config for run in RUNS for config in seeds_of(run)))


def arm_run(arm: str) -> RunConfig:
    """Returns the configuration of an arm of either study, a key of `names.ARMS`."""
    return STUDY.get(f"scale_{arm}") or UNSEEN[arm]


def realisations_of(run: str) -> int:
    """Returns how many realisations a run of the study is registered with."""
    return FEW_REALISATIONS.get(run, REALISATIONS)


def registered_runs() -> list[RunConfig]:
    """Returns the configurations of the registered runs of the study, all arms of a realisation after the other."""
    return [
        run_config(run, seed=number) for number in range(REALISATIONS) for run in STUDY if number < realisations_of(run)
    ]


def retuned_runs() -> list[RunConfig]:
    """Returns the configurations of the runs at other learning rates, those of a realisation after the other."""
    return [
        dataclasses.replace(run, seed=number)
        for number in range(REALISATIONS)
        for arm, runs in RETUNED.items()
        for rate, run in runs.items()
        if number < RETUNED_REALISATIONS[arm][rate]
    ]


def planned_runs() -> list[RunConfig]:
    """Returns the configurations of the runs that both studies ask for, whatever their pilots choose."""
    kept = [run for run in registered_runs() if _NAMES[_but_seed(run)] not in DROPPED]
    return kept + retuned_runs() + [run for run in unseen_runs() if not run.re_estimate]


def study_runs() -> list[RunConfig]:
    """Returns the configurations of all runs of both studies, pilots included."""
    return TUNING + registered_runs() + retuned_runs() + unseen_runs()


def is_finished(config: RunConfig) -> bool:
    """Returns whether a run of a study is one whose record must be there, see `FINISHED`."""
    return _NAMES.get(_but_seed(config)) in FINISHED


@functools.cache
def _shown() -> tuple[frozenset[RunConfig], frozenset[RunConfig]]:
    """Returns the runs of the book and those of the study."""
    return frozenset(book_runs()), frozenset(study_runs())


def in_book(config: RunConfig) -> bool:
    """Returns whether the book shows this run, with this seed."""
    return any(config in runs for runs in _shown())


def keeps_weights(config: RunConfig) -> bool:
    """Returns whether the weights of a run must be there. Without them a run can be replayed, but not evaluated again.

    They need not be for those named runs that no page evaluates again: of the study all but `EVALUATED_ARMS`, and seeds
    beyond those of the controls, unless other runs start from them.
    """
    of_book, of_study = _shown()
    if config in of_study:
        return record_name(dataclasses.replace(config, seed=0)) in EVALUATED_ARMS
    if not is_named(config) or (config in of_book and config.seed < CONTROL_SEEDS):
        return True
    return record_name(dataclasses.replace(config, seed=0)) in {run.initial_run for run in RUNS.values()}


def _but_seed(config: RunConfig) -> tuple[Any, ...]:
    return tuple(value for name, value in vars(config).items() if name != "seed")


_NAMES = {_but_seed(run): name for name, run in reversed(NAMED.items())}


def is_named(config: RunConfig) -> bool:
    """Returns whether this is a run of `NAMED`, whatever its seed."""
    return _but_seed(config) in _NAMES


def record_name(config: RunConfig) -> str:
    """Returns the name under which a run is recorded, one name for each configuration.

    A named run with seed 0 has the run's name, with another seed `-seed<n>` appended. Any other configuration has the
    model's name and eight digits of a hash of the fields that are not at their default, so that a new field with a
    default does not rename earlier runs.
    """
    name = _NAMES.get(_but_seed(config))
    if name is not None:
        return name if config.seed == NAMED[name].seed else f"{name}-seed{config.seed}"
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    changed = {name: value for name, value in config.to_dict().items() if value != defaults[name]}
    text = json.dumps(changed, sort_keys=True)
    return f"{config.model}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_named(name: str, **changes: Any) -> RunConfig:
    """Returns the configuration of a run by the name of its record: a name in `NAMED`, also with `-seed<n>` appended.

    Args:
        name: of the record.
        **changes: as for `run_config`.

    Raises:
        ConfigurationError: if there is no such run, or as `run_config`.
    """
    run, _, seed = name.partition("-seed")
    if run not in NAMED:
        raise ConfigurationError(
            f"NAME {_ONE_OF_THE_RUNS}; also with a seed appended, such as cnn-seed1. "
            f"Received: {name}{did_you_mean(run, NAMED)}"
        )
    if name != run and not re.fullmatch("0|[1-9][0-9]{0,9}", seed):
        raise ConfigurationError(f"a seed must be a whole number as in {run}-seed1. Received: {name}")
    return run_config(run, seed=int(seed) if seed else None, **changes)
