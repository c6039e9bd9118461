"""Every claim of the paper: its words, and a function that computes from evidence what was found and the outcome.

To add a claim, write a function with the decorator of its group. No other place lists claims, and no outcome is typed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from dcn_study.experiments import study
from dcn_study.experiments.agreement import MOST, Agreement, agreement
from dcn_study.experiments.evidence import Evidence
from dcn_study.experiments.first_epoch import first_epoch
from dcn_study.experiments.statistics import CONFIDENCE, Interval, interval
from dcn_study.names import MODELS, SHOWN_LAYERS, TEST_IMAGES
from dcn_study.runs import measurements, published
from dcn_study.runs.catalogue import EVALUATED_ARMS, TWO_BY_TWO
from dcn_study.runs.records import Record

__all__ = ["GROUPS", "OUTCOMES", "Claim", "claim", "claims", "curves_left_out"]

OUTCOMES = {
    "agrees": "the published number is one that our runs could give",
    "differs": "the published number is not one that our runs give",
    "undecided": "our runs are too few or spread too widely, the number is outside but, as one of several, not "
    "significantly, or what was found points both ways",
    "supported": "our runs show the same",
    "contradicted": "our runs or the published code show otherwise",
    "not tested": "no experiment here decides it",
}
GROUPS = ("accuracies", "curves", "explanation", "protocol", "runtime", "aims and background")
OUTSIDE = 10  # one epoch in so many may be outside its interval, where one in twenty is expected
STABLE = 2.0  # percentage points: a validation accuracy that still moves so much from epoch to epoch has not settled
FASTER = 1.5  # a factor
BLIND = 2.0  # a factor over guessing
GUESSING = 10.0  # percent
BLOCKS = ("block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2")  # convolutions of the blocks as drawn
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Claim(NamedTuple):
    """A claim of the paper, and what became of it."""

    name: str  # for links and tests
    group: str  # one of `GROUPS`
    place: str  # where the paper says so
    words: str  # what it says, shortened
    pages: str  # names of the pages with the evidence, separated by spaces
    rule: str  # how the outcome follows from what was found, made from the constants that decide
    outcome: str  # one of `OUTCOMES`
    ours: str  # what was found
    published: str = ""  # the paper's value, if it states one


Found = tuple[str, ...]  # what became of a claim: the last fields of `Claim`, from its rule
_Judge = Callable[[Evidence], Found]
_CLAIMS: list[Callable[[Evidence], Claim]] = []


def claim(group: str, place: str, words: str, pages: str, name: str = "") -> Callable[[_Judge], _Judge]:
    """Returns a decorator that adds a claim, with arguments as in `Claim`; its name is by default the function's."""

    def add(judge: _Judge) -> _Judge:
        known = (name or judge.__name__.replace("_", "-"), group, place, words, pages)
        _CLAIMS.append(lambda evidence: Claim(*known, *judge(evidence)))
        return judge

    return add


accuracies, curves, explanation, protocol, runtime, background = (partial(claim, group) for group in GROUPS)


def claims(evidence: Evidence) -> list[Claim]:
    """Returns all claims of the paper with their outcomes, in the order of their functions."""
    return [judged(evidence) for judged in _CLAIMS]


def _must(rule: str, holds: bool, ours: str, published: str = "") -> Found:
    return rule, "supported" if holds else "contradicted", ours, published


def _must_be(side: str, difference: Interval, ours: str, published: str = "", where: str = "") -> Found:
    """Returns what became of the claim that a difference is "above" or "below" zero."""
    on = {"above": difference.low > 0, "below": difference.high < 0}
    outcome = "supported" if on[side] else "contradicted" if any(on.values()) else "undecided"
    rule = f"{where}the {CONFIDENCE:.0%} interval of the paired differences must be {side} zero"
    return rule, outcome, ours, published


def _published_gain(model: str, kind: str) -> str:
    with_it, without = (published.ACCURACY[name][kind] for name in (model, model.removeprefix("deformable_")))
    return f"{100 * (with_it - without):+.1f} points"


def _number(value: float) -> str:
    return f"{value:.3g}" if value else "exactly 0"


def _times(factor: float) -> str:
    return "twice" if factor == 2 else f"{factor:g} times"


