import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from helpers import ROOT, inside

# Largest relative and absolute difference to float64, by dtype.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 3e-2, "float16": 4e-3}


def pytest_collection_modifyitems(items):
    """Keeps together what shares slow fixtures when several processes run the tests, the longest first."""
    for item in items:
        group = "book" if "built" in item.fixturenames else item.module.__name__
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: "built" not in item.fixturenames)


@pytest.fixture
def random():
    return np.random.default_rng(20191215)


@pytest.fixture
def assert_close():
    def check(actual, expected, dtype="float32"):
        actual, expected = np.asarray(actual, dtype="float64"), np.asarray(expected, dtype="float64")
        tolerance = TOLERANCES[dtype]
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)

    return check


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project folder, in which the test runs."""
    (tmp_path / "book").mkdir()
    (tmp_path / "_config.yml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def browser_path():
    """Where Chromium or Chrome is; None if there is none, unless BROWSER_PATH demands one."""
    from dcn_study.book import build
    from dcn_study.errors import BookError

    try:
        return build.find_browser()
    except BookError:
        if "BROWSER_PATH" in os.environ:
            raise
        return None


@pytest.fixture(scope="session")
def built(tmp_path_factory, browser_path):
    """A copy of the project in which the smoke book was built once, and printed if there is a browser."""
    from dcn_study import cli

    root, here = tmp_path_factory.mktemp("clone"), ROOT
    for name in ("notebooks", "book"):
        shutil.copytree(here / name, root / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(here / "_config.yml", root)
    with inside(root):
        assert cli.main(["build", "--profile", "smoke", *(["--pdf"] if browser_path else [])]) == 0
    return root


@pytest.fixture(scope="module")
def browser(browser_path):
    if browser_path is None:
        pytest.skip("no browser is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    yield page
    page.close()


@pytest.fixture(autouse=True)
def any_order():
    """Undoes what training switches on for its whole process, so that no test depends on those before it."""
    yield
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework import config  # there is no public way back

        config.disable_op_determinism()
