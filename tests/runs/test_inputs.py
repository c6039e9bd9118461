"""What a result depends on: the digest of the code, and which code it covers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dcn_study.runs import inputs
from dcn_study.runs.measurements import MEASUREMENTS

CODE = '''
"""A module."""
import math  # for the root

def root(x):
    """Returns the root of x."""
    # the positive one
    return math.sqrt(x)

class Square:
    """A square."""
    side: float = 1.0
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Gives the digest of a module with another content."""
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "somewhere" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def digest(text):
        (tmp_path / "somewhere" / "module.py").write_text(text)
        inputs.code_sha256.cache_clear()
        return inputs.code_sha256(("somewhere.module",))

    yield digest
    inputs.code_sha256.cache_clear()


def test_words_and_layout_do_not_change_the_digest(module):
    before = module(CODE)
    assert module(CODE.replace("the positive one", "never the negative one")) == before
    assert module(CODE.replace("Returns the root of x.", "The square root.\n\n    Of x.\n    ")) == before
    assert module(CODE.replace("A square.", "Four equal sides.")) == before
    assert module(CODE.replace('"""A module."""', "")) == before
    assert module(CODE.replace("(x)", "( x )")) == before


def test_what_is_computed_does(module):
    before = module(CODE)
    for change in (("sqrt(x)", "sqrt(2 * x)"), ("1.0", "1.5"), ("1.0", "1"), ("def root", "def square_root")):
        assert module(CODE.replace(*change)) != before, change


def interpreters():
    """Other Pythons that are installed, as `python3.N` or next to each other under one folder."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = {}
    for minor in (10, 11, 12, 13):
        version = f"3.{minor}"
        candidates = [
            Path("/usr/bin") / f"python{version}",
            *Path(sys.base_prefix).parent.glob(f"{version}.*/bin/python3"),
        ]
        for path in candidates:
            if version != here and path.is_file():
                found[version] = path
    return found


def test_all_versions_of_python_give_one_digest():
    source = Path(inputs.__file__).read_text()
    text = source[source.index("_DOCUMENTED") : source.index("def _processor")]
    program = "import ast, hashlib, sys\nfrom typing import Any\n" + text
    program += "print(hashlib.sha256(_canonical(ast.parse(open(sys.argv[1]).read())).encode()).hexdigest())"
    ast.parse(program)
    pythons = [Path(sys.executable), *interpreters().values()]
    for module in ("dcn.ops.convolution", "dcn.models", "dcn_study.runs.steps"):
        path = Path(inputs.__file__).parents[2] / Path(*module.split(".")).with_suffix(".py")
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
    covered = set(inputs.RUN_CODE if result == "run" else MEASUREMENTS[result].modules)
    root = Path(inputs.__file__).parents[2]
    for module in covered:
        tree = ast.parse((root / Path(*module.split(".")).with_suffix(".py")).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("dcn", "dcn_study"):
                imported = {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
                imported |= defining(root, node)
                modules = {name for name in imported if (root / Path(*name.split(".")).with_suffix(".py")).is_file()}
                assert modules <= covered | KEEPERS, module


def defining(root, node):
    """Returns the modules of a package from which it has the names that a statement imports from the package."""
    package = root / Path(*node.module.split(".")) / "__init__.py"
    if not package.is_file():
        return set()
    wanted = {name.name for name in node.names}
    statements = [each for each in ast.parse(package.read_text()).body if isinstance(each, ast.ImportFrom)]
    return {each.module for each in statements if wanted & {name.name for name in each.names}}


def test_the_environment_is_complete():
    assert set(inputs.versions()) == {"TensorFlow", "Keras", "NumPy"}
    machine = inputs.machine()
    assert machine.processor
    assert machine.threads >= 1
