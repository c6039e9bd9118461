"""The runs of the second registered study: trained on plain digits, tested on unseen scaled and translated ones."""

from __future__ import annotations

from typing import Any

from dcn_study.runs.catalogue.study import LADDER
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import FASHION_MNIST
from dcn_study.runs.run import Run

__all__ = [
    "FASHION",
    "FASHION_REALISATIONS",
    "FRESH",
    "FRESH_REALISATIONS",
    "LADDER",
    "PILOTS",
    "PILOT_RATES",
    "PILOT_REALISATIONS",
    "REALISATIONS",
    "RETUNED",
    "TRIED",
    "UNSEEN",
]

PILOT_REALISATIONS = (7, 8)
REALISATIONS = tuple(range(9, 19))
FRESH_REALISATIONS = REALISATIONS[:6]
FASHION_REALISATIONS = REALISATIONS[:3]
PILOT_RATES = {
    "cnn": (1e-3, 3e-3, 1e-2),
    "antialiased_cnn": (1e-3, 3e-3, 1e-2),
    "shared_offsets_cnn": (1e-3, 3e-3, 1e-2),
    "deform_conv_cnn": (3e-4, 1e-3, 3e-3),
}

_BUDGET: dict[str, Any] = {
    "epochs": 30,
    "optimizer": "adam",
    "decay": "cosine",
    "batch_size": 128,
    "train_size": 10_000,
    "test_size": 50_000,
    "scaled_test_size": 50_000,
}


def _run(name: str, arm: str, seeds: tuple[int, ...], rate: float, **changes: Any) -> Run:
    return Run(RunConfig(model=arm, learning_rate=rate, **_BUDGET, **changes), name, seeds=seeds, kept=())


_POOLED: dict[str, Any] = {"task": "mnist_pooled", "validation_size": 10_000}
# Arm → the learning rate that its pilots chose.
_CHOSEN = {"cnn": 3e-3, "antialiased_cnn": 1e-3, "shared_offsets_cnn": 3e-3, "deform_conv_cnn": 3e-4}
UNSEEN = {arm: _run(f"unseen_{arm}", arm, REALISATIONS, rate, **_POOLED) for arm, rate in _CHOSEN.items()}

# Arm → the run at the largest of the learning rates that its pilots found tied, as amended.
_LARGEST = {"cnn": 1e-2, "antialiased_cnn": 1e-2, "shared_offsets_cnn": 1e-2, "deform_conv_cnn": 1e-3}
RETUNED = {
    arm: _run(f"unseen_{arm}_{rate:g}", arm, FRESH_REALISATIONS, rate, **_POOLED) for arm, rate in _LARGEST.items()
}

# Arm → rate of the ladder → the pilot. Three are run for each arm, and the next one if the best of them is at an end.
PILOTS = {
    arm: {
        rate: _run(f"unseen_pilot_{arm}_{rate:g}", arm, PILOT_REALISATIONS, rate, **_POOLED, re_estimate=True)
        for rate in LADDER
    }
    for arm in PILOT_RATES
}
# Arm → the rates of its pilots that were run.
TRIED = {
    **dict.fromkeys(("cnn", "shared_offsets_cnn"), LADDER[2:5]),
    "antialiased_cnn": LADDER[1:5],
    "deform_conv_cnn": LADDER[:4],
}

# The first study's networks, as trained there, on realisations that it has not used, tested on all scaled digits.
_TRAINED = {"cnn": 3e-3, "shared_offsets_cnn": 3e-3, "deform_conv_cnn": 1e-3}
FRESH = {
    arm: _run(f"fresh_{arm}", arm, FRESH_REALISATIONS, rate, task="mnist_scale", validation_size=2_000)
    for arm, rate in _TRAINED.items()
}

# Arms on another data set, at the rates that pilots chose on digits, as amended.
FASHION = {
    arm: _run(f"fashion_{arm}", arm, FASHION_REALISATIONS, _CHOSEN[arm], **_POOLED, data=FASHION_MNIST)
    for arm in _TRAINED
}
