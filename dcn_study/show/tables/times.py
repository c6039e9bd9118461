"""Tables of how long models take, and how much memory."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dcn_study.names import MODELS, TIMED
from dcn_study.runs import published
from dcn_study.runs.records import Measurement
from dcn_study.show.tables.layout import with_corner

__all__ = ["bench", "logged_ratio", "memory", "runtime", "scale", "training_cost"]


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


def memory(measured: Measurement) -> pd.DataFrame:
    """Returns the peak memory of a training step of each model, in MB.

    Args:
        measured: as `runtime.compare` returns it.
    """
    rows = {
        name: "not measured" if size is None else f"{size / 1e6:,.0f}"
        for name, size in measured.results["memory"].items()
    }
    return with_corner(pd.DataFrame({"peak memory (MB)": rows}), "model")


def training_cost(measured: Measurement) -> pd.DataFrame:
    """Returns the time of a training step: in the author's log, here with the published code, here with ours.

    Each with its ratio to the regular network of the same family; ratios compare between processors, times do not.

    Args:
        measured: as `runtime.compare` returns it.
    """
    parameters = measured.parameters
    first = int(parameters["sizes"].split(",")[0])
    steps = {
        row["model"]: row["milliseconds"]
        for row in measured.results["rows"]
        if (row["what"], row["batch"], row["size"]) == ("training step", parameters["batch"], first)
    }
    rows = {}
    for model, name in TIMED.items():
        logged = published.curve(model)["milliseconds_per_step"]
        low, high = f"{min(logged):.0f}", f"{max(logged):.0f}"
        regular = model.removeprefix("deformable_")
        unit, written = steps[TIMED[regular]], steps[name.replace(", ours", ", published code")]
        rows[MODELS[model]] = {
            "author's log (ms)": low if low == high else f"{low} to {high}",
            "ratio in the log": f"{logged_ratio(model):.1f}",
            "published code, here (ms)": f"{written:.0f}",
            "its ratio": f"{written / unit:.1f}",
            "our code, here (ms)": f"{steps[name]:.0f}",
            "our ratio": f"{steps[name] / unit:.1f}",
        }
    return with_corner(pd.DataFrame.from_dict(rows, orient="index"), "training step")


def logged_ratio(model: str) -> float:
    """Returns how many times as long a training step takes as one of the regular network, in the author's log."""
    means = [
        np.mean(published.curve(each)["milliseconds_per_step"]) for each in (model, model.removeprefix("deformable_"))
    ]
    return float(means[0] / means[1])


def bench(measured: Measurement) -> pd.DataFrame:
    """Returns ratios of medians, one row per comparison, one column per shape, and their geometric mean.

    Args:
        measured: as `bench.bench` returns it.
    """
    shapes = [" x ".join(map(str, result["shape"])) for result in measured.results["shapes"]]
    from dcn_study.experiments.bench import ratios  # loads TensorFlow, which other tables do without

    rows = {label.strip(): values for label, values in ratios(measured.results).items()}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*shapes, "geometric mean"])
    return with_corner(frame, "ratio of medians, by shape (batch x channels x side x filters)")


def processors(measured: Measurement) -> pd.DataFrame:
    """Returns the geometric means of the ratios, one row per comparison, one column per processor.

    Args:
        measured: as `bench.bench` returns it.
    """
    from dcn_study.experiments.bench import ratios  # loads TensorFlow, which other tables do without

    results = measured.results
    here = {label: values[-1] for label, values in ratios(results).items()}
    columns = {f"{results['processor']['name']}, {measured.started[:10]}": here}
    for name, other in results["elsewhere"].items():
        code = "" if other["code"] == measured.inputs.code else ", earlier code"
        columns[f"{name}, {other['date']}{code}"] = other["means"]
    frame = pd.DataFrame({name: pd.Series(means) for name, means in columns.items()}).loc[list(here)]
    frame.index = frame.index.str.strip()
    return with_corner(frame, "geometric mean over the shapes")


def scale(measured: Measurement) -> pd.DataFrame:
    """Returns what handing out jobs costs, one row per number of workers.

    Args:
        measured: as `scale.scale` returns it.
    """
    rows = {
        row["workers"]: {
            "overhead per job (ms)": f"{row['milliseconds']:.1f}",
            "time asleep": f"{100 * row['utilisation']:.0f} %",
            "memory, scheduler (MB)": f"{row['scheduler_bytes'] / 1e6:,.0f}",
            "memory, client (MB)": f"{row['client_bytes'] / 1e6:,.0f}",
        }
        for row in measured.results["rows"]
    }
    return with_corner(pd.DataFrame.from_dict(rows, orient="index"), "workers")
