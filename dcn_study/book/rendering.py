"""Rendering by Jupyter Book: pages written for it, the second form of figures, and the report for print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from docutils.nodes import make_id

from dcn_study.book.execution import INJECTED
from dcn_study.errors import BookError

__all__ = ["PRINTED", "copy_book", "find_browser", "offer_narrow", "print_book", "render", "write_page"]

PARAMETERS_HEADING = "## Parameters\n\nThis page can be run again with other values: {doc}`again`."
PROMPTS = {"parameters": "Parameters of this page", INJECTED: "Their values"}
HAS_NARROW = re.compile(r'<img [^>]*class="has-narrow ([\w-]+)"[^>]*>')
PRINTED = "DCN_REPORT_PDF"  # environment variable that tells Sphinx of the file that the whole book is printed into
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def copy_book(root: Path, staging: Path) -> Path:
    """Copies the book's prose and templates, with an empty folder for records; returns where to."""
    shutil.copytree(root / "book", staging / "book", ignore=shutil.ignore_patterns("records", "leads"))
    shutil.copytree(root / "notebooks", staging / "book" / "notebooks")
    (staging / "book" / "records").mkdir()
    return staging / "book"


def write_page(notebook: nbformat.NotebookNode, target: Path) -> None:
    """Writes a finished notebook as a page: the cells of its parameters folded, and behind all but the sources.

    Args:
        notebook: as `sources.finished` returns it.
        target: the page, in the folder `executed` of a copied book.
    """
    for cell in notebook.cells:
        _write_narrow(cell, target.parents[1] / "_static" / "narrow")
    *others, last = notebook.cells
    moved = [nbformat.v4.new_markdown_cell(PARAMETERS_HEADING, id="parameters-heading")]
    for cell in others:
        for tag in PROMPTS.keys() & cell.metadata.get("tags", []):
            cell.metadata.tags.append("hide-input")
            cell.metadata.setdefault("mystnb", {})["code_prompt_show"] = PROMPTS[tag]
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


def offer_narrow(html: Path) -> None:
    """Lets the pages of a rendered book show the second form of their figures on narrow screens."""
    source = '<source media="(max-width: 600px)" srcset="../_static/narrow/{}.svg" />'
    for path in (html / "executed").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        text = HAS_NARROW.sub(lambda found: f"<picture>{source.format(found[1])}{found[0]}</picture>", text)
        path.write_text(text, encoding="utf-8")


def render(root: Path, staging: Path, builder: str, *, strict: bool = True, printed: str = "") -> None:
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


def print_book(browser: str, page: Path, target: Path) -> None:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += ["--virtual-time-budget=60000", f"--print-to-pdf={target}", page.as_uri()]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        raise BookError(f"{browser} did not print {page} within five minutes") from None
    if printed.returncode != 0 or not target.is_file():
        raise BookError(f"{browser} could not print {page}:\n{_indent(printed.stderr)}")


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


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
