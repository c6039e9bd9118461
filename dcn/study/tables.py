"""Tables from models and records, as data frames. Nothing here trains, reads or saves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
from scipy import stats

from dcn.layers import ConvOffset2D, DeformableConv2D
from dcn.study import published
from dcn.study.config import CONTROLS, TRAIN_IMAGES
from dcn.study.figures import NAMES
from dcn.study.pages import Parameter
from dcn.study.records import Record

__all__ = [
    "accuracy",
    "agreement",
    "controls",
    "draws",
    "layers",
    "memory",
    "models",
    "multiply_adds",
    "origins",
    "parameters",
    "provenance",
    "runtime",
    "seen",
    "selection",
    "side_by_side",
    "split",
    "status",
    "training_cost",
]

KINDS = {"plain": "plain", "scaled": "scaled and translated"}
REGULAR_MODEL = {
    "cnn": "cnn",
    "deformable_cnn": "cnn",
    "deform_conv_cnn": "cnn",
    "mini_resnet": "mini_resnet",
    "deformable_mini_resnet": "mini_resnet",
}
OURS = {  # as `runtime.CONTESTANTS` names the paper's models, computed by this package
    "cnn": "CNN",
    "deformable_cnn": "deformable CNN, ours",
    "mini_resnet": "mini-ResNet",
    "deformable_mini_resnet": "deformable mini-ResNet, ours",
}
TOLERANCE = 0.5  # percentage points: the published figures are rounded, and their test images were other draws


def multiply_adds(layer: keras.layers.Layer) -> int:
    """Returns the multiply-adds that a layer takes for one image.

    Counts convolutions, dense layers and bilinear interpolation (four for each value read). Batch normalisation,
    activations, additions and pooling are not counted: together they are far below one per cent.
    """
    output = layer.output.shape[1:]
    if isinstance(layer, ConvOffset2D):
        return math.prod(output[:2]) * (math.prod(layer.kernel.shape) + 4 * layer.filters)
    if isinstance(layer, keras.layers.Conv2D):
        reads = math.prod(layer.kernel.shape)
        if isinstance(layer, DeformableConv2D):
            reads += math.prod(layer.offset_kernel.shape) + 4 * math.prod(layer.kernel.shape[:3])
        return math.prod(output[:2]) * reads
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape)
    return 0


def layers(model: keras.Model) -> pd.DataFrame:
    """Returns one row a layer: its output shape, its parameters, how many of them train, and its multiply-adds."""
    rows = [
        {
            "layer": layer.name,
            "output": " x ".join(str(size) for size in layer.output.shape[1:]),
            "parameters": layer.count_params(),
            "of which train": _trainable(layer),
            "multiply-adds": multiply_adds(layer),
        }
        for layer in model.layers
    ]
    sums = {name: sum(row[name] for row in rows) for name in ("parameters", "of which train", "multiply-adds")}
    return _with_corner(pd.DataFrame([*rows, {"layer": "all", "output": "", **sums}]).set_index("layer"), "layer")


def models(built: Mapping[str, keras.Model]) -> pd.DataFrame:
    """Returns one row a model: parameters, how many train, multiply-adds for one image, and these as a ratio.

    Args:
        built: by name, as `published.ACCURACY` names them, each with its layers frozen as in its run. The ratio is
            that to the regular model of the same family.
    """
    costs = {name: sum(multiply_adds(layer) for layer in model.layers) for name, model in built.items()}
    rows = {
        NAMES[name]: {
            "parameters": model.count_params(),
            "of which train": _trainable(model),
            "multiply-adds (million)": round(costs[name] / 1e6, 1),
            "ratio": round(costs[name] / costs[REGULAR_MODEL[name]], 2),
        }
        for name, model in built.items()
    }
    return _with_corner(pd.DataFrame.from_dict(rows, orient="index"), "model")


def _trainable(part: keras.layers.Layer) -> int:
    return sum(math.prod(weight.shape) for weight in part.trainable_weights)


def accuracy(record: Record, again: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Returns test accuracies in percent: as published, as recorded, and from the stored weights just now.

    Args:
        record: of the run.
        again: "plain" and "scaled", as `training.evaluate` returned them.
    """
    reference = published.ACCURACY.get(record.config.model, {})
    rows = {
        KINDS[kind]: {
            "published": 100 * reference.get(kind, math.nan),
            "this run": 100 * stored["accuracy"],
            "difference": 100 * (stored["accuracy"] - reference.get(kind, math.nan)),
            "evaluated again": 100 * again[kind]["accuracy"],
            "images": int(stored["images"]),
        }
        for kind, stored in record.evaluations.items()
    }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return _with_corner(frame.round(2).astype({"images": int}), "test images (accuracy in %)")


