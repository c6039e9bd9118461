import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

# Largest relative and absolute difference to float64, by dtype.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 3e-2, "float16": 4e-3}


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
def built(tmp_path_factory):
    """A copy of the project in which the smoke book was built once."""
    from dcn.study import book, cli

    root, here = tmp_path_factory.mktemp("clone"), Path(__file__).parents[1]
    for name in ("notebooks", "book"):
        shutil.copytree(here / name, root / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(here / "_config.yml", root)
    try:
        book.find_browser()
        printing = ["--pdf"]
    except book.BookError:
        printing = []
    before = Path.cwd()
    os.chdir(root)
    try:
        assert cli.main(["build", "--profile", "smoke", *printing]) == 0
    finally:
        os.chdir(before)
    return root


@pytest.fixture(autouse=True)
def any_order():
    """Undoes what training switches on for its whole process, so that no test depends on those before it."""
    yield
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework import config  # there is no public way back

        config.disable_op_determinism()
