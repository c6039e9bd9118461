"""Rendering by Jupyter Book: pages written for it, the second form of figures, and the report for print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import nbformat
from docutils.nodes import make_id

from dcn_study.book.execution import INJECTED
from dcn_study.errors import BookError

__all__ = ["PRINTED", "copy_book", "find_browser", "offer_narrow", "print_book", "redirect", "render", "write_page"]

PROMPTS = {"parameters": "Parameters of this page", INJECTED: "Their values"}
HAS_NARROW = re.compile(r'<img [^>]*class="has-narrow ([\w-]+)[^"]*"[^>]*>')
REDIRECT = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>This page has moved</title>
<script>location.replace("{0}" + location.hash)</script>
<noscript><meta http-equiv="refresh" content="0; url={0}"></noscript></head>
<body><p>This page has moved: <a href="{0}">its content is here</a>.</p></body></html>
"""
PRINTED = "DCN_REPORT_PDF"  # environment variable that tells Sphinx of the file that the whole book is printed into
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def copy_book(root: Path, staging: Path) -> Path:
    """Copies the book's prose and templates, with an empty folder for records; returns where to."""
    shutil.copytree(root / "book", staging / "book", ignore=shutil.ignore_patterns("records"))
    shutil.copytree(root / "notebooks", staging / "book" / "notebooks")
    (staging / "book" / "records").mkdir()
    return staging / "book"


def write_page(notebook: nbformat.NotebookNode, target: Path) -> None:
    """Writes a finished notebook as a page: the cells of its parameters folded, and behind all others.

    Args:
        notebook: as `sources.finished` returns it.
        target: the page, in the folder `executed` of a copied book.
    """
    for cell in notebook.cells:
        _write_narrow(cell, target.parents[1] / "_static" / "narrow")
    moved = []
    for cell in notebook.cells:
        for tag in PROMPTS.keys() & cell.metadata.get("tags", []):
            cell.metadata.tags.append("hide-input")
            cell.metadata.setdefault("mystnb", {})["code_prompt_show"] = PROMPTS[tag]
            moved.append(cell)
    notebook.cells = [*(cell for cell in notebook.cells if cell not in moved), *moved]
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
            own = cell.metadata.mystnb.image.get("classes", "")
            cell.metadata.mystnb.image["classes"] = f"has-narrow {name} {own}".rstrip()


def offer_narrow(html: Path) -> None:
    """Lets the pages of a rendered book show the second form of their figures on narrow screens."""
    source = '<source media="(max-width: 600px)" srcset="../_static/narrow/{}.svg" />'
    for path in (html / "executed").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        text = HAS_NARROW.sub(lambda found: f"<picture>{source.format(found[1])}{found[0]}</picture>", text)
        path.write_text(text, encoding="utf-8")


def redirect(html: Path, former: Mapping[str, str]) -> None:
    """Writes a page that leads on for each address that a page of the book has had, places within the page included.

    Args:
        html: the rendered book.
        former: former address → the page that has its content now, both without ending and relative to the book.
    """
    for address, page in former.items():
        path = html / f"{address}.html"
        target = f"{'../' * address.count('/')}{page}.html"
        path.write_text(REDIRECT.format(target), encoding="utf-8")


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
        told = textwrap.indent(log.read_text(encoding="utf-8").rstrip(), "    ")
        raise BookError(f"jupyter-book ended with exit code {status}:\n{told}")


def print_book(browser: str, page: Path, target: Path) -> None:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += ["--virtual-time-budget=60000", f"--print-to-pdf={target}", page.as_uri()]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        raise BookError(f"{browser} did not print {page} within five minutes") from None
    if printed.returncode != 0 or not target.is_file():
        raise BookError(f"{browser} could not print {page}:\n{textwrap.indent(printed.stderr.rstrip(), '    ')}")


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
