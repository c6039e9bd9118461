"""What is behind a page: its notebook and the records that it read, and the sentences and table that say so."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path

import nbformat

from dcn_study.book.execution import Executed, with_outputs
from dcn_study.book.pages import template_of
from dcn_study.book.values import values_file
from dcn_study.errors import RecordError
from dcn_study.runs import measurements, records
from dcn_study.runs.files import project_root
from dcn_study.runs.records import Measurement, Provenance, Record, Status

__all__ = ["Source", "finished", "sources"]

FEW = 4  # as many records as a caption names one by one
MANY = 60  # as many records as a page lists; where there are more, the page with the status of all of them does
VALUES_LINK = ' <span class="only-on-screen">Numbers for programs: <a href="{0}">{0}</a>.</span>'


@dataclasses.dataclass(frozen=True)
class Source:
    """A record that a page shows: where it is, whether it holds, and, if it is valid, the record."""

    path: Path
    status: Status
    record: Record | Measurement | None

    @property
    def origin(self) -> Provenance | Measurement | None:
        """Where a valid record came from: its inputs, machine, start and seconds."""
        return self.record.provenance if isinstance(self.record, Record) else self.record

    @property
    def files(self) -> list[Path]:
        """The record, and the existing weights and predictions of a run."""
        if not isinstance(self.record, Record):
            return [self.path]
        return [self.path, *filter(Path.is_file, (self.record.weights_path, self.record.predictions_path))]


def sources(files: Iterable[Path]) -> list[Source]:
    """Returns the records among the files that a page looked for, in their order."""
    root = project_root()
    shelves = (root / "book" / "records", root / "runs")
    return [_source(path) for path in files if path.suffix == ".json" and path.parent in shelves and path.is_file()]


@functools.cache
def _source(path: Path) -> Source:
    """Returns a record with its status, which is found once for all pages."""
    try:
        measured = records.read_file(path, Measurement)
        return Source(path, measurements.inspect(measured.name, measured.parameters)[1], measured)
    except RecordError:
        try:
            record = records.read_file(path, Record)
        except RecordError as error:
            return Source(path, Status("damaged", (str(error),)), None)
    return Source(path, records.inspect(record.run)[1], record)


def finished(page: str, executed: Executed) -> nbformat.NotebookNode:
    """Returns an executed page with figures named after it, and what is behind it.

    A figure whose cell has the tag "drawing" comes from no record, and has its notebook alone for a source.
    """
    notebook, template = with_outputs(page, executed), template_of(page)
    shown, link = sources(executed.files), _link("notebooks", template)
    if len(shown) <= FEW:
        named = ", ".join([*(_link("records", source.path) for source in shown), link])
    else:
        named = f"{{ref}}`{len(shown)} records and the notebook <{page}-sources>`"
    for cell in notebook.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure:
            figure["name"] = f"{page}-{figure['name']}"
            figure["caption"] += f" Source: {link}." if "drawing" in cell.metadata.tags else f" Sources: {named}."
    notebook.cells.append(nbformat.v4.new_markdown_cell(_section(page, shown, link), id="sources"))
    return notebook


def _section(page: str, shown: list[Source], link: str) -> str:
    """Returns the section that names what is behind a page: its notebook, and how each of its records was made."""
    text = f"({page}-sources)=\n## Sources\n\nNotebook: {link}."
    text += VALUES_LINK.format(Path(values_file(page)).name)
    text += " {doc}`Run it again <again>` with other parameters."
    if len(shown) > MANY:
        text += f" {len(shown)} records, see {{ref}}`status <status-sources>`."
    elif shown:
        header = ("record", "status", "seed", "made", "minutes", "code (SHA-256)", "processor")
        lines = (f"| {' | '.join(row)} |" for row in (header, (":--",) * len(header), *map(_row, shown)))
        used = sorted({source.origin.inputs.versions["TensorFlow"] for source in shown if source.origin})
        title = f"{len(shown)} record{'s' if len(shown) > 1 else ''}, made with TensorFlow {', '.join(used)}"
        text += f"\n\n:::{{dropdown}} {title}\n" + "\n".join(lines) + "\n:::"
    return text


def _row(source: Source) -> tuple[str, ...]:
    link, status = _link("records", source.path), str(source.status)
    record, made = source.record, source.origin
    if made is None:
        return (link, status, *[""] * 5)
    seed = str(record.config.seed) if isinstance(record, Record) else ""
    date = made.finished if isinstance(made, Provenance) else made.started
    minutes = "" if made.seconds is None else f"{made.seconds / 60:.0f}"
    return (link, status, seed, date[:10], minutes, made.inputs.code[:8], made.machine.short)


def _link(folder: str, path: Path) -> str:
    return f"{{download}}`{path.name} <../{folder}/{path.name}>`"
