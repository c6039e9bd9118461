"""The book's pages: the notebook, the parameters and the records of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcn_study import names
from dcn_study.runs import records
from dcn_study.runs.catalogue import (
    PAPER,
    RATES,
    REALISATIONS,
    SMOKE,
    TWO_BY_TWO,
    book_runs,
    keeps_weights,
    record_name,
    registered_runs,
    run_config,
    run_named,
    seeds_of,
    study_runs,
)
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import load_digits
from dcn_study.runs.libraries import check_device, load_tensorflow
from dcn_study.runs.records import Measurement, Record, Standing
from dcn_study.runs.splits import splits
from dcn_study.runs.unseen import unseen_runs

__all__ = ["PAGES", "Page", "Source", "check", "page_parameters", "runs_of", "sources"]


@dataclasses.dataclass(frozen=True)
class Page:
    """A page of the book that is an executed notebook.

    In the book, a file of its name in `book/leads` takes the place of the notebook's heading and first paragraph.

    Attributes:
        notebook: file name of the template, without ending.
        runs: names of the runs that it shows; with as many seeds as its parameter `seeds` says, if it has one;
            None: as many as the book has.
        single_runs: names of the runs of which it shows one seed, whatever that parameter says.
        recorded_runs: names of records that it shows where they exist; a small book trains none of them.
        measurement: name of the measurement that it shows, a key of `catalogue.MEASUREMENTS`.
        recorded_measurements: names of further ones that it shows as the book has them.
        parameters: what it is executed with.
        smoke: what the profile "smoke" changes; measurements that cannot be made small are shown as on record.
    """

    notebook: str
    runs: tuple[str, ...] = ()
    single_runs: tuple[str, ...] = ()
    recorded_runs: tuple[str, ...] = ()
    measurement: str = ""
    recorded_measurements: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    smoke: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _training(run: str) -> Page:
    return Page("training", runs=(run,), parameters={"run": run, "seeds": None}, smoke=SMOKE)


# The networks whose sampling points and answers are shown: deformable convolutions at the rate at which they settle.
_SHOWN = ("cnn", "deformable_cnn", "decayed_deform_conv_cnn")

PAGES: dict[str, Page] = {
    "verdict": Page(
        "verdict",
        runs=(*PAPER, "cnn_scaled"),
        single_runs=("cnn_batch_norm", "repaired_deformable_mini_resnet", "long_frozen_mini_resnet"),
        recorded_runs=tuple(
            record_name(run_config(run, seed=number))
            for run in (*TWO_BY_TWO, "scale_dilated_cnn")
            for number in range(REALISATIONS)
        ),
        recorded_measurements=("offsets", "runtime"),
        parameters={"seeds": None},
        smoke={**SMOKE, "seeds": 2},
    ),
    "data": Page("data"),
    "models": Page("models"),
    "sampling": Page("sampling", runs=_SHOWN, smoke={**SMOKE, "occluded": 1}),
    "laboratory": Page("laboratory", runs=_SHOWN, smoke=SMOKE),
    "cnn": _training("cnn"),
    "deformable_cnn": _training("deformable_cnn"),
    "mini_resnet": _training("mini_resnet"),
    "deformable_mini_resnet": _training("deformable_mini_resnet"),
    "offsets": Page("offsets", runs=("deformable_cnn",), measurement="offsets", smoke=SMOKE),
    "lineage": Page("lineage"),
    "gain": Page("gain", runs=tuple(names.CONTROLS), parameters={"seeds": None}, smoke={**SMOKE, "seeds": 1}),
    "validation": Page(
        "validation",
        runs=PAPER,
        single_runs=tuple(names.HELD_OUT),
        parameters={"seeds": None},
        smoke={**SMOKE, "seeds": 2},
    ),
    "residual": Page("residual", runs=(*names.RESIDUAL, *names.LONGER), smoke=SMOKE),
    "sensitivity": Page(
        "sensitivity",
        runs=(*PAPER, *RATES),
        recorded_runs=tuple(record_name(run) for model in PAPER for run in seeds_of(model)),
        measurement="sensitivity",
        smoke={"draws": 1, "images": 50},
    ),
    "accuracy": Page("accuracy", runs=PAPER, parameters={"seeds": None}, smoke={**SMOKE, "seeds": 2}),
    "robustness": Page(
        "robustness",
        runs=PAPER,
        measurement="robustness",
        smoke={"zooms": 2, "shifts": 2, "images": 50},
    ),
    "registration": Page(
        "registration",
        recorded_runs=tuple(map(record_name, study_runs())),
        measurement="arms",
        smoke={"arms": "cnn,shared_offsets_cnn", "batch": 2, "repeats": 1, "threads": 0, "memory": False},
    ),
    "study": Page("study", recorded_runs=tuple(map(record_name, registered_runs())), recorded_measurements=("arms",)),
    "unseen": Page(
        "unseen",
        recorded_runs=tuple(map(record_name, [*unseen_runs(), *registered_runs()])),
        recorded_measurements=("arms",),
    ),
    "mechanism": Page(
        "mechanism",
        recorded_runs=tuple(record_name(run) for run in registered_runs() if keeps_weights(run)),
        measurement="mechanism",
        smoke={"realisations": 1, "images": 20, "digits": 2, "occluded": 0},
    ),
    "regions": Page(
        "regions",
        measurement="regions",
        smoke={"realisations": 1, "canvases": 4, "test_canvases": 4, "epochs": 1},
    ),
    "networks": Page(
        "networks",
        recorded_runs=tuple(record_name(run) for run in (*book_runs(), *registered_runs()) if keeps_weights(run)),
    ),
    "guide": Page("guide", smoke={"train_size": 200}),
    "again": Page("again"),
    "status": Page("status"),
    "operators": Page("operators", measurement="bench"),
    "cluster": Page("cluster", recorded_runs=tuple(map(record_name, book_runs()))),
    "runtime": Page("runtime", measurement="runtime"),
}


def page_parameters(page: str, profile: str = "paper", changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns what a page is executed with: its own parameters, those of the profile, then the changes."""
    smoke = PAGES[page].smoke if profile == "smoke" else {}
    return {**PAGES[page].parameters, **smoke, **(changes or {})}