def _studied(evidence: Evidence, run: str, kind: str = "plain") -> float:
    """Returns the mean accuracy in percent of a run of the first registered study, NaN if it has none."""
    return float(np.mean([*study.accuracies(evidence.studied[run], kind).values()] or [np.nan]))


def _accuracy(model: str, kind: str, evidence: Evidence) -> Found:
    ours, count = evidence.accuracies[model][kind], sum(map(len, evidence.accuracies.values()))
    outside = f"; outside, as one of {count} not significantly (p = {ours.p_value:.2f})" if ours.insignificant else ""
    return (
        f"it agrees inside the {CONFIDENCE:.0%} prediction interval of one more run, if that reaches at most {MOST:g} "
        f"points from our mean; it differs outside, if it does so after Holm's adjustment for {count} accuracies",
        ours.outcome,
        f"{ours.mean:.1f}% ({ours.low:.1f} to {ours.high:.1f}){outside}",
        f"{100 * published.ACCURACY[model][kind]:.2f}%",
    )


for _model, _kind, _words, _pages in (
    ("cnn", "plain", "The 4-layer CNN achieved 99.01% on the plain digits", "runs"),
    ("cnn", "scaled", "but performed poorly, 60.67%, on the scaled and transformed test set", "robustness"),
    ("deformable_cnn", "plain", "The CNN with deformable convolution achieved 96.11% on plain digits", "offsets gain"),
    ("deformable_cnn", "scaled", "and a respectable 94.1% on scaled and transformed data", "offsets gain"),
    ("mini_resnet", "plain", "The mini-ResNet managed 92.35% on the test set", "residual"),
    ("mini_resnet", "scaled", "and 49.57% on unseen scaled images", "residual"),
    ("deformable_mini_resnet", "plain", "The mini-ResNet with deformable convolution managed 42.42%", "residual"),
    ("deformable_mini_resnet", "scaled", "and only 13.1% on scaled images", "residual"),
):
    accuracies("V", _words, _pages, f"{_model}-{_kind}")(partial(_accuracy, _model, _kind))


def _epochs(found: Sequence[Record], key: str, images: int, stated: Sequence[float]) -> list[Agreement]:
    """Returns the agreement of a published accuracy after each epoch that our runs have too, each judged alone."""
    ours = zip(*([getattr(epoch, key) for epoch in record.history] for record in found), strict=False)
    return [agreement(each, images, theirs) for each, theirs in zip(ours, stated, strict=False)]


def _both(
    found: Sequence[Record], training: Sequence[float], validation: Sequence[float]
) -> dict[str, list[Agreement]]:
    """Returns the agreement of the two accuracies of a curve after each epoch."""
    trained, validated = found[0].config.train_size, found[0].evaluations["plain"].images
    return {
        "training": _epochs(found, "accuracy", trained, training),
        "validation": _epochs(found, "validation_accuracy", validated, validation),
    }


def _outside(both: Mapping[str, Sequence[Agreement]]) -> tuple[dict[str, int], bool]:
    """Returns how many epochs of each accuracy are outside their intervals, and whether they are too many."""
    outside = {name: sum(each.outcome == "differs" for each in curve) for name, curve in both.items()}
    return outside, OUTSIDE * sum(outside.values()) > sum(map(len, both.values()))


def curves_left_out(runs: Sequence[Record]) -> int:
    """Returns how many of our own curves would differ, by the rule for the published one, from those of all others.

    Args:
        runs: of one model, at least three.
    """
    curves = [
        [[getattr(epoch, key) for epoch in run.history] for key in ("accuracy", "validation_accuracy")] for run in runs
    ]
    return sum(_outside(_both([*runs[:number], *runs[number + 1 :]], *curve))[1] for number, curve in enumerate(curves))


