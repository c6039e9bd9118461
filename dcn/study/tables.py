"""Tables from models and records, as data frames. Nothing here trains, reads or saves."""

from __future__ import annotations

import keras
import pandas as pd

from dcn.study import published
from dcn.study.records import Record

__all__ = ["accuracy", "layers", "provenance"]

KINDS = {"plain": "plain", "scaled": "scaled and translated"}


def layers(model: keras.Model) -> pd.DataFrame:
    """Returns one row a layer: its output shape, its parameters, and how many of them train."""
    rows = [
        {
            "layer": layer.name,
            "output": " x ".join(str(size) for size in layer.output.shape[1:]),
            "parameters": layer.count_params(),
            "of which train": sum(weight.numpy().size for weight in layer.trainable_weights),
        }
        for layer in model.layers
    ]
    total = {
        "layer": "all",
        "output": "",
        "parameters": sum(row["parameters"] for row in rows),
        "of which train": sum(row["of which train"] for row in rows),
    }
    return _with_corner(pd.DataFrame([*rows, total]).set_index("layer"), "layer")


def accuracy(record: Record, again: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Returns test accuracies in percent: as published, as recorded, and from the stored weights just now.

    Args:
        record: of the run.
        again: "plain" and "scaled", as `training.evaluate` returned them.
    """
    rows = {
        KINDS[kind]: {
            "published": 100 * published.ACCURACY[record.config.model][kind],
            "this run": 100 * stored["accuracy"],
            "difference": 100 * (stored["accuracy"] - published.ACCURACY[record.config.model][kind]),
            "evaluated again": 100 * again[kind]["accuracy"],
            "images": int(stored["images"]),
        }
        for kind, stored in record.evaluations.items()
    }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return _with_corner(frame.round(2).astype({"images": int}), "test images (accuracy in %)")


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
    return _with_corner(pd.DataFrame({"": rows}), "what")


def _with_corner(frame: pd.DataFrame, corner: str) -> pd.DataFrame:
    """Names the column of row names in the header itself, where pandas would add a row for it."""
    return frame.rename_axis(index=None, columns=corner)
