"""A notebook as one runs it by hand: opened in JupyterLab, all its cells run from the menu, and saved."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from helpers import ROOT, started
from playwright.sync_api import expect

from dcn_study.book import execution


@pytest.fixture
def lab(project, tmp_path_factory):
    """JupyterLab over a project with the templates, with nobody's settings but its own defaults."""
    shutil.copytree(ROOT / "notebooks", project / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = tmp_path_factory.mktemp("jupyter")
    kinds = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--IdentityProvider.token="]
    environment = {**os.environ, **{kind: str(own / kind) for kind in kinds}}
    with (
        (own / "log").open("w") as log,
        started(command, project, env=environment, stdout=log, stderr=subprocess.STDOUT) as server,
    ):
        for _ in range(120):
            time.sleep(0.5)
            assert server.poll() is None, (own / "log").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status"):
                break
        yield f"http://127.0.0.1:{port}"


def test_a_template_runs_from_the_top(page, lab, project):
    path = project / "notebooks" / "method.ipynb"
    page.goto(f"{lab}/lab/tree/notebooks/{path.name}")
    expect(page.get_by_role("button", name="| Idle")).to_be_visible(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    cells = sum(cell.cell_type == "code" for cell in nbformat.read(path, as_version=4).cells)
    expect(page.locator(".jp-CodeCell .jp-InputPrompt").last).to_have_text(f"[{cells}]:", timeout=120_000)
    saving = f"/api/contents/notebooks/{path.name}"
    # Only the server's answer says that the file is whole: whoever looks earlier may find it empty.
    with page.expect_response(lambda each: each.request.method == "PUT" and saving in each.url) as answer:
        page.keyboard.press("Control+s")
    assert answer.value.ok
    execution.reject_unfinished(path)