def runs_of(page: str, parameters: Mapping[str, Any]) -> list[RunConfig]:
    """Returns the configurations of the runs that a page with these parameters needs, in the order it shows them.

    Raises:
        ConfigurationError: if one is not valid.
    """
    runs = (parameters["run"],) if "run" in parameters else PAGES[page].runs
    changes = _changes(parameters)
    if "run" in parameters or "seeds" not in parameters:
        found = [run_config(name, **changes) for name in runs]
    else:
        found = [config for name in runs for config in seeds_of(name, parameters["seeds"], **changes)]
    return found + [run_config(name, **changes) for name in PAGES[page].single_runs]


def check(page: str, parameters: Mapping[str, Any]) -> None:
    """Checks what a page is executed with, beyond the values of its parameters one by one.

    Its runs are valid, and what those still to be trained need is there; arms are the study's, a device is present.

    Raises:
        ConfigurationError: if a run is not valid, asks for more images than there are, or starts from one that has no
            record; if an arm is unknown, or a device not present.
        DataError: if the data are missing or damaged.
        RecordError: if a record is damaged.
    """
    if parameters.get("data"):
        load_digits(parameters["data"])
    needed = runs_of(page, parameters)
    for config in needed:
        if records.read(config) is None:
            if config.initial_run and run_config(config.initial_run, seed=config.seed, data=config.data) not in needed:
                records.initial_record(config)
            splits(config)
    if "arms" in parameters:
        load_tensorflow()
        from dcn_study.experiments.arms import arms_named

        arms_named(parameters["arms"])
    if "device" in parameters:
        check_device(parameters["device"])


def _changes(parameters: Mapping[str, Any], without: str = "") -> dict[str, Any]:
    """Returns those parameters of a page that are fields of a run's configuration, all but one."""
    fields = {field.name for field in dataclasses.fields(RunConfig)} - {without}
    return {name: value for name, value in parameters.items() if name in fields}


@dataclasses.dataclass(frozen=True)
class Source:
    """A record that a page shows: where it is or will be, its standing, and, if it is there and valid, the record."""

    path: Path
    standing: Standing
    record: Record | Measurement | None


def sources(page: str, parameters: Mapping[str, Any]) -> list[Source]:
    """Returns the records that a page with these parameters shows, whether or not they exist yet or are damaged."""
    configurations = runs_of(page, parameters)
    if "run" in parameters and "seeds" in parameters:  # it also shows other seeds, where they are recorded
        siblings = seeds_of(parameters["run"], parameters["seeds"], **_changes(parameters, without="seed"))
        own = configurations[0].seed
        configurations += [record.config for record in records.recorded(siblings) if record.config.seed != own]
    named = map(run_named, PAGES[page].recorded_runs)
    configurations += [config for config in named if records.record_path(config).is_file()]
    found: list[Source] = []
    for config in dict.fromkeys(configurations):
        record, standing = records.inspect(config)
        found.append(Source(record.path if record else records.record_path(config), standing, record))
    shown: dict[str, Mapping[str, Any]] = {name: {} for name in PAGES[page].recorded_measurements}
    if PAGES[page].measurement:
        shown[PAGES[page].measurement] = parameters
    for measurement, changes in shown.items():
        measured, standing = records.inspect_measurement(measurement, changes)
        found.append(Source(records.measurement_path(measurement, changes), standing, measured))
    return found
