"""Tables of models and their layers: parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dcn_study.names import MODELS
from dcn_study.show.tables.layout import by_row, with_corner

__all__ = ["layers", "models", "totals"]

COUNTS = ("parameters", "trainable", "multiply-adds")


def totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Returns the sums over the layers of a model, by what is counted.

    Args:
        rows: as `experiments.layers.layers_of` returns them.
    """
    return {name: sum(row[name] for row in rows) for name in COUNTS}


def layers(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Returns one row per layer: its output shape, its parameters, how many are trainable, and its multiply-adds.

    Args:
        rows: as `experiments.layers.layers_of` returns them.
    """
    frame = pd.DataFrame([*rows, {"layer": "all", "output": "", **totals(rows)}])
    return with_corner(frame.set_index("layer"), "layer")


def models(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """Returns one row per model: parameters, how many train, multiply-adds for one image, and these as a ratio.

    Args:
        measured: the layers of each by name, as `published.ACCURACY` names them. The ratio is that to the regular model
            of the same family.
    """
    sums = {name: totals(rows) for name, rows in measured.items()}
    rows = {
        MODELS[name]: {
            "parameters": found["parameters"],
            "trainable": found["trainable"],
            "multiply-adds (million)": found["multiply-adds"] / 1e6,
            "ratio": found["multiply-adds"] / sums[name.removeprefix("deformable_")]["multiply-adds"],
        }
        for name, found in sums.items()
    }
    return by_row(rows, "model")