def agreement(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Returns published accuracies beside ours, over seeds, and whether they agree by the book's rule.

    A published accuracy agrees if it lies in the 95 % prediction interval of our runs, that is, if it could be one
    more of them; or within half a percentage point of their mean.

    Args:
        runs: by model, the records of all seeds, in the order of the seeds.

    Returns:
        One row for each model and kind of test images. Accuracies in percent, differences in percentage points.
    """
    rows = {}
    for model, found in runs.items():
        for kind in KINDS:
            ours = 100 * np.array([record.evaluations[kind]["accuracy"] for record in found])
            theirs = 100 * published.ACCURACY[model][kind]
            tolerance = max(_prediction_half_width(ours), TOLERANCE)
            difference = ours.mean() - theirs
            rows[NAMES[model], kind] = {
                "published": theirs,
                "mean": ours.mean(),
                "difference": difference,
                "tolerance": tolerance,
                "verdict": "agrees" if abs(difference) <= tolerance + 1e-9 else "differs",
                "s": ours.std(ddof=1) if len(ours) > 1 else math.nan,
                **{f"seed {record.config.seed}": value for record, value in zip(found, ours, strict=True)},
            }
    frame = pd.DataFrame.from_dict(rows, orient="index").round(2)
    frame.index = pd.MultiIndex.from_tuples(rows, names=["model", "images"])
    return frame


def controls(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Returns what each control reaches beside the published protocol after as many epochs.

    Args:
        runs: by name, a key of `config.CONTROLS`, the records of its seeds in their order; "cnn_batch_norm" among them,
            which stands in for the published protocol.

    Returns:
        One row a run: the epochs on scaled digits; the mean accuracies on plain and scaled digits, in percent; the
        latter of each seed; that of the published protocol after as many epochs and with as many seeds; and the
        difference of both in percentage points.
    """
    rows = {}
    for name, found in runs.items():
        epochs = 0 if name == "cnn" else len(found[0].history)
        plain, scaled = (
            100 * np.array([record.evaluations[kind]["accuracy"] for record in found]) for kind in ("plain", "scaled")
        )
        histories = [record.history for record in runs["cnn_batch_norm"][: len(found)]]
        published_protocol = (
            100 * np.mean([history[epochs - 1]["validation_accuracy"] for history in histories])
            if 0 < epochs <= min(map(len, histories))
            else math.nan
        )
        rows[CONTROLS[name]] = {
            "epochs": epochs,
            "plain": plain.mean(),
            "scaled": scaled.mean(),
            **{f"seed {record.config.seed}": value for record, value in zip(found, scaled, strict=True)},
            "as published": published_protocol,
            "difference": scaled.mean() - published_protocol,
        }
    return _with_corner(pd.DataFrame.from_dict(rows, orient="index").round(2), "run")


def side_by_side(runs: Mapping[str, Record]) -> pd.DataFrame:
    """Returns what several runs reach: after as many epochs as all of them have, and at their ends, in percent.

    Args:
        runs: by what each is called. All validate on images of one kind.

    Returns:
        One row a run: its epochs, its validation accuracy after those that all have, and its test accuracies.
    """
    common = min(len(record.history) for record in runs.values())
    rows = {
        label: {
            "epochs": len(record.history),
            f"after {common}": 100 * record.history[common - 1]["validation_accuracy"],
            **{f"{KINDS[kind]}, at the end": 100 * record.evaluations[kind]["accuracy"] for kind in KINDS},
        }
        for label, record in runs.items()
    }
    return _with_corner(pd.DataFrame.from_dict(rows, orient="index").round(2).astype({"epochs": int}), "run")


def draws(accuracies: Mapping[str, Mapping[str, Sequence[float]]], generators: Mapping[str, str]) -> pd.DataFrame:
    """Returns mean and standard deviation of the accuracies on several scaled test sets, in percent.

    Args:
        accuracies: model → generator → one accuracy a draw, as `sensitivity.sensitivity` returns them.
        generators: what each is called.

    Returns:
        One row a model and generator, with the lowest and the highest of the draws.
    """
    rows = {
        (NAMES[model], generators[generator]): {
            "mean": 100 * np.mean(values),
            "s": 100 * np.std(values, ddof=1) if len(values) > 1 else math.nan,
            "lowest": 100 * min(values),
            "highest": 100 * max(values),
            "draws": len(values),
        }
        for model, by_generator in accuracies.items()
        for generator, values in by_generator.items()
    }
    frame = pd.DataFrame.from_dict(rows, orient="index").round(2)
    frame.index = pd.MultiIndex.from_tuples(rows, names=["model", "test sets"])
    return frame


def _prediction_half_width(values: np.ndarray) -> float:
    """Returns half the width of the 95 % prediction interval for one more value; 0 for a single one."""
    count = len(values)
    if count < 2:
        return 0.0
    return float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) * math.sqrt(1 + 1 / count))


