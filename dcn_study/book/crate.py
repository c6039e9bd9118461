"""The description of the book for programs: an RO-Crate, which names every record and how it was made.

Source: RO-Crate Metadata Specification 1.1, https://w3id.org/ro/crate/1.1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dcn_study.book.pages import Source
from dcn_study.runs.files import file_sha256
from dcn_study.runs.records import Record

__all__ = ["CRATE", "crate"]

CRATE = "ro-crate-metadata.json"


def crate(root: Path, made: Iterable[Source]) -> dict[str, Any]:
    """Returns the content of the crate's metadata file. The date of the book is that of its last record.

    Args:
        root: of the project; its `.zenodo.json` holds title, description, licence and authors.
        made: the records that are in the crate, in the folder `records`.
    """
    about: Mapping[str, Any] = json.loads((root / ".zenodo.json").read_text(encoding="utf-8"))
    libraries: dict[tuple[str, str], dict[str, Any]] = {}
    files: list[dict[str, Any]] = []
    actions: list[dict[str, Any]] = []
    for source in made:
        record = source.record
        if record is None:
            continue
        if isinstance(record, Record):
            origin = record.provenance
            inputs, machine, start, end = origin.inputs, origin.machine, origin.started, origin.finished
            what = f"Training and evaluation of the run {record.name}"
        else:
            inputs, machine, start, end = record.inputs, record.machine, record.started, ""
            what = f"The measurement {record.name}"
        for name, version in inputs.versions.items():
            library = {"@id": f"#{name}-{version}", "@type": "SoftwareApplication", "name": name, "version": version}
            libraries[name, version] = library
        path = f"records/{source.path.name}"
        files.append(
            {
                "@id": path,
                "@type": "File",
                "name": f"Record {record.name}",
                "encodingFormat": "application/json",
                "contentSize": str(source.path.stat().st_size),
                "sha256": file_sha256(source.path),
            }
        )
        actions.append(
            {
                "@id": f"#{source.path.stem}",
                "@type": "CreateAction",
                "name": what,
                "description": f"{machine.processor}, {machine.threads} threads, Python {machine.python}",
                "startTime": start,
                **({"endTime": end} if end else {}),
                "instrument": [{"@id": libraries[each]["@id"]} for each in inputs.versions.items()],
                "result": {"@id": path},
            }
        )
    authors = [{"@id": f"#{each['name']}", "@type": "Organization", "name": each["name"]} for each in about["creators"]]
    dataset = {
        "@id": "./",
        "@type": "Dataset",
        "name": about["title"],
        "description": about["description"],
        "version": about["version"],
        "license": {"@id": f"https://spdx.org/licenses/{about['license']}"},
        "datePublished": max(each.get("endTime", each["startTime"]) for each in actions)[:10],
        "author": [{"@id": each["@id"]} for each in authors],
        "mainEntity": {"@id": "index.html"},
        "hasPart": [{"@id": "index.html"}, *({"@id": each["@id"]} for each in files)],
        "mentions": [{"@id": each["@id"]} for each in actions],
    }
    descriptor = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    page = {"@id": "index.html", "@type": "File", "name": about["title"], "encodingFormat": "text/html"}
    graph = [descriptor, dataset, page, *authors, *libraries.values(), *files, *actions]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}
