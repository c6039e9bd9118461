"""The first registered study, on MNIST-Scale: its contrasts, what its pilots chose, and what its runs have found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from dcn_study.experiments.statistics import Contrast, contrasts
from dcn_study.names import ARMS
from dcn_study.runs import published, records
from dcn_study.runs.catalogue import (
    LADDER,
    PILOT_RATES,
    PILOTS,
    REALISATIONS,
    RETUNED,
    SPREAD,
    STUDY,
)
from dcn_study.runs.records import Record

__all__ = [
    "EXPLORATORY",
    "MNIST_SCALE",
    "PRIMARY",
    "REGISTERED",
    "REPORTED",
    "SMALLEST",
    "UNREGISTERED",
    "Comparison",
    "accuracies",
    "arm_label",
    "asked_rates",
    "at_best_rates",
    "best_of",
    "best_rate",
    "beyond",
    "compared",
    "lost_between_strides",
    "minus_the_cnn",
    "pilots",
    "rates_tried",
    "recorded_runs",
    "spread",
]

REGISTERED = "fffe04a6f40c92670faa8bf09cca9ae5d072ec37"  # the commit of the registration
# What others have published on MNIST-Scale: mean accuracy in percent and its standard deviation over six realisations.
# Source: table 2 of Y. Li et al., "Affine Equivariant Networks Based on Differential Invariants", CVPR 2024.
MNIST_SCALE = {
    "SI-ConvNet": (97.56, 0.13),
    "ScDCFNet": (97.91, 0.08),
    "SESN": (97.92, 0.09),
    "InvarPDEs-Net": (98.30, 0.06),
}
# What others report of deformable convolution on scaled digits, one run each: who → accuracy in percent without it and
# with it, and which of the two networks had trained on such digits.
# Sources: the READMEs of github.com/felixlaumon/deform-conv, of 4uiiurz1/pytorch-deform-conv-v2 (9ccc492, "w/ DCN
# @conv3~4") and of developer0hye/PyTorch-Deformable-Convolution-v2 (4404cce).
REPORTED = {
    "Lau (2017)": (57.01, 92.55, "the deformable one"),
    "Oza (2019), the paper": (
        100 * published.ACCURACY["cnn"]["scaled"],
        100 * published.ACCURACY["deformable_cnn"]["scaled"],
        "the deformable one",
    ),
    "4uiiurz1": (97.22, 98.95, "both"),
    "Kwon (2022)": (90.03, 92.90, "neither"),
}
STRIDE = 4  # pixels: of the strided convolutions of the four-layer networks together
SMALLEST = 0.25  # the smallest effect of interest, in percentage points of test accuracy
EXPLORATORY = 0.5  # the same for exploratory results

# The registered primary contrasts: what is asked → the two runs whose accuracies are subtracted.
PRIMARY = {
    "in place of the convolutions": ("scale_deform_conv_cnn", "scale_cnn"),
    "at equal multiply-adds": ("scale_deform_conv_cnn", "scale_wide_cnn"),
    "at equal time per step": ("scale_deform_conv_cnn", "scale_wider_cnn"),
    "offsets that depend on the image": ("scale_deform_conv_cnn", "scale_shared_offsets_cnn"),
    "beyond scale augmentation": ("rescaled_deform_conv_cnn", "rescaled_cnn"),
}
# Not registered as contrasts, and without verdicts. Is it enough to space the points of one layer beforehand, or must
# they be learned? What is the paper's own layer worth, once its corners and pairing are repaired and it trains like the
# rest? Does deformation help the mini-ResNet, and would one transformation of the whole image do?
UNREGISTERED = {
    "dilated over the CNN": ("scale_dilated_cnn", "scale_cnn"),
    "shared offsets over dilated": ("scale_shared_offsets_cnn", "scale_dilated_cnn"),
    "deformable over dilated": ("scale_deform_conv_cnn", "scale_dilated_cnn"),
    "shared offsets over the CNN": ("scale_shared_offsets_cnn", "scale_cnn"),
    "the paper's layer over the CNN": ("scale_conv_offset_cnn", "scale_cnn"),
    "deformable over the paper's layer": ("scale_deform_conv_cnn", "scale_conv_offset_cnn"),
    "the mini-ResNet over the CNN": ("scale_mini_resnet", "scale_cnn"),
    "the mini-ResNet, deformable over regular": ("scale_deform_conv_mini_resnet", "scale_mini_resnet"),
    "a spatial transformer over the CNN": ("scale_transformer_cnn", "scale_cnn"),
    "deformable over a spatial transformer": ("scale_deform_conv_cnn", "scale_transformer_cnn"),
}


_BySize = dict[float, list[float]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A contrast and the realisations that both of its runs have.

    Attributes:
        runs: the names of both.
        numbers: of the realisations.
        differences: in test accuracy, the first run minus the second, in percentage points, one per realisation.
        contrast: None until all realisations of the primary contrasts are there, since a verdict on a part would be a
            look ahead; always None for others.
    """

    runs: tuple[str, str]
    numbers: tuple[int, ...]
    differences: tuple[float, ...]
    contrast: Contrast | None