def _curve(model: str, evidence: Evidence) -> Found:
    stated = published.curve(model)
    both = _both(evidence.runs[model], stated["train_accuracy"], stated["validation_accuracy"])
    outside, many = _outside(both)
    epochs, wide = sum(map(len, both.values())), sum(each.wide for curve in both.values() for each in curve)
    inside = ", ".join(f"{name} {len(curve) - outside[name]} of {len(curve)}" for name, curve in both.items())
    return (
        f"of both accuracies at most one epoch in {NUMBERS[OUTSIDE]} may be outside the prediction interval of one "
        "more run; undecided if more than half of the intervals are wide",
        "differs" if many else "undecided" if 2 * wide > epochs else "agrees",
        f"epochs inside: {inside}; wide intervals: {wide} of {epochs}",
    )


for _place, _model, _called, _pages in (
    ("Fig. 4", "cnn", "4-layer CNN", "runs"),
    ("Fig. 5", "deformable_cnn", "4-layer CNN with deformable convolution", "offsets gain"),
    ("Fig. 7", "mini_resnet", "mini-ResNet", "residual"),
    ("Fig. 8", "deformable_mini_resnet", "mini-ResNet with deformable convolution", "residual"),
):
    _words = f"Training and validation accuracy of the {_called} by epoch"
    curves(_place, _words, _pages, f"{_model}-curve")(partial(_curve, _model))


@explanation("V", "The model with deformable convolution was better on scaled and transformed digits", "paper gain")
def gain(evidence: Evidence) -> Found:
    ours = evidence.gains["deformable_cnn", "scaled"]
    return _must_be("above", ours, f"{ours:+.1f} points", _published_gain("deformable_cnn", "scaled"))


@explanation("V", "and it learned robustly enough to achieve 96.11% on plain digits", "paper gain")
def robust(evidence: Evidence) -> Found:
    ours, theirs = evidence.gains["deformable_cnn", "plain"], _published_gain("deformable_cnn", "plain")
    rule = "the paper has no measure of robustness, and does not say that this exceeds the CNN"
    return rule, "not tested", f"{ours:+.1f} points against the CNN on plain digits", theirs


@explanation("abstract", "For the CNN, introducing deformable convolution improves the accuracy", "offsets gain")
def cause(evidence: Evidence) -> Found:
    ours, without = evidence.runs["deformable_cnn"][0].evaluations, evidence.controls["cnn_batch_norm"][0].evaluations
    gained = 100 * max(ours[kind].accuracy - without[kind].accuracy for kind in TEST_IMAGES)
    told = f"without the offset layers, {_number(gained)} points of difference (seed 0)"
    return _must("the same network without offsets must do worse", gained > 0, told)


@explanation(
    "IV.B",
    "ConvOffset2D effectively introduces deformable convolution in all layers but the first and the last",
    "offsets",
)
def in_all_layers(evidence: Evidence) -> Found:
    kernel, gradient = _number(evidence.largest_kernel), _number(evidence.largest_gradient)
    ours = f"largest offset kernel {kernel}, largest gradient {gradient}"
    return _must("some offset must differ from zero", not evidence.nothing_deforms, ours)


@explanation(
    "Fig. 5, log",
    "The published run trained such layers: training accuracy and loss after its first epoch",
    "offsets gain",
)
def log(evidence: Evidence) -> Found:
    first = first_epoch({**evidence.runs, **evidence.controls})
    accuracy, loss = first.values()
    ours = (
        f"{name} {each.low:.{digits}f} to {each.high:.{digits}f} expected of one more run with offsets at zero, "
        f"{min(each.learning):.{digits}f} to {max(each.learning):.{digits}f} in our runs where they learn"
        for (name, each), digits in zip(first.items(), (1, 2), strict=True)
    )
    theirs = f"{accuracy.published:.2f}, {loss.published:.3f}"
    return (
        "supported if both are among our runs whose offsets learn, contradicted if both are beyond these and in the "
        "prediction interval of those with offsets at zero",
        "supported"
        if accuracy.as_learning and loss.as_learning
        else "contradicted"
        if accuracy.as_inert and loss.as_inert
        else "undecided",
        "; ".join(ours),
        theirs,
    )


@explanation(
    "Fig. 3",
    "The wider spread created by the offsets effectively increases the receptive field of these networks",
    "paper offsets",
)
def receptive_field(evidence: Evidence) -> Found:
    outcome, ours = ("contradicted", "no point moves") if evidence.nothing_deforms else ("not tested", "points move")
    return "contradicted if no sampling point moves", outcome, ours


