"""What makes a record stale: whatever can change a number, seeds included; and nothing else."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from dcn_study.runs.inputs import RUN_CODE

# Prints the status of a record in this folder, for the code as it is, and after each of the changes that are asked for.
PROGRAM = """
import sys
from pathlib import Path
from helpers import keep
from dcn_study.runs import inputs, records
from dcn_study.runs.catalogue import find_run

run = find_run("rescaled_cnn", seed=1)
if sys.argv[1:] == ["keep"]:
    keep(run)
for line in [] if sys.stdin.isatty() else sys.stdin.read().split():
    path = Path(line)
    original = path.read_text()
    path.write_text(path.with_suffix(".changed").read_text())
    inputs.code_sha256.cache_clear()
    print(records.inspect(run)[1])
    path.write_text(original)
inputs.code_sha256.cache_clear()
print(records.inspect(run)[1])
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of both packages in which a record was made, and a function that runs the program in it."""
    root = tmp_path_factory.mktemp("clone")
    for package in ("dcn", "dcn_study"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (root / "book").mkdir()
    (root / "_config.yml").touch()
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{ROOT / 'tests'}"}

    def status(*arguments, changed=()):
        found = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], cwd=root, env=environment, input="\n".join(changed),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return found.stdout.splitlines()

    assert status("keep") == ["fresh"]
    return root, status


class Returns(ast.NodeTransformer):
    """Makes the first function that returns a value return another one."""

    done = False

    def visit_Return(self, node):
        if node.value is not None and not self.done:
            self.done, node.value = True, ast.Constant("changed")
        return node


class Assigned(ast.NodeTransformer):
    """Changes the first number that is assigned at the top of a module."""

    done = False

    def visit_Constant(self, node):
        if isinstance(node.value, int | float) and not self.done:
            self.done, node.value = True, node.value + 1
        return node


class Messages(ast.NodeTransformer):
    """Words every error otherwise."""

    done = False

    def visit_Raise(self, node):
        if isinstance(node.exc, ast.Call):
            self.done, node.exc.args = True, [ast.Constant("something is wrong")]
        return node


def changed(root, modules, transformer):
    """Writes the modules that a transformer changes next to them; returns their paths."""
    paths = []
    for module in modules:
        path = root / Path(*module.split(".")).with_suffix(".py")
        change = transformer()
        tree = change.visit(ast.parse(path.read_text()))
        if change.done:
            path.with_suffix(".changed").write_text(ast.unparse(tree))
            paths.append(str(path))
    return paths


def test_a_change_of_any_module_that_computes_makes_a_record_stale(clone):
    root, status = clone
    for transformer in (Returns, Assigned):
        paths = changed(root, RUN_CODE, transformer)
        assert len(paths) >= (len(RUN_CODE) if transformer is Returns else 10)
        assert status(changed=paths) == ["stale: code"] * len(paths) + ["fresh"]


def test_messages_and_layout_leave_it_fresh(clone):
    root, status = clone
    paths = changed(root, RUN_CODE, Messages)
    assert len(paths) > 5
    assert set(status(changed=paths)) == {"fresh"}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            "self.seed if values[name] < 0 else values[name]",
            "self.seed + 1 if values[name] < 0 else values[name]",
            "stale: augmentation_seed 1, now 2; order_seed 1, now 2; weights_seed 1, now 2",
        ),
        ('values["realisation"] = self.seed', 'values["realisation"] = 0', "stale: realisation 1, now 0"),
        ("return Resolved(", "values['batch_size'] += 1; return Resolved(", "stale: batch_size 128, now 129"),
    ],
)
def test_a_change_of_what_a_configuration_comes_to_makes_it_stale(clone, before, after, told):
    root, status = clone
    path = root / "dcn_study/runs/configuration.py"
    original = path.read_text()
    assert before in original
    path.write_text(original.replace(before, after))
    try:
        assert status() == [told]
    finally:
        path.write_text(original)


@pytest.mark.parametrize(
    "module", ["files", "training", "data", "weights", "progress", "confirmation", "records.schema"]
)
def test_locks_paths_and_progress_leave_it_fresh(clone, module):
    root, status = clone
    paths = changed(root, [f"dcn_study.runs.{module}"], Returns)
    assert status(changed=paths) == ["fresh"] * (len(paths) + 1)


def test_what_computes_reads_a_configuration_only_as_what_it_comes_to():
    """Otherwise a field could change numbers without being among the values that a record is compared with."""
    for module in RUN_CODE:
        tree = ast.parse((ROOT / Path(*module.split(".")).with_suffix(".py")).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config":
                assert node.attr == "resolved", f"{module}: config.{node.attr}"
