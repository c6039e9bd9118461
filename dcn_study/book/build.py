"""Execution of the notebooks by papermill, and the build of the Jupyter Book."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import nbformat
from docutils.nodes import make_id

from dcn_study.book.crate import CRATE, crate
from dcn_study.book.pages import PAGES, Source, page_parameters, runs_of, sources
from dcn_study.book.values import values_file, write_values
from dcn_study.errors import BookError
from dcn_study.runs import records
from dcn_study.runs.catalogue import MEASUREMENTS, REMEASURE, book_runs
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.files import locked, project_root, replacing
from dcn_study.runs.inputs import Inputs
from dcn_study.runs.records import Measurement, Record

__all__ = ["PRINTED", "Progress", "build", "execute", "find_browser", "reject_unfinished", "render_page", "variant"]

FEW = 4  # as many records as a caption names one by one
LONGEST = ("runtime", "offsets", "guide")  # pages that take longest in a small book, to be begun first
PARAMETERS_HEADING = "## Parameters\n\nThis page can be run again with other values: {doc}`again`."
# Lines that TensorFlow's library writes to the standard error of every process that loads it.
LIBRARY = re.compile(r"[IWE]\d{4} |WARNING: All log messages before absl|To enable the following instructions")
HAS_NARROW = re.compile(r'<img [^>]*class="has-narrow ([\w-]+)"[^>]*>')
PDF, PRINTED = "report.pdf", "DCN_REPORT_PDF"  # the file, and the environment variable that tells Sphinx of it
VALUES_LINK = '\n\n<p class="only-on-screen">The numbers of this page for programs: <a href="{0}">{0}</a>.</p>\n'
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def execute(
    page: str, parameters: Mapping[str, Any], output: Path, *, progress: bool = True, fork: bool = False
) -> None:
    """Executes a page's notebook with papermill, in a kernel of this Python and in the project's folder.

    Args:
        page: a key of `PAGES`.
        parameters: as `page_parameters` returns them.
        output: where the executed notebook goes; written whole, or not at all.
        progress: whether to show the progress of cells and of training.
        fork: whether to fork the kernel from a process that has loaded the libraries, which pays for many pages.

    Raises:
        BookError: with the failing cell and its error.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    root = project_root()
    original = root / "notebooks" / f"{PAGES[page].notebook}.ipynb"
    with replacing(output) as executed, tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / original.name
        nbformat.write(_prepare(page, parameters, original), template)
        log = Path(folder) / "kernel.log"
        options: dict[str, Any] = {}
        if fork:
            from dcn_study.book.kernels import forked

            options["kernel_manager_class"] = forked(log)
        try:
            with _children_write_to(log):
                papermill.execute_notebook(
                    str(template),
                    str(executed),
                    dict(parameters),
                    kernel_name="python3",
                    cwd=str(root),
                    progress_bar=progress,
                    stderr_file=Progress(sys.stderr) if progress else None,
                    extra_arguments=["--log-level=ERROR"],
                    **options,
                )
        except DeadKernelError as error:
            raise BookError(f"page {page}: {error}\n{_indent(log.read_text(encoding='utf-8')[-2000:])}") from error
        except papermill.PapermillExecutionError as error:
            raise BookError(
                f"page {page}: cell {error.exec_count} failed with {error.ename}: {error.evalue}"
            ) from error
        reject_unfinished(executed)
        notebook = nbformat.read(executed, as_version=4)
        for path in ("input_path", "output_path"):  # of this machine, and of no use on any other
            del notebook.metadata.papermill[path]
        notebook.cells.append(nbformat.v4.new_markdown_cell(_sources(page, parameters, original), id="sources"))
        nbformat.write(notebook, executed)


@contextlib.contextmanager
def _children_write_to(log: Path) -> Iterator[None]:
    """Lets the standard error of processes that are started meanwhile go to a file; that of this process stays."""
    own = os.dup(2)
    with log.open("w", encoding="utf-8") as file, open(own, "w", encoding="utf-8", buffering=1) as told:
        sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            with contextlib.redirect_stderr(told):
                yield
        finally:
            os.dup2(own, 2)


class Progress(io.TextIOBase):
    """Passes on what a kernel writes to its standard error, except what TensorFlow's library says when it is loaded."""

    def __init__(self, target: TextIO) -> None:
        self.target = target

    def write(self, text: str) -> int:
        self.target.write("".join(line for line in text.splitlines(keepends=True) if not LIBRARY.match(line)))
        return len(text)

    def flush(self) -> None:
        self.target.flush()