@explanation("title and Fig. 3", "Deformable convolution expands the receptive field", "mechanism")
def wider_field(evidence: Evidence) -> Found:
    areas = (measurements.result("mechanism").results["areas"][run][SHOWN_LAYERS[-1]] for run in EVALUATED_ARMS)
    regular, deformable = (np.array(list(area["gradient"]["0.5"].values())[-1]) for area in areas)  # of full size
    means = f"{deformable.mean():.0f} pixels hold half of the gradient in place of {regular.mean():.0f}"
    ours = f"with deformable convolutions that work, {means}"
    return _must_be("above", interval(deformable - regular), ours, where="where offsets learn, ")


@explanation(
    "I, objective 3",
    "Deformable convolution improves the classification of scaled and translated digits",
    "unseen study",
)
def improves(evidence: Evidence) -> Found:
    both = evidence.on_unseen_digits, study.compared(evidence.studied)
    unlike, like = (found["in place of the convolutions"] for found in both)
    verdicts = [each.contrast.verdict if each.contrast else "no verdict" for each in (unlike, like)]
    points = [f"{interval(each.differences or [np.nan]):+.1f} points" for each in (unlike, like)]
    return (
        'where offsets learn, the registered verdict on unseen digits must be "better" than the same CNN; "worse" '
        "contradicts",
        {"better": "supported", "worse": "contradicted"}.get(verdicts[0], "undecided"),
        f"after training on plain digits {points[0]}, {verdicts[0]}; on digits like those of training {points[1]}, "
        f"{verdicts[1]}",
    )


@explanation(
    "V",
    "In sharp contrast to the CNN, the mini-ResNet with deformable convolution did far worse than without",
    "paper residual",
)
def contrast(evidence: Evidence) -> Found:
    differences = {model: evidence.gains[model, "plain"] for model in ("deformable_mini_resnet", "deformable_cnn")}
    ours, limit = differences["deformable_mini_resnet"], min(0.0, differences["deformable_cnn"].low)
    return (
        f"on plain digits the {CONFIDENCE:.0%} interval of the paired differences must be below zero and below that of "
        "the CNN",
        "supported" if ours.high < limit else "contradicted" if ours.low > limit else "undecided",
        "; ".join(f"{MODELS[model]} {difference:+.1f} points" for model, difference in differences.items()),
        _published_gain("deformable_mini_resnet", "plain"),
    )


@explanation(
    "abstract", "The ResNet results are inconclusive mostly because the architecture is oversimplified", "residual"
)
def too_simple(evidence: Evidence) -> Found:
    frozen = not evidence.runs["deformable_mini_resnet"][0].config.trainable
    worse = evidence.gains["deformable_mini_resnet", "plain"].high < 0
    return _must(
        "the same architecture, with blocks that train, must do no better",
        not (evidence.nothing_deforms and frozen and worse),
        "with offsets at zero it is the mini-ResNet with frozen blocks: these alone make the difference",
    )


@explanation("abstract", "and because the implementation of deformable convolution is unoptimised", "offsets residual")
def unoptimised(evidence: Evidence) -> Found:
    still, rule = evidence.nothing_deforms, "the layer must change what the network computes"
    zero = "its offsets stay at zero: it computes what the network would without it"
    return _must(rule, not still, zero if still else "offsets move")


@explanation(
    "V",
    "Loss and validation accuracy of the deformable mini-ResNet had not stabilised after ten epochs",
    "validation residual",
)
def not_settled(evidence: Evidence) -> Found:
    ends = [record.history[-2:] for record in evidence.runs["deformable_mini_resnet"]]
    changes = [100 * abs(end[-1].validation_accuracy - end[0].validation_accuracy) for end in ends]
    losses = [end[-1].loss - end[0].loss for end in ends]
    return _must(
        f"the last epoch must change the validation accuracy by more than {STABLE:g} points on average and lower the "
        "training loss of every run",
        float(np.mean(changes)) > STABLE and max(losses) < 0,
        f"the last epoch changes the accuracy by {min(changes):.1f} to {max(changes):.1f} points, by "
        f"{np.mean(changes):.1f} on average, and the training loss by {min(losses):.3f} to {max(losses):.3f}",
    )


