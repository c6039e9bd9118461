"""Execution of the notebooks by papermill, and the build of the Jupyter Book."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat

from dcn.study import records
from dcn.study.config import MEASUREMENTS, RUNS, SEEDS, SMOKE, ConfigurationError, RunConfig, run_config, seeds_of
from dcn.study.published import ACCURACY

__all__ = ["PAGES", "BookError", "Page", "build", "execute", "needed", "notebook_parameters", "runs_of"]

TYPES = {"int": int, "float": float, "str": str, "bool": bool}


class BookError(RuntimeError):
    """A notebook failed or the book could not be built; nothing that was there before has changed."""


@dataclasses.dataclass(frozen=True)
class Page:
    """A page of the book that is an executed notebook.

    Attributes:
        notebook: file name of the template, without ending.
        title: the page's heading, in place of the template's.
        lead: what this page shows, in place of the template's first paragraph.
        runs: names of the runs that it shows; with as many seeds as its parameter `seeds` says, if it has one.
        measurement: name of the measurement that it shows, a key of `config.MEASUREMENTS`.
        parameters: what it is executed with.
        smoke: what the profile "smoke" changes.
    """

    notebook: str
    title: str = ""
    lead: str = ""
    runs: tuple[str, ...] = ()
    measurement: str = ""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    smoke: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _training(run: str, title: str, lead: str) -> Page:
    return Page("training", title, lead, runs=(run,), parameters={"run": run}, smoke=SMOKE)


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
    "accuracy": Page("accuracy", runs=tuple(ACCURACY), parameters={"seeds": SEEDS}, smoke={**SMOKE, "seeds": 2}),
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
        BookError: if the notebook is missing, or has no such cell.
    """
    from papermill.inspection import inspect_notebook

    path = records.project_root() / "notebooks" / f"{notebook}.ipynb"
    if not path.is_file():
        raise BookError(f"{path} is missing")
    found = inspect_notebook(str(path))
    if not found:
        raise BookError(f"{path} has no cell tagged 'parameters' that assigns any")
    parameters = {}
    for name, given in found.items():
        declared = given["inferred_type_name"]
        kind = declared.removeprefix("Optional[").removesuffix("]")
        if kind not in TYPES:
            raise BookError(f"{path}: parameter {name} must be declared int, float, str or bool. Received: {declared}")
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
    if "run" in parameters or "seed" in changes:
        return [run_config(name, **changes) for name in names]
    return [config for name in names for config in seeds_of(name, parameters.get("seeds", 1), **changes)]


def _changes(parameters: Mapping[str, Any], without: str = "") -> dict[str, Any]:
    """Returns those parameters of a page that are fields of a run's configuration, all but one."""
    fields = {field.name for field in dataclasses.fields(RunConfig)} - {without}
    return {name: value for name, value in parameters.items() if name in fields}


def execute(page: str, parameters: Mapping[str, Any], output: Path, *, progress: bool = True) -> None:
    """Executes a page's notebook with papermill, in a kernel of this Python and in the project's folder.

    Args:
        page: a key of `PAGES`.
        parameters: as `page_parameters` returns them.
        output: where the executed notebook goes; written whole, or not at all.
        progress: whether to show the progress of cells and of training.

    Raises:
        BookError: with the failing cell and its error.
    """
    import papermill

    root = records.project_root()
    with (
        records.replacing(output) as executed,
        records.replacing(output.with_suffix(".template.ipynb")) as template,
    ):
        nbformat.write(_prepare(page, parameters, root / "notebooks" / f"{PAGES[page].notebook}.ipynb"), template)
        try:
            papermill.execute_notebook(
                str(template),
                str(executed),
                dict(parameters),
                kernel_name="python3",
                cwd=str(root),
                progress_bar=progress,
                stderr_file=sys.stderr if progress else None,
            )
        except papermill.PapermillExecutionError as error:
            raise BookError(
                f"page {page}: cell {error.exec_count} failed with {error.ename}: {error.evalue}\n"
                f"{_indent(error.source)}"
            ) from error
        reject_unfinished(executed)
    output.with_suffix(".template.ipynb").unlink()


def _prepare(page: str, parameters: Mapping[str, Any], template: Path) -> nbformat.NotebookNode:
    """Returns a template with the page's heading and lead, figures named after the page, and links to its sources."""
    notebook = nbformat.read(template, as_version=4)
    first = notebook.cells[0]
    if PAGES[page].title:
        first.source = f"# {PAGES[page].title}\n\n{PAGES[page].lead}"
    links = [f"{{download}}`{path.name} <../records/{path.name}>`" for path in sources(page, parameters)]
    links.append(f"{{download}}`{template.name} <../notebooks/{template.name}>`")
    for cell in notebook.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure:
            figure["name"] = f"{page}-{figure['name']}"
            figure["caption"] += f" Sources: {', '.join(links)}."
    text = f"## Sources\n\nThe records and the notebook behind this page's figures and tables: {', '.join(links)}."
    notebook.cells.append(nbformat.v4.new_markdown_cell(text, id="sources"))
    return notebook