def runtime(times: pd.DataFrame) -> pd.DataFrame:
    """Returns milliseconds, with quartiles, and ratios of models for each batch size.

    Args:
        times: as `runtime.table` returns them, of one image size.
    """
    shown = times.assign(
        milliseconds=[
            f"{row.milliseconds:,.1f} ({row.low:,.1f} to {row.high:,.1f})" for row in times.itertuples(index=False)
        ],
        ratio=times["ratio"].map("{:.1f}x".format),
    )
    order = list(dict.fromkeys(shown["model"]))
    wide = shown.pivot(index=["what", "model"], columns="batch", values=["milliseconds", "ratio"])
    wide = wide.reindex(order, level="model").swaplevel(axis=1).sort_index(axis=1, level=0, sort_remaining=False)
    return wide.rename(columns=lambda name: f"batch {name}" if isinstance(name, int) else name).rename_axis(
        columns=[None, None]
    )


def memory(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the peak memory of a training step of each model, in MB.

    Args:
        measured: as `runtime.compare` returns it.
    """
    rows = {name: "not measured" if size is None else f"{size / 1e6:,.0f}" for name, size in measured["memory"].items()}
    return _with_corner(pd.DataFrame({"peak memory (MB)": rows}), "model")


def training_cost(measured: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the time of a training step, published and here, and of an epoch here.

    Args:
        measured: as `runtime.compare` returns it.
    """
    parameters = measured["parameters"]
    first = int(parameters["sizes"].split(",")[0])
    steps = {
        row["model"]: row["milliseconds"]
        for row in measured["results"]
        if (row["what"], row["batch"], row["size"]) == ("training step", parameters["batch"], first)
    }
    rows = {}
    for model, name in OURS.items():
        theirs = published.curve(model)["milliseconds_per_step"]
        rows[NAMES[model]] = {
            "published (ms a step)": f"{min(theirs):.0f} to {max(theirs):.0f}",
            "here (ms a step)": f"{steps[name]:.0f}",
            "here (seconds an epoch)": f"{steps[name] * TRAIN_IMAGES / parameters['batch'] / 1000:,.0f}",
        }
    return _with_corner(pd.DataFrame.from_dict(rows, orient="index"), "model")


def parameters(declared: Mapping[str, Parameter], corner: str) -> pd.DataFrame:
    """Returns one row a parameter of a notebook: type, default and meaning.

    Args:
        declared: as `pages.notebook_parameters` returns them.
        corner: what stands above the names.
    """
    rows = {
        name: {
            "type": f"{parameter.type} or None" if parameter.optional else parameter.type,
            "default": parameter.default,
            "meaning": parameter.meaning,
        }
        for name, parameter in declared.items()
    }
    return _with_corner(pd.DataFrame.from_dict(rows, orient="index"), corner)


def provenance(record: Record, standing: str) -> pd.DataFrame:
    """Returns where a record came from: configuration, environment, duration and digests, one row each."""
    origin = record.provenance
    rows = {
        "record": f"{record.name} ({standing})",
        "configuration": ", ".join(f"{name}={value!r}" for name, value in record.configuration.items()),
        "environment": f"TensorFlow {origin['tensorflow']}, Keras {origin['keras']}, NumPy {origin['numpy']}, "
        f"Python {origin['python']}",
        "machine": f"{origin['processor']}, {origin['threads']} threads",
        "trained": f"{origin['started']} to {origin['finished']}, {origin['seconds'] / 60:.1f} minutes in all epochs",
        "code (SHA-256)": origin["code_sha256"][:16],
        "data (SHA-256)": origin["data_sha256"][:16],
        "weights (SHA-256)": origin["weights_sha256"][:16],
    }
    if origin.get("earlier_code_sha256"):
        rows["first epochs by code"] = ", ".join(digest[:16] for digest in origin["earlier_code_sha256"])
    for confirmation in record.confirmations:
        rows[f"confirmed {confirmation['date'][:10]}"] = (
            f"code {confirmation['code_sha256'][:16]}, {confirmation['processor']}, largest difference of the first "
            f"losses {confirmation['largest_witness_difference']:.1e}"
        )
    return _with_corner(pd.DataFrame({"value": rows}), "what")


def seen(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Returns one row a model: how many plain and how many scaled images it was trained on, its first run included.

    Args:
        runs: by model, the records of its seeds in their order; "cnn", from which others start, among them.
    """
    rows = {}
    for model, found in runs.items():
        counts = {"plain": 0, "scaled": 0}
        first = found[0].config
        for record in (found[0], *(runs[first.initial_run][:1] if first.initial_run else ())):
            counts[record.config.train_on] += len(record.history) * record.config.train_size
        rows[NAMES[model]] = {
            **{f"{KINDS[kind]} images in training": f"{count:,}" for kind, count in counts.items()},
            "validated on": f"{KINDS[first.train_on]} test images",
        }
    return _with_corner(pd.DataFrame.from_dict(rows, orient="index"), "model")


def selection(runs: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Returns, for the published and for every run of ours, the last and the best validation accuracy, in percent.

    Args:
        runs: by model, the records of its seeds.

    Returns:
        One row a run: "last" and "best" accuracy, their "difference" in percentage points, and the epoch of the best.
    """
    rows = {}
    for model, found in runs.items():
        curves = {"published": published.curve(model)["validation_accuracy"]}
        for record in found:
            curves[f"seed {record.config.seed}"] = [epoch["validation_accuracy"] for epoch in record.history]
        for name, values in curves.items():
            rows[NAMES[model], name] = {
                "last": 100 * values[-1],
                "best": 100 * max(values),
                "difference": 100 * (max(values) - values[-1]),
                "best at": f"{1 + int(np.argmax(values))} of {len(values)}",
            }
    frame = pd.DataFrame.from_dict(rows, orient="index").round(2)
    frame.index = pd.MultiIndex.from_tuples(rows, names=["model", "run"])
    return frame


def split(runs: Mapping[str, Record]) -> pd.DataFrame:
    """Returns what choosing the best epoch on the test images adds, where there are others to choose by, in percent.

    Args:
        runs: by what each is called; each with images held out to validate on.

    Returns:
        One row a run: the test accuracy after the last epoch, after the one that is best on the held-out images, and
        after the one that is best on the test images; and the difference of the last two in percentage points.
    """
    rows = {}
    for label, record in runs.items():
        held_out, test = (
            100 * np.array([epoch[key] for epoch in record.history]) for key in ("validation_accuracy", "test_accuracy")
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
    return _with_corner(pd.DataFrame.from_dict(rows, orient="index").round(2), "test accuracy (%)")


def origins(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Returns one row a record: its standing, its seed, when, where and with what it was made, and how long that took.

    Args:
        found: as `pages.origins` returns it.
    """
    rows = {
        name: {
            "standing": made.get("standing", ""),
            "seed": f"{made['seed']}" if "seed" in made else "",
            "made": made.get("finished", made.get("started", ""))[:10],
            "minutes": f"{made['seconds'] / 60:.0f}" if "seconds" in made else "",
            "code (SHA-256)": made.get("code_sha256", "")[:12],
            "TensorFlow": made.get("tensorflow", ""),
            "processor": made.get("processor", ""),
        }
        for name, made in found.items()
    }
    return _with_corner(pd.DataFrame.from_dict(rows, orient="index"), "record")


def status(found: Mapping[str, tuple[str, Record | None]]) -> pd.DataFrame:
    """Returns one row a run: its standing, its epochs, how long they took, and when, where and with what it was made.

    Args:
        found: by the record's name, its standing and the record, `None` if it is missing.
    """
    rows = {}
    for name, (standing, record) in found.items():
        rows[name] = {"standing": standing}
        if record is None:
            continue
        origin = record.provenance
        rows[name] |= {
            "epochs": f"{len(record.history)}",
            "minutes": f"{origin['seconds'] / 60:.0f}",
            "finished": origin["finished"][:10],
            "confirmed": max((confirmation["date"][:10] for confirmation in record.confirmations), default=""),
            "processor": f"{origin['processor']}, threads: {origin['threads']}",
            "TensorFlow": origin["tensorflow"],
        }
    return _with_corner(pd.DataFrame.from_dict(rows, orient="index").fillna(""), "run")


def _with_corner(frame: pd.DataFrame, corner: str) -> pd.DataFrame:
    """Names the column of row names in the header itself, where pandas would add a row for it."""
    return frame.rename_axis(index=None, columns=corner)