@explanation("V", "Ten epochs are not sufficient to train it", "residual")
def ten_epochs(evidence: Evidence) -> Found:
    paper, longer = evidence.runs["deformable_mini_resnet"][0], evidence.controls["long_frozen_mini_resnet"][0]
    first, *later = (100 * epoch.validation_accuracy for epoch in longer.history[len(paper.history) - 1 :])
    later = later or [first]
    by_batch = measurements.result("residual").results["by_batch"]
    batch = [100 * by_batch[run] for run in ("deformable_mini_resnet", "long_frozen_mini_resnet")]
    return (
        f"every later epoch of a longer run must be better by more than {STABLE:g} points; contradicted if all are "
        "worse",
        "supported" if min(later) > first + STABLE else "contradicted" if max(later) < first else "undecided",
        f"from {first:.0f}%, {len(later)} more epochs reach between {min(later):.0f} and {max(later):.0f}%, "
        f"the last {later[-1]:.0f}% (one seed); with the statistics of each batch {batch[0]:.0f}%, and {batch[1]:.0f}% "
        "after all of them: running averages make the jumps",
    )


@protocol("V", "The geometric transformations of the test are unseen", "validation gain")
def unseen(evidence: Evidence) -> Found:
    trained_on = evidence.runs["deformable_cnn"][0].config.train_on
    return _must("the network must not train on them", trained_on != "scaled", f"it trains on {trained_on} images")


@protocol("IV", "The digits are divided into test, train and validation groups", "validation")
def three_groups(evidence: Evidence) -> Found:
    apart = any(found[0].config.validation_size > 0 for found in evidence.runs.values())
    ours = "a third group" if apart else "the test images validate"
    return _must("validation images must not be test images", apart, ours)


@protocol("III", "There is one offset for each kernel point", "method")
def one_per_point(evidence: Evidence) -> Found:
    height, width, _, predicted = evidence.offset_kernels[0].shape
    needed = 2 * height * width
    ours = f"{predicted} numbers for each pixel before conv12, in place of {needed}"
    return _must("as many numbers for each pixel as two for each kernel point", predicted == needed, ours)


@protocol("IV.D", "The fourth model has offsets to both convolutions of the ResNet block", "method residual")
def both_convolutions(evidence: Evidence) -> Found:
    weights = evidence.runs["mini_resnet"][0].witness.norms
    dead = set(BLOCKS).difference(*(path.split("/") for path in weights))
    return _must("both convolutions must reach the output", not dead, f"{len(dead)} of {len(BLOCKS)} reach no output")


@protocol("V", "Both mini-ResNets were trained for exactly the same number of epochs", "runs")
def same_epochs(evidence: Evidence) -> Found:
    deformable, regular = (len(published.curve(f"{kind}mini_resnet")["epoch"]) for kind in ("deformable_", ""))
    ours = f"{deformable} and {regular} in the author's log"
    return _must("their published curves must be equally long", deformable == regular, ours)


@protocol(
    "I, objectives 2 and 3",
    "Training with and without data augmentation is compared with deformable convolution",
    "study",
)
def two_by_two(evidence: Evidence) -> Found:
    run = {(model, each.config.train_on) for model in ("cnn", "deformable_cnn") for each in evidence.runs[model]}
    regular, deformable, *augmented = (f"{_studied(evidence, name):.2f}%" for name in TWO_BY_TWO)
    return _must(
        f"all {NUMBERS[len(TWO_BY_TWO)]} combinations must be trained",
        len(run) == len(TWO_BY_TWO),
        f"the paper has {len(run)} of {len(TWO_BY_TWO)}; our study has all, on its own digits: {regular} and "
        f"{deformable} without and with deformable convolutions, with augmentation {' and '.join(augmented)}",
    )


def _forward(network: str) -> float:
    """Returns how many times as long a forward pass of the published deformable CNN takes as that of a network."""
    measured = measurements.result("runtime")
    alike = (measured.parameters["batch"], measured.parameters["sizes"].split(",")[0], "forward")
    rows = (row for row in measured.results["rows"] if (row["batch"], str(row["size"]), row["what"]) == alike)
    milliseconds = {row["model"]: row["milliseconds"] for row in rows}
    return milliseconds["deformable CNN, published code"] / milliseconds[network]