def sources(page: str, parameters: Mapping[str, Any]) -> list[Path]:
    """Returns the records that a page with these parameters shows, whether they are there already or yet to be made."""
    configurations = runs_of(page, parameters)
    if "run" in parameters:  # it draws other seeds beside its own, where they are recorded
        siblings = seeds_of(parameters["run"], parameters.get("seeds", SEEDS), **_changes(parameters, without="seed"))
        configurations += [record.config for record in records.recorded(siblings) if record.config != configurations[0]]
    paths = [records.record_path(config) for config in configurations]
    measurement = PAGES[page].measurement
    return paths + ([records.measurement_path(parameters, measurement)] if measurement else [])


def reject_unfinished(path: Path) -> None:
    """Checks that an executed notebook ran to its end without an error.

    Raises:
        BookError: if a code cell was not executed, or holds an error.
    """
    notebook = nbformat.read(path, as_version=4)
    if notebook.metadata.get("papermill", {}).get("exception"):
        raise BookError(f"{path} ended with an error")
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if cell.execution_count is None and cell.source.strip():
            raise BookError(f"{path}: cell {number} was not executed")
        for output in cell.outputs:
            if output.output_type == "error":
                raise BookError(f"{path}: cell {number} holds the error {output.ename}: {output.evalue}")


def build(profile: str = "paper", *, progress: bool = True) -> Path:
    """Executes all pages and renders the book; puts it in the place of the last one only if all went well.

    With the profile "paper" nothing is trained: the pages show the committed records. With "smoke" small runs are
    trained, and the book made of them lies apart.

    Returns:
        The path of the book's first page.

    Raises:
        BookError: if a record is missing, a notebook fails, or the rendering gives a warning.
    """
    root = records.project_root()
    if not (root / "book" / "_toc.yml").is_file():
        raise BookError(f"{root} is not a clone of the project: book/_toc.yml is missing")
    if profile == "paper":
        _require_records()
    staging = root / "_build" / f"{profile}.staging"
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(root / "book", staging / "book", ignore=shutil.ignore_patterns("records"))
    shutil.copytree(root / "notebooks", staging / "book" / "notebooks")
    (staging / "book" / "records").mkdir()
    for page in PAGES:
        _say(f"executing {page}", progress)
        execute(
            page,
            page_parameters(page, profile),
            staging / "book" / "executed" / f"{page}.ipynb",
            progress=progress,
        )
        for path in sources(page, page_parameters(page, profile)):
            shutil.copy(path, staging / "book" / "records")
    _say("rendering", progress)
    _render(root, staging)
    finished = root / "_build" / ("html" if profile == "paper" else profile)
    former = finished.with_name(f"{finished.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    if finished.exists():
        finished.rename(former)
    (staging / "_build" / "html").rename(finished)
    shutil.rmtree(former, ignore_errors=True)
    shutil.rmtree(staging)
    return finished / "index.html"


def needed() -> list[RunConfig]:
    """Returns the configurations of all runs that the book shows."""
    return list(dict.fromkeys(config for page in PAGES for config in runs_of(page, page_parameters(page))))


def _require_records() -> None:
    for config in needed():
        record = records.read(config)
        if record is None or record.config != config:
            missing = "is missing" if record is None else "is of another configuration"
            raise BookError(f"{records.record_path(config)} {missing}. Train it with: {command_for(config)}")
    for name in MEASUREMENTS:
        path = records.measurement_path({}, name)
        if not path.is_file():
            raise BookError(f"{path} is missing. Measure it, on a quiet machine, with: dcn run {name}")


def command_for(config: RunConfig) -> str:
    """Returns the command that trains a published run, of whatever seed."""
    run = next(
        name for name, published in RUNS.items() if dataclasses.replace(config, seed=published.seed) == published
    )
    page = run if run in PAGES else f"cnn -p run={run}"
    return f"dcn run {page}" + (f" -p seed={config.seed}" if config.seed else "")


def measurement_standing(name: str) -> str:
    """Returns "fresh", "stale" or "missing" for a measurement that the book shows; none is confirmed by a replay."""
    path = records.measurement_path({}, name)
    if not path.is_file():
        return "missing"
    content = json.loads(path.read_text(encoding="utf-8"))
    return "fresh" if content["code_sha256"] == records.code_sha256(records.MEASURED_BY[name]) else "stale"


def _render(root: Path, staging: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        str(staging / "book"),
    ]
    command += ["--path-output", str(staging), "--config", str(root / "_config.yml")]
    command += ["--toc", str(staging / "book" / "_toc.yml"), "-n", "-W", "--keep-going", "--all", "-q"]
    log = staging / "rendering.log"
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ, check=False).returncode
    if status != 0:
        raise BookError(f"jupyter-book ended with exit code {status}:\n{_indent(log.read_text(encoding='utf-8'))}")


def variant(page: str, parameters: Mapping[str, Any]) -> Path:
    """Returns where a page executed by itself goes: one file in `runs` for each set of parameters."""
    own = page_parameters(page)
    if parameters == own:
        return records.project_root() / "runs" / f"{page}.ipynb"
    digest = hashlib.sha256(json.dumps(dict(parameters), sort_keys=True).encode()).hexdigest()[:8]
    return records.project_root() / "runs" / f"{page}-{digest}.ipynb"


def _say(text: str, progress: bool) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
