"""The book's pages: those of its table of contents that are notebooks, and what they are executed with."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcn_study.runs import records
from dcn_study.runs.catalogue import PAPER, SMOKE, find_run
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.data import load_digits
from dcn_study.runs.files import project_root
from dcn_study.runs.libraries import check_device, load_tensorflow
from dcn_study.runs.splits import splits

__all__ = ["FORMER", "PAGES", "SMALL", "Page", "check", "in_book", "page_parameters", "template_of"]


@dataclasses.dataclass(frozen=True)
class Page:
    """A page that is an executed notebook.

    Attributes:
        notebook: file name of the template, without ending.
        parameters: what it is executed with, besides the notebook's own defaults.
        smoke: what the profile "smoke" changes; measurements that cannot be made small are shown as on record.
        in_book: whether the book has it; the others can be executed and rendered by themselves.
    """

    notebook: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    smoke: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    in_book: bool = True


# Notebook → what makes it small enough for a trial.
SMALL: dict[str, Mapping[str, Any]] = {
    "paper": {**SMOKE, "seeds": 2},
    "verdict": {**SMOKE, "seeds": 2},
    "sampling": {**SMOKE, "occluded": 1},
    "laboratory": SMOKE,
    "training": SMOKE,
    "offsets": SMOKE,
    "gain": {**SMOKE, "seeds": 1},
    "validation": {**SMOKE, "seeds": 2, "draws": 1, "images": 50},
    "residual": {**SMOKE, "seeds": 1},
    "robustness": {"zooms": 2, "shifts": 2, "images": 50},
    "registration": {"arms": "cnn,shared_offsets_cnn", "batch": 2, "repeats": 1, "threads": 0, "memory": False},
    "mechanism": {"realisations": 1, "images": 20, "digits": 2, "occluded": 0},
    "regions": {"realisations": 1, "canvases": 4, "test_canvases": 4, "epochs": 1},
    "guide": {"train_size": 200},
}


def _pages() -> dict[str, Page]:
    """Returns the pages that the table of contents lists, and one for each run of the paper."""
    contents = (project_root() / "book" / "_toc.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ *- file: executed/(\w+)$", contents, re.MULTILINE)
    trainings = {run: Page("training", {"run": run}, SMALL["training"], in_book=False) for run in PAPER}
    return {page: Page(page, smoke=SMALL.get(page, {})) for page in listed} | trainings


PAGES = _pages()

# Addresses that pages of the book have had → the page that has their content now.
FORMER = {
    "summary": "index",
    "method": "executed/method",
    "executed/data": "executed/method",
    "executed/models": "executed/method",
    "executed/accuracy": "executed/paper",
    "executed/sensitivity": "executed/validation",
    **{f"executed/{run}": "executed/runs" for run in PAPER},
}


def in_book() -> tuple[str, ...]:
    """Returns the pages that the book has, in the order in which they are executed."""
    return tuple(page for page, content in PAGES.items() if content.in_book)


def template_of(page: str) -> Path:
    """Returns the path of a page's notebook."""
    return project_root() / "notebooks" / f"{PAGES[page].notebook}.ipynb"


def page_parameters(page: str, profile: str = "paper", changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns what a page is executed with: its own parameters, those of the profile, then the changes."""
    smoke = PAGES[page].smoke if profile == "smoke" else {}
    return {**PAGES[page].parameters, **smoke, **(changes or {})}


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
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    changes = {name: value for name, value in parameters.items() if name in fields}
    for name in (parameters["run"],) if "run" in parameters else PAPER if changes else ():
        run = find_run(name, **changes)
        if records.read(run) is None:
            if "run" in parameters:
                records.initial_record(run.config)
            splits(run.config)
    if "arms" in parameters:
        load_tensorflow()
        from dcn_study.experiments.arms import arms_named

        arms_named(parameters["arms"])
    if "device" in parameters:
        check_device(parameters["device"])
