"""Tables of the accuracies of runs, next to the published ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from dcn_study.experiments.agreement import first_rule, of_runs
from dcn_study.experiments.first_epoch import FirstEpoch
from dcn_study.names import CONTROLS, MODELS, TEST_IMAGES
from dcn_study.runs import published
from dcn_study.runs.records import Record
from dcn_study.show.tables.layout import by_row

__all__ = [
    "accuracy",
    "agreement",
    "by_seed",
    "controls",
    "draws",
    "first_epoch",
    "seen",
    "selection",
    "side_by_side",
    "split",
]


def accuracy(record: Record) -> pd.DataFrame:
    """Returns test accuracies of a run in percent, next to the published ones."""
    reference = published.accuracies(record.config)
    rows = {
        TEST_IMAGES.get(kind, kind): {
            "published": 100 * reference.get(kind, math.nan),
            "this run": 100 * stored.accuracy,
            "difference": 100 * (stored.accuracy - reference.get(kind, math.nan)),
            "images": int(stored.images),
        }
        for kind, stored in record.evaluations.items()
    }
    return by_row(rows, "test images (accuracy in %)")


def agreement(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Returns published accuracies next to ours, over seeds, and whether they agree, by the rule and its forerunners.

    Args:
        runs: by model, the records of all seeds, in the order of the seeds.

    Returns:
        One row for each model and kind of test images. Accuracies in percent; "low" and "high" are the ends of the
        prediction interval, "limit" is how far it would reach from the mean with infinitely many seeds, and
        "tolerance" is that of the first rule, both in percentage points.
    """
    rows, together = {}, of_runs(runs)
    for model, found in runs.items():
        for kind in TEST_IMAGES:
            ours = [record.evaluations[kind].accuracy for record in found]
            theirs = published.ACCURACY[model][kind]
            judged = together[model][kind]
            tolerance, first = first_rule(ours, theirs)
            rows[MODELS[model], kind] = {
                "published": 100 * theirs,
                "seeds": len(found),
                "mean": judged.mean,
                "low": judged.low,
                "high": judged.high,
                "limit": judged.limit,
                "p (Holm)": judged.p_value,
                "outcome": judged.outcome,
                "second rule": judged.alone,
                "tolerance": tolerance,
                "first rule": first,
                **{f"seed {record.config.seed}": 100 * value for record, value in zip(found, ours, strict=True)},
            }
    return by_row(rows, "model", "images")


