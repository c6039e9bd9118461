"""The description of the book for programs: an RO-Crate that names every file, and how each record was made.

Sources: RO-Crate Metadata Specification 1.1, https://w3id.org/ro/crate/1.1, and its profile for the runs of programs,
Process Run Crate 0.5, https://w3id.org/ro/wfrun/process/0.5.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dcn_study.book.sources import Source
from dcn_study.book.values import values_file
from dcn_study.runs.files import file_sha256
from dcn_study.runs.records import Record

__all__ = ["CRATE", "PROFILE", "crate", "repository"]

CRATE = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
PROJECT = "#deformable-conv-digits"
HOMES = {"TensorFlow": "https://www.tensorflow.org", "Keras": "https://keras.io", "NumPy": "https://numpy.org"}
RECORDED = {".json": "Record {}", ".h5": "The weights of the run {}", ".npz": "The predictions of the run {}"}

Entity = dict[str, Any]


def repository(root: Path) -> str:
    """Returns the address of the repository, which `CITATION.cff` states in one place; empty if it states none."""
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    found = re.search(r'^repository-code: *"?([^"\s]+)"?$', citation, re.MULTILINE)
    return found[1] if found else ""


def crate(root: Path, html: Path, shown: Mapping[str, Iterable[Source]]) -> Entity:
    """Returns the content of the crate's metadata file. The date of the book is that of its last record.

    Args:
        root: of the project; `.zenodo.json` has title, description, licence and authors.
        html: the rendered book, complete except for this file, with the records and their weights in `records`.
        shown: for each page, the records that it shows.
    """
    about: Mapping[str, Any] = json.loads((root / ".zenodo.json").read_text(encoding="utf-8"))
    address = repository(root)
    licence = {"@id": f"https://spdx.org/licenses/{about['license']}"}
    names = [each["name"] for each in about["creators"]]
    authors = [{"@id": f"#{quote(name)}", "@type": "Organization", "name": name} for name in names]
    project = {
        "@id": PROJECT,
        "@type": "SoftwareSourceCode",
        "name": "deformable-conv-digits",
        "version": about["version"],
        "programmingLanguage": "Python",
        "license": licence,
        "author": _references(authors),
        **({"codeRepository": address, "url": address} if address else {}),
    }
    made = {source.path.name: source for sources in shown.values() for source in sources if source.record is not None}
    files = {each["@id"]: each for each in _files(html, made, shown)}
    entities: dict[str, Entity] = {}  # what the actions refer to besides files
    actions: list[Entity] = []
    for source in made.values():
        action, used = _action(source, files, authors)
        actions.append(action)
        entities |= {each["@id"]: each for each in used}
    dataset = {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": PROFILE},
        "name": about["title"],
        "description": about["description"],
        "version": about["version"],
        "license": licence,
        "datePublished": max(each.get("endTime") or each["startTime"] for each in actions)[:10],
        "author": _references(authors),
        "mainEntity": {"@id": "index.html"},
        "hasPart": _references(files.values()),
        "mentions": _references(actions),
    }
    descriptor = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    profile = {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": PROFILE.split("/")[-1]}
    spdx = {**licence, "@type": "CreativeWork", "name": about["license"]}
    graph = [descriptor, dataset, profile, spdx, project, *authors, *entities.values(), *files.values(), *actions]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}


def _files(html: Path, made: Mapping[str, Source], shown: Mapping[str, Iterable[Source]]) -> Iterable[Entity]:
    """Yields the book's first page, the pages with their notebooks and values, the records and their weights."""
    yield _file(html, "index.html", "The first page")
    for page, sources in shown.items():
        records = [{"@id": f"records/{source.path.name}"} for source in sources if source.path.name in made]
        based = {"isBasedOn": _references(records)} if records else {}
        yield _file(html, f"executed/{page}.html", f"The page {page}", **based)
        yield _file(html, f"_sources/executed/{page}.ipynb", f"The executed notebook of the page {page}", **based)
        yield _file(html, values_file(page), f"The numbers of the page {page}", **based)
    for source in made.values():
        assert source.record is not None
        for path in source.files:
            yield _file(html, f"records/{path.name}", RECORDED[path.suffix].format(source.record.name))