def pilots() -> dict[str, dict[float, Record | None]]:
    """Returns the records of the pilots by arm and learning rate; None where there is none."""
    return {arm: {rate: records.read(run) for rate, run in runs.items()} for arm, runs in PILOTS.items()}


def best_rate(tried: Mapping[float, Record | None]) -> float | None:
    """Returns the learning rate with the highest validation accuracy after the last epoch, the lower one of equals.

    None if one of the three pilots that every arm has is missing, or the next lower or higher one than the best.
    """
    return _best_piloted(tried) if asked_rates(tried) <= {rate for rate, record in tried.items() if record} else None


def asked_rates(tried: Mapping[float, Record | None]) -> set[float]:
    """Returns the learning rates that an arm's pilots must have so far: three, then the next ones to the best."""
    if not all(tried.get(rate) for rate in PILOT_RATES):
        return set(PILOT_RATES)
    place = LADDER.index(_best_piloted(tried))
    return {*PILOT_RATES, *LADDER[max(0, place - 1) : place + 2]}


def _best_piloted(tried: Mapping[float, Record | None]) -> float:
    found = {rate: record.history[-1].validation_accuracy for rate, record in tried.items() if record}
    return min(found, key=lambda rate: (-found[rate], rate))


def recorded_runs() -> dict[str, dict[int, Record]]:
    """Returns the records of the study by run and number of the realisation."""
    return {name: records.by_seed(run) for name, run in STUDY.items()}


def accuracies(runs: Mapping[int, Record], kind: str = "plain") -> dict[int, float]:
    """Returns the accuracies of a run on a test set, in percent, by number of the realisation."""
    return {number: 100 * record.evaluations[kind].accuracy for number, record in runs.items()}


def beyond(runs: Mapping[int, Record]) -> dict[str, dict[float, list[float]]]:
    """Returns the accuracies of a run, in percent, on digits changed beyond what it was trained on.

    Returns:
        Kind of change ("scale", "rotation", "shift") → its size → one accuracy per realisation.
    """
    found: dict[str, dict[float, list[float]]] = {}
    for record in runs.values():
        for name, evaluation in record.evaluations.items():
            kind, _, size = name.partition(" ")
            if size:
                found.setdefault(kind, {}).setdefault(float(size), []).append(100 * evaluation.accuracy)
    return found


def minus_the_cnn(changed: Mapping[str, Mapping[str, _BySize]]) -> dict[str, dict[str, _BySize]]:
    """Returns accuracies on changed digits as differences from the CNN without augmentation, paired by realisation.

    Args:
        changed: kind of change → run, a CNN without augmentation among them → size of the change → accuracies.
    """
    less: dict[str, dict[str, _BySize]] = {}
    for kind, by_run in changed.items():
        regular = next(run for run in by_run if run in ("scale_cnn", "cnn"))
        less[kind] = {
            run: {
                size: [ours - its for ours, its in zip(values, by_run[regular][size], strict=False)]
                for size, values in by_size.items()
            }
            for run, by_size in by_run.items()
            if run != regular
        }
    return less


