"""The whole book, made small: all pages with tiny runs, in a copy of the project."""

import json
import re

import nbformat
import pytest
from crates import check_crate, references
from helpers import ROOT

from dcn_study.book.pages import FORMER, PAGES, in_book
from dcn_study.runs import records
from dcn_study.runs.catalogue import SMOKE, find_run

pytestmark = pytest.mark.slow


@pytest.fixture
def small(built, monkeypatch):
    monkeypatch.chdir(built)
    return built


def shown_on(small, page):
    """The names of the records that a page lists among its numbers for programs."""
    path = small / "_build" / "smoke" / "executed" / f"{page}.values.json"
    return {each["path"] for each in json.loads(path.read_text(encoding="utf-8"))["records"]}


def test_every_page_is_there_with_its_numbers(small):
    html = small / "_build" / "smoke"
    for page in (
        "intro",
        "api",
        "references",
        *(f"executed/{page}" for page in in_book()),
    ):
        text = (html / f"{page}.html").read_text(encoding="utf-8")
        assert "{glue" not in text, page
        assert "No key" not in text, page
        assert not re.search(r"\d+ rows × \d+ columns", text), page  # pandas shows the middle of a long table as dots
    page, record = (
        (html / "executed/residual.html").read_text("utf-8"),
        records.read(find_run("mini_resnet", **SMOKE)),
    )
    assert f"records/{record.path.name}" in shown_on(small, "residual")
    assert re.search(rf"{re.escape(record.path.name)}.*?fresh", page, re.DOTALL)


def test_former_addresses_lead_to_the_pages_that_have_their_content(small):
    html = small / "_build" / "smoke"
    for address, page in FORMER.items():
        text = (html / f"{address}.html").read_text(encoding="utf-8")
        (target,) = set(re.findall(r'href="([^"]*)"', text))
        assert ((html / address).parent / target).resolve() == (html / f"{page}.html").resolve()
        assert f'location.replace("{target}" + location.hash)' in text
        assert (html / f"{page}.html").is_file()


def test_every_figure_has_an_alternative_text(small):
    for page in (small / "_build" / "smoke").glob("executed/*.html"):
        images = re.findall(r"<img[^>]*>", page.read_text(encoding="utf-8"))
        for image in images:
            assert re.search(r'alt="[^"]{20,}"', image), f"{page.name}: {image}"


def test_the_book_describes_its_files_for_programs(small):
    html = small / "_build" / "smoke"
    entities = check_crate(json.loads((html / "ro-crate-metadata.json").read_text(encoding="utf-8")), html)
    shown = set().union(*(shown_on(small, page) for page in in_book()))
    files = {name for name, entity in entities.items() if entity["@type"] == "File"}
    assert {name for name in files if name.startswith("records/")} == {
        f"records/{path.name}" for path in (html / "records").iterdir()
    }
    assert shown <= files
    assert "records/cnn.weights.h5" in files
    for page in in_book():
        paths = (f"executed/{page}.html", f"executed/{page}.values.json", f"_sources/executed/{page}.ipynb")
        assert files.issuperset(paths)
    assert references(entities["#deformable_cnn"]["object"])[-1] == "records/cnn.weights.h5"


def test_every_page_has_its_numbers_for_programs(small):
    found = {}
    for page in in_book():
        path = small / "_build" / "smoke" / "executed" / f"{page}.values.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        found[page] = content["values"]
    prose = "".join(path.read_text(encoding="utf-8") for path in (small / "book").glob("*.md"))
    cited = re.findall(r"\{glue:text\}`executed/(\w+)\.ipynb::(\w+)", prose)
    assert cited
    for page, name in cited:
        assert name in found[page], f"{page}: {name}"
    assert found["paper"]["compared"] == 8


def test_figures_have_a_form_for_narrow_screens(small):
    html, found = small / "_build" / "smoke", []
    for page in in_book():
        text = (html / "executed" / f"{page}.html").read_text(encoding="utf-8")
        found += re.findall(r'<picture><source [^>]*srcset="../_static/narrow/([^"]*)" /><img', text)
    assert sorted(found) == sorted(path.name for path in (html / "_static" / "narrow").iterdir())
    assert "gain-controls.svg" in found
    assert "paper-grids.svg" in found


def test_every_figure_links_to_its_records_or_its_notebook(small):
    for page in in_book():
        content = PAGES[page]
        path = small / "_build" / "smoke" / "executed" / f"{page}.html"
        text = path.read_text(encoding="utf-8")
        captions = re.findall(r"<figcaption>.*?</figcaption>", text, flags=re.DOTALL)
        drawings = [caption for caption in captions if " Source: " in caption]
        template = nbformat.read(small / "notebooks" / f"{content.notebook}.ipynb", as_version=4)
        assert len(drawings) == sum("drawing" in cell.metadata.get("tags", []) for cell in template.cells)
        records_of = {name.removeprefix("records/") for name in shown_on(small, page)}
        for caption in captions:
            links = dict(re.findall(r'<a class="reference download[^>]*href="([^"]*/([^"/]*))"', caption))
            if f'href="#{page}-sources"' not in caption:
                own = {f"{content.notebook}.ipynb"}
                assert set(links.values()) == (own if caption in drawings else own | records_of), page
            assert all((path.parent / link).is_file() for link in links)


def test_the_pages_name_no_folder_of_this_machine(small):
    for path in (small / "_build" / "smoke").rglob("*"):
        if path.suffix in (".html", ".ipynb", ".md", ".js", ".svg", ".json"):
            assert str(small) not in path.read_text(encoding="utf-8"), path


def test_nothing_is_loaded_from_elsewhere(small):
    for page in (small / "_build" / "smoke").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:)?//[^"]*"', page.read_text("utf-8"))
        assert not loaded, page.name


def test_the_committed_records_are_untouched(small):
    for path in (ROOT / "book" / "records").iterdir():
        assert (small / "book" / "records" / path.name).read_bytes() == path.read_bytes()
    assert not (small / "_build" / "html").exists()
    assert list((small / "_build").glob("smoke.staging*")) == []
