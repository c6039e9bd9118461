"""What a result depends on: code, library versions, data and initial weights, each as a digest or a version."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from dcn_study.runs.reading import note_file

__all__ = ["MODEL_CODE", "RUN_CODE", "Inputs", "Machine", "code_sha256", "machine", "processors", "versions"]

_OPERATORS = ("compilation", "convolution", "differentiation", "geometry", "interpolation", "resampling", "sampling")
_LAYERS = ("conv_offset", "deformable_conv")
# The modules that compute what networks do, and those that compute a run.
MODEL_CODE = (
    *(f"dcn.ops.{name}" for name in _OPERATORS),
    *(f"dcn.layers.{name}" for name in _LAYERS),
    "dcn.models",
)
_RUNS = ("arms", "effective_field", "mnist_scale", "networks", "splits", "steps", "transforms")
RUN_CODE = (*MODEL_CODE, *(f"dcn_study.runs.{name}" for name in _RUNS))


class Inputs(pydantic.BaseModel, frozen=True, extra="forbid", strict=True):
    """All that a run or a measurement depends on besides its parameters.

    Attributes:
        code: digest of the code that computes it, see `code_sha256`.
        values: what the configuration of a run comes to, see `Resolved.values`; empty for a measurement.
        versions: library → version.
        data: digest of the data, empty where none is used.
        weights: record of a run → digest of its weights, for the runs whose weights this one starts from or evaluates,
            or whose results it reads; empty if that run had no record.
    """

    code: str
    versions: dict[str, str]
    data: str = ""
    weights: dict[str, str] = {}
    values: dict[str, Any] = {}

    def changes(self, current: Inputs) -> list[str]:
        """Returns what differs in the current inputs, in words; nothing if they are the same."""
        found = ["code"] if self.code != current.code else []
        for name in _differing(self.versions, current.versions):
            found.append(f"{name} {self.versions.get(name, 'none')}, now {current.versions.get(name, 'none')}")
        found += ["data"] if self.data != current.data else []
        found += [f"weights of {run}" for run in _differing(self.weights, current.weights)]
        if not self.values and current.values:
            return [*found, "values of the configuration, which were not recorded"]
        for name in _differing(self.values, current.values):
            found.append(f"{name} {self.values.get(name)}, now {current.values.get(name)}")
        return found


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    return [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]


class Machine(pydantic.BaseModel, frozen=True, extra="forbid", strict=True):
    """Where something was computed, and with how many threads for an operation of TensorFlow.

    It is stated, and not among the inputs: results hold on other machines too, within the tolerances of a witness.
    """

    python: str
    processor: str
    threads: int

    @property
    def short(self) -> str:
        """The processor's name without marks, for tables."""
        return self.processor.replace("(R)", "").removesuffix(" Processor")


def versions() -> dict[str, str]:
    """Returns the installed versions of the libraries that compute."""
    libraries = {"TensorFlow": "tensorflow", "Keras": "keras", "NumPy": "numpy"}
    return {name: importlib.metadata.version(library) for name, library in libraries.items()}


def machine(threads: int = 0) -> Machine:
    """Returns this machine.

    Args:
        threads: for an operation of TensorFlow; 0 if there are as many as processors.
    """
    return Machine(python=platform.python_version(), processor=_processor(), threads=threads or processors())


@functools.cache
def code_sha256(modules: Sequence[str] = RUN_CODE) -> str:
    """Returns the digest of modules, by default those that compute a run, as they were when first asked for.

    It covers their syntax trees without docstrings and without the messages of errors that they raise: comments,
    formatting, documentation and wording do not change it.
    """
    digest = hashlib.sha256()
    for name in modules:
        path = _source(name)
        note_file(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        digest.update(f"{name} {_canonical(tree)}".encode())
    return digest.hexdigest()


def _source(module: str) -> Path:
    """Returns the file of a module without importing it or the packages that it is in."""
    package, _, inner = module.partition(".")
    specification = importlib.util.find_spec(package)
    assert specification is not None
    assert specification.submodule_search_locations is not None
    return Path(specification.submodule_search_locations[0], *inner.split(".")).with_suffix(".py")


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _canonical(node: Any) -> str:
    """Returns a text that is the same for equal syntax trees in all versions of Python, where `ast.dump` differs."""
    if isinstance(node, list):
        return f"[{' '.join(map(_canonical, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        fields["exc"] = node.exc.func
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    present = (f"{name}={_canonical(value)}" for name, value in fields.items() if value not in (None, []))
    return f"{type(node).__name__}({' '.join(present)})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def processors() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
