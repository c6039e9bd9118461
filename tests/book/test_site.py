"""What the Sphinx extension adds to pages and leaves out of them, in a book of three pages."""

import json
import re
import shutil
import subprocess

import nbformat
import pytest
from helpers import ROOT
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from dcn_study.book import site
from dcn_study.book.rendering import PRINTED

ADDRESS = "https://github.com/someone/something"
CONFIGURATION = {
    "extensions": ["myst_nb", "sphinx_book_theme", "sphinx.ext.mathjax", "sphinx.ext.autodoc", "dcn_study.book.site"],
    "html_theme": "sphinx_book_theme",
    "html_title": "A book",
    "html_theme_options": {"use_download_button": False},
    "myst_enable_extensions": ["dollarmath"],
    "nb_execution_mode": "off",
    "autodoc_typehints": "none",
}
PAGES = {
    "index.md": "# First\n\nThe *first* paragraph & its words.\n\n```{toctree}\nsecond\nexecuted/offsets\n```\n",
    "second.md": f"# Second\n\n{'Long words. ' * 40}\n\n$x$\n\n```{{eval-rst}}\n.. autoclass:: dcn.ConvOffset2D\n```\n",
}


@pytest.fixture
def render(project):
    """Renders the book and returns the text of a page by name."""
    shutil.copy(ROOT / ".zenodo.json", project)
    (project / "CITATION.cff").write_text("cff-version: 1.2.0\n", encoding="utf-8")
    book, out = project / "book", project / "out"
    (book / "executed").mkdir()
    for name, text in PAGES.items():
        (book / name).write_text(text, encoding="utf-8")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Third\n\nOf a notebook.")])
    nbformat.write(notebook, book / "executed" / "offsets.ipynb")

    def rendered():
        shutil.rmtree(out, ignore_errors=True)
        with docutils_namespace():
            options = {"status": None, "warning": None, "freshenv": True}
            Sphinx(book, None, out, project / "doctrees", "html", CONFIGURATION, **options).build()
        return lambda page: (out / f"{page}.html").read_text(encoding="utf-8")

    return rendered


def test_without_an_address_nothing_needs_it(render):
    text = render()
    for page in ("index", "second", "executed/offsets"):
        assert "Repository" not in text(page)
        assert not re.search(r"github|mybinder|launch-buttons|source-buttons", text(page))


def test_with_an_address_the_buttons_lead_to_what_the_repository_has(render, project):
    (project / "CITATION.cff").write_text(f'repository-code: "{ADDRESS}"\n', encoding="utf-8")
    text = render()
    for page in ("index", "executed/offsets"):
        assert f'<a href="{ADDRESS}">Repository</a>' in text(page)
        assert f'href="{ADDRESS}"' in text(page).split('class="article-header-buttons"')[1]
    assert f"{ADDRESS}/blob/main/book/second.md" in text("second")
    assert f"{ADDRESS}/blob/main/notebooks/offsets.ipynb" in text("executed/offsets")
    binder = r"mybinder\.org/v2/gh/someone/something/main\?urlpath=lab/tree/notebooks/offsets\.ipynb"
    assert re.search(binder, text("executed/offsets"))
    assert "book/executed" not in text("executed/offsets")


def test_each_page_describes_itself(render):
    text = render()

    def tags(page):
        found = re.findall(r'<meta (?:property|name)="([\w:]+)" content="([^"]*)" />', text(page))
        return dict(found)

    assert tags("index")["og:title"] == "First"
    assert tags("index")["og:type"] == "website"
    assert tags("index")["description"] == "The first paragraph &amp; its words."
    assert tags("executed/offsets")["og:description"] == "Of a notebook."
    assert tags("executed/offsets")["og:type"] == "article"
    assert len(tags("second")["description"]) <= site.LONGEST + 2
    assert tags("second")["description"].endswith(" …")
    about = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    assert tags("genindex")["og:description"].startswith(about["description"][:50])


def test_the_footer_names_version_licence_and_what_there_is(render, project, monkeypatch):
    about = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    plain = f"<p>Version {about['version']} · MIT licence</p>"
    assert plain in render()("second")
    monkeypatch.setenv(PRINTED, "report.pdf")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in ("init -q", "add book", "commit -qm a"):
        subprocess.run([*git, *command.split()], cwd=project, check=True)
    text = render()
    footer = r'Version [\d.]+ · \d{4}-\d\d-\d\d · commit [0-9a-f]{7,} · MIT licence · <a href="report.pdf">'
    assert re.search(footer, text("second"))
    assert '<a href="../report.pdf">' in text("executed/offsets")


def test_a_page_loads_what_it_uses(render, project):
    text = render()
    for page in ("index", "second", "executed/offsets"):  # the first one lists the second, which has a formula
        assert bool(re.search(r"<script[^<]*mathjax", text(page), re.IGNORECASE)) == (page == "second")
    for page in ("index", "second", "executed/offsets", "genindex"):
        assert not re.search(r"<script[^>]*(fontawesome|searchindex|searchtools|language_data)\.js", text(page))
    assert "searchindex.js" in text("search")
    icons = (project / "out" / "_static" / "icons.css").read_text(encoding="utf-8")
    used = set(re.findall(r"\bfa-(magnifying-glass|expand|bars|list|moon|sun)\b", text("index")))
    assert {"magnifying-glass", "expand", "bars"} <= used
    assert all(f".fa-{name} {{ --icon: url(" in icons for name in used)
    assert len(icons) < 20_000


def test_a_layer_has_the_arguments_of_its_constructor(render):
    signature = re.search(r'<dt class="sig[^>]*id="dcn.ConvOffset2D">.*?</dt>', render()("second"), re.DOTALL)[0]
    assert "corners" in signature
    assert "self" not in signature
    assert "*args" not in signature.replace("<", " ")


def test_the_laboratory_is_also_a_script(render, project):
    fragment = '<div class="laboratory" id="laboratory"><p>"text"</p>\n<script>run("</a>");</script>\n</div>'
    page = project / "book" / "executed" / "laboratory.md"
    page.write_text(f"---\norphan: true\n---\n# Fourth\n\n{fragment}\n", encoding="utf-8")
    render()
    written = (project / "out" / site.LABORATORY).read_text(encoding="utf-8")
    assert json.loads(written.removeprefix("laboratoryArrives(").removesuffix(");\n")) == fragment
    page.write_text("---\norphan: true\n---\n# Fourth\n", encoding="utf-8")
    with pytest.raises(Exception, match="the laboratory must be a div of that class"):
        render()


def test_an_icon_is_one_of_the_themes():
    with pytest.raises(ValueError, match="an icon must be one of the theme's. Received: nothing"):
        site._icon("nothing", '{"bars":[1,1,[],"f0c9","M0"]}')  # noqa: SLF001