def by_seed(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Returns the test accuracies of each seed, in percent: one row per seed, two columns per model.

    Args:
        runs: by model, the records of all seeds.
    """
    columns = {
        (MODELS[model], kind): {record.config.seed: 100 * record.evaluations[kind].accuracy for record in found}
        for model, found in runs.items()
        for kind in TEST_IMAGES
    }
    return pd.DataFrame(columns).rename_axis(index="seed")


def controls(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Returns the accuracies of the controls and of the published protocol after the same number of epochs.

    Args:
        runs: by name, a key of `names.CONTROLS`, the records of its seeds in their order; "cnn_batch_norm" among them,
            which stands in for the published protocol.

    Returns:
        One row per run: the number of seeds; the epochs on scaled digits; the mean accuracies on plain and scaled
        digits, in percent; on the latter that of the published protocol after as many epochs and with the same seeds,
        the difference of both in percentage points, and the accuracy of each seed.
    """
    rows = {}
    for name, found in runs.items():
        epochs = 0 if name == "cnn" else len(found[0].history)
        plain, scaled = (
            100 * np.array([record.evaluations[kind].accuracy for record in found]) for kind in ("plain", "scaled")
        )
        histories = [record.history for record in runs["cnn_batch_norm"][: len(found)]]
        published_protocol = (
            100 * np.mean([history[epochs - 1].validation_accuracy for history in histories])
            if 0 < epochs <= min(map(len, histories))
            else math.nan
        )
        rows[CONTROLS[name]] = {
            "seeds": len(found),
            "epochs on scaled digits": epochs,
            "plain": plain.mean(),
            "scaled": scaled.mean(),
            "scaled, published protocol": published_protocol,
            "scaled, difference": scaled.mean() - published_protocol,
            **{f"seed {record.config.seed}": value for record, value in zip(found, scaled, strict=True)},
        }
    return by_row(rows, "run")


def first_epoch(found: Mapping[str, FirstEpoch]) -> pd.DataFrame:
    """Returns the author's log next to our runs: numbers of the first epoch, with the range of our runs.

    Args:
        found: as `experiments.first_epoch.first_epoch` returns it.
    """
    rows: dict[str, dict[str, str]] = {}
    for (name, each), digits in zip(found.items(), (1, 2), strict=True):
        low, high = min(each.inert), max(each.inert)
        told = {
            "the author's log": f"{each.published:.{digits + 1}f}",
            f"offsets at zero, {len(each.inert)} runs": f"{low:.{digits}f} to {high:.{digits}f}",
            "their 95% prediction interval": f"{each.low:.{digits}f} to {each.high:.{digits}f}",
            f"offsets that learn, {len(each.learning)} runs": f"{min(each.learning):.{digits}f} to "
            f"{max(each.learning):.{digits}f}",
        }
        for row, value in told.items():
            rows.setdefault(row, {})[f"{name} (%)" if "accuracy" in name else name] = value
    return by_row(rows, "deformable CNN after one epoch")


def side_by_side(runs: Mapping[str, Record]) -> pd.DataFrame:
    """Returns accuracies of several runs, in percent: after the most epochs that all of them have, and after the last.

    Args:
        runs: by what each is called. All validate on images of one kind.

    Returns:
        One row per run: its epochs, its validation accuracy after those that all have, and its test accuracies.
    """
    common = min(len(record.history) for record in runs.values())
    rows = {
        label: {
            "epochs": len(record.history),
            f"after {common}": 100 * record.history[common - 1].validation_accuracy,
            **{f"{TEST_IMAGES[kind]}, at the end": 100 * record.evaluations[kind].accuracy for kind in TEST_IMAGES},
        }
        for label, record in runs.items()
    }
    return by_row(rows, "run")


def draws(accuracies: Mapping[str, Mapping[str, Sequence[float]]], generators: Mapping[str, str]) -> pd.DataFrame:
    """Returns mean and standard deviation of the accuracies on several scaled test sets, in percent.

    Args:
        accuracies: model → generator → one accuracy per draw, as `sensitivity.sensitivity` returns them.
        generators: what each is called.

    Returns:
        One row per model and generator, with the lowest and the highest of the draws.
    """
    rows = {
        (MODELS[model], generators[generator]): {
            "mean": 100 * np.mean(values),
            "s": 100 * np.std(values, ddof=1) if len(values) > 1 else math.nan,
            "lowest": 100 * min(values),
            "highest": 100 * max(values),
            "draws": len(values),
        }
        for model, by_generator in accuracies.items()
        for generator, values in by_generator.items()
    }
    return by_row(rows, "model", "test sets")


def seen(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Returns one row per model: how many plain and how many scaled images it was trained on, its first run included.

    Args:
        runs: by model, the records of its seeds in their order; "cnn", from which others start, among them.
    """
    rows = {}
    for model, found in runs.items():
        counts = {"plain": 0, "scaled": 0}
        first = found[0].config
        for record in (found[0], *(runs[first.initial_run][:1] if first.initial_run else ())):
            counts[record.config.train_on] += len(record.history) * record.config.train_size
        rows[MODELS[model]] = {
            **{f"{TEST_IMAGES[kind]} images in training": f"{count:,}" for kind, count in counts.items()},
            "validated on": f"{TEST_IMAGES[first.train_on]} test images",
        }
    return by_row(rows, "model")


def selection(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Returns, for the published and for every run of ours, the last and the best validation accuracy, in percent.

    Args:
        runs: by model, the records of its seeds.

    Returns:
        One row per run: "last" and "best" accuracy, their "difference" in percentage points, and the epoch of the best.
    """
    rows = {}
    for model, found in runs.items():
        curves = {"published": published.curve(model)["validation_accuracy"]}
        for record in found:
            curves[f"seed {record.config.seed}"] = [epoch.validation_accuracy for epoch in record.history]
        for name, values in curves.items():
            rows[MODELS[model], name] = {
                "last": 100 * values[-1],
                "best": 100 * max(values),
                "difference": 100 * (max(values) - values[-1]),
                "best at": f"{1 + int(np.argmax(values))} of {len(values)}",
            }
    return by_row(rows, "model", "run")


def split(runs: Mapping[str, Record]) -> pd.DataFrame:
    """Returns how much choosing the best epoch on the test images adds, in percent, for runs with a validation set.

    Args:
        runs: by what each is called; each with images held out to validate on.

    Returns:
        One row per run: the test accuracy after the last epoch, after the one that is best on the held-out images, and
        after the one that is best on the test images; and the difference of the last two in percentage points.
    """
    rows = {}
    for label, record in runs.items():
        held_out, test = (
            100 * np.array([getattr(epoch, key) for epoch in record.history])
            for key in ("validation_accuracy", "test_accuracy")
        )
        chosen = int(held_out.argmax())
        rows[label] = {
            "last epoch": test[-1],
            "chosen on held-out images": test[chosen],
            "chosen on test images": test.max(),
            "difference": test.max() - test[chosen],
            "held-out accuracy of the chosen epoch": held_out[chosen],
            "chosen epoch": f"{chosen + 1} of {len(test)}",
        }
    return by_row(rows, "test accuracy (%)")
