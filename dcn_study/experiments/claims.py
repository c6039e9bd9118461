"""Every claim of the paper as data: its words, what was published, what was found, and an outcome that is computed.

`gather` collects the facts from records; `claims` turns facts into outcomes. No outcome is typed.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dcn_study.errors import RecordError
from dcn_study.experiments import study
from dcn_study.experiments.agreement import Agreement, agreement, of_runs
from dcn_study.experiments.first_epoch import LEARNING, FirstEpoch, first_epoch
from dcn_study.experiments.statistics import Interval, interval
from dcn_study.names import SHOWN_LAYERS, TEST_IMAGES
from dcn_study.runs import measurements, published
from dcn_study.runs.catalogue import EVALUATED_ARMS, TWO_BY_TWO, find_run, seeds_of
from dcn_study.runs.records import Measurement, Record
from dcn_study.runs.results import result

__all__ = ["GROUPS", "OUTCOMES", "Claim", "Facts", "claims", "gather", "recorded"]

OUTCOMES = {
    "agrees": "the published number is one that our runs could give",
    "differs": "the published number is not one that our runs give",
    "undecided": "our runs are too few or spread too widely, or the number is outside as chance puts one of several",
    "supported": "our runs show the same",
    "contradicted": "our runs or the published code show otherwise",
    "not tested": "no experiment here decides it",
}
GROUPS = ("accuracies", "curves", "explanation", "protocol", "runtime", "aims and background")
STABLE = 2.0  # percentage points: a validation accuracy that still moves so much from epoch to epoch has not settled
FASTER = 1.5  # a factor
BLIND = 20.0  # percent: twice what guessing gives
OUTSIDE = 0.1  # share of epochs outside their intervals, of which one in twenty is expected
CLAIMS = Path(__file__).with_name("claims.csv")
BLOCKS = ("block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2")  # convolutions of the blocks as drawn


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        name: for links and tests.
        group: one of `GROUPS`.
        words: what the paper says, shortened.
        place: where it says so.
        published: the paper's value, if it states one.
        ours: what was found.
        outcome: one of `OUTCOMES`.
        rule: how the outcome follows from what was found.
        pages: names of the pages with the evidence.
    """

    name: str
    group: str
    words: str
    place: str
    published: str
    ours: str
    outcome: str
    rule: str
    pages: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts by which claims are judged, all of them from records.

    Attributes:
        accuracies: model → kind of test images → the agreement of the published accuracy, all of them judged together.
        curves: model → "training" and "validation" → the same for the accuracy of each epoch, for the epochs that both
            curves have, each judged alone.
        first_epoch: training accuracy and loss of the author's log after an epoch, next to ours.
        gain, plain_gain: deformable CNN minus CNN on scaled and on plain digits, in percentage points, paired by seed.
        residual_gain: the same of the mini-ResNets, by kind of test images.
        stand_in_difference: largest difference of the deformable CNN and batch normalisation alone, with seed 0, on
            either kind of test images, in percentage points.
        largest_kernel: largest absolute value in any offset kernel of the trained networks with the published layer.
        largest_gradient: the same of their gradients in the first steps as published.
        learning_gradient: the same where the corners are repaired.
        offset_channels: numbers that the first offset layer predicts for a pixel, and that one of as many kernel points
            would need.
        trained_on: images that the deformable CNN trains on.
        combinations: of a CNN with and without the layer, and of training on plain and on scaled digits: those run.
        published_epochs: of the two residual networks.
        validated_apart: whether any published run validates on images that it does not test on.
        dead_layers: layers of the residual block as drawn that the trained mini-ResNet does not have.
        frozen_blocks: whether the convolutions of the deformable mini-ResNet keep their initial values.
        last_changes: absolute change of the validation accuracy over the last epoch of the deformable mini-ResNet, in
            percentage points, by seed.
        last_losses: change of its training loss over the last epoch, by seed.
        longer: its validation accuracies in percent where it was trained for longest, by epoch, from the last one that
            the paper has.
        forward_ratio: of the published code's deformable CNN to the CNN.
        speedup: of the same layer written otherwise, forward.
        augmented: scaled-digit accuracy in percent of the CNN, all of it trained on scaled digits.
        two_by_two: mean accuracies in percent, in the registered study, of the CNN and of the one with deformable
            convolutions, then of both with scale augmentation; NaN for a run that is not there.
        beyond_training: accuracy in percent, in the same study, of the CNN on digits squeezed and shifted as none that
            it was trained on.
        over_dilated: deformable convolutions minus a dilated network in the same study, in percentage points.
        fields: pixels that hold half of the gradient, for a digit of full size, with deformable convolutions and in the
            CNN, means over the study's networks; and their difference, paired.
    """

    accuracies: Mapping[str, Mapping[str, Agreement]]
    curves: Mapping[str, Mapping[str, Sequence[Agreement]]]
    first_epoch: Mapping[str, FirstEpoch]
    gain: Interval
    plain_gain: Interval
    residual_gain: Mapping[str, Interval]
    stand_in_difference: float
    largest_kernel: float
    largest_gradient: float
    learning_gradient: float
    offset_channels: tuple[int, int]
    trained_on: str
    combinations: int
    published_epochs: tuple[int, int]
    validated_apart: bool
    dead_layers: tuple[str, ...]
    frozen_blocks: bool
    last_changes: tuple[float, ...]
    last_losses: tuple[float, ...]
    longer: tuple[float, ...]
    forward_ratio: float
    speedup: float
    augmented: float
    two_by_two: tuple[float, ...]
    beyond_training: float
    over_dilated: Interval
    fields: tuple[float, float, Interval]

    @property
    def nothing_deforms(self) -> bool:
        return self.largest_kernel == 0 and self.largest_gradient == 0


def recorded(seeds: int | None = None, **changes: Any) -> dict[str, list[Record]]:
    """Returns the records by which claims are judged, by run and in the order of their seeds; trains what is missing.

    Args:
        seeds: of each model; by default as in the book.
        **changes: as for `find_run`.
    """
    several = (*published.ACCURACY, "cnn_scaled", *LEARNING)
    runs = {name: [result(config) for config in seeds_of(name, seeds, **changes)] for name in several}
    return runs | {name: [result(find_run(name, **changes))] for name in ("cnn_batch_norm", "long_frozen_mini_resnet")}


def gather(runs: Mapping[str, Sequence[Record]]) -> Facts:
    """Returns the facts from the records of runs and from the book's measurements.

    Args:
        runs: as `recorded` returns them.

    Raises:
        RecordError: if a measurement or the weights of a run are missing or damaged.
    """
    studied = study.recorded_runs()
    dilated = study.compared(studied, asked=study.SPACING)["points by image over spaced ones"]
    traces = _measurement("offsets").results["traces"]
    published_traces = [traces["as published"], traces["corners repaired"]]
    gradients = [max(max(layer["gradient"]) for layer in trace["layers"].values()) for trace in published_traces]
    first, longer = runs["deformable_mini_resnet"][0], runs["long_frozen_mini_resnet"][0]
    layered = [
        record for name in published.ACCURACY for record in runs[name] if record.config.model.startswith("deformable")
    ]
    found = {
        model: {kind: [record.evaluations[kind].accuracy for record in runs[model]] for kind in TEST_IMAGES}
        for model in published.ACCURACY
    }
    gains = {
        (model, kind): interval(100 * np.subtract(found[model][kind], found[model.removeprefix("deformable_")][kind]))
        for model in ("deformable_cnn", "deformable_mini_resnet")
        for kind in TEST_IMAGES
    }
    ends = [record.history[-2:] for record in runs["deformable_mini_resnet"]]
    kernels = [_offset_kernels(record) for record in layered]
    return Facts(
        accuracies=of_runs({model: runs[model] for model in published.ACCURACY}),
        curves={model: _curves_of(model, runs[model]) for model in published.ACCURACY},
        first_epoch=first_epoch(runs),
        gain=gains["deformable_cnn", "scaled"],
        plain_gain=gains["deformable_cnn", "plain"],
        residual_gain={kind: gains["deformable_mini_resnet", kind] for kind in TEST_IMAGES},
        stand_in_difference=100
        * max(abs(runs["deformable_cnn"][0].evaluations[kind].accuracy - _after(runs, kind)) for kind in TEST_IMAGES),
        largest_kernel=max(float(np.abs(kernel).max()) for each in kernels for kernel in each),
        largest_gradient=gradients[0],
        learning_gradient=gradients[1],
        offset_channels=(kernels[0][0].shape[-1], 2 * math.prod(kernels[0][0].shape[:2])),
        trained_on=runs["deformable_cnn"][0].config.train_on,
        combinations=len({(name, runs[name][0].config.train_on) for name in ("cnn", "deformable_cnn")}),
        published_epochs=(
            len(published.curve("deformable_mini_resnet")["epoch"]),
            len(published.curve("mini_resnet")["epoch"]),
        ),
        validated_apart=any(runs[name][0].config.validation_size > 0 for name in published.ACCURACY),
        dead_layers=tuple(name for name in BLOCKS if name not in _layers(runs["mini_resnet"][0])),
        frozen_blocks=not first.config.trainable,
        last_changes=tuple(100 * abs(end[-1].validation_accuracy - end[0].validation_accuracy) for end in ends),
        last_losses=tuple(end[-1].loss - end[0].loss for end in ends),
        longer=tuple(100 * epoch.validation_accuracy for epoch in longer.history[len(first.history) - 1 :]),
        **_times(_measurement("runtime")),
        augmented=100 * float(np.mean([record.evaluations["scaled"].accuracy for record in runs["cnn_scaled"]])),
        two_by_two=tuple(float(np.mean([*study.accuracies(studied[run]).values()] or [np.nan])) for run in TWO_BY_TWO),
        beyond_training=float(np.mean([*study.accuracies(studied["scale_cnn"], "scaled").values()] or [np.nan])),
        over_dilated=interval(dilated.differences or [np.nan]),
        fields=_fields(_measurement("mechanism")),
    )


def _curves_of(model: str, found: Sequence[Record]) -> dict[str, list[Agreement]]:
    theirs = published.curve(model)
    epochs = min(len(theirs["epoch"]), *(len(record.history) for record in found))
    images = {"training": found[0].config.train_size, "validation": found[0].evaluations["plain"].images}
    keys = {"training": ("accuracy", "train_accuracy"), "validation": ("validation_accuracy", "validation_accuracy")}
    return {
        name: [
            agreement([getattr(record.history[epoch], ours) for record in found], images[name], theirs[stated][epoch])
            for epoch in range(epochs)
        ]
        for name, (ours, stated) in keys.items()
    }


def _fields(measured: Measurement) -> tuple[float, float, Interval]:
    """Returns the field of the last convolution with deformable convolutions and in the CNN, and their difference."""
    regular, deformable = (
        np.array(list(measured.results["areas"][run][SHOWN_LAYERS[-1]]["gradient"]["0.5"].values())[-1])
        for run in EVALUATED_ARMS
    )
    return float(deformable.mean()), float(regular.mean()), interval(deformable - regular)


def _after(runs: Mapping[str, Sequence[Record]], kind: str) -> float:
    """Returns the accuracy of batch normalisation alone after the epochs that the deformable CNN has."""
    stand_in, epochs = runs["cnn_batch_norm"][0], len(runs["deformable_cnn"][0].history)
    if kind == stand_in.config.train_on and epochs <= len(stand_in.history):
        return stand_in.history[epochs - 1].validation_accuracy
    return stand_in.evaluations[kind].accuracy


def _measurement(name: str) -> Measurement:
    measured = measurements.read(name)
    if measured is None:
        raise RecordError(measurements.missing(name))
    return measured


def _times(measured: Measurement) -> dict[str, float]:
    rows = {
        (row["model"], row["what"]): row["milliseconds"]
        for row in measured.results["rows"]
        if row["batch"] == measured.parameters["batch"]
        and str(row["size"]) == measured.parameters["sizes"].split(",")[0]
    }
    ours, theirs = rows["deformable CNN, ours", "forward"], rows["deformable CNN, published code", "forward"]
    return {
        "forward_ratio": theirs / rows["CNN", "forward"],
        "speedup": theirs / ours,
    }


def _layers(record: Record) -> set[str]:
    """Returns the names of the layers that have weights in the network of a run."""
    return {part for path in record.witness.norms for part in path.split("/")}


def _offset_kernels(record: Record) -> list[np.ndarray]:
    with _weights(record) as file:
        return [
            np.asarray(layer["vars"]["0"]) for name, layer in file["layers"].items() if name.startswith("conv_offset2d")
        ]


def _weights(record: Record) -> Any:
    try:
        return h5py.File(record.weights_path)
    except OSError as error:
        raise RecordError(f"{record.weights_path} cannot be read: {error}") from error


def claims(facts: Facts) -> list[Claim]:
    """Returns all claims of the paper, in the order of `claims.csv`, with their outcomes."""
    groups = (_accuracies, _curves, _explanation, _protocol, _runtime, _background)
    found = {name: result for group in groups for name, result in group(facts).items()}
    with CLAIMS.open(encoding="utf-8", newline="") as file:
        rows = [{**row, **found[row["name"]]} for row in csv.DictReader(file)]
    return [Claim(pages=tuple(row.pop("pages").split()), **row) for row in rows]


def _result(outcome: str, ours: str, published: str = "") -> dict[str, str]:
    return {"published": published, "ours": ours, "outcome": outcome}


def _holds(condition: bool) -> str:
    return "supported" if condition else "contradicted"


def _accuracies(facts: Facts) -> dict[str, dict[str, str]]:
    count = sum(map(len, facts.accuracies.values()))
    return {
        f"{model}-{kind}": _result(
            ours.outcome,
            f"{ours.mean:.1f}% ({ours.low:.1f} to {ours.high:.1f})"
            + (f"; outside, by chance likely among {count} (p = {ours.p_value:.2f})" if ours.by_chance else ""),
            f"{100 * published.ACCURACY[model][kind]:.2f}%",
        )
        for model, kinds in facts.accuracies.items()
        for kind, ours in kinds.items()
    }


def _curves(facts: Facts) -> dict[str, dict[str, str]]:
    found = {}
    for model, curves in facts.curves.items():
        epochs = [epoch for curve in curves.values() for epoch in curve]
        outside, wide = sum(each.outcome == "differs" for each in epochs), sum(each.wide for each in epochs)
        outcome = "differs" if outside > OUTSIDE * len(epochs) else "undecided" if wide > len(epochs) / 2 else "agrees"
        inside = ", ".join(
            f"{name} {sum(epoch.outcome != 'differs' for epoch in curve)} of {len(curve)}"
            for name, curve in curves.items()
        )
        found[f"{model}-curve"] = _result(outcome, f"epochs inside: {inside}; wide intervals: {wide} of {len(epochs)}")
    return found


def _explanation(facts: Facts) -> dict[str, dict[str, str]]:
    stated = {
        (model, kind): 100 * (accuracies[kind] - published.ACCURACY[model.removeprefix("deformable_")][kind])
        for model, accuracies in published.ACCURACY.items()
        for kind in TEST_IMAGES
    }
    gained, still, residual = facts.gain, facts.nothing_deforms, facts.residual_gain
    same = still and facts.stand_in_difference == 0
    logged = facts.first_epoch.values()
    settled = float(np.mean(facts.last_changes)) <= STABLE and max(facts.last_losses) >= 0
    first, *later = facts.longer if len(facts.longer) > 1 else facts.longer * 2
    deformable, regular, larger = facts.fields
    return {
        "gain": _result(_sign(gained), _points(gained), f"{stated['deformable_cnn', 'scaled']:+.1f} points"),
        "robust": _result(
            _sign(facts.plain_gain),
            f"{_points(facts.plain_gain)} against the CNN on plain digits",
            f"{stated['deformable_cnn', 'plain']:+.1f} points",
        ),
        "cause": _result(
            _holds(not same),
            f"without the offset layers, {_number(facts.stand_in_difference)} points of difference (seed 0)",
        ),
        "in-all-layers": _result(
            _holds(not still),
            f"largest offset kernel {_number(facts.largest_kernel)}, "
            f"largest gradient {_number(facts.largest_gradient)}",
        ),
        "log": _result(
            _holds(not all(each.as_inert for each in logged)),
            "; ".join(
                f"{name} {each.low:.{digits}f} to {each.high:.{digits}f} with offsets at zero, "
                f"{min(each.learning):.{digits}f} to {max(each.learning):.{digits}f} where they learn"
                for (name, each), digits in zip(facts.first_epoch.items(), (1, 2), strict=True)
            ),
            ", ".join(f"{each.published:.{digits}f}" for each, digits in zip(logged, (2, 3), strict=True)),
        ),
        "receptive-field": _result(
            "contradicted" if still else "not tested", "no point moves" if still else "points move"
        ),
        "wider-field": _result(
            _sign(larger),
            f"with deformable convolutions that work, {deformable:.0f} pixels hold half of the gradient in place of "
            f"{regular:.0f}",
        ),
        "contrast": _result(
            "supported" if residual["plain"].high < 0 else "contradicted" if residual["plain"].low > 0 else "undecided",
            "; ".join(f"{_points(residual[kind])} on {kind} digits" for kind in TEST_IMAGES),
            f"{stated['deformable_mini_resnet', 'plain']:+.1f} points",
        ),
        "too-simple": _result(
            _holds(not (still and facts.frozen_blocks and residual["plain"].high < 0)),
            "with offsets at zero it is the mini-ResNet with frozen blocks: these alone make the difference",
        ),
        "unoptimised": _result(
            _holds(not still),
            "its offsets stay at zero: it computes what the network would without it" if still else "offsets move",
        ),
        "not-settled": _result(
            _holds(not settled),
            f"the last epoch changes the accuracy by {min(facts.last_changes):.1f} to {max(facts.last_changes):.1f} "
            f"points, and the training loss by {min(facts.last_losses):.3f} to {max(facts.last_losses):.3f}",
        ),
        "ten-epochs": _result(
            "supported" if min(later) > first + STABLE else "contradicted" if max(later) < first else "undecided",
            f"from {first:.0f}%, {len(later)} more epochs reach between {min(later):.0f} and {max(later):.0f}%, "
            f"the last {later[-1]:.0f}% (one seed)",
        ),
    }


def _protocol(facts: Facts) -> dict[str, dict[str, str]]:
    found, needed = facts.offset_channels
    deformable, regular = facts.published_epochs
    return {
        "unseen": _result(_holds(facts.trained_on != "scaled"), f"it trains on {facts.trained_on} images"),
        "three-groups": _result(
            _holds(facts.validated_apart), "a third group" if facts.validated_apart else "the test images validate"
        ),
        "one-per-point": _result(
            _holds(found == needed), f"{found} numbers for each pixel before conv12, in place of {needed}"
        ),
        "both-convolutions": _result(
            _holds(not facts.dead_layers), f"{len(facts.dead_layers)} of {len(BLOCKS)} reach no output"
        ),
        "same-epochs": _result(_holds(deformable == regular), f"{deformable} and {regular} in the author's log"),
        "two-by-two": _result(
            _holds(facts.combinations == len(facts.two_by_two)),
            f"the paper has {facts.combinations} of {len(facts.two_by_two)}; our study has all, on its own digits: "
            + "{:.2f}% and {:.2f}% without and with deformable convolutions, ".format(*facts.two_by_two)
            + "with augmentation {2:.2f}% and {3:.2f}%".format(*facts.two_by_two),
        ),
    }


def _runtime(facts: Facts) -> dict[str, dict[str, str]]:
    stated = published.FORWARD["deformable"] / published.FORWARD["regular"]
    return {
        "thirty-times": _result(
            "not tested", f"{facts.forward_ratio:.1f} times on this processor", f"{stated:.0f} times"
        ),
        "inefficient": _result(_holds(facts.speedup > FASTER), f"{facts.speedup:.1f} times its speed"),
    }


def _background(facts: Facts) -> dict[str, dict[str, str]]:
    plain, scaled = facts.accuracies["cnn"]["plain"], facts.accuracies["cnn"]["scaled"]
    dilated = facts.over_dilated
    untested = {
        "augmentation": f"how common it is, we did not count; it helps: {facts.augmented:.1f}% in place of "
        f"{scaled.mean:.1f}% on scaled digits",
        "low-cost": "times on a CPU are on the page on operators",
        "atrous": f"in the registered study {dilated.mean:+.2f} points over a dilated network on digits "
        f"({dilated.low:+.2f} to {dilated.high:+.2f})",
        "roi-pooling": "no detector is trained here; the pooling by itself is tested on digits",
        "keras-only": "true of the published class; dcn.ops needs TensorFlow alone",
        "generalise": "dcn.ops is one; no experiment here compares generality",
    }
    return {
        "blind": _result(
            _holds(scaled.mean <= BLIND),
            f"{scaled.mean:.0f}% after training on plain digits ({plain.mean:.0f}% on these); "
            f"{facts.beyond_training:.0f}% after training on shrunken ones, which were neither squeezed nor shifted",
        ),
        "drop-in": _result(
            _holds(not facts.nothing_deforms), "it can be put before a convolution, and then moves no sampling point"
        ),
        **{name: _result("not tested", ours) for name, ours in untested.items()},
    }


def _sign(difference: Interval) -> str:
    """Returns the outcome of the claim that a difference is above zero."""
    return "supported" if difference.low > 0 else "contradicted" if difference.high < 0 else "undecided"


def _points(difference: Interval) -> str:
    return f"{difference.mean:+.1f} points ({difference.low:+.1f} to {difference.high:+.1f})"


def _number(value: float) -> str:
    return f"{value:.3g}" if value else "exactly 0"
