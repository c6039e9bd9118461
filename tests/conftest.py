import os
import shutil
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import filelock
import numpy as np
import pytest
from helpers import ROOT, cluster_here, inside, keep, keep_measurement, new_project

# What XLA compiles is kept for all processes of a test run: workers, kernels and trainings, which compile the same.
COMPILED = None
if "TF_XLA_FLAGS" not in os.environ:
    COMPILED = tempfile.mkdtemp(prefix="dcn-tests-")
    os.environ["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={COMPILED}"

# Largest relative and absolute difference to float64, by dtype.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 3e-2, "float16": 4e-3}


# Long files, in the order in which workers take them before all others. The first builds the book, and the tests in a
# browser, which would wait for it, are the last.
LONG = (
    "test_book",
    "test_cluster",
    "test_deform_conv2d",
    "test_training",
    "test_notebooks",
    "test_confirmation",
    "test_operator_limits",
    "test_runtime",
    "test_offsets",
    "test_regions",
    "test_mechanism",
    "test_browser",
)


def pytest_collection_modifyitems(items):
    """Puts long files first, so that the workers of pytest-xdist end at about the same time."""
    items.sort(key=lambda item: LONG.index(name) if (name := item.module.__name__) in LONG else len(LONG))


def pytest_unconfigure():
    if COMPILED:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture(autouse=True)
def closed_figures():
    """Closes the figures that a test has drawn, without importing Matplotlib for those that draw none."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


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
    monkeypatch.chdir(new_project(tmp_path))
    return tmp_path


@pytest.fixture
def clone(project):
    """A project with the notebooks and no records."""
    shutil.copytree(ROOT / "notebooks", project / "notebooks")
    return project


@pytest.fixture
def complete(clone):
    """A project with a record of every run and measurement of the book."""
    from dcn_study.runs import records
    from dcn_study.runs.measurements import MEASUREMENTS

    for run in records.shown():
        keep(run)
    for name in MEASUREMENTS:
        keep_measurement(name)
    return clone


@pytest.fixture
def trained(monkeypatch):
    """Notes what would be trained, and leaves a record of it."""
    from dcn_study.runs import training

    calls = []

    def train(run, **how):
        calls.append((run.name, how))
        return keep(run)

    monkeypatch.setattr(training, "train", train)
    return calls


@pytest.fixture(scope="session")
def browser_path():
    """Where Chromium or Chrome is; None if there is none, unless BROWSER_PATH demands one."""
    from dcn_study.book import rendering
    from dcn_study.errors import BookError

    try:
        return rendering.find_browser()
    except BookError:
        if "BROWSER_PATH" in os.environ:
            raise
        return None


@pytest.fixture(scope="session")
def built(tmp_path_factory, browser_path):
    """A copy of the project in which the smoke book was built once, and printed if there is a browser.

    All workers of pytest-xdist share it.
    """
    from dcn_study import cli

    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "clone"
    with filelock.FileLock(root.with_suffix(".lock")):
        if not (root / "built").is_file():
            shutil.rmtree(root, ignore_errors=True)
            for name in ("notebooks", "book"):
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
            for name in ("_config.yml", ".zenodo.json", "CITATION.cff"):
                shutil.copy(ROOT / name, root)
            with inside(root):
                assert cli.main(["build", "--profile", "smoke", *(["--pdf"] if browser_path else [])]) == 0
            (root / "built").touch()
    return root


@pytest.fixture(scope="module")
def browser(browser_path):
    if browser_path is None:
        pytest.skip("no browser is installed")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # where all processors are busy, five seconds are soon over
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    yield page
    page.close()


@pytest.fixture(scope="module")
def client():
    """A client of two Dask workers in this process; the runs that they train have processes of their own."""
    import distributed

    with cluster_here(2) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(autouse=True)
def any_order():
    """Undoes what training switches on for its whole process, so that no test depends on those before it."""
    yield
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework import config  # there is no public way back

        config.disable_op_determinism()
