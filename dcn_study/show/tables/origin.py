"""Tables of records and parameters: where results came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from dcn_study.names import MODELS, TEST_IMAGES
from dcn_study.runs import published
from dcn_study.runs.records import Measurement, Record, Status
from dcn_study.runs.run import Run
from dcn_study.show.tables.layout import by_row, with_corner

__all__ = ["cards", "measurements", "parameters", "protocol", "provenance", "status"]

OPTIMISERS = {"adam": "Adam", "sgd": "SGD with Nesterov momentum 0.9"}
_IN_FROZEN_CNN = "offset layers and batch normalisation"


def parameters(declared: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Returns one row per parameter: default, type and valid values, meaning.

    Args:
        declared: by what each notebook is called, what `book.parameters.notebook_parameters` returned.
    """
    rows = {
        (notebook, name): {"default": parameter.default, "values": parameter.rule, "meaning": parameter.meaning}
        for notebook, of_notebook in declared.items()
        for name, parameter in of_notebook.items()
    }
    return by_row(rows, "notebook", "parameter")


def cards(stored: Iterable[Record]) -> pd.DataFrame:
    """Returns one row per trained network: what it is, what it was trained on, how it was tested, and its file.

    Args:
        stored: the records of runs whose weights are kept.
    """
    rows = {}
    for record in stored:
        config = record.config
        rows[record.name] = {
            "model": config.model,
            "trained on": config.train_on if config.task == "mnist" else "MNIST-Scale",
            "epochs": config.epochs,
            **{f"{kind} (%)": 100 * record.evaluations[kind].accuracy for kind in TEST_IMAGES},
            "SHA-256": record.provenance.weights[:8],
        }
    return by_row(rows, "network")


def protocol(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Returns how the paper's runs are trained, one column per run.

    Args:
        runs: by model, with all seeds.
    """
    columns = {}
    for model, (run, *others) in runs.items():
        config = run.config
        start = f"the trained {MODELS[config.initial_run]}'s weights" if config.initial_run else "random weights"
        frozen = "all but the blocks' convolutions" if model.endswith("resnet") else _IN_FROZEN_CNN
        kind = TEST_IMAGES[config.train_on]
        columns[MODELS[model]] = {
            "starts from": start,
            "trains": "all" if config.trainable else frozen,
            "images": kind if kind == "plain" else f"{kind}, sampled anew each epoch",
            "optimiser, learning rate": f"{OPTIMISERS[config.optimizer]}, {config.learning_rate:g}",
            "batch size": f"{config.batch_size}",
            "epochs, published": f"{len(published.curve(model)['epoch'])}",
            "epochs, here": f"{config.epochs}",
            "seeds": f"{1 + len(others)}",
            "validated on": f"{kind} test images",
        }
    return with_corner(pd.DataFrame(columns), "setting")


def provenance(record: Record, status: Status) -> pd.DataFrame:
    """Returns where a record came from: configuration, inputs, machine, duration and digests, one row each."""
    origin = record.provenance
    rows = {
        "record": f"{record.name} ({status})",
        "configuration": ", ".join(f"{name}={value!r}" for name, value in record.configuration.items()),
        "environment": _listed({**origin.inputs.versions, "Python": origin.machine.python}),
        "machine": f"{origin.machine.processor}, {origin.machine.threads} threads",
        "trained": f"{origin.started} to {origin.finished}, {origin.seconds / 60:.1f} minutes in all epochs",
        "code (SHA-256)": origin.inputs.code[:16],
        "data (SHA-256)": origin.inputs.data[:16],
        "weights (SHA-256)": origin.weights[:16],
    }
    for name, digest in origin.inputs.weights.items():
        rows[f"initial weights: {name}"] = digest[:16]
    if origin.earlier:
        rows["first epochs by code"] = ", ".join(inputs.code[:16] for inputs in origin.earlier)
    for confirmation in record.confirmations:
        worst = ", ".join(f"{kind} {value:.1e}" for kind, value in confirmation.differences.items())
        where = f"{_listed(confirmation.inputs.versions)}, {confirmation.machine.processor}"
        rows[f"confirmed {confirmation.date[:10]}"] = (
            f"code {confirmation.inputs.code[:16]}, {where}; largest differences: {worst}"
        )
    return with_corner(pd.DataFrame({"value": rows}), "what")


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{library} {version}" for library, version in versions.items())


def status(found: Mapping[str, tuple[Record | None, Status]]) -> pd.DataFrame:
    """Returns one row per run: its status, its epochs, how long they took, and when and where it was made.

    Args:
        found: by the record's name, what `records.inspect` returned.
    """
    rows = {}
    for name, (record, status) in found.items():
        rows[name] = {"status": str(status)}
        if record is None:
            continue
        origin = record.provenance
        rows[name] |= {
            "epochs": f"{len(record.history)}",
            "minutes": f"{origin.seconds / 60:.0f}",
            "finished": origin.finished[:10],
            "confirmed": max((confirmation.date[:10] for confirmation in record.confirmations), default=""),
            "processor (threads)": f"{origin.machine.short} ({origin.machine.threads})",
        }
    return by_row(rows, "run").fillna("")


def measurements(found: Mapping[str, tuple[Measurement | None, Status]]) -> pd.DataFrame:
    """Returns one row per measurement: its status, when, how long and where it was taken, and its libraries.

    Args:
        found: by name, what `records.inspect_measurement` returned.
    """
    rows = {}
    for name, (record, status) in found.items():
        rows[name] = {"status": str(status)}
        if record is not None:
            rows[name] |= {
                "started": record.started[:10],
                "minutes": "" if record.seconds is None else f"{record.seconds / 60:.0f}",
                "processor (threads)": f"{record.machine.short} ({record.machine.threads})",
                "versions": _listed(record.inputs.versions),
            }
    return by_row(rows, "measurement").fillna("")
