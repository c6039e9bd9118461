"""The build of the Jupyter Book: its pages executed where something changed, rendered, and described for programs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat

from dcn_study.book import execution, rendering
from dcn_study.book.crate import CRATE, crate
from dcn_study.book.execution import CELL_SECONDS, Executed
from dcn_study.book.pages import FORMER, in_book, page_parameters, template_of
from dcn_study.book.parameters import notebook_parameters
from dcn_study.book.sources import finished, sources
from dcn_study.book.values import values_file, write_values
from dcn_study.errors import BookError
from dcn_study.runs import measurements, records
from dcn_study.runs.data import load_digits
from dcn_study.runs.files import locked, make_folder, project_root, replacing, temporary
from dcn_study.runs.reading import RECORDS_ONLY

__all__ = ["build", "render_page", "run", "variant"]

LONGEST = ("guide", "laboratory", "regions")  # pages that compute, to be begun first
AT_ONCE = 2  # pages
TOLD_AGAIN = 30  # seconds after which a build says what it is doing
PDF = "report.pdf"


def run(page: str, parameters: Mapping[str, Any], output: Path, *, progress: bool = True) -> Executed:
    """Executes one page, and writes it with what is behind it.

    Args:
        page: a key of `PAGES`.
        parameters: as `page_parameters` returns them.
        output: where the notebook goes; written whole, or not at all.
        progress: whether to show the progress of cells and of training.

    Raises:
        BookError: with the failing cell and its error.
        ConfigurationError: if a cell refuses a parameter.
    """
    make_folder(output.parent)  # before hours of training
    executed = execution.execute(page, parameters, progress=progress)
    with replacing(output) as written:
        nbformat.write(finished(page, executed), written)
    return executed


def variant(page: str, parameters: Mapping[str, Any]) -> Path:
    """Returns where a page executed by itself goes: one file in `runs` for each set of parameters."""
    own = page_parameters(page)
    if parameters == own:
        return project_root() / "runs" / f"{page}.ipynb"
    digest = hashlib.sha256(json.dumps(dict(parameters), sort_keys=True).encode()).hexdigest()[:8]
    return project_root() / "runs" / f"{page}-{digest}.ipynb"


def render_page(page: str, parameters: Mapping[str, Any], executed: Executed, output: Path) -> Path:
    """Renders one executed page by itself, with the book's look; links to other pages are plain text.

    Args:
        page: a key of `PAGES`.
        parameters: it was executed with.
        executed: what `run` returned.
        output: the notebook. The result goes into a folder next to it and replaces an earlier one.

    Returns:
        The path of the page.

    Raises:
        BookError: if the rendering fails.
    """
    root, folder = project_root(), output.with_name(f"{output.stem}-html")
    with temporary(folder) as staging:
        book = rendering.copy_book(root, staging)
        contents = f"format: jb-book\nroot: executed/{page}\nchapters:\n  - file: references\n"
        (book / "_toc.yml").write_text(contents, encoding="utf-8")
        _place(page, executed, book)
        rendering.render(root, staging, "html", strict=False)
        rendering.offer_narrow(staging / "_build" / "html")
        target = staging / "_build" / "html" / values_file(page)
        write_values(page, parameters, sources(executed.files), executed.notebook, target)
        shutil.rmtree(folder, ignore_errors=True)
        (staging / "_build" / "html").rename(folder)
    return folder / "executed" / f"{page}.html"


def build(
    profile: str = "paper",
    *,
    pdf: bool = False,
    force: bool = False,
    cell_seconds: int = CELL_SECONDS,
    progress: bool = True,
) -> Path:
    """Executes the pages that changed and renders the book; replaces the previous book only if all went well.

    With the profile "paper" nothing is trained or measured: the pages show the committed records. With "smoke" small
    runs are trained first, and the book made of them is kept apart.

    Args:
        profile: "paper" or "smoke".
        pdf: whether to print the whole book as well, into `report.pdf` next to its first page.
        force: whether to execute all pages.
        cell_seconds: how long a cell of a page may take.
        progress: whether to say what is done.

    Returns:
        The path of the book's first page.

    Raises:
        DataError, PageError, RecordError: if the data, a template or a record is damaged.
        BookError: if a record is missing, a notebook fails, the rendering gives a warning, or no browser can print.
        LockedError: if another process builds this book.
    """
    browser = rendering.find_browser() if pdf else ""
    root = project_root()
    load_digits()
    for page in in_book():
        notebook_parameters(template_of(page).stem)
    if profile == "paper":
        _require_records()
    finished_book = root / "_build" / ("html" if profile == "paper" else profile)
    with locked(root / "_build" / f"{profile}.lock", f"the book {finished_book}"):
        with _records_only(profile == "paper"):
            pages = _executed(profile, force, cell_seconds, progress)
        with temporary(finished_book) as staging:
            _build(root, profile, staging, pages, browser, progress)
            return _replace(finished_book, staging / "_build" / "html")


@contextlib.contextmanager
def _records_only(wanted: bool) -> Iterator[None]:
    """Lets kernels that are started meanwhile read records alone."""
    if wanted:
        os.environ[RECORDS_ONLY] = "1"
    try:
        yield
    finally:
        os.environ.pop(RECORDS_ONLY, None)


def _executed(profile: str, force: bool, cell_seconds: int, progress: bool) -> dict[str, Executed]:
    """Returns all pages, some at a time; those of which nothing changed as they were executed before."""
    folder = project_root() / "_build" / "executed" / profile
    wanted = in_book()
    parameters = {page: page_parameters(page, profile) for page in wanted}
    found = {page: execution.kept(page, parameters[page], folder, force=force) for page in wanted}
    done = {page: executed for page, executed in found.items() if executed is not None}
    waiting = sorted((page for page in wanted if page not in done), key=lambda page: page not in LONGEST)
    if done:
        _say(f"unchanged pages: {len(done)}", progress)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running: dict[Future[Executed], str] = {
            pool.submit(_executed_apart, page, parameters[page], cell_seconds): page for page in waiting
        }
        try:
            while running:
                ended, _ = concurrent.futures.wait(running, timeout=TOLD_AGAIN, return_when=FIRST_COMPLETED)
                if not ended:
                    _say(f"executing {', '.join(page for each, page in running.items() if each.running())}", progress)
                for each in ended:
                    page = running.pop(each)
                    done[page] = each.result()
                    execution.keep(page, parameters[page], done[page], folder)
                    _say(f"executed {page}", progress)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(each.done() for each in running):  # a kernel that is just starting is stopped once it has
                execution.stop_kernels()
                concurrent.futures.wait(running, timeout=0.5)
            raise
    return {page: done[page] for page in wanted}


def _executed_apart(page: str, parameters: Mapping[str, Any], cell_seconds: int) -> Executed:
    """Executes a page in a thread, and closes the event loop that papermill leaves open there."""
    try:
        return execution.execute(page, parameters, progress=False, cell_seconds=cell_seconds)
    finally:
        with contextlib.suppress(RuntimeError):  # there is none yet
            asyncio.get_event_loop().close()


def _place(page: str, executed: Executed, book: Path) -> None:
    """Writes a page into a copied book, with the records that it shows."""
    rendering.write_page(finished(page, executed), book / "executed" / f"{page}.ipynb")
    for source in sources(executed.files):
        shutil.copy(source.path, book / "records")


def _build(
    root: Path, profile: str, staging: Path, pages: Mapping[str, Executed], browser: str, progress: bool
) -> None:
    book, html = rendering.copy_book(root, staging), staging / "_build" / "html"
    for page, executed in pages.items():
        _place(page, executed, book)
    _say("rendering", progress)
    rendering.render(root, staging, "html", printed=PDF if browser else "")
    rendering.offer_narrow(html)
    rendering.redirect(html, FORMER)
    if browser:
        _say("printing", progress)
        rendering.render(root, staging, "singlehtml")
        rendering.print_book(browser, staging / "_build" / "singlehtml" / "intro.html", html / PDF)
    _describe(root, profile, html, pages)


def _describe(root: Path, profile: str, html: Path, pages: Mapping[str, Executed]) -> None:
    """Puts records, weights and the numbers of the pages into the rendered book, and their description for programs."""
    (html / "records").mkdir()
    shown = {page: sources(executed.files) for page, executed in pages.items()}
    for page, found in shown.items():
        write_values(page, page_parameters(page, profile), found, pages[page].notebook, html / values_file(page))
        for source in found:
            for path in source.files:
                shutil.copy(path, html / "records")
    (html / CRATE).write_text(json.dumps(crate(root, html, shown), indent=1), encoding="utf-8")


def _replace(finished_book: Path, html: Path) -> Path:
    """Puts a rendered book in the place of the previous one; returns its first page."""
    former = finished_book.with_name(f"{finished_book.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    if finished_book.exists():
        finished_book.rename(former)
    html.rename(finished_book)
    shutil.rmtree(former, ignore_errors=True)
    return finished_book / "index.html"


def _require_records() -> None:
    for run in records.shown():
        record = records.read(run)
        if record is None:
            raise BookError(records.missing(run))
        if record.config != run.config:
            raise BookError(
                f"{record.path} is of another configuration. Train it with: dcn train --force {record.name}"
            )
    for name in measurements.MEASUREMENTS:
        if measurements.read(name) is None:
            raise BookError(measurements.missing(name))


def _say(text: str, progress: bool) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)
