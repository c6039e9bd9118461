"""The book's pages: which notebook each is made of, its parameters, and the records it needs."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dcn.study import records
from dcn.study.config import (
    CONTROLS,
    HELD_OUT,
    MEASUREMENTS,
    RATES,
    RESIDUAL,
    SEEDS,
    SMOKE,
    ConfigurationError,
    RunConfig,
    run_config,
    seeds_of,
)
from dcn.study.published import ACCURACY

__all__ = [
    "PAGES",
    "Page",
    "PageError",
    "Parameter",
    "measurement_standing",
    "needed",
    "notebook_parameters",
    "origins",
    "page_parameters",
    "parse_parameters",
    "runs_of",
    "shown",
    "sources",
]

TYPES = {"int": int, "float": float, "str": str, "bool": bool}


class PageError(RuntimeError):
    """A notebook is missing or has no parameters as they should be."""


@dataclasses.dataclass(frozen=True)
class Page:
    """A page of the book that is an executed notebook.

    Attributes:
        notebook: file name of the template, without ending.
        title: the page's heading, in place of the template's.
        lead: what this page shows, in place of the template's first paragraph.
        runs: names of the runs that it shows; with as many seeds as its parameter `seeds` says, if it has one.
        single_runs: names of the runs of which it shows one seed, whatever that parameter says.
        measurement: name of the measurement that it shows, a key of `config.MEASUREMENTS`.
        parameters: what it is executed with.
        smoke: what the profile "smoke" changes.
    """

    notebook: str
    title: str = ""
    lead: str = ""
    runs: tuple[str, ...] = ()
    single_runs: tuple[str, ...] = ()
    measurement: str = ""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    smoke: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _training(run: str, title: str, lead: str) -> Page:
    return Page("training", title, lead, runs=(run,), parameters={"run": run, "seeds": SEEDS}, smoke=SMOKE)


PAGES: dict[str, Page] = {
    "data": Page("data"),
    "models": Page("models"),
    "sampling": Page("sampling", runs=("cnn", "deformable_cnn", "deform_conv_cnn"), smoke=SMOKE),
    "cnn": _training(
        "cnn",
        "The 4-layer CNN",
        "The paper's baseline: four regular convolutions, trained on plain digits. "
        "{numref}`cnn-curve` corresponds to Fig. 4 of the paper.",
    ),
    "deformable_cnn": _training(
        "deformable_cnn",
        "The CNN with `ConvOffset2D`",
        "The same network with a `ConvOffset2D` before all convolutions but the first. It starts from the "
        "weights of the trained CNN, keeps its convolutions and its dense layer as they are, and is trained on "
        "scaled and translated digits: what can change are the offset layers and batch normalisation. "
        "{numref}`deformable_cnn-curve` corresponds to Fig. 5 of the paper.",
    ),
    "mini_resnet": _training(
        "mini_resnet",
        "The mini-ResNet",
        "A convolution, two residual blocks of 16 filters as the published code has them (see {doc}`models`), and a "
        "dense layer, trained on plain digits. {numref}`mini_resnet-curve` corresponds to Fig. 7 of the paper.",
    ),
    "deformable_mini_resnet": _training(
        "deformable_mini_resnet",
        "The mini-ResNet with `ConvOffset2D`",
        "The same network with a `ConvOffset2D` before the convolutions of its blocks. As published, it starts from "
        "random weights, on plain digits, and the blocks' convolutions keep their random weights. "
        "{numref}`deformable_mini_resnet-curve` corresponds to Fig. 8 of the paper.",
    ),
    "offsets": Page("offsets", runs=("deformable_cnn",), measurement="offsets", smoke={**SMOKE, "steps": 5}),
    "gain": Page("gain", runs=tuple(CONTROLS), parameters={"seeds": SEEDS}, smoke={**SMOKE, "seeds": 1}),
    "validation": Page(
        "validation",
        runs=tuple(ACCURACY),
        single_runs=tuple(HELD_OUT),
        parameters={"seeds": SEEDS},
        smoke={**SMOKE, "seeds": 2},
    ),
    "residual": Page("residual", runs=tuple(RESIDUAL), smoke=SMOKE),
    "sensitivity": Page(
        "sensitivity", runs=(*ACCURACY, *RATES), measurement="sensitivity", smoke={"draws": 1, "images": 500}
    ),
    "accuracy": Page("accuracy", runs=tuple(ACCURACY), parameters={"seeds": SEEDS}, smoke={**SMOKE, "seeds": 2}),
    "robustness": Page(
        "robustness",
        runs=tuple(ACCURACY),
        measurement="robustness",
        smoke={"zooms": 2, "shifts": 2, "images": 50},
    ),
    "guide": Page("guide", smoke={"train_size": 200}),
    "again": Page("again"),
    "status": Page("status"),
    "runtime": Page("runtime", measurement="runtime", smoke={"batches": "2", "sizes": "28", "batch": 2, "repeats": 1}),
}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a notebook: its name, its type ("int", "float", "str" or "bool"), default and meaning."""

    name: str
    type: str
    optional: bool
    default: str
    meaning: str

    def parse(self, text: str) -> Any:
        """Returns the value that a text stands for.

        Raises:
            ConfigurationError: if it is not of the parameter's type.
        """
        if self.optional and text == "None":
            return None
        try:
            if self.type == "bool":
                return {"true": True, "false": False}[text.lower()]
            return TYPES[self.type](text)
        except (KeyError, ValueError):
            raise ConfigurationError(
                f"{self.name} must be of type {self.type}. Received: {self.name}={text!r}"
            ) from None


