"""What the book's web pages have beyond the theme: a Sphinx extension, which `_config.yml` names.

Each page gets a description for search engines and previews, and a footer that says which version it is. Where
`CITATION.cff` states the address of the repository, the theme's buttons lead there; where it does not, there are none.
What the theme loads on every page and few pages need is left out of the others.
"""

from __future__ import annotations

import html
import inspect
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.inspect import stringify_signature

from dcn_study.book.crate import repository
from dcn_study.book.pages import PAGES
from dcn_study.book.rendering import PRINTED
from dcn_study.runs.files import project_root

__all__ = ["LABORATORY", "setup"]

LABORATORY = "_static/laboratory.js"
ICONS = "icons.css"
LONGEST = 200  # characters of a description
PROVIDERS = ("github.com", "gitlab.com", "bitbucket.org")  # those that the theme knows
FOR_ALL_PAGES = re.compile(
    r'\s*<script[^>]*src="[^"]*/(?:scripts/fontawesome|searchtools|language_data|searchindex)\.js[^"]*"></script>'
    r'|\s*<script src="searchindex\.js"></script>'
)
ICON_CLASS = re.compile(r'class="[^"]*\b(?:fas|fab|fa-solid|fa-brands) (?:fa-fw )?fa-([a-z-]+)')
# A mask takes the colour of the text, and the font of icons is loaded where an element only names it. The mark of a
# download is the one icon that a style sheet and no element asks for.
ICON_RULES = """/* Icons that these pages use, of Font Awesome Free (CC BY 4.0). */
:is(.fas, .fab, .fa-solid, .fa-brands), a.reference.download.internal::before { font-family: inherit !important; }
:is(.fas, .fab, .fa-solid, .fa-brands)::before, a.reference.download.internal::before {
  background: currentColor; content: "" !important; display: inline-block;
  height: 1em; vertical-align: -0.125em; width: 1em;
  -webkit-mask: var(--icon) center / contain no-repeat; mask: var(--icon) center / contain no-repeat;
}
"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects the extension to Sphinx."""
    app.connect("config-inited", _lead_to_the_repository)
    app.connect("autodoc-process-signature", _signature)
    app.connect("html-page-context", _describe, priority=800)
    app.connect("html-page-context", _correct_addresses, priority=800)
    app.connect("html-page-context", _mathematics_where_it_is_used, priority=900)
    app.connect("build-finished", _finish)
    app.add_css_file(ICONS)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _lead_to_the_repository(app: Sphinx, config: Config) -> None:
    """Switches the theme's buttons on if there is an address that the theme can use."""
    address = repository(project_root())
    if any(provider in address for provider in PROVIDERS):
        config.html_theme_options |= {
            "repository_url": address,
            "repository_branch": "main",
            "path_to_docs": "book",
            "use_repository_button": True,
            "use_source_button": True,
            "launch_buttons": {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"},
        }


def _correct_addresses(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Lets the buttons of an executed page lead to its template: the executed notebook is not in the repository."""
    name = page.removeprefix("executed/")
    if name == page or name not in PAGES:
        return
    ours, theirs = f"notebooks/{PAGES[name].notebook}.ipynb", f"book/executed/{name}.ipynb"
    for button in context.get("header_buttons", []):
        for each in (button, *button.get("buttons", [])):
            for written in (str, lambda path: quote(path, safe="")):
                if "url" in each:
                    each["url"] = each["url"].replace(written(theirs), written(ours))


def _signature(app: Sphinx, what: str, name: str, item: Any, *_: Any) -> tuple[str, None] | None:
    """Returns the arguments of a layer's constructor, which Keras hides behind its own."""
    if what != "class":
        return None
    arguments = list(inspect.signature(item.__init__).parameters.values())[1:]
    return stringify_signature(inspect.Signature(arguments), show_annotation=False), None


def _describe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Adds a description, the tags of previews and the footer."""
    about = json.loads((project_root() / ".zenodo.json").read_text(encoding="utf-8"))
    tags = context.get("metatags", "")
    given = re.search(r'<meta content="([^"]*)" name="description" />', tags)
    description = html.unescape(given[1]) if given else _first_paragraph(doctree) or about["description"]
    title = re.sub(r"<[^>]+>", "", str(context.get("title") or app.config.html_title))
    found = {
        "og:title": html.unescape(title),
        "og:description": description,
        "og:type": "website" if page == app.config.root_doc else "article",
        "og:site_name": app.config.html_title,
    }
    tags += "".join(f'\n<meta property="{name}" content="{html.escape(each)}" />' for name, each in found.items())
    if not given:
        tags += f'\n<meta name="description" content="{html.escape(description)}" />'
    context["metatags"] = tags + "\n"
    parts = [f"Version {about['version']}", *_commit(), f"{about['license']} licence"]
    if address := repository(project_root()):
        parts.append(f'<a href="{html.escape(address)}">Repository</a>')
    if printed := os.environ.get(PRINTED):
        parts.append(f'<a href="{context["pathto"](printed, 1)}">The whole report as PDF</a>')
    context["theme_extra_footer"] = f"<p>{' · '.join(parts)}</p>"


def _first_paragraph(doctree: nodes.document | None) -> str:
    """Returns the text of a page's first paragraph, cut after a word; empty if it has none."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        text = " ".join(paragraph.astext().split())
        if text and isinstance(paragraph.parent, nodes.section):
            return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " …"
    return ""


def _commit() -> list[str]:
    """Returns date and name of the commit that the book is made of; nothing outside a repository."""
    root = project_root()
    if not (root / ".git").exists() or shutil.which("git") is None:
        return []
    command = ["git", "-C", str(root), "log", "-1", "--format=%cs commit %h"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return told.strip().split(" ", 1) if told else []


def _mathematics_where_it_is_used(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Leaves MathJax out of pages without formulas: Sphinx loads it on every page that lists one with formulas."""
    if app.builder.name == "html" and not app.env.get_domain("math").data["has_equations"].get(page):
        written = {each: f"{each.filename} {each.attributes.get('body')}" for each in context.get("script_files", [])}
        context["script_files"] = [each for each, text in written.items() if "mathjax" not in text.lower()]


def _finish(app: Sphinx, error: Exception | None) -> None:
    """Writes the icons that are used, and the laboratory as a script; leaves out what the theme loads for all pages."""
    if error or app.builder.format != "html":
        return
    out = Path(app.outdir)
    icons = {"download"}
    for path in out.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        icons |= set(ICON_CLASS.findall(text))
        if path.name != "search.html":
            path.write_text(FOR_ALL_PAGES.sub("", text), encoding="utf-8")
    drawn = (out / "_static" / "scripts" / "fontawesome.js").read_text(encoding="utf-8")
    rules = [_icon(name, drawn) for name in sorted(icons)]
    (out / "_static" / ICONS).write_text(ICON_RULES + "".join(rules), encoding="utf-8")
    laboratory = out / "executed" / "laboratory.html"
    if laboratory.is_file():
        found = re.search(r'<div class="laboratory" .*?</script>\s*</div>', laboratory.read_text("utf-8"), re.DOTALL)
        if found is None:
            raise ValueError(
                f"the laboratory must be a div of that class that ends with a script. Received: {laboratory}"
            )
        (out / LABORATORY).write_text(f"laboratoryArrives({json.dumps(found[0])});\n", encoding="utf-8")


def _icon(name: str, drawn: str) -> str:
    """Returns the rule of an icon, with its outline from the theme's script."""
    found = re.search(rf'[{{,]"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","(M[^"]+)"', drawn)
    if found is None:
        raise ValueError(f"an icon must be one of the theme's. Received: {name}")
    width, height, outline = found.groups()
    picture = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><path d="{outline}"/></svg>'
    where = f".fa-{name}" if name != "download" else ":is(.fa-download, a.reference.download.internal)"
    return f'{where} {{ --icon: url("data:image/svg+xml,{quote(picture, safe=" =/:")}"); }}\n'
