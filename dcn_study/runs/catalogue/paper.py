"""The runs of the paper at its published protocol, and the controls that explain them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from dcn_study import names
from dcn_study.runs.configuration import TEST_IMAGES, TRAIN_IMAGES, RunConfig
from dcn_study.runs.run import ANY_SEED, Run

__all__ = ["CONTROL_SEEDS", "OTHERS", "PAPER", "RATES", "RUNS", "SMOKE"]

# How many seeds of a run the book shows, from 0; of every other run one.
CONTROL_SEEDS = 3
_SEEDS = dict.fromkeys((*names.CONTROLS, *names.RESIDUAL, "former_centre_cnn_batch_norm"), CONTROL_SEEDS)

# A cheaper run with the same results replaces a run from this seed on. A test compares both bit by bit.
_STAND_INS = {"deformable_cnn": ("cnn_batch_norm", 1), "deformable_mini_resnet": ("frozen_mini_resnet", 3)}

# The paper's runs, at the published protocol.
_CONFIGURATIONS: dict[str, RunConfig] = {
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

PAPER = tuple(_CONFIGURATIONS)

# Controls: each differs from a run of the paper in what its line says, and in the epochs where it states them.
_DEFORMABLE, _DEFORMABLE_RESIDUAL = _CONFIGURATIONS["deformable_cnn"], _CONFIGURATIONS["deformable_mini_resnet"]
_REPAIRED: dict[str, Any] = {"corners": "bilinear", "pairing": "per_pixel"}
_VALIDATED_APART: dict[str, Any] = {"train_size": TRAIN_IMAGES - TEST_IMAGES, "validation_size": TEST_IMAGES}
_CONFIGURATIONS |= {
    # in place of deformable_cnn: the plain network, of which batch normalisation, its running statistics, or all train
    "cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", epochs=20),
    "cnn_statistics": dataclasses.replace(_DEFORMABLE, model="cnn", learning_rate=0.0, epochs=2),
    "cnn_scaled": dataclasses.replace(_DEFORMABLE, model="cnn", trainable=True, epochs=5),
    # offsets that learn, in scrambled pairs, after the random start that the published code has commented out, and with
    # repaired corners; with its own pairs; in a true deformable convolution
    "random_start_cnn": dataclasses.replace(_DEFORMABLE, offset_stddev=names.RANDOM_START, epochs=1),
    "scrambled_cnn": dataclasses.replace(_DEFORMABLE, corners="bilinear", epochs=5),
    "repaired_cnn": dataclasses.replace(_DEFORMABLE, **_REPAIRED, epochs=5),
    "deform_conv_cnn": dataclasses.replace(_DEFORMABLE, model="deform_conv_cnn", epochs=5),
    # at a learning rate that falls to zero
    "decayed_cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", decay="cosine", epochs=5),
    "decayed_scrambled_cnn": dataclasses.replace(_DEFORMABLE, corners="bilinear", decay="cosine", epochs=5),
    "decayed_repaired_cnn": dataclasses.replace(_DEFORMABLE, **_REPAIRED, decay="cosine", epochs=5),
    "decayed_deform_conv_cnn": dataclasses.replace(_DEFORMABLE, model="deform_conv_cnn", decay="cosine", epochs=5),
    # validated on images that are neither trained nor tested on
    "cnn_validation": dataclasses.replace(_CONFIGURATIONS["cnn"], **_VALIDATED_APART),
    "cnn_batch_norm_validation": dataclasses.replace(
        _DEFORMABLE, model="cnn", initial_run="cnn_validation", epochs=5, **_VALIDATED_APART
    ),
    # trained on images that are scaled about the point that Keras took in 2019
    "former_centre_cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", zoom_centre="former", epochs=20),
    # at a tenth and at ten times the learning rate
    "slow_cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", learning_rate=5e-5, epochs=3),
    "fast_cnn_batch_norm": dataclasses.replace(_DEFORMABLE, model="cnn", learning_rate=5e-3, epochs=3),
    # the residual networks, one change after the other
    "chained_mini_resnet": dataclasses.replace(_CONFIGURATIONS["mini_resnet"], chained=True),
    "unfrozen_deformable_mini_resnet": dataclasses.replace(_DEFORMABLE_RESIDUAL, trainable=True, epochs=5),
    "repaired_deformable_mini_resnet": dataclasses.replace(_DEFORMABLE_RESIDUAL, trainable=True, epochs=5, **_REPAIRED),
    "chained_deformable_mini_resnet": dataclasses.replace(
        _DEFORMABLE_RESIDUAL, trainable=True, epochs=5, **_REPAIRED, chained=True
    ),
    # the published residual networks for four times as many epochs; the deformable one without its idle offset layers
    "long_mini_resnet": dataclasses.replace(_CONFIGURATIONS["mini_resnet"], epochs=40),
    "long_frozen_mini_resnet": dataclasses.replace(_DEFORMABLE_RESIDUAL, model="mini_resnet", epochs=40),
}

_SEEDS |= dict.fromkeys((*PAPER, "cnn_batch_norm"), 10)
_START = {config.initial_run for config in _CONFIGURATIONS.values()}  # runs whose weights others start from
# Runs whose weights nothing needs.
_NOT_EVALUATED = ("decayed_scrambled_cnn", "decayed_repaired_cnn", "former_centre_cnn_batch_norm")


def _run(name: str, seeds: Sequence[int]) -> Run:
    kept = ANY_SEED if name in _START else () if name in _NOT_EVALUATED else range(min(CONTROL_SEEDS, len(seeds)))
    return Run(_CONFIGURATIONS[name], name, seeds=seeds, kept=kept, stand_in=_STAND_INS.get(name))


RUNS = {name: _run(name, range(_SEEDS.get(name, 1))) for name in _CONFIGURATIONS}
# In place of the deformable mini-ResNet, without its offset layers: the weights that train are the same.
_FROZEN = dataclasses.replace(_DEFORMABLE_RESIDUAL, model="mini_resnet")
OTHERS = {"frozen_mini_resnet": Run(_FROZEN, "frozen_mini_resnet", seeds=range(3, 10), kept=())}

# The rate of the optimiser, where batch normalisation alone trains, from the lowest.
RATES = ("slow_cnn_batch_norm", "cnn_batch_norm", "fast_cnn_batch_norm")

# What the profile "smoke" changes in every run: enough to see that all of it works, in seconds. Six whole batches.
SMOKE: dict[str, Any] = {"epochs": 1, "train_size": 192, "test_size": 100}
