"""The runs of the first registered study, on MNIST-Scale: pilots, arms, other rates, and sources of chance."""

from __future__ import annotations

from typing import Any

from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.run import Run

__all__ = [
    "DEFORMABLE_ARM",
    "DROPPED",
    "EVALUATED_ARMS",
    "LADDER",
    "PILOTS",
    "PILOT_RATES",
    "REALISATIONS",
    "RETUNED",
    "SPREAD",
    "STUDY",
    "TRIED",
    "TWO_BY_TWO",
]

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
# Arm → the learning rate that its pilots chose, see `PILOTS`, and its model.
_ARMS: dict[str, tuple[float, dict[str, Any]]] = {
    "cnn": (3e-3, {"model": "cnn"}),
    "wide_cnn": (3e-3, {"model": "wide_cnn"}),
    "wider_cnn": (1e-2, {"model": "wider_cnn"}),
    "dilated_cnn": (3e-3, {"model": "dilated_cnn"}),
    "deform_conv_cnn": (1e-3, {"model": "deform_conv_cnn"}),
    "modulated_cnn": (1e-3, {"model": "modulated_deform_conv_cnn"}),
    "shared_offsets_cnn": (3e-3, {"model": "shared_offsets_cnn"}),
    "transformer_cnn": (1e-2, {"model": "transformer_cnn"}),
    "conv_offset_cnn": (1e-3, {"model": "deformable_cnn", "corners": "bilinear", "pairing": "per_pixel"}),
    "mini_resnet": (3e-3, {"model": "mini_resnet", "chained": True}),
    "deform_conv_mini_resnet": (3e-3, {"model": "deform_conv_mini_resnet", "chained": True}),
}
_AUGMENTED = ("cnn", "wider_cnn", "deform_conv_cnn", "modulated_cnn", "transformer_cnn")
REALISATIONS = 6
_FEW = ("scale_conv_offset_cnn", "scale_mini_resnet", "scale_deform_conv_mini_resnet")  # these have three
# Registered runs that an amendment dropped, with all their realisations; none of them has been begun.
DROPPED = ("rescaled_wider_cnn", "rescaled_modulated_cnn", "rescaled_transformer_cnn", "scale_modulated_cnn")
DEFORMABLE_ARM = "scale_deform_conv_cnn"
EVALUATED_ARMS = ("scale_cnn", DEFORMABLE_ARM)  # whose networks measurements evaluate
# Without and with deformable convolutions, without and with augmentation.
TWO_BY_TWO = ("scale_cnn", "scale_deform_conv_cnn", "rescaled_cnn", "rescaled_deform_conv_cnn")


def _registered(name: str, arm: str, **changes: Any) -> Run:
    rate, model = _ARMS[arm]
    seeds = range(3 if name in _FEW else REALISATIONS)
    kept = seeds if name in EVALUATED_ARMS else ()
    return Run(RunConfig(**_MNIST_SCALE, learning_rate=rate, **model, **changes), name, seeds=seeds, kept=kept)


STUDY = {f"scale_{arm}": _registered(f"scale_{arm}", arm) for arm in _ARMS}
STUDY |= {f"rescaled_{arm}": _registered(f"rescaled_{arm}", arm, train_on="rescaled") for arm in _AUGMENTED}

# Pilots, on a realisation of their own, for a third of the epochs: each arm with three learning rates, and with the
# next one as long as the best is at an end. Arm → rate of the ladder → the pilot.
LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
PILOT_RATES = (3e-4, 1e-3, 3e-3)


def _at_rate(name: str, arm: str, rate: float, seeds: range, **changes: Any) -> Run:
    config = STUDY[f"scale_{arm}"].changed(learning_rate=rate, **changes).config
    return Run(config, f"{name}_{arm}_{rate:g}", first=config.seed, seeds=seeds, kept=())


PILOTS = {
    arm: {
        rate: _at_rate("pilot", arm, rate, range(REALISATIONS, REALISATIONS + 1), epochs=10, seed=REALISATIONS)
        for rate in LADDER
    }
    for arm in _ARMS
}
# Arm → the rates of its pilots that were run.
TRIED = {
    **dict.fromkeys(("cnn", "wide_cnn", "dilated_cnn", "shared_offsets_cnn"), LADDER[1:5]),
    **dict.fromkeys(("mini_resnet", "deform_conv_mini_resnet"), LADDER[1:5]),
    **dict.fromkeys(("wider_cnn", "transformer_cnn"), LADDER[1:]),
    **dict.fromkeys(("deform_conv_cnn", "conv_offset_cnn"), LADDER[1:4]),
}

# Arms at other learning rates than their pilots chose, as amended. Arm → rate → the run.
_RETUNED = {
    "cnn": {1e-2: REALISATIONS},
    "wide_cnn": {1e-2: 3},
    "deform_conv_cnn": {2e-3: 3},
    "shared_offsets_cnn": {1e-3: 3, 1e-2: 3},
}
RETUNED = {
    arm: {rate: _at_rate("scale", arm, rate, range(count)) for rate, count in rates.items()}
    for arm, rates in _RETUNED.items()
}

# Where the spread comes from: a small network with one source of chance varied, and all others kept at 0. Source → its
# runs, of which the first is the same for all sources. Those of a realisation differ in their seed.
_SMALL = (
    STUDY["rescaled_cnn"]
    .changed(model="small_cnn", learning_rate=3e-3, weights_seed=0, order_seed=0, augmentation_seed=0)
    .config
)
_SPREAD = Run(_SMALL, "spread", seeds=range(REALISATIONS), kept=())


def _draw(source: str, number: int) -> Run:
    if source == "realisation" or not number:
        return _SPREAD.seeded(number)
    config = _SPREAD.changed(**{f"{source}_seed": number}).config
    return Run(config, f"spread_{source}_{number}", seeds=(0,), kept=())


SPREAD = {
    source: [_draw(source, number) for number in range(REALISATIONS)]
    for source in ("weights", "order", "augmentation", "realisation")
}
