"""The book as its readers meet it: in a browser, with and without a pointer, wide and narrow, light and dark.

Every page is loaded once, and looked at in three ways. Axe takes longer than all else, and on pages of one kind finds
the same: it looks at one page of each kind.
"""

import csv
import functools
import io
import re
import threading
import urllib.parse
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from dcn_study.book.pages import FORMER

pytestmark = pytest.mark.slow  # it looks at the whole book

# Of axe-core's rules, "region" alone is left out: the theme puts the book's title outside any landmark.
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
    "rules": {"region": {"enabled": False}},
    "preload": False,  # it would load style sheets again, some from addresses that do not exist
    "resultTypes": ["violations"],  # what is all right is not listed, which takes long
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def html(built):
    return built / "_build" / "smoke"


@pytest.fixture(scope="module")
def address(html):
    """The book on a server of its own, as any static host serves it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=html)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


LEAD_ON = {f"{address}.html" for address in ("index", *FORMER)}


def pages_of(html, without=LEAD_ON):
    """Returns all pages, by default but those that lead on to others."""
    pages = (path for path in html.rglob("*.html") if not {"_static", "_downloads"} & set(path.parts))
    return sorted(path for path in pages if path.relative_to(html).as_posix() not in without)


# One page of each kind: what a page of the book can hold is on at least one of them.
KINDS = {
    "first page, cards, citations": "intro.html",
    "formulas, terms": "executed/method.html",
    "the package": "api.html",
    "source of a module": "_modules/dcn/models.html",
    "list of references": "references.html",
    "search": "search.html",
    "index": "genindex.html",
    "claims and sources": "executed/verdict.html",
    "curves, drawings, tables": "executed/paper.html",
    "the widest table": "executed/status.html",
    "figures with a form for phones": "executed/study.html",
    "the laboratory": "executed/laboratory.html",
    "the map": "executed/robustness.html",
    "the row of pixels, side notes": "executed/offsets.html",
}

# How each page is looked at, one way after the other: the width, and what Playwright calls the media. The narrow one is
# first, since the theme makes what scrolls focusable when a page is loaded, and a moment after its width has changed.
VIEWS = {
    "narrow and dark": (390, {"color_scheme": "dark", "media": "screen"}),
    "wide and light": (1440, {"color_scheme": "light", "media": "screen"}),
    "on paper": (736, {"color_scheme": "light", "media": "print"}),  # what a browser's margins leave of a letter page
}
TOO_WIDE = "document.documentElement.scrollWidth - window.innerWidth"
BROKEN_IMAGES = """async () => {
    const images = [...document.querySelectorAll('article img')];
    await Promise.allSettled(images.filter(image => image.loading !== 'lazy').map(image => image.decode()));
    return images.filter(image => !image.alt || !image.naturalWidth)
        .map(image => 'image without text or size: ' + image.outerHTML.slice(0, 200));
}"""
HIDDEN_COLUMNS = """[...document.querySelectorAll('article table')].filter(table => !table.closest('details'))
    .map(table => table.offsetWidth - table.parentElement.clientWidth).filter(excess => excess > 1)
    .map(excess => 'a table ' + excess + ' pixels wider than its place')"""
CUT_TABLES = """[...document.querySelectorAll('article table')].map(table => table.getBoundingClientRect().right)
    .filter(right => right > window.innerWidth).map(right => 'table that ends at ' + right)"""


@pytest.fixture(scope="module")
def problems(browser, html, address):
    """What is wrong with the pages, by view. Each page is loaded once, which takes most of the time."""
    found = {view: [] for view in VIEWS}
    with browser.new_context(reduced_motion="reduce") as context:  # widths are final at once, no sidebar slides
        for path in pages_of(html):
            name = path.relative_to(html).as_posix()
            page = context.new_page()
            told = []
            page.on("console", lambda message, told=told: told.append(message.text) if is_bad(message) else None)
            page.on("pageerror", lambda error, told=told: told.append(str(error)))
            page.on("response", lambda response, told=told: told.append(response.url) if not response.ok else None)
            page.on("requestfailed", lambda request, told=told: told.append(f"failed: {request.url}"))
            page.on("request", lambda request, told=told: told.append(request.url) if is_outside(request) else None)
            for view, (width, media) in VIEWS.items():
                page.emulate_media(**media)
                page.set_viewport_size({"width": width, "height": 900})
                if page.url == "about:blank":
                    page.goto(f"{address}/{name}")
                if view == "on paper":
                    told += page.evaluate(CUT_TABLES)
                else:
                    told += looked_at(page, media["color_scheme"], thoroughly=name in KINDS.values())
                    told += page.evaluate(HIDDEN_COLUMNS) if view == "wide and light" else []
                found[view] += [f"{name}: {problem}" for problem in told]
                told.clear()
            page.close()
    return found


def looked_at(page, scheme, *, thoroughly):
    expect(page.locator("html")).to_have_attribute("data-theme", scheme)
    found = page.evaluate(BROKEN_IMAGES)
    if (excess := page.evaluate(TOO_WIDE)) > 0:
        found.append(f"{excess} pixels too wide")
    for broken in Axe().run(page, options=RULES).response["violations"] if thoroughly else ():
        found.append(f"{broken['id']}: {broken['nodes'][0]['html'][:200]} and {len(broken['nodes']) - 1} more")
    return found


@pytest.mark.parametrize("view", VIEWS)
def test_every_page_is_whole_and_accessible_and_no_table_is_cut(problems, view):
    assert not problems[view], "\n".join(problems[view])


def test_each_kind_of_page_is_there(html):
    assert all((html / name).is_file() for name in KINDS.values())


def test_the_first_page_is_light(page, address):
    page.set_viewport_size({"width": 1440, "height": 900})
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    loaded = []
    network.on("Network.loadingFinished", lambda event: loaded.append(event["encodedDataLength"]))
    page.goto(f"{address}/intro.html", wait_until="networkidle")
    assert len(loaded) > 10
    assert sum(loaded) <= 1.2e6  # without compression


def test_the_first_page_loads_the_laboratory_when_one_comes_to_it(page, html):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((html / "intro.html").as_uri())
    assert page.locator(".laboratory").count() == 0
    page.locator(".laboratory-here").scroll_into_view_if_needed()
    page.mouse.wheel(0, 400)
    expect(page.locator(".laboratory.small[data-ready]")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".laboratory .answer").first).to_have_text("Draw a digit")
    assert "#" not in page.url
    assert not problems


def test_nothing_moves_where_less_motion_is_asked_for(page, address):
    page.emulate_media(reduced_motion="reduce")
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto(f"{address}/intro.html")
    page.set_viewport_size({"width": 1440, "height": 900})  # at which the sidebars come in
    assert page.evaluate("document.getAnimations().length") == 0


def is_bad(message):
    return message.type in ("error", "warning")


def is_outside(request):
    url = urllib.parse.urlsplit(request.url)
    return url.scheme not in ("data", "blob") and url.hostname != "127.0.0.1"


@pytest.mark.parametrize(("path", "cells"), [("executed/verdict.html", ".claims td"), ("migration.html", ".cards td")])
def test_on_a_phone_each_row_of_words_is_a_card(page, address, path, cells):
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto(f"{address}/{path}")
    ends = page.evaluate(f"[...document.querySelectorAll('{cells}')].map(x => x.getBoundingClientRect().right)")
    assert len(ends) > 50
    assert max(ends) <= 390


def test_no_internal_link_is_broken(html):
    texts = {path: path.read_text(encoding="utf-8") for path in pages_of(html, without=())}
    assert {path.relative_to(html).as_posix() for path in texts} > LEAD_ON
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in texts.items()}
    broken = []
    for path, text in texts.items():
        for link in re.findall(r'<a\b[^>]*\bhref="([^"]*)"', text):
            url = urllib.parse.urlsplit(link.replace("&amp;", "&"))
            if url.scheme or url.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            anchor = urllib.parse.unquote(url.fragment)
            if "=" in anchor:  # a state of the laboratory
                continue
            if not target.is_file() or (anchor and target in anchors and anchor not in anchors[target]):
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_the_map_answers_to_pointer_keyboard_and_choice(page, address):
    page.goto(f"{address}/executed/robustness.html")
    told, fields = page.locator(".robustness-map .chosen p"), page.locator(".robustness-map td")
    fields.first.hover()
    first = told.inner_text()
    assert first.startswith("CNN, scale 1.00, shift")
    fields.first.click()
    expect(page).to_have_url(re.compile("#model=cnn&row=0&column=0$"))
    page.keyboard.press("ArrowRight")
    expect(told).not_to_have_text(first)
    page.keyboard.press("ArrowLeft")
    expect(told).to_have_text(first)
    page.keyboard.press("ArrowDown")
    expect(told).not_to_contain_text("scale 1.00")
    assert page.locator(".robustness-map td[tabindex='0']").count() == 1
    before = fields.all_inner_texts()
    page.locator(".robustness-map select").select_option("deformable_mini_resnet")
    expect(told).to_contain_text("deformable mini-ResNet")
    assert fields.all_inner_texts() != before
    told_last, link = told.inner_text(), page.url
    page.goto(f"{link.partition('#')[0]}#model=nothing&row=99&column=x")
    page.reload()
    expect(told).to_contain_text("CNN, scale 1.00")
    page.goto(link)
    page.reload()
    expect(told).to_have_text(told_last)


def test_search_finds_a_term_without_a_server(page, html):
    problems = []
    page.on("console", lambda message: problems.append(message.text) if is_bad(message) else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{(html / 'search.html').as_uri()}?q=identity")
    expect(page.locator("#search-results li a").first).to_be_visible()
    assert any("offsets.html" in link.get_attribute("href") for link in page.locator("#search-results li a").all())
    expect(page.get_by_text("titles without excerpts")).to_be_visible()
    assert not problems


def test_tables_and_figures_can_be_had_as_files(page, address):
    page.goto(f"{address}/executed/paper.html")
    link = page.locator(".download-table a").nth(1)
    content = urllib.parse.unquote(link.get_attribute("href").partition(",")[2])
    rows = list(csv.reader(io.StringIO(content)))
    table = page.locator("table.dataframe").nth(1)
    assert len(rows) == table.locator("tbody tr").count() + 1 > 8
    assert len({len(row) for row in rows}) == 1
    assert rows[-1][:2] == ["deformable mini-ResNet", "scaled"]  # of which the page shows the first in the row above
    picture = page.get_by_role("link", name="Figure as SVG").first
    with page.expect_download() as download:
        picture.click()
    assert download.value.suggested_filename == "paper-figure-1.svg"
    assert "<svg" in download.value.path().read_text(encoding="utf-8")


def test_a_large_number_is_written_for_people_on_the_page_and_for_programs_in_the_file(page, address):
    page.goto(f"{address}/executed/residual.html")
    cell = page.locator("table.dataframe").nth(1).locator("tr").last.locator("td").last
    assert cell.text_content() == "11,051,424"
    expect(cell).to_have_css("text-align", "right")
    content = page.locator(".download-table a").nth(1).get_attribute("href")
    assert urllib.parse.unquote(content).rstrip().endswith(",11051424")


def test_it_can_be_read_by_keyboard(page, address):
    page.goto(f"{address}/executed/verdict.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main-content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


@pytest.mark.usefixtures("browser")  # which prints it
def test_the_whole_book_is_printed(html):
    content = (html / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.count(b"/Type /Page\n") > len(pages_of(html))


def test_paper_shows_the_text_alone_and_what_is_folded(page, address):
    page.goto(f"{address}/executed/paper.html")
    expect(page.locator(".bd-sidebar-primary")).to_be_visible()
    page.emulate_media(media="print")
    expect(page.locator(".bd-sidebar-primary")).to_be_hidden()
    assert page.locator("h1:visible").inner_text().startswith("The paper")
    code = page.locator("details.hide pre")
    assert code.count() > 2
    for each in code.all():
        expect(each).to_be_visible()


def test_every_page_describes_itself(html):
    for path in pages_of(html):
        text = path.read_text(encoding="utf-8")
        for tag in ('name="description"', 'property="og:title"', 'property="og:description"'):
            assert len(re.findall(f"<meta [^>]*{tag}", text)) == 1, f"{path.name}: {tag}"


def test_the_package_has_a_line_for_each_argument_and_links_to_its_source(html):
    text = (html / "api.html").read_text(encoding="utf-8")
    for name in ("DeformableConv2D", "DeformableConv1D", "deform_conv2d"):
        start = text.index(f'id="dcn.{name}"')
        head, body = text[start : text.index("</dt>", start)], text[start : start + 20_000]
        assert head.count("<dd>") > 5
        assert "**kwargs" not in head.partition("*args")[2]
        assert re.search(r'href="_modules/dcn/[\w/]+\.html#', head)
        assert "filters, kernel_size" not in re.sub(r"<[^>]+>", "", body)