def _prepare(page: str, parameters: Mapping[str, Any], template: Path) -> nbformat.NotebookNode:
    """Returns a template with the page's heading and lead, figures named after the page, and links to its sources.

    The lead is written for the book: a page with other parameters begins as its notebook does. A figure whose cell has
    the tag "drawing" comes from no record, and has its notebook alone for a source.
    """
    notebook = nbformat.read(template, as_version=4)
    lead = project_root() / "book" / "leads" / f"{page}.md"
    given = {name: value for name, value in parameters.items() if name != "force"}
    if lead.is_file() and given in (page_parameters(page), page_parameters(page, "smoke")):
        notebook.cells[0].source = lead.read_text(encoding="utf-8")
    paths = [source.path for source in sources(page, parameters)]
    link = _link("notebooks", template)
    if len(paths) <= FEW:
        named = ", ".join([*(_link("records", path) for path in paths), link])
    else:
        named = f"{{ref}}`{len(paths)} records and the notebook <{page}-sources>`"
    for cell in notebook.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure:
            figure["name"] = f"{page}-{figure['name']}"
            figure["caption"] += f" Source: {link}." if "drawing" in cell.metadata.tags else f" Sources: {named}."
    return notebook


def _sources(page: str, parameters: Mapping[str, Any], template: Path) -> str:
    """Returns the section that names what is behind a page: its notebook, and how each of its records was made."""
    text = f"({page}-sources)=\n## Sources\n\nThe notebook behind this page: {_link('notebooks', template)}."
    shown = sources(page, parameters)
    rows = [_row(source) for source in shown]
    if rows:
        header = ("record", "standing", "seed", "made", "minutes", "code (SHA-256)", "processor")
        lines = (f"| {' | '.join(row)} |" for row in (header, (":--",) * len(header), *rows))
        versions = sorted({_inputs(source.record).versions["TensorFlow"] for source in shown if source.record})
        text += f" The records, and how they were made, with TensorFlow {', '.join(versions)}:\n\n" + "\n".join(lines)
    return text + VALUES_LINK.format(Path(values_file(page)).name)


def _row(source: Source) -> tuple[str, ...]:
    link, standing = _link("records", source.path), str(source.standing)
    record = source.record
    if record is None:
        return (link, standing, *[""] * 5)
    if isinstance(record, Record):
        made, seed = record.provenance, str(record.config.seed)
        date, minutes, machine = made.finished, f"{made.seconds / 60:.0f}", made.machine
    else:
        date, seed, machine = record.started, "", record.machine
        minutes = "" if record.seconds is None else f"{record.seconds / 60:.0f}"
    return (link, standing, seed, date[:10], minutes, _inputs(record).code[:8], machine.short)


def _inputs(record: Record | Measurement) -> Inputs:
    return record.provenance.inputs if isinstance(record, Record) else record.inputs


def _link(folder: str, path: Path) -> str:
    return f"{{download}}`{path.name} <../{folder}/{path.name}>`"


def render_page(page: str, parameters: Mapping[str, Any], executed: Path) -> Path:
    """Renders one executed page by itself, with the book's look; links to other pages are plain text.

    Args:
        page: a key of `PAGES`.
        parameters: it was executed with.
        executed: the executed notebook. The result goes into a folder next to it and replaces an earlier one.

    Returns:
        The path of the page.

    Raises:
        BookError: if the rendering fails.
    """
    root, folder = project_root(), executed.with_name(f"{executed.stem}-html")
    with tempfile.TemporaryDirectory(dir=executed.parent) as name:
        staging = Path(name)
        book = _copy_book(root, staging)
        contents = f"format: jb-book\nroot: executed/{page}\nchapters:\n  - file: references\n"
        (book / "_toc.yml").write_text(contents, encoding="utf-8")
        _write_page(executed, book / "executed" / f"{page}.ipynb")
        for source in sources(page, parameters):
            shutil.copy(source.path, book / "records")
        _render(root, staging, "html", strict=False)
        _offer_narrow(staging / "_build" / "html")
        target = staging / "_build" / "html" / values_file(page)
        write_values(page, parameters, sources(page, parameters), executed, target)
        shutil.rmtree(folder, ignore_errors=True)
        (staging / "_build" / "html").rename(folder)
    return folder / "executed" / f"{page}.html"


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


def find_browser() -> str:
    """Returns the path of a Chromium or Chrome, which prints the book: `BROWSER_PATH`, or else the first one installed.

    Raises:
        BookError: if there is none.
    """
    candidates = (os.environ.get("BROWSER_PATH", ""), *BROWSERS)
    found = next(filter(None, map(shutil.which, candidates)), None)
    if found is None:
        raise BookError(f"none of {', '.join(BROWSERS)} is installed, and BROWSER_PATH names none")
    return found


