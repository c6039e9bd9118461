"""Tables of how long models take, and how much memory."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dcn_study.experiments.ratios import ratios
from dcn_study.names import MODELS, TIMED
from dcn_study.runs import published
from dcn_study.runs.records import Measurement
from dcn_study.show.tables.layout import by_row, with_corner

__all__ = ["bench", "logged_ratio", "memory", "processors", "published_runtime", "runtime", "training_cost"]

_WRITTEN = "deformable CNN, published code"


def runtime(times: pd.DataFrame) -> pd.DataFrame:
    """Returns milliseconds, their spread, and ratios of models for each batch size.

    Args:
        times: as `ratios.runtimes` returns them, of one image size.
    """
    shown = times.assign(ms=times["milliseconds"], IQR=times["high"] - times["low"])
    wide = shown.pivot(index=["what", "model"], columns="batch", values=["ms", "IQR", "ratio"])
    wide = wide.reindex(shown["model"].unique(), level="model")
    wide = wide.swaplevel(axis=1).sort_index(axis=1, level=0, sort_remaining=False)
    wide = wide.rename(columns=lambda name: f"batch {name}" if isinstance(name, int) else name)
    return wide.rename_axis(columns=[None, None])


def memory(measured: Measurement) -> pd.DataFrame:
    """Returns the peak memory of a training step of each model, in MB; NaN where it was not measured.

    Args:
        measured: as `runtime.compare` returns it.
    """
    rows = {name: np.nan if size is None else size / 1e6 for name, size in measured.results["memory"].items()}
    return with_corner(pd.DataFrame({"peak memory (MB)": rows}), "model")


def training_cost(measured: Measurement) -> pd.DataFrame:
    """Returns the time of a training step: in the author's log, here with the published code, here with ours.

    Each with its ratio to the regular network of the same family; ratios compare between processors, times do not.

    Args:
        measured: as `runtime.compare` returns it.
    """
    steps = _medians(measured)["training step"]
    rows = {}
    for model, name in TIMED.items():
        regular = model.removeprefix("deformable_")
        unit, written = steps[TIMED[regular]], steps[name.replace(", ours", ", published code")]
        rows[MODELS[model]] = {
            "author's log, mean (ms)": _logged(model),
            "ratio in the log": logged_ratio(model),
            "published code, here (ms)": written,
            "its ratio": written / unit,
            "our code, here (ms)": steps[name],
            "our ratio": steps[name] / unit,
        }
    return by_row(rows, "training step")


def published_runtime(measured: Measurement) -> pd.DataFrame:
    """Returns the times of a forward pass that the paper states, next to ours: milliseconds, and their ratios.

    Args:
        measured: as `runtime.compare` returns it.
    """
    forward = _medians(measured)["forward"]
    regular, deformable = published.FORWARD["regular"], published.FORWARD["deformable"]
    written, ours, unit = (forward[model] for model in (_WRITTEN, TIMED["deformable_cnn"], TIMED["cnn"]))
    rows = {
        "forward pass, CNN (ms)": (regular, unit, unit),
        "forward pass, deformable CNN (ms)": (deformable, written, ours),
        "forward pass, times as long": (deformable / regular, written / unit, ours / unit),
    }
    columns = ["paper", "here, published code", "here, our code"]
    return by_row(rows, f"batch of {measured.parameters['batch']}", columns=columns)


def logged_ratio(model: str) -> float:
    """Returns how many times as long a training step takes as one of the regular network, in the author's log."""
    return _logged(model) / _logged(model.removeprefix("deformable_"))


def _logged(model: str) -> float:
    """Returns the mean time of a training step in the author's log, in milliseconds."""
    return float(np.mean(published.curve(model)["milliseconds_per_step"]))


def _medians(measured: Measurement) -> pd.DataFrame:
    """Returns milliseconds at the first image size and the measured batch, one row per model, one column per pass."""
    rows, parameters = pd.DataFrame(measured.results["rows"]), measured.parameters
    first = int(parameters["sizes"].split(",")[0])
    shown = rows[(rows["size"] == first) & (rows["batch"] == parameters["batch"])]
    return shown.pivot(index="model", columns="what", values="milliseconds")


def bench(measured: Measurement) -> pd.DataFrame:
    """Returns ratios of medians, one row per comparison, one column per shape, and their geometric mean.

    Args:
        measured: as `bench.bench` returns it.
    """
    shapes = [" x ".join(map(str, result["shape"])) for result in measured.results["shapes"]]
    rows = {label.strip(): values for label, values in ratios(measured.results).items()}
    corner = "ratio of medians, by shape (batch x channels x side x filters)"
    return by_row(rows, corner, columns=[*shapes, "geometric mean"])


def processors(measured: Measurement) -> pd.DataFrame:
    """Returns the geometric means of the ratios, one row per comparison, one column per processor.

    Args:
        measured: as `bench.bench` returns it.
    """
    results = measured.results
    here = {label: values[-1] for label, values in ratios(results).items()}
    columns = {f"{results['processor']['name']}, {measured.started[:10]}": here}
    for name, other in results["elsewhere"].items():
        code = "" if other["code"] == measured.inputs.code else ", earlier code"
        columns[f"{name}, {other['date']}{code}"] = other["means"]
    frame = pd.DataFrame({name: pd.Series(means) for name, means in columns.items()}).loc[list(here)]
    frame.index = frame.index.str.strip()
    return with_corner(frame, "geometric mean over the shapes")
