"""Every claim of the paper as data: its words, what was published, what was found, and an outcome that is computed.

`gather` collects the facts from records; `claims` turns facts into outcomes. No outcome is typed.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dcn_study.errors import RecordError
from dcn_study.experiments import study
from dcn_study.experiments.agreement import Agreement, agreement, of_runs
from dcn_study.experiments.statistics import Interval, interval
from dcn_study.names import TEST_IMAGES
from dcn_study.runs import measurements, published
from dcn_study.runs.catalogue import TWO_BY_TWO
from dcn_study.runs.records import Measurement, Record

__all__ = ["GROUPS", "OUTCOMES", "Claim", "Facts", "claims", "gather"]

OUTCOMES = {
    "agrees": "the published number is one that our runs could give",
    "differs": "the published number is not one that our runs give",
    "undecided": "our runs spread too widely to test the number, or it is outside as one of several may be by chance",
    "supported": "our runs show the same",
    "contradicted": "our runs or the published code show otherwise",
    "not tested": "no experiment here decides it",
}
GROUPS = ("accuracies", "curves", "explanation", "protocol", "runtime", "aims and background")
STABLE = 2.0  # percentage points: a validation accuracy that still moves so much from epoch to epoch has not settled
MANY_TIMES = 3.0  # a factor
FASTER = 1.5
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
        curves: model → the same for the validation accuracy of each epoch, for the epochs that both curves have, each
            judged alone.
        gain: deformable CNN minus CNN on scaled digits, in percentage points, paired by seed.
        stand_in_difference: largest difference of the deformable CNN and batch normalisation alone, with seed 0, on
            either kind of test images, in percentage points.
        largest_kernel: largest absolute value in any offset kernel of the trained networks with the published layer.
        largest_gradient: the same of their gradients in the first steps as published.
        learning_gradient: the same where the corners are repaired.
        trained_on: images that the deformable CNN trains on.
        validated_apart: whether any published run validates on images that it does not test on.
        dead_layers: layers of the residual block as drawn that the trained mini-ResNet does not have.
        frozen_blocks: whether the convolutions of the deformable mini-ResNet keep their initial values.
        repaired, as_published: validation accuracy in percent of the deformable mini-ResNet after as many epochs, with
            blocks that train and offsets that learn, and as published.
        last_changes: absolute change of the validation accuracy over the last epoch of the deformable mini-ResNet, in
            percentage points, by seed.
        longer: how many epochs it was trained for at most, and its accuracy in percent on plain digits after them.
        forward_ratio, step_ratio: of the published code's deformable CNN to the CNN.
        speedup: of the same layer written otherwise, forward.
        augmented: scaled-digit accuracy in percent of the CNN, all of it trained on scaled digits.
        two_by_two: mean accuracies in percent, in the registered study, of the CNN and of the one with deformable
            convolutions, then of both with scale augmentation; NaN for a run that is not there.
        over_dilated: deformable convolutions minus a dilated network in the same study, in percentage points.
    """

    accuracies: Mapping[str, Mapping[str, Agreement]]
    curves: Mapping[str, Sequence[Agreement]]
    gain: Interval
    stand_in_difference: float
    largest_kernel: float
    largest_gradient: float
    learning_gradient: float
    trained_on: str
    validated_apart: bool
    dead_layers: tuple[str, ...]
    frozen_blocks: bool
    repaired: float
    as_published: float
    last_changes: tuple[float, ...]
    longer: tuple[int, float]
    forward_ratio: float
    step_ratio: float
    speedup: float
    augmented: float
    two_by_two: tuple[float, ...]
    over_dilated: Interval

    @property
    def nothing_deforms(self) -> bool:
        return self.largest_kernel == 0 and self.largest_gradient == 0


