"""Execution of the notebooks by papermill, each in a kernel of its own, and what each of them read."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import nbformat

from dcn_study.book.pages import template_of
from dcn_study.errors import BookError, ConfigurationError
from dcn_study.runs.files import file_sha256, project_root, replacing
from dcn_study.runs.inputs import RUN_CODE, code_sha256, versions
from dcn_study.runs.reading import LOG

__all__ = [
    "CELL_SECONDS",
    "INJECTED",
    "Executed",
    "Progress",
    "execute",
    "keep",
    "kept",
    "reject_unfinished",
    "stop_kernels",
    "with_its_files",
    "with_outputs",
]

CELL_SECONDS = 600  # that a cell may take while a book is built
# Lines that TensorFlow's library writes to the standard error of every process that loads it.
LIBRARY = re.compile(r"[IWE]\d{4} |WARNING: All log messages before absl|To enable the following instructions")
NOTING = "from dcn_study.runs.reading import log_modules\n\nlog_modules()"  # the last cell, which no page shows
INJECTED = "injected-parameters"  # papermill's tag

_running: set[int] = set()  # process groups of the kernels


@dataclasses.dataclass(frozen=True)
class Executed:
    """An executed notebook.

    Attributes:
        notebook: with the outputs of its code cells.
        files: of the project, that it looked for, in this order.
        modules: files of the project's modules that it loaded.
        began: when its execution began, in nanoseconds.
    """

    notebook: nbformat.NotebookNode
    files: tuple[Path, ...]
    modules: tuple[Path, ...]
    began: int


def execute(
    page: str, parameters: Mapping[str, Any], *, progress: bool = True, cell_seconds: int | None = None
) -> Executed:
    """Executes a page's notebook with papermill, in a kernel of this Python and in the project's folder.

    Args:
        page: a key of `PAGES`.
        parameters: as `page_parameters` returns them.
        progress: whether to show the progress of cells and of training.
        cell_seconds: how long a cell may take; None: as long as it likes.

    Raises:
        BookError: with the failing cell and its error.
        ConfigurationError: if a cell refuses a parameter.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError

    began, notebook = time.time_ns(), nbformat.read(template_of(page), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(NOTING, id="noting"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template, executed, log, reads = (folder / each for each in (f"{page}.ipynb", "out.ipynb", "log", "reads"))
        nbformat.write(notebook, template)
        try:
            papermill.execute_notebook(
                str(template),
                str(executed),
                dict(parameters),
                kernel_name="python3",
                cwd=str(project_root()),
                progress_bar=progress,
                stderr_file=Progress(sys.stderr) if progress else None,
                extra_arguments=["--log-level=ERROR"],
                kernel_manager_class=_kernels(log, reads),
                execution_timeout=cell_seconds,
            )
        except RuntimeError as error:  # the kernel did not start, or died
            told = textwrap.indent(log.read_text(encoding="utf-8")[-2000:].strip(), "    ")
            raise BookError(f"page {page}: {error}\n{told}") from error
        except CellTimeoutError as error:
            told = textwrap.indent(str(error).strip(), "    ")
            raise BookError(f"page {page}: a cell took longer than {cell_seconds} s:\n{told}") from error
        except papermill.PapermillExecutionError as error:
            kind = ConfigurationError if error.ename == ConfigurationError.__name__ else BookError
            raise kind(f"page {page}: cell {error.exec_count} failed with {error.ename}: {error.evalue}") from error
        reject_unfinished(executed)
        result = nbformat.read(executed, as_version=4)
        noted = [line.split("\t") for line in reads.read_text(encoding="utf-8").splitlines()]
    result.cells = [cell for cell in result.cells if cell.id != "noting"]
    for cell in result.cells:
        if cell.cell_type == "code":  # progress and messages to whoever waits are no part of a page
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    for path in ("input_path", "output_path"):  # of this machine, and of no use on any other
        del result.metadata.papermill[path]
    files, modules = (
        tuple(dict.fromkeys(Path(path) for kind, path in noted if kind == wanted)) for wanted in ("file", "module")
    )
    return Executed(result, files, modules, began)


def _kernels(log: Path, reads: Path) -> type:
    """Returns the manager of kernels that write their standard error to one file, and what they read to another.

    They do without the start-up files of whoever builds, on which pages would depend.
    """
    from jupyter_client.manager import AsyncKernelManager

    class Kernels(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            environment = {**os.environ, LOG: str(reads), "IPYTHONDIR": str(reads.with_name("ipython"))}
            with log.open("w", encoding="utf-8") as file:
                await super().start_kernel(**{**options, "stderr": file, "env": environment})
            self.group = self.provisioner.pgid  # type: ignore[union-attr]
            _running.add(self.group)

        async def cleanup_resources(self, restart: bool = False) -> None:  # type: ignore[override]
            _running.discard(getattr(self, "group", 0))
            await super().cleanup_resources(restart)

    return Kernels


def stop_kernels() -> None:
    """Ends all kernels that this process has started, and what they have started."""
    for group in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


class Progress(io.TextIOBase):
    """Passes on what a kernel writes to its standard error, except what TensorFlow's library says when it is loaded."""

    def __init__(self, target: TextIO) -> None:
        self.target = target

    def write(self, text: str) -> int:
        self.target.write("".join(line for line in text.splitlines(keepends=True) if not LIBRARY.match(line)))
        return len(text)

    def flush(self) -> None:
        self.target.flush()


def reject_unfinished(path: Path) -> None:
    """Checks that an executed notebook ran to its end without an error.

    Raises:
        BookError: if a code cell was not executed, or holds an error.
    """
    notebook = nbformat.read(path, as_version=4)
    if notebook.metadata.get("papermill", {}).get("exception"):
        raise BookError(f"{path} ended with an error")
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if cell.execution_count is None and cell.source.strip():
            raise BookError(f"{path}: cell {number} was not executed")
        for output in cell.outputs:
            if output.output_type == "error":
                raise BookError(f"{path}: cell {number} holds the error {output.ename}: {output.evalue}")


def kept(page: str, parameters: Mapping[str, Any], folder: Path, *, force: bool = False) -> Executed | None:
    """Returns the page as `keep` stored it in a folder, or None if something that it depends on has changed or `force`.

    It depends on its code cells and parameters, on all files that it looked for, on the project's modules that it
    loaded, with the files next to them, and on what decides whether a record holds. Its prose may change freely.
    """
    state, notebook = _kept_files(page, folder)
    if force or not (state.is_file() and notebook.is_file()):
        return None
    try:
        before = json.loads(state.read_text(encoding="utf-8"))
        files, modules = ({Path(path): sha for path, sha in before[name].items()} for name in ("files", "modules"))
        if before["key"] != _key(page, parameters) or before["notebook"] != file_sha256(notebook):
            return None
    except (ValueError, KeyError, AttributeError):
        return None
    if any(_digest(path) != sha for path, sha in (*files.items(), *modules.items())):
        return None
    return Executed(nbformat.read(notebook, as_version=4), tuple(files), tuple(modules), state.stat().st_mtime_ns)


def keep(page: str, parameters: Mapping[str, Any], executed: Executed, folder: Path) -> None:
    """Keeps an executed page for later builds, see `kept`. What was written meanwhile has another digest than any."""

    def digest(path: Path) -> str:
        return "changed" if path.is_file() and path.stat().st_mtime_ns >= executed.began else _digest(path)

    state, notebook = _kept_files(page, folder)
    with replacing(notebook) as temporary:
        nbformat.write(executed.notebook, temporary)
        sha = file_sha256(temporary)
    content = {
        "key": _key(page, parameters),
        "notebook": sha,
        "files": {str(path): digest(path) for path in executed.files},
        "modules": {str(part): digest(part) for path in executed.modules for part in with_its_files(path)},
    }
    with replacing(state) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def with_its_files(module: Path) -> list[Path]:
    """Returns a module and the files that it reads: those next to it whose names begin with its own."""
    beside = sorted(path for path in module.parent.glob(f"{module.stem}*") if path.is_file() and path.suffix != ".py")
    return [module, *beside]


def _kept_files(page: str, folder: Path) -> tuple[Path, Path]:
    return folder / f"{page}.json", folder / f"{page}.ipynb"


def _key(page: str, parameters: Mapping[str, Any]) -> str:
    notebook = nbformat.read(template_of(page), as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    depends = [code, dict(parameters), versions(), sys.version, code_sha256(RUN_CODE)]
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    return file_sha256(path) if path.is_file() else "missing"


def with_outputs(page: str, executed: Executed) -> nbformat.NotebookNode:
    """Returns a page's template as it is now, with the outputs of its code cells and the parameters they had."""
    notebook = nbformat.read(template_of(page), as_version=4)
    notebook.metadata = executed.notebook.metadata
    done, cells = [cell for cell in executed.notebook.cells if cell.cell_type == "code"], []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            former = done.pop(0)
            cell.outputs, cell.execution_count = former.outputs, former.execution_count
            cell.metadata = {**former.metadata, **cell.metadata}
        cells.append(cell)
        if done and INJECTED in done[0].metadata.get("tags", []):
            cells.append(done.pop(0))
    notebook.cells = cells
    return notebook