def build(profile: str = "paper", *, pdf: bool = False, progress: bool = True) -> Path:
    """Executes all pages and renders the book; replaces the previous book only if all went well.

    With the profile "paper" nothing is trained or measured: the pages show the committed records. With "smoke" small
    runs are trained first, and the book made of them is kept apart.

    Args:
        profile: "paper" or "smoke".
        pdf: whether to print the whole book as well, into `report.pdf` next to its first page.
        progress: whether to say what is done.

    Returns:
        The path of the book's first page.

    Raises:
        BookError: if a record is missing, a notebook fails, the rendering gives a warning, or no browser can print.
        LockedError: if another process builds this book.
    """
    browser = find_browser() if pdf else ""
    root = project_root()
    if not (root / "book" / "_toc.yml").is_file():
        raise BookError(f"{root} is not a clone of the project: book/_toc.yml is missing")
    if profile == "paper":
        _require_records()
    with locked(root / "_build" / f"{profile}.lock", f"the book {root / '_build' / profile}"):
        return _build(root, profile, browser, progress)


def _build(root: Path, profile: str, browser: str, progress: bool) -> Path:
    staging = root / "_build" / f"{profile}.staging"
    shutil.rmtree(staging, ignore_errors=True)
    book = _copy_book(root, staging)
    _execute_all(profile, book, progress)
    _say("rendering", progress)
    _render(root, staging, "html", printed=PDF if browser else "")
    _offer_narrow(staging / "_build" / "html")
    if browser:
        _say("printing", progress)
        _render(root, staging, "singlehtml")
        _print(browser, staging / "_build" / "singlehtml" / "intro.html", staging / "_build" / "html" / PDF)
    _describe(root, profile, staging)
    finished = root / "_build" / ("html" if profile == "paper" else profile)
    former = finished.with_name(f"{finished.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    if finished.exists():
        finished.rename(former)
    (staging / "_build" / "html").rename(finished)
    shutil.rmtree(former, ignore_errors=True)
    shutil.rmtree(staging)
    return finished / "index.html"


def _describe(root: Path, profile: str, staging: Path) -> None:
    """Puts records, weights and the numbers of the pages into the rendered book, and their description for programs."""
    html = staging / "_build" / "html"
    shutil.copytree(staging / "book" / "records", html / "records")
    shown = {page: sources(page, page_parameters(page, profile)) for page in PAGES}
    for page, found in shown.items():
        executed = staging / "book" / "executed" / f"{page}.ipynb"
        write_values(page, page_parameters(page, profile), found, executed, html / values_file(page))
        for record in (source.record for source in found):
            if isinstance(record, Record):
                for path in filter(Path.is_file, (record.weights_path, record.predictions_path)):
                    shutil.copy(path, html / "records")
    (html / CRATE).write_text(json.dumps(crate(root, html, shown), indent=1), encoding="utf-8")


def _copy_book(root: Path, staging: Path) -> Path:
    """Copies the book's prose and templates, with an empty folder for records; returns where to."""
    shutil.copytree(root / "book", staging / "book", ignore=shutil.ignore_patterns("records", "leads"))
    shutil.copytree(root / "notebooks", staging / "book" / "notebooks")
    (staging / "book" / "records").mkdir()
    return staging / "book"


def _execute_all(profile: str, book: Path, progress: bool) -> None:
    """Executes all pages and copies their records next to them, two at a time, each in a process of its own.

    Papermill changes the folder of its whole process. What the pages of a small book need is trained before, so that
    no two of them train the same run.
    """
    from dcn_study.book.kernels import FORKED

    forbid_training = _forbid_training if profile == "paper" else None
    with ProcessPoolExecutor(2, mp_context=FORKED, initializer=forbid_training) as pool:
        if profile == "smoke":
            needed = [config for page in PAGES for config in runs_of(page, page_parameters(page, profile))]
            for name in _all(pool, _train_small, dict.fromkeys(needed)):  # from the weights of the book's own runs
                _say(f"trained {name}", progress)
        for page in _all(pool, _execute_one, sorted(PAGES, key=lambda page: page not in LONGEST), profile, book):
            _say(f"executed {page}", progress)


def _all(pool: Executor, function: Callable, items: Iterable, *arguments: Any) -> Iterator:
    """Yields the results of a function for all items, in their order; after an error no further item is begun."""
    running = [pool.submit(function, item, *arguments) for item in items]
    try:
        for each in running:
            yield each.result()
    finally:
        for each in running:
            each.cancel()


def _forbid_training() -> None:
    os.environ[records.RECORDS_ONLY] = "1"  # the kernels of this process inherit it


def _train_small(config: RunConfig) -> str:
    from dcn_study.runs import training

    return training.train(config, progress=False).name


def _execute_one(page: str, profile: str, book: Path) -> str:
    parameters = page_parameters(page, profile)
    executed = book / "executed" / f"{page}.ipynb"
    execute(page, parameters, executed, progress=False, fork=True)
    _write_page(executed, executed)
    for source in sources(page, parameters):
        shutil.copy(source.path, book / "records")
    return page


def _write_page(executed: Path, target: Path) -> None:
    """Writes an executed notebook as a page: the cells of its parameters folded, and behind all but the sources."""
    prompts = {"parameters": "Parameters of this page", "injected-parameters": "Their values"}
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        _write_narrow(cell, target.parents[1] / "_static" / "narrow")
    *others, last = notebook.cells
    moved = [nbformat.v4.new_markdown_cell(PARAMETERS_HEADING, id="parameters-heading")]
    for cell in others:
        for tag in prompts.keys() & cell.metadata.get("tags", []):
            cell.metadata.tags.append("hide-input")
            cell.metadata.setdefault("mystnb", {})["code_prompt_show"] = prompts[tag]
            moved.append(cell)
    notebook.cells = [*(cell for cell in others if cell not in moved), *moved, last]
    target.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, target)


