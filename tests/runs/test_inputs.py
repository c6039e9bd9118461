"""What a result depends on: the digest of the code, and which code it covers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from dcn_study.runs import inputs
from dcn_study.runs.inputs import RUN_CODE
from dcn_study.runs.measurements import MEASUREMENTS
from dcn_study.runs.reading import noted


def returns(node):
    """Makes functions return another value."""
    if isinstance(node, ast.Return) and node.value is not None:
        node.value = ast.Constant("changed")
        return True


def numbers(node):
    """Changes numbers, of whole ones the type alone."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        node.value = float(node.value) if isinstance(node.value, int) else node.value + 1
        return True


def names(node):
    """Renames functions."""
    if isinstance(node, ast.FunctionDef):
        node.name = f"other_{node.name}"
        return True


def words(node):
    """Words errors otherwise and removes docstrings; layout and comments are lost in any case."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        node.exc.args = [ast.Constant("something is wrong")]
        return True
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
        node.body = node.body[1:] or [ast.Pass()]


def text_of(module):
    return (ROOT / Path(*module.split(".")).with_suffix(".py")).read_text(encoding="utf-8")


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """Gives the digest of a module with this content."""
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "somewhere" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def found(text):
        (tmp_path / "somewhere" / "module.py").write_text(text)
        inputs.code_sha256.cache_clear()
        return inputs.code_sha256(("somewhere.module",))

    yield found
    inputs.code_sha256.cache_clear()


@pytest.mark.parametrize(("change", "least"), [(returns, len(RUN_CODE)), (numbers, 10), (names, 10), (words, 5)])
def test_the_digest_covers_what_is_computed_and_not_how_it_is_worded(digest, change, least):
    found = 0
    for module in RUN_CODE:
        tree = ast.parse(text_of(module))
        changes = [change(node) for node in ast.walk(tree)]
        seen = digest(ast.unparse(tree)) != digest(text_of(module))
        assert seen == (any(changes) and change is not words), module
        found += any(changes)
    assert found >= least


def test_what_computes_reads_a_configuration_only_as_what_it_comes_to():
    """Otherwise a field could change numbers without being among the values that a record is compared with."""
    for module in RUN_CODE:
        for node in ast.walk(ast.parse(text_of(module))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config":
                assert node.attr == "resolved", f"{module}: config.{node.attr}"


def test_all_versions_of_python_give_one_digest():
    source = Path(inputs.__file__).read_text()
    text = source[source.index("_DOCUMENTED") : source.index("def _processor")]
    program = "import ast, hashlib, sys\nfrom typing import Any\n" + text
    program += "print(hashlib.sha256(_canonical(ast.parse(open(sys.argv[1]).read())).encode()).hexdigest())"
    ast.parse(program)
    pythons = [sys.executable, *Path("/usr/bin").glob("python3.1[0-3]")]
    pythons += Path(sys.base_prefix).parent.glob("3.1[0-3].*/bin/python3")  # next to each other under one folder
    for module in ("dcn.ops.convolution", "dcn.models", "dcn_study.runs.steps"):
        path = ROOT / Path(*module.split(".")).with_suffix(".py")
        digests = {subprocess.check_output([python, "-c", program, path], text=True) for python in pythons}
        assert len(digests) == 1, module


# Modules that hand values on, show progress or keep files, and compute no number of a result.
KEEPERS = {
    "dcn", "dcn.layers.conv_offset", "dcn.ops", "dcn.ops.roi_pooling",
    "dcn_study", "dcn_study.errors", "dcn_study.names", "dcn_study.runs",
    *(f"dcn_study.runs.{name}" for name in (
        "catalogue", "catalogue.paper", "catalogue.study", "catalogue.unseen", "configuration", "data", "files",
        "inputs", "progress", "published", "records", "records.schema",
        "measurements", "reading", "results", "run", "training", "weights",
    )),
}  # fmt: skip


@pytest.mark.parametrize("result", ["run", *MEASUREMENTS])
def test_the_digest_covers_all_that_computes(result):
    covered = set(RUN_CODE if result == "run" else MEASUREMENTS[result].modules)
    for module in covered:
        for node in ast.walk(ast.parse(text_of(module))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("dcn", "dcn_study"):
                imported = {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
                imported |= defining(node)
                modules = {name for name in imported if (ROOT / Path(*name.split(".")).with_suffix(".py")).is_file()}
                assert modules <= covered | KEEPERS, module


def defining(node):
    """Returns the modules of a package from which it has the names that a statement imports from the package."""
    package = ROOT / Path(*node.module.split(".")) / "__init__.py"
    if not package.is_file():
        return set()
    wanted = {name.name for name in node.names}
    statements = [each for each in ast.parse(package.read_text()).body if isinstance(each, ast.ImportFrom)]
    return {each.module for each in statements if wanted & {name.name for name in each.names}}


def test_the_files_of_what_is_digested_are_noted():
    with noted() as read:
        inputs.code_sha256(("dcn_study.names", "dcn_study.errors"))
    assert [path.name for path in read.files] == ["names.py", "errors.py"]


def test_locks_paths_and_progress_are_not_covered():
    keepers = ("files", "training", "data", "weights", "progress", "confirmation", "tolerances", "records.schema")
    assert not {f"dcn_study.runs.{name}" for name in keepers} & set(RUN_CODE)


def test_the_environment_is_complete():
    assert set(inputs.versions()) == {"TensorFlow", "Keras", "NumPy"}
    machine = inputs.machine()
    assert machine.processor
    assert machine.threads >= 1
