"""What several tests need: records of runs that were never trained, and a folder to work in."""

import contextlib
import dataclasses
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from dcn_study.runs import measurements, records
from dcn_study.runs.inputs import Machine
from dcn_study.runs.records import Epoch, Evaluation, FirstBatch, Provenance, Record, Witness
from dcn_study.runs.splits import KINDS

ROOT = Path(__file__).parents[1]


def weights_of(run):
    """The content of a weights file that stands for the trained weights of a run."""
    return f"weights of {run.name}".encode()


def current_inputs(run):
    """The inputs that make a record fresh, if the run that it starts from was kept by `keep`."""
    initial = records.initial_run(run.config)
    weights = {initial.name: hashlib.sha256(weights_of(initial)).hexdigest()} if initial else {}
    inputs = records.current_inputs(dataclasses.replace(run.config, initial_run=""))
    return inputs.model_copy(update={"weights": weights})


def make(run, **provenance):
    """A record as if this run had been trained."""
    config = run.config
    origin = {
        "inputs": current_inputs(run),
        "machine": Machine(python="3", processor="one", threads=2),
        "started": "2026-01-02T03:00:00",
        "finished": "2026-01-02T03:04:05",
        "seconds": 90.0,
        "weights": hashlib.sha256(weights_of(run)).hexdigest(),
        **provenance,
    }
    return Record(
        name=run.name,
        configuration=config.to_dict(),
        history=history(loss=[0.1] * config.epochs),
        evaluations={kind: Evaluation(accuracy=0.8, loss=0.2, images=10) for kind in KINDS[config.task]},
        witness=Witness(
            losses=[2.3, 2.2],
            norms={"kernel": 1.0},
            slots=[1.0],
            epochs=[FirstBatch(labels="", pixels=0.0)] * config.epochs,
        ),
        provenance=Provenance(**origin),
        path=run.path,
    )


def keep(run, **provenance):
    """Writes such a record, and what stands for its weights."""
    record = make(run, **provenance)
    records.write(record)
    record.weights_path.write_bytes(weights_of(run))
    return record


def keep_measurement(name, parameters=None, results=None):
    """Writes a record as if this measurement had been taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements.Declared, "measure", lambda self, given: results or {})
        return measurements.result(name, parameters, force=True)


def results_of(record):
    """All that a record holds except times and versions of the machine."""
    return [each.model_copy(update={"seconds": 0}) for each in record.history], record.evaluations, record.witness


def new_project(root):
    """Makes a folder an empty project, and returns it."""
    (root / "book").mkdir(parents=True)
    (root / "_config.yml").touch()
    return root


@contextlib.contextmanager
def inside(folder):
    """Works in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


def cluster_here(workers):
    """A Dask cluster whose workers are threads of this process."""
    import distributed

    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    )


@contextlib.contextmanager
def started(command, folder, **options):
    """A process that ends with the block: it is asked to, and killed if it has not ended soon."""
    process = subprocess.Popen(command, cwd=folder, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def history(**curves):
    """One epoch for each number in the curves, which are lists of one length by field of `Epoch`."""
    rest = {"loss": 0.1, "accuracy": 0.9, "validation_loss": 0.2, "validation_accuracy": 0.8, "seconds": 1.0}
    rows = (dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True))
    return [Epoch(epoch=number, **{**rest, **row}) for number, row in enumerate(rows, 1)]


def evaluations(plain, scaled=None, images=10):
    """Results with these accuracies; on scaled images the same if only one is given."""
    accuracies = {"plain": plain, "scaled": plain if scaled is None else scaled}
    return {kind: Evaluation(accuracy=each, loss=0.1, images=images) for kind, each in accuracies.items()}