def _write_narrow(cell: nbformat.NotebookNode, folder: Path) -> None:
    """Writes the second form of a cell's figure, for narrow screens, to a file that is called like the figure."""
    from dcn_study.show.figures import NARROW  # loads what draws, which a refused command does without

    for output in cell.get("outputs", []):
        picture = output.get("data", {}).pop(NARROW, None)
        if picture and "mystnb" in cell.metadata:
            folder.mkdir(parents=True, exist_ok=True)
            name = make_id(cell.metadata.mystnb.figure.name)  # as Sphinx makes it the figure's id
            (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
            cell.metadata.mystnb.image["classes"] = f"has-narrow {name}"


def _offer_narrow(html: Path) -> None:
    """Lets the pages of a rendered book show the second form of their figures on narrow screens."""
    source = '<source media="(max-width: 600px)" srcset="../_static/narrow/{}.svg" />'
    for path in (html / "executed").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        text = HAS_NARROW.sub(lambda found: f"<picture>{source.format(found[1])}{found[0]}</picture>", text)
        path.write_text(text, encoding="utf-8")


def _require_records() -> None:
    for config in book_runs():
        record = records.read(config)
        if record is None:
            raise BookError(records.missing(config))
        if record.config != config:
            raise BookError(
                f"{record.path} is of another configuration. Train it with: dcn train --force {record.name}"
            )
    for name in MEASUREMENTS:
        if records.read_measurement(name, {}) is None:
            path = records.measurement_path(name, {})
            raise BookError(f"{path} is missing. Measure it, on an idle machine, with: {REMEASURE[name]}")


def _render(root: Path, staging: Path, builder: str, *, strict: bool = True, printed: str = "") -> None:
    program = shutil.which("jupyter-book", path=str(Path(sys.executable).parent))
    if program is None:
        raise BookError(f"jupyter-book is not installed next to {sys.executable}")
    command = [program, "build", str(staging / "book"), "--path-output", str(staging)]
    command += ["--config", str(root / "_config.yml")]
    command += ["--toc", str(staging / "book" / "_toc.yml"), "--builder", builder]
    command += ["--all", "-q", *(("-n", "-W", "--keep-going") if strict else ())]
    environment = {**os.environ, PRINTED: printed}
    log = staging / "rendering.log"
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if status != 0:
        raise BookError(f"jupyter-book ended with exit code {status}:\n{_indent(log.read_text(encoding='utf-8'))}")


def _print(browser: str, page: Path, target: Path) -> None:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += ["--virtual-time-budget=60000", f"--print-to-pdf={target}", page.as_uri()]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        raise BookError(f"{browser} did not print {page} within five minutes") from None
    if printed.returncode != 0 or not target.is_file():
        raise BookError(f"{browser} could not print {page}:\n{_indent(printed.stderr)}")


def variant(page: str, parameters: Mapping[str, Any]) -> Path:
    """Returns where a page executed by itself goes: one file in `runs` for each set of parameters."""
    own = page_parameters(page)
    if parameters == own:
        return project_root() / "runs" / f"{page}.ipynb"
    digest = hashlib.sha256(json.dumps(dict(parameters), sort_keys=True).encode()).hexdigest()[:8]
    return project_root() / "runs" / f"{page}-{digest}.ipynb"


def _say(text: str, progress: bool) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