def lost_between_strides(runs: Mapping[int, Record]) -> list[float]:
    """Returns what a shift costs that is not a multiple of `STRIDE`, in percentage points, one value per realisation.

    It is the mean accuracy of a run on digits shifted by multiples of the stride, minus that on all others.
    """
    by_shift = beyond(runs)["shift"]
    multiples, others = (
        [values for shift, values in by_shift.items() if (shift % STRIDE == 0) is whole] for whole in (True, False)
    )
    return [float(lost) for lost in np.mean(multiples, axis=0) - np.mean(others, axis=0)]


def arm_label(run: str) -> str:
    """Returns what a run of the study, or an arm, is called."""
    if run in ARMS:
        return ARMS[run]
    kind, _, arm = run.partition("_")
    return ARMS[arm] + (", with scale augmentation" if kind == "rescaled" else "")


def compared(
    found: Mapping[str, Mapping[int, Record]], kind: str = "plain", asked: Mapping[str, tuple[str, str]] = PRIMARY
) -> dict[str, Comparison]:
    """Returns contrasts. The primary ones are judged together, once each has all its realisations.

    No other is judged, nor are these on another test set than that of the realisations, "scaled": that is not
    registered.
    """
    values = {run: accuracies(found[run], kind) for pair in asked.values() for run in pair}
    numbers = {name: tuple(sorted(set(values[a]) & set(values[b]))) for name, (a, b) in asked.items()}
    pairs = [tuple([values[run][number] for number in numbers[name]] for run in asked[name]) for name in asked]
    differences = dict(zip(asked, (tuple(np.subtract(a, b)) for a, b in pairs), strict=True))
    judged: dict[str, Contrast] = {}
    if asked is PRIMARY and kind == "plain" and all(len(each) == REALISATIONS for each in numbers.values()):
        judged = dict(zip(PRIMARY, contrasts([(a, b) for a, b in pairs], SMALLEST), strict=True))
    return {name: Comparison(runs, numbers[name], differences[name], judged.get(name)) for name, runs in asked.items()}


def rates_tried() -> dict[str, dict[float, dict[int, Record]]]:
    """Returns the records of each run of the primary contrasts by learning rate and number of the realisation.

    The first rate is the one that the pilots chose; the others were added by amendment, see `catalogue.RETUNED`.
    """
    found = {}
    for name in dict.fromkeys(run for pair in PRIMARY.values() for run in pair):
        kind, _, arm = name.partition("_")
        others = RETUNED.get(arm, {}) if kind == "scale" else {}
        runs = {STUDY[name].config.learning_rate: STUDY[name], **others}
        found[name] = {rate: records.by_seed(run) for rate, run in runs.items()}
    return found


def best_of(tried: Mapping[float, Mapping[int, Record]]) -> float:
    """Returns the learning rate with the highest mean validation accuracy over the realisations that all rates have.

    The lower one of equals; the first one if they have no realisation in common.
    """
    shared = set.intersection(*(set(runs) for runs in tried.values()))
    if not shared:
        return next(iter(tried))
    means = {
        rate: float(np.mean([runs[number].history[-1].validation_accuracy for number in sorted(shared)]))
        for rate, runs in tried.items()
    }
    return min(means, key=lambda rate: (-means[rate], rate))


def at_best_rates(kind: str = "plain") -> tuple[dict[str, float], dict[str, Comparison]]:
    """Returns the best learning rate of each run of the primary contrasts, and the contrasts at these, not judged.

    Args:
        kind: the test set of the contrasts, see `splits.KINDS`; the rates are chosen on validation images.
    """
    tried = rates_tried()
    best = {run: best_of(rates) for run, rates in tried.items()}
    found = compared({run: rates[best[run]] for run, rates in tried.items()}, kind)
    return best, {name: dataclasses.replace(each, contrast=None) for name, each in found.items()}


def spread() -> dict[str, list[float]]:
    """Returns the accuracies, in percent, of the small network with one source of chance varied, by source."""
    return {
        source: [100 * record.evaluations["plain"].accuracy for record in records.recorded(runs)]
        for source, runs in SPREAD.items()
    }
