"""The book, made small: all pages with a minute's runs, in a copy of the project."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from test_records import make

from dcn.study import book, pages, records
from dcn.study.config import MEASUREMENTS, RATES, RUNS, SEEDS, SMOKE, run_config, seeds_of
from dcn.study.published import ACCURACY

ROOT = Path(__file__).parents[1]


@pytest.fixture
def inside(built, monkeypatch):
    monkeypatch.chdir(built)
    return built


def test_every_page_is_there_with_its_numbers(inside):
    html = inside / "_build" / "smoke"
    for page in (
        "intro",
        "verdict",
        "summary",
        "method",
        "api",
        "references",
        *(f"executed/{page}" for page in pages.PAGES),
    ):
        text = (html / f"{page}.html").read_text(encoding="utf-8")
        assert "{glue" not in text, page
        assert "No key" not in text, page
    cnn = (html / "executed/cnn.html").read_text(encoding="utf-8")
    record = records.read(run_config("cnn", **SMOKE))
    assert f"{100 * record.evaluations['plain']['accuracy']:.2f}" in cnn
    assert "fresh" in cnn
    assert "<h1>The 4-layer CNN" in cnn


def test_every_figure_has_an_alternative_text(inside):
    for page in (inside / "_build" / "smoke").glob("executed/*.html"):
        images = re.findall(r"<img[^>]*>", page.read_text(encoding="utf-8"))
        for image in images:
            assert re.search(r'alt="[^"]{20,}"', image), f"{page.name}: {image}"


def test_every_figure_links_to_its_record_and_its_notebook(inside):
    for page, content in pages.PAGES.items():
        path = inside / "_build" / "smoke" / "executed" / f"{page}.html"
        text = path.read_text(encoding="utf-8")
        captions = re.findall(r"<figcaption>.*?</figcaption>", text, flags=re.DOTALL)
        assert captions or page in ("guide", "again", "status")
        parameters = pages.page_parameters(page, "smoke")
        configurations = pages.runs_of(page, parameters)
        expected = {records.record_path(config).name for config in configurations} | {f"{content.notebook}.ipynb"}
        section = text[text.index('id="sources"') :]
        for part in (section, *(caption for caption in captions if f'href="#{page}-sources"' not in caption)):
            links = dict(re.findall(r'<a class="reference download[^>]*href="([^"]*/([^"/]*))"', part))
            assert set(links.values()) >= expected
            assert all((path.parent / link).is_file() for link in links)
        made = {
            records.record_path(config): (record.provenance, records.standing(config, record))
            for config in configurations
            if (record := records.read(config))
        }
        assert len(made) == len(configurations)
        if content.measurement:
            measured = records.measurement_path(parameters, content.measurement)
            made[measured] = (json.loads(measured.read_text()), "")
        for source, (origin, standing) in made.items():
            row = next(row for row in section.split("<tr") if f">{source.name}<" in row)
            for told in (
                standing,
                origin.get("finished", origin["started"])[:10],
                origin["code_sha256"][:12],
                origin["processor"],
            ):
                assert told in row


def test_what_is_published_names_no_folder_of_this_machine(inside):
    for path in (inside / "_build" / "smoke").rglob("*"):
        if path.suffix in (".html", ".ipynb", ".md", ".js", ".svg", ".json"):
            assert str(inside) not in path.read_text(encoding="utf-8"), path


def test_nothing_is_loaded_from_elsewhere(inside):
    for page in (inside / "_build" / "smoke").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:)?//[^"]*"', page.read_text("utf-8"))
        assert not loaded, page.name


def test_the_committed_records_are_untouched(inside):
    for path in (ROOT / "book" / "records").iterdir():
        assert (inside / "book" / "records" / path.name).read_bytes() == path.read_bytes()
    assert not (inside / "_build" / "html").exists()
    assert not (inside / "_build" / "smoke.staging").exists()


def test_a_failing_notebook_leaves_book_and_records_as_they_were(inside):
    before = {path: path.stat().st_mtime_ns for path in (inside / "_build" / "smoke").rglob("*") if path.is_file()}
    before |= {path: path.stat().st_mtime_ns for path in (inside / "runs").iterdir()}
    path = inside / "notebooks" / "training.ipynb"
    good = path.read_bytes()
    notebook = nbformat.reads(good.decode(), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("1 / 0"))
    nbformat.write(notebook, path)
    try:
        with pytest.raises(book.BookError, match=r"page cnn: cell \d+ failed with ZeroDivisionError.*\n +1 / 0"):
            book.build("smoke", progress=False)
    finally:
        path.write_bytes(good)
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before


def test_a_warning_of_the_rendering_is_an_error(inside, monkeypatch):
    page = inside / "book" / "references.md"
    good = page.read_text()
    index = inside / "_build" / "smoke" / "index.html"
    before = index.read_bytes()
    monkeypatch.setattr(book, "PAGES", {})
    monkeypatch.setattr(book, "execute", None)
    page.write_text(good + "\n[nowhere](nothing.md)\n")
    try:
        with pytest.raises(book.BookError, match=r"(?s)exit code 1.*nothing"):
            book.build("smoke", progress=False)
    finally:
        page.write_text(good)
    assert index.read_bytes() == before


def test_without_a_browser_no_pdf_is_begun(project, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("BROWSER_PATH", "/no/such/browser")
    with pytest.raises(book.BookError, match="none of chromium, .* is installed"):
        book.build("smoke", pdf=True)
    assert not (project / "_build").exists()


def test_the_paper_profile_needs_the_records_and_trains_nothing(project, monkeypatch):
    copy_project_without_records(project)
    monkeypatch.setattr(book, "execute", None)
    with pytest.raises(book.BookError, match=r"cnn.json is missing. Train it with: dcn train cnn"):
        book.build("paper")


def test_the_paper_profile_does_not_train_what_has_another_configuration(project, monkeypatch):
    copy_project_without_records(project)
    monkeypatch.setattr(book, "execute", None)
    for config in pages.needed():
        records.write(make(config))
    with pytest.raises(book.BookError, match=r"runtime.json is missing. Measure it, on a quiet machine, with: dcn run"):
        book.build("paper")
    path = records.record_path(run_config("cnn_batch_norm", seed=1))
    content = json.loads(path.read_text())
    content["configuration"]["epochs"] += 1
    path.write_text(json.dumps(content))
    message = "seed1.json is of another configuration. Train it with: dcn train cnn_batch_norm-seed1"
    with pytest.raises(book.BookError, match=message):
        book.build("paper")


def test_a_page_that_fails_beside_others_leaves_no_book(project, monkeypatch):
    copy_project_without_records(project)
    for config in pages.needed():
        records.write(make(config))
    for name in MEASUREMENTS:
        records.measurement_path({}, name).write_text("{}")
    executed = []

    def execute(page, parameters, output, *, progress):
        if page == "sampling":
            raise book.BookError("page sampling: no")
        executed.append(page)

    monkeypatch.setattr(book, "execute", execute)
    monkeypatch.setattr(book, "_render", None)
    with pytest.raises(book.BookError, match="page sampling: no"):
        book.build("paper", progress=False)
    assert {"data", "models"} <= set(executed)
    assert not (project / "_build" / "html").exists()


def copy_project_without_records(target):
    for name in ("notebooks", "book"):
        shutil.copytree(ROOT / name, target / name, dirs_exist_ok=True)
    shutil.rmtree(target / "book" / "records")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ({"execution_count": None}, "was not executed"),
        (
            {"outputs": [nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])]},
            "holds the error ValueError: no",
        ),
    ],
)
def test_unfinished_notebooks_are_rejected(tmp_path, cell, words):
    good = {"source": "1", "execution_count": 1}
    path = tmp_path / "page.ipynb"
    for cells, refused in (([good], False), ([good, {**good, **cell}], True)):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(**c) for c in cells]), path)
        if refused:
            with pytest.raises(book.BookError, match=words):
                book.reject_unfinished(path)
        else:
            book.reject_unfinished(path)


def test_the_book_shows_all_of_the_paper():
    needed = pages.needed()
    assert {dataclasses.replace(config, seed=0) for config in needed} <= set(RUNS.values())
    assert len(needed) == len(set(needed))
    for model in ACCURACY:
        assert set(seeds_of(model, SEEDS)) <= set(needed)


def test_a_page_names_the_runs_that_it_reads():
    def names(page):
        return [records.record_name(config) for config in pages.runs_of(page, pages.page_parameters(page))]

    assert names("offsets") == ["deformable_cnn"]
    assert "deformable_cnn" in names("sampling")
    assert {"deformable_cnn", "cnn_batch_norm-seed1"} <= set(names("accuracy"))
    assert names("robustness") == list(ACCURACY)
    assert names("sensitivity") == [*ACCURACY, *RATES]
    for page in pages.PAGES:
        paths = pages.sources(page, pages.page_parameters(page))
        assert len(paths) == len(set(paths)), page


def test_the_committed_records_are_whole():
    folder = ROOT / "book" / "records"
    for config in pages.needed():
        assert (folder / f"{records.record_name(config)}.json").is_file()
        assert (folder / f"{records.record_name(config)}.weights.h5").is_file()
    for name in MEASUREMENTS:
        assert (folder / f"{name}.json").is_file()
    assert (folder / "bench.json").is_file()