def _file(html: Path, path: str, name: str, **more: Any) -> Entity:
    kinds = {".ipynb": "application/x-ipynb+json", ".h5": "application/x-hdf5", ".npz": "application/zip"}
    kind = kinds.get(Path(path).suffix) or mimetypes.guess_type(path)[0]
    size, digest = (html / path).stat().st_size, file_sha256(html / path)
    described = {"name": name, "encodingFormat": kind, "contentSize": str(size), "sha256": digest}
    return {"@id": path, "@type": "File", **described, **more}


def _action(source: Source, files: Mapping[str, Entity], authors: Iterable[Entity]) -> tuple[Entity, list[Entity]]:
    """Returns how a record was made, and what this refers to that is no file: code, libraries, settings and inputs."""
    record, made, stem = source.record, source.origin, source.path.stem
    assert record is not None
    assert made is not None
    if isinstance(record, Record):
        what, settings = f"Training and evaluation of the run {record.name}", record.configuration
        ended = record.provenance.finished
    else:
        what, settings, ended = f"The measurement {record.name}", record.parameters, ""
        if record.seconds is not None:
            ended = (datetime.fromisoformat(record.started) + timedelta(seconds=record.seconds)).isoformat()
    code: Entity = {
        "@id": f"#code-{made.inputs.code[:12]}",
        "@type": "SoftwareSourceCode",
        "name": "The modules of deformable-conv-digits that compute this",
        "description": "The digest covers their syntax trees, without comments, docstrings and messages of errors.",
        "version": made.inputs.code,
        "sha256": made.inputs.code,
        "isPartOf": {"@id": PROJECT},
    }
    libraries: list[Entity] = [
        {"@id": f"#{quote(name)}-{version}", "@type": "SoftwareApplication", "name": name, "version": version}
        | ({"url": HOMES[name]} if name in HOMES else {})
        for name, version in made.inputs.versions.items()
    ]
    configuration: Entity = {
        "@id": f"#{stem}-configuration",
        "@type": "PropertyValue",
        "name": "configuration",
        "value": json.dumps(settings, sort_keys=True),
    }
    described, objects = [code, *libraries, configuration], [configuration]
    if made.inputs.data:
        data: Entity = {
            "@id": f"#data-{made.inputs.data[:12]}",
            "@type": "CreativeWork",
            "name": settings.get("data") or "MNIST, by Y. LeCun, C. Cortes and C. J. C. Burges",
            "description": "The digest covers the arrays of images and labels.",
            "sha256": made.inputs.data,
        }
        described.append(data)
        objects.append(data)
    for run, digest in made.inputs.weights.items():
        stored = files.get(f"records/{run}.weights.h5", {})
        if stored.get("sha256") == digest:
            objects.append(stored)
            continue
        name = f"The weights of the run {run}"
        weights: Entity = {"@id": f"#{run}-{digest[:12]}", "@type": "CreativeWork", "name": name, "sha256": digest}
        described.append(weights)
        objects.append(weights)
    action: Entity = {
        "@id": f"#{stem}",
        "@type": "CreateAction",
        "name": what,
        "description": f"{made.machine.processor}, {made.machine.threads} threads, Python {made.machine.python}",
        "startTime": made.started,
        **({"endTime": ended} if ended else {}),
        "agent": _references(authors),
        "instrument": _references([code, *libraries]),
        "object": _references(objects),
        "result": _references(files[f"records/{path.name}"] for path in source.files),
    }
    return action, described


def _references(entities: Iterable[Entity]) -> Entity | list[Entity]:
    """Returns references to entities: a list, or one reference to one entity, as JSON-LD is written in crates."""
    found = [{"@id": each["@id"]} for each in entities]
    return found[0] if len(found) == 1 else found
