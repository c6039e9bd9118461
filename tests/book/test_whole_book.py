"""The whole book, made small: all pages with tiny runs, in a copy of the project."""

import json
import re

import nbformat
import pytest
from crates import check_crate, references
from helpers import ROOT

from dcn_study.book.pages import PAGES, in_book
from dcn_study.runs.catalogue import SMOKE, find_run

pytestmark = pytest.mark.slow


@pytest.fixture
def html(built, monkeypatch):
    monkeypatch.chdir(built)
    return built / "_build" / "smoke"


def values_of(html, page):
    """What a page offers to programs."""
    return json.loads((html / "executed" / f"{page}.values.json").read_text(encoding="utf-8"))


def shown_on(html, page):
    """The names of the records that a page lists among its numbers for programs."""
    return {each["path"] for each in values_of(html, page)["records"]}


def test_every_page_is_there_with_its_numbers(html):
    for page in ("intro", "api", "references", *(f"executed/{page}" for page in in_book())):
        text = (html / f"{page}.html").read_text(encoding="utf-8")
        assert "{glue" not in text, page
        assert "No key" not in text, page
        assert not re.search(r"\d+ rows × \d+ columns", text), page  # pandas shows the middle of a long table as dots
    name = find_run("mini_resnet", **SMOKE).path.name
    assert f"records/{name}" in shown_on(html, "residual")
    text = (html / "executed" / "residual.html").read_text(encoding="utf-8")
    assert re.search(rf"{re.escape(name)}.*?fresh", text, re.DOTALL)


def test_the_book_describes_its_files_for_programs(html):
    entities = check_crate(json.loads((html / "ro-crate-metadata.json").read_text(encoding="utf-8")), html)
    shown = set().union(*(shown_on(html, page) for page in in_book()))
    files = {name for name, entity in entities.items() if entity["@type"] == "File"}
    kept = {f"records/{path.name}" for path in (html / "records").iterdir()}
    assert kept == {name for name in files if name.startswith("records/")}
    assert shown <= files
    assert "records/cnn.weights.h5" in files
    for page in in_book():
        paths = (f"executed/{page}.html", f"executed/{page}.values.json", f"_sources/executed/{page}.ipynb")
        assert files.issuperset(paths)
    assert references(entities["#deformable_cnn"]["object"])[-1] == "records/cnn.weights.h5"


def test_every_page_has_its_numbers_for_programs(html):
    found = {page: values_of(html, page)["values"] for page in in_book()}
    prose = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("*.md"))
    cited = re.findall(r"\{glue:text\}`executed/(\w+)\.ipynb::(\w+)", prose)
    assert cited
    for page, name in cited:
        assert name in found[page], f"{page}: {name}"
    assert found["paper"]["compared"] == 8


def test_figures_have_a_form_for_narrow_screens(html):
    found = []
    for page in in_book():
        text = (html / "executed" / f"{page}.html").read_text(encoding="utf-8")
        found += re.findall(r'<picture><source [^>]*srcset="../_static/narrow/([^"]*)" /><img', text)
    assert sorted(found) == sorted(path.name for path in (html / "_static" / "narrow").iterdir())
    assert "gain-controls.svg" in found
    assert "paper-grids.svg" in found


def test_every_figure_links_to_its_records_or_its_notebook(html):
    for page in in_book():
        content, path = PAGES[page], html / "executed" / f"{page}.html"
        text = path.read_text(encoding="utf-8")
        captions = re.findall(r"<figcaption>.*?</figcaption>", text, flags=re.DOTALL)
        drawings = [caption for caption in captions if " Source: " in caption]
        template = nbformat.read(ROOT / "notebooks" / f"{content.notebook}.ipynb", as_version=4)
        assert len(drawings) == sum("drawing" in cell.metadata.get("tags", []) for cell in template.cells)
        records_of = {name.removeprefix("records/") for name in shown_on(html, page)}
        for caption in captions:
            links = dict(re.findall(r'<a class="reference download[^>]*href="([^"]*/([^"/]*))"', caption))
            if f'href="#{page}-sources"' not in caption:
                own = {f"{content.notebook}.ipynb"}
                assert set(links.values()) == (own if caption in drawings else own | records_of), page
            assert all((path.parent / link).is_file() for link in links)


def test_the_pages_name_no_folder_of_this_machine(html, built):
    for path in html.rglob("*"):
        if path.suffix in (".html", ".ipynb", ".md", ".js", ".svg", ".json"):
            assert str(built) not in path.read_text(encoding="utf-8"), path


def test_nothing_is_loaded_from_elsewhere(html):
    for page in html.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:)?//[^"]*"', page.read_text("utf-8"))
        assert not loaded, page.name


def test_the_committed_records_are_untouched(built):
    for path in (ROOT / "book" / "records").iterdir():
        assert (built / "book" / "records" / path.name).read_bytes() == path.read_bytes()
    assert not (built / "_build" / "html").exists()
    assert not list((built / "_build").glob(".smoke.*"))
