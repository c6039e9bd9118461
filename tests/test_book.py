"""The book, made small: all pages with tiny runs, in a copy of the project."""

import io
import json
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from crates import check_crate, references
from helpers import ROOT, inside, keep

from dcn_study.book import build, pages
from dcn_study.errors import BookError, LockedError
from dcn_study.runs import records
from dcn_study.runs.catalogue import MEASUREMENTS, PAPER, RATES, SMOKE, book_runs, record_name, run_config
from dcn_study.runs.files import locked


@pytest.fixture
def small(built, monkeypatch):
    monkeypatch.chdir(built)
    return built


def test_every_page_is_there_with_its_numbers(small):
    html = small / "_build" / "smoke"
    for page in (
        "intro",
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
    assert f"{100 * record.evaluations['plain'].accuracy:.2f}" in cnn
    assert "fresh" in cnn
    assert "<h1>The 4-layer CNN" in cnn


def test_every_figure_has_an_alternative_text(small):
    for page in (small / "_build" / "smoke").glob("executed/*.html"):
        images = re.findall(r"<img[^>]*>", page.read_text(encoding="utf-8"))
        for image in images:
            assert re.search(r'alt="[^"]{20,}"', image), f"{page.name}: {image}"


def test_the_book_describes_its_files_for_programs(small):
    html = small / "_build" / "smoke"
    entities = check_crate(json.loads((html / "ro-crate-metadata.json").read_text(encoding="utf-8")), html)
    shown = {source.path.name for page in pages.PAGES for source in sources_of(page)}
    files = {name for name, entity in entities.items() if entity["@type"] == "File"}
    assert {name for name in files if name.startswith("records/")} == {
        f"records/{path.name}" for path in (html / "records").iterdir()
    }
    assert {f"records/{name}" for name in shown} <= files
    assert "records/cnn.weights.h5" in files
    for page in pages.PAGES:
        paths = (f"executed/{page}.html", f"executed/{page}.values.json", f"_sources/executed/{page}.ipynb")
        assert files.issuperset(paths)
    assert references(entities["#deformable_cnn"]["object"])[-1] == "records/cnn.weights.h5"


def test_every_page_has_its_numbers_for_programs(small):
    found = {}
    for page in pages.PAGES:
        path = small / "_build" / "smoke" / "executed" / f"{page}.values.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        found[page] = content["values"]
        named = [each["path"] for each in content["records"]]
        assert named == [f"records/{source.path.name}" for source in sources_of(page)]
    prose = "".join(path.read_text(encoding="utf-8") for path in (small / "book").glob("*.md"))
    cited = re.findall(r"\{glue:text\}`executed/(\w+)\.ipynb::(\w+)", prose)
    assert cited
    for page, name in cited:
        assert name in found[page], f"{page}: {name}"
    record = records.read(run_config("cnn", **SMOKE))
    assert found["cnn"]["record"] == record.name
    assert found["cnn"]["accuracy_plain"] == pytest.approx(100 * record.evaluations["plain"].accuracy, abs=0.01)


def sources_of(page):
    return pages.sources(page, pages.page_parameters(page, "smoke"))


def test_progress_is_shown_without_what_tensorflow_says_when_it_is_loaded():
    shown = io.StringIO()
    stream = build.Progress(shown)
    stream.write("WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
    stream.write("I0000 00:00:1795573986.763573    4807 port.cc:153] oneDNN custom operations are on.\n")
    stream.write("cnn 1/1:  94%|#########4| 15/16\rcnn 1/1: 100%|##########| 16/16\n")
    assert shown.getvalue() == "cnn 1/1:  94%|#########4| 15/16\rcnn 1/1: 100%|##########| 16/16\n"


def test_a_page_is_rendered_by_itself(small):
    executed, parameters = small / "runs" / "again.ipynb", {"template": "data"}
    build.execute("again", parameters, executed, progress=False)
    before = executed.read_bytes()
    rendered = build.render_page("again", parameters, executed)
    text = rendered.read_text(encoding="utf-8")
    assert "<h1>Run it again" in text
    assert "Parameters of this page" in text
    assert '<a href="again.values.json">' in text
    values = json.loads((rendered.parent / "again.values.json").read_text(encoding="utf-8"))
    assert values["parameters"] == parameters
    assert executed.read_bytes() == before  # the notebook can be run again as it is


@pytest.mark.parametrize(
    ("profile", "changes", "heading"),
    [
        ("paper", {}, "# The 4-layer CNN\n"),
        ("smoke", {"force": True}, "# The 4-layer CNN\n"),
        ("paper", {"seed": 7}, "# A training run\n"),
        ("smoke", {"data": "fashion_mnist"}, "# A training run\n"),
    ],
)
def test_what_the_book_says_of_a_run_is_not_said_of_another(project, monkeypatch, profile, changes, heading):
    for folder in ("notebooks", "book/leads"):
        shutil.copytree(ROOT / folder, project / folder)
    given = []

    def no_papermill(template, *_, **__):
        given.append(nbformat.read(template, as_version=4).cells[0].source)
        raise InterruptedError

    monkeypatch.setattr("papermill.execute_notebook", no_papermill)
    with pytest.raises(InterruptedError):
        build.execute("cnn", pages.page_parameters("cnn", profile, changes), project / "out.ipynb", progress=False)
    assert given[0].startswith(heading)


def test_a_page_begins_with_its_content_and_ends_with_its_parameters(small):
    for page in pages.PAGES:
        text = (small / "_build" / "smoke" / "executed" / f"{page}.html").read_text(encoding="utf-8")
        before, after = text.split('<section id="parameters">')
        assert "tag_parameters" not in before
        assert 'class="cell tag_parameters tag_hide-input' in after
        assert "Parameters of this page" in after


def test_figures_have_a_form_for_narrow_screens(small):
    html, found = small / "_build" / "smoke", []
    for page in pages.PAGES:
        text = (html / "executed" / f"{page}.html").read_text(encoding="utf-8")
        found += re.findall(r'<picture><source [^>]*srcset="../_static/narrow/([^"]*)" /><img', text)
    assert sorted(found) == sorted(path.name for path in (html / "_static" / "narrow").iterdir())
    assert "gain-controls.svg" in found
    assert "sampling-grids.svg" in found


def test_every_figure_links_to_its_record_and_its_notebook(small):
    for page, content in pages.PAGES.items():
        path = small / "_build" / "smoke" / "executed" / f"{page}.html"
        text = path.read_text(encoding="utf-8")
        captions = re.findall(r"<figcaption>.*?</figcaption>", text, flags=re.DOTALL)
        without = (
            "verdict",
            "laboratory",
            "registration",
            "guide",
            "again",
            "status",
            "operators",
            "cluster",
            "networks",
            "unseen",
        )
        assert captions or page in without
        found = pages.sources(page, pages.page_parameters(page, "smoke"))
        expected = {source.path.name for source in found} | {f"{content.notebook}.ipynb"}
        section = text[text.index('id="sources"') :]
        drawings = [caption for caption in captions if " Source: " in caption]
        template = nbformat.read(small / "notebooks" / f"{content.notebook}.ipynb", as_version=4)
        assert len(drawings) == sum("drawing" in cell.metadata.get("tags", []) for cell in template.cells)
        for part in (section, *(caption for caption in captions if f'href="#{page}-sources"' not in caption)):
            links = dict(re.findall(r'<a class="reference download[^>]*href="([^"]*/([^"/]*))"', part))
            assert set(links.values()) == ({f"{content.notebook}.ipynb"} if part in drawings else expected)
            assert all((path.parent / link).is_file() for link in links)
        for source in found:
            row = next(row for row in section.split("<tr") if f">{source.path.name}<" in row)
            if isinstance(source.record, records.Record):
                made = source.record.provenance
                date, inputs, machine = made.finished, made.inputs, made.machine
            else:
                date, inputs, machine = source.record.started, source.record.inputs, source.record.machine
            for told in (source.standing.state, date[:10], inputs.code[:8], machine.processor.split("(")[0]):
                assert told in row


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
    assert not (small / "_build" / "smoke.staging").exists()


def test_a_failing_notebook_leaves_book_and_records_as_they_were(small, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in (small / "_build" / "smoke").rglob("*") if path.is_file()}
    before |= {path: path.stat().st_mtime_ns for path in (small / "runs").iterdir()}
    monkeypatch.setattr(build, "PAGES", ["data", "models"])
    path = small / "notebooks" / "data.ipynb"
    good = path.read_bytes()
    notebook = nbformat.reads(good.decode(), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("1 / 0"))
    nbformat.write(notebook, path)
    try:
        with pytest.raises(BookError, match=r"page data: cell \d+ failed with ZeroDivisionError: division by zero$"):
            build.build("smoke", progress=False)
    finally:
        path.write_bytes(good)
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before


@pytest.mark.parametrize("fork", [False, True], ids=["started", "forked"])
def test_a_kernel_that_dies_is_an_error_with_its_last_words(project, fork):
    (project / "notebooks").mkdir()
    words = "import os\nos.write(2, b'out of memory')\nos._exit(1)"
    cells = [nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(words)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), project / "notebooks" / "data.ipynb")
    output = project / "runs" / "data.ipynb"
    with pytest.raises(BookError, match=r"(?s)page data: Kernel died.*out of memory"):
        build.execute("data", {}, output, progress=False, fork=fork)
    assert not output.exists()


def test_a_warning_of_the_rendering_is_an_error(small, monkeypatch):
    page = small / "book" / "references.md"
    good = page.read_text()
    index = small / "_build" / "smoke" / "index.html"
    before = index.read_bytes()
    monkeypatch.setattr(build, "PAGES", {})
    monkeypatch.setattr(build, "execute", None)
    page.write_text(good + "\n[nowhere](nothing.md)\n")
    try:
        with pytest.raises(BookError, match=r"(?s)exit code 1.*nothing"):
            build.build("smoke", progress=False)
    finally:
        page.write_text(good)
    assert index.read_bytes() == before


def test_without_a_browser_no_pdf_is_begun(project, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("BROWSER_PATH", "/no/such/browser")
    with pytest.raises(BookError, match="none of chromium, .* is installed"):
        build.build("smoke", pdf=True)
    assert not (project / "_build").exists()


def test_the_paper_profile_needs_the_records_and_trains_nothing(project, monkeypatch):
    copy_project_without_records(project)
    monkeypatch.setattr(build, "execute", None)
    with pytest.raises(BookError, match=r"cnn.json is missing. Train it with: dcn train cnn"):
        build.build("paper")


def test_the_paper_profile_does_not_train_what_has_another_configuration(project, monkeypatch):
    copy_project_without_records(project)
    monkeypatch.setattr(build, "execute", None)
    for config in book_runs():
        keep(config)
    message = r"runtime.json is missing. Measure it, on an idle machine, with: dcn run runtime --force"
    with pytest.raises(BookError, match=message):
        build.build("paper")
    other = run_config("cnn_batch_norm", seed=1)
    record = keep(other)
    record.configuration["learning_rate"] *= 2
    records.write(record)
    message = "seed1.json is of another configuration. Train it with: dcn train --force cnn_batch_norm-seed1"
    with pytest.raises(BookError, match=message):
        build.build("paper")


def test_a_page_of_the_book_cannot_train(project, monkeypatch):
    """A notebook that asks for another run than the one on record fails, where it would train for hours."""
    copy_project_without_records(project)
    for config in book_runs():
        keep(config)
    for name, parameters in MEASUREMENTS.items():
        records.measurement(name, parameters, dict)
    path = project / "notebooks" / "data.ipynb"
    notebook = nbformat.read(path, as_version=4)
    asks = "from dcn_study.runs import catalogue, training\ntraining.train(catalogue.run_config('cnn', epochs=11))"
    notebook.cells.append(nbformat.v4.new_code_cell(asks))
    nbformat.write(notebook, path)
    monkeypatch.setattr(build, "PAGES", ["data"])
    monkeypatch.setattr(build, "_render", None)
    with pytest.raises(BookError, match=r"page data: cell \d+ failed with RecordError: .* is missing"):
        build.build("paper", progress=False)
    assert not (project / "_build" / "html").exists()
    assert not (project / "checkpoints").exists()


def test_one_process_builds_a_book(project):
    copy_project_without_records(project)
    program = "import sys, time\nfrom pathlib import Path\nfrom dcn_study.runs.files import locked\n"
    program += "with locked(Path(sys.argv[1]), 'book'): print('held', flush=True); time.sleep(60)"
    lock = project / "_build" / "smoke.lock"
    holder = subprocess.Popen([sys.executable, "-c", program, lock], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"the book .*smoke is in use by process {holder.pid} on "):
            build.build("smoke", progress=False)
    finally:
        holder.kill()
        holder.communicate()
    with locked(lock, "book"):  # a dead holder's lock is free
        pass


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
            with pytest.raises(BookError, match=words):
                build.reject_unfinished(path)
        else:
            build.reject_unfinished(path)


def test_a_page_names_the_runs_that_it_reads():
    def names(page):
        return [record_name(config) for config in pages.runs_of(page, pages.page_parameters(page))]

    assert names("offsets") == ["deformable_cnn"]
    assert "deformable_cnn" in names("sampling")
    assert {"deformable_cnn", "cnn_batch_norm-seed1"} <= set(names("accuracy"))
    assert names("robustness") == list(PAPER)
    assert names("sensitivity") == [*PAPER, *RATES]
    with inside(ROOT):
        for page in pages.PAGES:
            paths = [source.path for source in pages.sources(page, pages.page_parameters(page))]
            assert len(paths) == len(set(paths)), page