def gather(runs: Mapping[str, Sequence[Record]]) -> Facts:
    """Returns the facts from the records of runs and from the book's measurements.

    Args:
        runs: by name, the records of its seeds in their order: the paper's models, "cnn_batch_norm", "cnn_scaled",
            "repaired_deformable_mini_resnet" and "long_frozen_mini_resnet".

    Raises:
        RecordError: if a measurement or the weights of a run are missing or damaged.
    """
    studied = study.recorded_runs()
    dilated = study.compared(studied, asked=study.SPACING)["points by image over spaced ones"]
    traces = _measurement("offsets").results["traces"]
    published_traces = [traces["as published"], traces["corners repaired"]]
    gradients = [max(max(layer["gradient"]) for layer in trace["layers"].values()) for trace in published_traces]
    first, repaired = runs["deformable_mini_resnet"][0], runs["repaired_deformable_mini_resnet"][0]
    longer = runs["long_frozen_mini_resnet"][0]
    common = min(len(first.history), len(repaired.history))
    layered = [
        record for name in published.ACCURACY for record in runs[name] if record.config.model.startswith("deformable")
    ]
    found = {
        model: {kind: [record.evaluations[kind].accuracy for record in runs[model]] for kind in TEST_IMAGES}
        for model in published.ACCURACY
    }
    images = {model: runs[model][0].evaluations["plain"].images for model in found}
    return Facts(
        accuracies=of_runs({model: runs[model] for model in published.ACCURACY}),
        curves={model: _curve(model, runs[model], images[model]) for model in published.ACCURACY},
        gain=interval(100 * np.subtract(found["deformable_cnn"]["scaled"], found["cnn"]["scaled"])),
        stand_in_difference=100
        * max(abs(runs["deformable_cnn"][0].evaluations[kind].accuracy - _after(runs, kind)) for kind in TEST_IMAGES),
        largest_kernel=max(_largest_offset_kernel(record) for record in layered),
        largest_gradient=gradients[0],
        learning_gradient=gradients[1],
        trained_on=runs["deformable_cnn"][0].config.train_on,
        validated_apart=any(runs[name][0].config.validation_size > 0 for name in published.ACCURACY),
        dead_layers=tuple(name for name in BLOCKS if name not in _layers(runs["mini_resnet"][0])),
        frozen_blocks=not first.config.trainable,
        repaired=100 * repaired.history[common - 1].validation_accuracy,
        as_published=100 * first.history[common - 1].validation_accuracy,
        last_changes=tuple(
            100 * abs(record.history[-1].validation_accuracy - record.history[-2].validation_accuracy)
            if len(record.history) > 1
            else 0.0
            for record in runs["deformable_mini_resnet"]
        ),
        longer=(len(longer.history), 100 * longer.evaluations["plain"].accuracy),
        **_times(_measurement("runtime")),
        augmented=100 * float(np.mean([record.evaluations["scaled"].accuracy for record in runs["cnn_scaled"]])),
        two_by_two=tuple(float(np.mean([*study.accuracies(studied[run]).values()] or [np.nan])) for run in TWO_BY_TWO),
        over_dilated=interval(dilated.differences or [np.nan]),
    )


def _curve(model: str, found: Sequence[Record], images: int) -> list[Agreement]:
    theirs = published.curve(model)["validation_accuracy"]
    epochs = min(len(theirs), *(len(record.history) for record in found))
    ours = [[record.history[epoch].validation_accuracy for record in found] for epoch in range(epochs)]
    return [agreement(values, images, stated) for values, stated in zip(ours, theirs[:epochs], strict=True)]


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
        "step_ratio": rows["deformable CNN, published code", "training step"] / rows["CNN", "training step"],
        "speedup": theirs / ours,
    }


def _layers(record: Record) -> set[str]:
    """Returns the names of the layers that have weights in the network of a run."""
    return {part for path in record.witness.norms for part in path.split("/")}


def _largest_offset_kernel(record: Record) -> float:
    with _weights(record) as file:
        kernels = [
            np.asarray(layer["vars"]["0"]) for name, layer in file["layers"].items() if name.startswith("conv_offset2d")
        ]
    return max(float(np.abs(kernel).max()) for kernel in kernels)


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
    for model, epochs in facts.curves.items():
        outcomes = [epoch.outcome for epoch in epochs]
        outside, wide = outcomes.count("differs"), sum(epoch.wide for epoch in epochs)
        outcome = "differs" if outside > OUTSIDE * len(epochs) else "undecided" if wide > len(epochs) / 2 else "agrees"
        found[f"{model}-curve"] = _result(
            outcome, f"{len(epochs) - outside} of {len(epochs)} epochs are inside; {wide} intervals are wide"
        )
    return found