def notebook_parameters(notebook: str) -> dict[str, Parameter]:
    """Returns the parameters of a template in `notebooks`, by name, as its cell tagged `parameters` states them.

    Raises:
        PageError: if the notebook is missing, or has no such cell.
    """
    from papermill.inspection import inspect_notebook

    path = records.project_root() / "notebooks" / f"{notebook}.ipynb"
    if not path.is_file():
        raise PageError(f"{path} is missing")
    found = inspect_notebook(str(path))
    if not found:
        raise PageError(f"{path} has no cell tagged 'parameters' that assigns any")
    parameters = {}
    for name, given in found.items():
        declared = given["inferred_type_name"]
        kind = declared.removeprefix("Optional[").removesuffix("]")
        if kind not in TYPES:
            raise PageError(f"{path}: parameter {name} must be declared int, float, str or bool. Received: {declared}")
        parameters[name] = Parameter(name, kind, kind != declared, given["default"], given["help"])
    return parameters


def parse_parameters(notebook: str, given: Iterable[str]) -> dict[str, Any]:
    """Returns the values of `NAME=VALUE` texts, typed as the notebook declares them.

    Raises:
        ConfigurationError: if a name is unknown, a text is not of this form, or a value not of the type.
    """
    valid = notebook_parameters(notebook)
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"a parameter must be given as NAME=VALUE. Received: {text!r}")
        if name not in valid:
            near = difflib.get_close_matches(name, valid, 1)
            hint = f", did you mean {near[0]}?" if near else ""
            names = ", ".join(f"{parameter.name} ({parameter.type})" for parameter in valid.values())
            raise ConfigurationError(f"unknown parameter {name}{hint} Valid parameters are: {names}")
        values[name] = valid[name].parse(value)
    return values


def page_parameters(page: str, profile: str = "paper", changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns what a page is executed with: its own parameters, those of the profile, then the changes."""
    smoke = PAGES[page].smoke if profile == "smoke" else {}
    return {**PAGES[page].parameters, **smoke, **(changes or {})}


def runs_of(page: str, parameters: Mapping[str, Any]) -> list[RunConfig]:
    """Returns the configurations of the runs that a page with these parameters needs, in the order it shows them.

    Raises:
        ConfigurationError: if one is not valid.
    """
    names = (parameters["run"],) if "run" in parameters else PAGES[page].runs
    changes = _changes(parameters)
    if "run" in parameters or "seeds" not in parameters:
        found = [run_config(name, **changes) for name in names]
    else:
        found = [config for name in names for config in seeds_of(name, parameters["seeds"], **changes)]
    return found + [run_config(name, **changes) for name in PAGES[page].single_runs]


def _changes(parameters: Mapping[str, Any], without: str = "") -> dict[str, Any]:
    """Returns those parameters of a page that are fields of a run's configuration, all but one."""
    fields = {field.name for field in dataclasses.fields(RunConfig)} - {without}
    return {name: value for name, value in parameters.items() if name in fields}


def shown(page: str, parameters: Mapping[str, Any]) -> list[RunConfig]:
    """Returns the configurations of the runs that a page with these parameters shows, trained already or not."""
    configurations = runs_of(page, parameters)
    if "run" in parameters and "seeds" in parameters:  # it draws other seeds beside its own, where they are recorded
        siblings = seeds_of(parameters["run"], parameters["seeds"], **_changes(parameters, without="seed"))
        own = configurations[0].seed
        configurations += [record.config for record in records.recorded(siblings) if record.config.seed != own]
    return list(dict.fromkeys(configurations))


def sources(page: str, parameters: Mapping[str, Any]) -> list[Path]:
    """Returns the records that a page with these parameters shows, whether they are there already or yet to be made."""
    paths = [records.record_path(config) for config in shown(page, parameters)]
    measurement = PAGES[page].measurement
    return paths + ([records.measurement_path(parameters, measurement)] if measurement else [])


def origins(page: str, parameters: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """Returns how the records of a page were made: path → "standing", "seed" of a run, and what it says of itself.

    Raises:
        OSError: if a measurement has not been made.
        RecordError: if a record cannot be read.
    """
    found: dict[Path, dict[str, Any]] = {}
    for config in shown(page, parameters):
        record = records.read(config)
        made = record.provenance if record else {}
        found[records.record_path(config)] = {
            "standing": records.standing(config, record),
            "seed": config.seed,
            **made,
        }
    measurement = PAGES[page].measurement
    if measurement:
        path = records.measurement_path(parameters, measurement)
        own = path == records.measurement_path({}, measurement)
        standing = {"standing": measurement_standing(measurement)} if own else {}
        found[path] = {**standing, **json.loads(path.read_text(encoding="utf-8"))}
    return found


def needed() -> list[RunConfig]:
    """Returns the configurations of all runs that the book shows."""
    return list(dict.fromkeys(config for page in PAGES for config in runs_of(page, page_parameters(page))))


def measurement_standing(name: str) -> str:
    """Returns "fresh", "stale" or "missing" for a measurement that the book shows; none is confirmed by a replay.

    It is stale too if its parameters are not the book's, or its weights no longer those of the trained models.
    """
    path = records.measurement_path({}, name)
    if not path.is_file():
        return "missing"
    content = json.loads(path.read_text(encoding="utf-8"))
    same_parameters = content["parameters"] == MEASUREMENTS[name]
    weights = content.get("weights_sha256")
    same_weights = weights is None or weights == {run: _weights_of(run) for run in ACCURACY}
    same_code = content["code_sha256"] == records.code_sha256(records.MEASURED_BY[name])
    return "fresh" if same_parameters and same_weights and same_code else "stale"


def _weights_of(run: str) -> str:
    record = records.read(run_config(run))
    return record.provenance["weights_sha256"] if record else ""