@runtime("VI", "close to 300 ms, against just 10 ms", "runtime")
def thirty_times(evidence: Evidence) -> Found:
    stated = published.FORWARD["deformable"] / published.FORWARD["regular"]
    told = f"{_forward('CNN'):.1f} times on this processor"
    return "batch and hardware are not stated", "not tested", told, f"{stated:.0f} times"


@runtime("VI", "The implementation is extremely inefficient", "runtime")
def inefficient(evidence: Evidence) -> Found:
    speedup = _forward("deformable CNN, ours")
    rule = f"the same layer must be possible at more than {_times(FASTER)} its speed"
    without = _forward("deformable CNN, ours without XLA")
    return _must(rule, speedup > FASTER, f"{speedup:.1f} times its speed when compiled by XLA, {without:.1f} without")


@background("I", "CNNs are inherently blind to large and unknown geometric transformations", "paper robustness")
def blind(evidence: Evidence) -> Found:
    measured = measurements.result("robustness").results
    smallest = 100 * measured["accuracies"]["cnn"][-1][len(measured["shifts"]) // 2]
    scaled = evidence.accuracies["cnn"]["scaled"].mean
    poor = [accuracy <= BLIND * GUESSING for accuracy in (scaled, smallest)]
    return (
        f"on the paper's scaled digits, and on the smallest of them, a CNN may be at most {_times(BLIND)} as good as "
        "guessing; undecided if on one of them only",
        "supported" if all(poor) else "undecided" if any(poor) else "contradicted",
        f"{scaled:.0f}% after training on plain digits, but {smallest:.0f}% at the smallest scale, "
        f"{1 / measured['zooms'][-1]:g} (seed 0): it depends on what counts as large",
    )


@background("I", "Data augmentation is the most common strategy against this", "gain")
def augmentation(evidence: Evidence) -> Found:
    scaled = [100 * record.evaluations["scaled"].accuracy for record in evidence.controls["cnn_scaled"]]
    helps = (
        f"{np.mean(scaled):.1f}% ({min(scaled):.1f} to {max(scaled):.1f}) in place of "
        f"{evidence.accuracies['cnn']['scaled'].mean:.1f}% on scaled digits"
    )
    return "not an experiment", "not tested", f"how common it is, we did not count; it helps: {helps}"


@background(
    "I, objective 1, met",
    "A TensorFlow module that can easily replace or work with the 2D convolution",
    "offsets guide",
)
def drop_in(evidence: Evidence) -> Found:
    ours = "it can be put before a convolution, and then moves no sampling point"
    return _must("its offsets must learn", not evidence.nothing_deforms, ours)


@background("II.A", "Deformable convolution costs relatively little computation time", "operators")
def low_cost(evidence: Evidence) -> Found:
    return "a result of Dai et al.", "not tested", "times on a CPU are on the page on operators"


@background("II.B", "Deformable convolution performs measurably better than atrous convolution", "study")
def atrous(evidence: Evidence) -> Found:
    compared = study.compared(evidence.studied, asked=study.UNREGISTERED)["deformable over dilated"]
    ours = interval(compared.differences or [np.nan])
    told = f"{ours:+.2f} points over a dilated network on digits"
    return "a result of Dai et al.", "not tested", f"in the study, exploratory: {told}"


@background("II.B", "Together with RoI pooling it noticeably improves Faster R-CNN and R-FCN", "regions")
def roi_pooling(evidence: Evidence) -> Found:
    ours = "no detector is trained here; the pooling by itself is tested on digits"
    return "a result of Dai et al.", "not tested", ours


@background("VI", "The implementation can only be used with the Keras backend", "guide")
def keras_only(evidence: Evidence) -> Found:
    ours = "true of the published class; dcn.ops needs TensorFlow alone"
    return "not an experiment", "not tested", ours


@background("VI", "A true TensorFlow implementation would make the module more generalizable", "guide")
def generalise(evidence: Evidence) -> Found:
    return "not an experiment", "not tested", "dcn.ops is one; no experiment here compares generality"