def _explanation(facts: Facts) -> dict[str, dict[str, str]]:
    stated = 100 * (published.ACCURACY["deformable_cnn"]["scaled"] - published.ACCURACY["cnn"]["scaled"])
    gained, still = facts.gain, facts.nothing_deforms
    same = still and facts.stand_in_difference == 0
    settled = float(np.mean(facts.last_changes)) <= STABLE
    at_fault = bool(facts.dead_layers) and facts.frozen_blocks and facts.repaired > facts.as_published + STABLE
    return {
        "gain": _result(
            "supported" if gained.low > 0 else "contradicted" if gained.high < 0 else "undecided",
            f"{gained.mean:.1f} points ({gained.low:.1f} to {gained.high:.1f})",
            f"{stated:.1f} points",
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
        "receptive-field": _result(
            "contradicted" if still else "not tested", "no point moves" if still else "points move"
        ),
        "too-simple": _result(
            _holds(not at_fault),
            f"{len(facts.dead_layers)} of {len(BLOCKS)} convolutions are dead, the rest frozen; repaired, "
            f"{facts.repaired:.0f}% in place of {facts.as_published:.0f}% (one seed)",
        ),
        "unoptimised": _result(_holds(still), "its offsets cannot learn" if still else "its offsets learn"),
        "not-settled": _result(
            _holds(not settled),
            f"the last epoch changes it by {min(facts.last_changes):.1f} to {max(facts.last_changes):.1f} points, on "
            f"average by {np.mean(facts.last_changes):.1f}; after {facts.longer[0]} epochs it is "
            f"{facts.longer[1]:.0f}% (one seed)",
        ),
    }


def _protocol(facts: Facts) -> dict[str, dict[str, str]]:
    return {
        "unseen": _result(_holds(facts.trained_on != "scaled"), f"it trains on {facts.trained_on} images"),
        "three-groups": _result(
            _holds(facts.validated_apart), "a third group" if facts.validated_apart else "the test images validate"
        ),
        "both-convolutions": _result(
            _holds(not facts.dead_layers), f"{len(facts.dead_layers)} of {len(BLOCKS)} reach no output"
        ),
    }


def _runtime(facts: Facts) -> dict[str, dict[str, str]]:
    stated = published.FORWARD["deformable"] / published.FORWARD["regular"]
    return {
        "many-times": _result(_holds(facts.forward_ratio > MANY_TIMES), f"{facts.forward_ratio:.1f} times"),
        "thirty-times": _result(
            "not tested", f"{facts.forward_ratio:.1f} times on this processor", f"{stated:.0f} times"
        ),
        "inefficient": _result(_holds(facts.speedup > FASTER), f"{facts.speedup:.1f} times its speed"),
    }


def _background(facts: Facts) -> dict[str, dict[str, str]]:
    plain, scaled = facts.accuracies["cnn"]["plain"], facts.accuracies["cnn"]["scaled"]
    without, augmented = ("{:.2f}% and {:.2f}%".format(*pair) for pair in (facts.two_by_two[:2], facts.two_by_two[2:]))
    dilated = facts.over_dilated
    untested = {
        "drop-in": "ConvOffset2D goes before a convolution; dcn.DeformableConv2D replaces it",
        "two-by-two": f"the paper has two of four, the registered study all, on digits of its own: {without} without "
        f"and with deformable convolutions; with augmentation {augmented}",
        "low-cost": "times on a CPU are on the page on operators",
        "atrous": f"in the registered study {dilated.mean:+.2f} points over a dilated network on digits "
        f"({dilated.low:+.2f} to {dilated.high:+.2f})",
        "roi-pooling": "no detector is trained here; the pooling by itself is tested on digits",
        "keras-only": "true of the published class; dcn.ops needs TensorFlow alone",
    }
    return {
        "blind": _result(
            _holds(plain.low > scaled.high), f"{plain.mean:.0f}% on plain, {scaled.mean:.0f}% on scaled digits"
        ),
        "augmentation": _result(
            _holds(facts.augmented > scaled.high),
            f"{facts.augmented:.1f}% in place of {scaled.mean:.1f}% on scaled digits",
        ),
        **{name: _result("not tested", ours) for name, ours in untested.items()},
    }


def _number(value: float) -> str:
    return f"{value:.3g}" if value else "exactly 0"
