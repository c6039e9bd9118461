"""Counts the words of prose of the book's pages: `python tests/book/prose.py` prints them.

Prose is what a reader meets first: not tables, code, formulas, captions, fold-outs, footnotes, comments and metadata. A
number that is pasted in counts as one word.
"""

import re
from pathlib import Path

import nbformat
import yaml

from dcn_study.book.pages import PAGES

ROOT = Path(__file__).parents[2]
APPENDIX = "Appendix"
NOT_PROSE = (
    r"\A---\n.*?\n---\n",  # metadata
    r"^(`{3,}|~{3,}).*?^\1",  # code, and directives between backticks
    r"^(:{3,})\{dropdown\}.*?^\1$",
    r"\$\$.*?\$\$(?: \(.*?\))?",
    r"^\|.*?$",  # rows of tables
    r"^\[\^.*?$",
    r"^\(.*?\)=$",
    r"^:{3,}.*?$|^:\w+:.*?$",  # the lines of directives, whose content is prose
    r"<[^>]*>",
    r"\$[^$\n]+\$",
)


def words(text):
    """Returns how many words of prose a text in MyST Markdown has."""
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\{glue:text\}`[^`]*`", "number", text)
    text = re.sub(r"\{\w+\}`([^`<]*)(<[^`]*>)?`", r"\1", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return len(re.findall(r"[^\W_][^\s]*", text))


def chapters():
    """Returns the pages in the order of the table of contents, as (part, file)."""
    contents = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    parts = [(part["caption"], chapter["file"]) for part in contents["parts"] for chapter in part["chapters"]]
    return [("", contents["root"]), *parts]


def text_of(page):
    """Returns the Markdown of a page: of a notebook, all its text."""
    name = page.removeprefix("executed/")
    if name == page:
        return (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
    notebook = nbformat.read(ROOT / "notebooks" / f"{PAGES[name].notebook}.ipynb", as_version=4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return "\n\n".join(texts)


def counted():
    """Returns the words of each page, as (part, page, words)."""
    return [(part, page, words(text_of(page))) for part, page in chapters()]


if __name__ == "__main__":
    found = counted()
    for part, page, count in found:
        print(f"{count:6,}  {page:32} {part}")
    total, before = sum(count for *_, count in found), sum(count for part, _, count in found if part != APPENDIX)
    print(f"{total:6,}  in all; {before:,} before the appendix")
