"""How a book is built, on one of two pages; what the whole book must have is in `test_whole_book`."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from helpers import ROOT, inside, keep, started

from dcn_study.book import build, execution, pages, rendering, sources
from dcn_study.book.pages import Page
from dcn_study.errors import BookError, ConfigurationError, LockedError
from dcn_study.runs import records
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.files import locked

SHOWS = """
import sys
from matplotlib import pyplot as plt
from myst_nb import glue
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.results import result
from dcn_study.show import figures
figures.use_style()
record = result(find_run("cnn"))
glue("accuracy", 100 * record.evaluations["plain"].accuracy, display=False)
glue("given", given, display=False)
print("waiting: for /a/folder/of/this/machine", file=sys.stderr)
"""
FIGURE = {"figure": {"name": "a_curve", "caption": "A curve."}, "image": {"alt": "A line that rises from 0 to 1."}}
CONTENTS = """
format: jb-book
root: intro
chapters:
  - file: executed/shows
  - file: executed/draws
  - file: executed/again
  - file: references
"""
TWO = {"shows": Page("shows", {"given": 7}), "draws": Page("draws"), "apart": Page("shows", in_book=False)}


def code(source, *tags, **mystnb):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags), **({"mystnb": mystnb} if mystnb else {})})


def write_notebook(root, name, *cells):
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=list(cells), metadata=metadata)
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")


@pytest.fixture(scope="module")
def two_pages(tmp_path_factory):
    """A project with two pages, one of which shows a record, and its book."""
    root = tmp_path_factory.mktemp("two")
    for name in ("book/records", "book/executed", "notebooks"):
        (root / name).mkdir(parents=True)
    for name in (".zenodo.json", "CITATION.cff", "_config.yml"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
    for name in ("references.md", "references.bib"):
        shutil.copy(ROOT / "book" / name, root / "book")
    (root / "book" / "_toc.yml").write_text(CONTENTS)
    (root / "book" / "intro.md").write_text("# Two pages\n\nOf {glue:text}`executed/shows.ipynb::given:d`.\n")
    (root / "book" / "executed" / "again.md").write_text("# Again\n")
    heading = nbformat.v4.new_markdown_cell("# A page\n\nIts first paragraph.")
    words = nbformat.v4.new_markdown_cell("It is {glue:text}`accuracy:.1f`.")
    plot = code("plt.plot([0, 1]);", "hide-input", **FIGURE)
    write_notebook(root, "shows", heading, code("given: int = 1", "parameters"), code(SHOWS), words, plot)
    drawing = code("import matplotlib.pyplot as plt\nplt.plot([0, 1]);", "drawing", **FIGURE)
    write_notebook(root, "draws", heading, code("side: int = 2", "parameters"), drawing)
    with inside(root), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGES", TWO)
        keep(find_run("cnn"))
        build.build("smoke", progress=False)
    return root


@pytest.fixture
def two(two_pages, monkeypatch):
    """The project with two pages, whose text is afterwards as it was."""
    texts = [two_pages / "notebooks" / "draws.ipynb", two_pages / "book" / "executed" / "again.md"]
    before = [path.read_bytes() for path in texts]
    monkeypatch.chdir(two_pages)
    monkeypatch.setattr(pages, "PAGES", TWO)
    sources._source.cache_clear()  # noqa: SLF001
    yield two_pages
    for path, content in zip(texts, before, strict=True):
        path.write_bytes(content)


def add_cell(two, source):
    """Adds a cell to the page that draws."""
    path = two / "notebooks" / "draws.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(code(source))
    nbformat.write(notebook, path)


@pytest.fixture
def executions(monkeypatch):
    """The pages that are executed, in their order."""
    found, execute = [], execution.execute

    def noted(page, *given, **named):
        found.append(page)
        return execute(page, *given, **named)

    monkeypatch.setattr(execution, "execute", noted)
    return found


def html_of(root, page):
    return (root / "_build" / "smoke" / "executed" / f"{page}.html").read_text(encoding="utf-8")


def test_a_page_has_numbers_figure_and_sources(two):
    text = html_of(two, "shows")
    assert "<h1>A page" in text
    assert "It is <span" in text
    assert "80.0" in text
    source = (two / "_build" / "smoke" / "_sources" / "executed" / "shows.ipynb").read_text(encoding="utf-8")
    assert "for /a/folder" in source
    assert "waiting: for /a/folder/of/this/machine\\n" not in source
    before, after = text.split('<section id="sources">')
    assert "tag_parameters" not in before
    assert "Run it again" in after
    assert "Parameters of this page" in after
    assert "Their values" in after
    assert re.search(r"<figcaption>.*A curve\..*Sources: .*cnn\.json.*shows\.ipynb", text, re.DOTALL)
    row = next(row for row in text[text.index('id="sources"') :].split("<tr") if ">cnn.json<" in row)
    record = records.read(find_run("cnn"))
    for told in ("fresh", record.provenance.finished[:10], record.provenance.inputs.code[:8], "one"):
        assert told in row
    assert re.search(r"<figcaption>.*Source: .*draws\.ipynb", html_of(two, "draws"), re.DOTALL)
    assert "cnn.json" not in html_of(two, "draws")


def test_a_damaged_record_is_among_the_sources_of_a_page(project):
    paths = keep(find_run("cnn")).path, keep(find_run("mini_resnet")).path
    paths[1].write_text("{}")
    text = sources._section("runs", sources.sources(paths), "runs.ipynb")  # noqa: SLF001
    assert "2 records, made with TensorFlow" in text
    assert re.search(r"cnn\.json.* fresh .*\n.*mini_resnet\.json.* damaged: ", text)


def test_figures_have_a_form_for_narrow_screens(two):
    found = re.findall(r'<picture><source [^>]*srcset="../_static/narrow/([^"]*)" /><img', html_of(two, "shows"))
    assert found == ["shows-a-curve.svg"]
    assert (two / "_build" / "smoke" / "_static" / "narrow" / "shows-a-curve.svg").is_file()


def test_what_a_page_read_is_described_for_programs(two):
    html = two / "_build" / "smoke"
    values = json.loads((html / "executed" / "shows.values.json").read_text(encoding="utf-8"))
    assert values["values"] == {"accuracy": 80.0, "given": 7}
    assert values["parameters"] == {"given": 7}
    assert [each["path"] for each in values["records"]] == ["records/cnn.json"]
    assert {path.name for path in (html / "records").iterdir()} == {"cnn.json", "cnn.weights.h5"}
    assert "records/cnn.json" in (html / "ro-crate-metadata.json").read_text(encoding="utf-8")


def test_what_is_written_while_a_page_is_executed_is_not_taken_for_what_it_read(two, tmp_path):
    record = records.read(find_run("cnn"))
    executed = execution.execute("shows", {"given": 7}, progress=False)
    execution.keep("shows", {"given": 7}, executed, tmp_path)
    assert execution.kept("shows", {"given": 7}, tmp_path)
    records.write(record)
    execution.keep("shows", {"given": 7}, executed, tmp_path)
    assert execution.kept("shows", {"given": 7}, tmp_path) is None


def test_a_kernel_that_does_not_start_is_told_as_such(two, monkeypatch):
    async def dies(self, **options):
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr("jupyter_client.manager.AsyncKernelManager.start_kernel", dies)
    with pytest.raises(BookError, match="page draws: Kernel died before replying"):
        execution.execute("draws", {}, progress=False)


def test_a_page_is_executed_again_only_if_something_changed(two, executions):
    build.build("smoke", progress=False)
    assert executions == []
    path = two / "notebooks" / "draws.ipynb"
    prose = path.read_text()
    path.write_text(prose.replace("Its first paragraph", "Its only paragraph"))  # prose is not executed
    build.build("smoke", progress=False)
    assert executions == []
    assert "Its only paragraph" in html_of(two, "draws")
    keep(find_run("cnn"), finished="2026-01-03T00:00:00")
    sources._source.cache_clear()  # noqa: SLF001
    build.build("smoke", progress=False)
    assert executions == ["shows"]
    assert "2026-01-03" in html_of(two, "shows")
    path.write_text(prose.replace("plt.plot([0, 1])", "plt.plot([0, 2])"))
    build.build("smoke", progress=False)
    assert executions == ["shows", "draws"]
    build.build("smoke", force=True, progress=False)
    assert sorted(executions) == ["draws", "draws", "shows", "shows"]


@pytest.mark.parametrize("damage", ["notebook", "state", "module"])
def test_what_was_kept_is_not_trusted_blindly(two, damage, tmp_path):
    folder = shutil.copytree(two / "_build" / "executed" / "smoke", tmp_path / "kept")
    parameters = pages.page_parameters("shows")
    assert execution.kept("shows", parameters, folder) is not None
    assert execution.kept("shows", {"given": 8}, folder) is None
    state, notebook = folder / "shows.json", folder / "shows.ipynb"
    content = json.loads(state.read_bytes())
    assert any(path.endswith("dcn_study/runs/results.py") for path in content["modules"])
    assert not any(path.endswith("dcn_study/runs/training.py") for path in content["modules"])
    if damage == "notebook":
        notebook.write_bytes(notebook.read_bytes()[:-9])
    elif damage == "state":
        state.write_bytes(state.read_bytes()[:-9])
    else:
        content["modules"] = {**content["modules"], str(two / "_config.yml"): "of an earlier day"}
        state.write_text(json.dumps(content))
    assert execution.kept("shows", parameters, folder) is None


def test_the_files_of_a_module_belong_to_it():
    names = {path.name for path in execution.with_its_files(ROOT / "dcn_study" / "show" / "laboratory.py")}
    assert names == {"laboratory.py", "laboratory.html", "laboratory.worker.js"}


@pytest.mark.parametrize("page", ["shows", "apart"])
def test_a_page_is_rendered_by_itself_even_if_the_book_lacks_it(two, page):
    assert (two / "_build" / "smoke" / "executed" / f"{page}.html").exists() == TWO[page].in_book
    output, parameters = two / "runs" / f"{page}.ipynb", {"given": 3}
    executed = build.run(page, parameters, output, progress=False)
    before = output.read_bytes()
    assert nbformat.reads(before.decode(), as_version=4).cells[0].source.startswith("# A page")
    rendered = build.render_page(page, parameters, executed, output)
    text = rendered.read_text(encoding="utf-8")
    assert "<h1>A page" in text
    assert f'<a href="{page}.values.json">' in text
    values = json.loads((rendered.parent / f"{page}.values.json").read_text(encoding="utf-8"))
    assert values["parameters"] == parameters
    assert output.read_bytes() == before  # the notebook can be run again as it is


def test_former_addresses_lead_on(tmp_path):
    (tmp_path / "executed").mkdir()
    former = {"old": "executed/new", "executed/older": "executed/new", "executed/first": "index"}
    rendering.redirect(tmp_path, former)
    for address, target in zip(former, ("executed/new", "../executed/new", "../index"), strict=True):
        text = (tmp_path / f"{address}.html").read_text(encoding="utf-8")
        assert f'location.replace("{target}.html" + location.hash)' in text
        assert f'<a href="{target}.html">' in text


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("1 / 0", BookError, r"page draws: cell \d+ failed with ZeroDivisionError: division by zero$"),
        ("import os\nos.write(2, b'out of memory')\nos._exit(1)", BookError, "(?s)page draws: Kernel died.*out of mem"),
        ("import time\ntime.sleep(60)", BookError, "(?s)page draws: a cell took longer than 12 s:.*sleep"),
        (
            "from dcn_study.runs.catalogue import find_run\nfind_run('cnn', epochs=0)",
            ConfigurationError,
            "page draws: cell .* epochs must be from 1",
        ),
    ],
    ids=["fails", "dies", "hangs", "refuses"],
)
def test_a_failing_page_leaves_book_and_records_as_they_were(two, source, kind, words):
    before = {path: path.stat().st_mtime_ns for path in (two / "_build" / "smoke").rglob("*") if path.is_file()}
    add_cell(two, source)
    with pytest.raises(kind, match=words):
        build.build("smoke", cell_seconds=12, progress=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list((two / "_build").glob(".smoke.*"))


def test_a_warning_of_the_rendering_is_an_error(two):
    page, index = two / "book" / "executed" / "again.md", two / "_build" / "smoke" / "index.html"
    before = index.read_bytes()
    page.write_text("# Again\n\n[nowhere](nothing.md)\n")
    with pytest.raises(BookError, match=r"(?s)exit code 1.*nothing"):
        build.build("smoke", progress=False)
    assert index.read_bytes() == before


def test_kernels_end_with_a_build_that_is_killed(two):
    add_cell(two, "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(99)")
    program = "from dcn_study.book import build, pages\npages.PAGES = {'draws': pages.Page('draws')}\n"
    program += "build.build('smoke', progress=False)"
    with started([sys.executable, "-c", program], two, stdout=subprocess.PIPE) as builder:
        while not (two / "begun").is_file():
            assert builder.poll() is None
            time.sleep(0.2)
        builder.kill()
        builder.communicate(timeout=60)  # until the kernel, which has its output too, has ended


def test_progress_is_shown_without_what_tensorflow_says_when_it_is_loaded():
    shown = io.StringIO()
    stream = execution.Progress(shown)
    stream.write("WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
    stream.write("I0000 00:00:1795573986.763573    4807 port.cc:153] oneDNN custom operations are on.\n")
    stream.write("cnn 1/1:  94%|#########4| 15/16\rcnn 1/1: 100%|##########| 16/16\n")
    assert shown.getvalue() == "cnn 1/1:  94%|#########4| 15/16\rcnn 1/1: 100%|##########| 16/16\n"


def test_without_a_browser_no_pdf_is_begun(project, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("BROWSER_PATH", "/no/such/browser")
    with pytest.raises(BookError, match="none of chromium, .* is installed"):
        build.build("smoke", pdf=True)
    assert not (project / "_build").exists()


def test_the_paper_profile_needs_the_records_and_trains_nothing(complete, monkeypatch):
    (complete / "book" / "_toc.yml").touch()
    monkeypatch.setattr(execution, "execute", None)
    (complete / "book" / "records" / "models.json").unlink()
    with pytest.raises(BookError, match=r"models.json is missing. Take it, on an idle machine, with: dcn measure mod"):
        build.build("paper")
    record = keep(find_run("cnn_batch_norm", seed=1))
    record.configuration["learning_rate"] *= 2
    records.write(record)
    message = "seed1.json is of another configuration. Train it with: dcn train --force cnn_batch_norm-seed1"
    with pytest.raises(BookError, match=message):
        build.build("paper")
    find_run("cnn").path.unlink()
    with pytest.raises(BookError, match=r"cnn.json is missing. Train it with: dcn train cnn"):
        build.build("paper")


def test_a_page_of_the_book_cannot_train(complete, monkeypatch):
    """A notebook that asks for another run than the one on record fails, where it would train for hours."""
    (complete / "book" / "_toc.yml").touch()
    asks = "from dcn_study.runs import catalogue, results\nresults.result(catalogue.find_run('cnn', epochs=11))"
    write_notebook(complete, "draws", code("side: int = 2", "parameters"), code(asks))
    monkeypatch.setattr(pages, "PAGES", {"draws": Page("draws")})
    monkeypatch.setattr(rendering, "render", None)
    with pytest.raises(BookError, match=r"page draws: cell \d+ failed with RecordError: .* is missing"):
        build.build("paper", progress=False)
    assert not (complete / "_build" / "html").exists()
    assert not (complete / "checkpoints").exists()


def test_one_process_builds_a_book(clone):
    (clone / "book" / "_toc.yml").touch()
    message = f"the book .*smoke is in use by process {os.getpid()} on "
    with locked(clone / "_build" / "smoke.lock", "it"), pytest.raises(LockedError, match=message):
        build.build("smoke", progress=False)


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
    path, good = tmp_path / "page.ipynb", {"source": "1", "execution_count": 1}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(**good)])
    nbformat.write(notebook, path)
    execution.reject_unfinished(path)
    notebook.cells.append(nbformat.v4.new_code_cell(**{**good, **cell}))
    nbformat.write(notebook, path)
    with pytest.raises(BookError, match=words):
        execution.reject_unfinished(path)
