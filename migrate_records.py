"""Gives the records of format 1 the witness and the inputs of format 2. To be run once, then removed.

Every run is replayed: its old witness, the running mean of the loss over the first 20 steps, must be met within 1e-3, and
its stored weights must give the stored test accuracies and losses. Then the replay's own witness takes the old one's
place, and the replay is kept as the first confirmation under the current code and libraries. A record that does not meet
this is left as it is and named.
"""

import argparse
import json
import sys

import numpy as np

from dcn_study.runs import records
from dcn_study.runs.catalogue import run_named
from dcn_study.runs.confirmation import compare_evaluations
from dcn_study.runs.data import splits
from dcn_study.runs.files import now
from dcn_study.runs.inputs import Inputs, Machine, machine
from dcn_study.runs.records import Confirmation, Epoch, Evaluation, Provenance, Record
from dcn_study.runs.training import CODE_SHA256
from dcn_study.runs.witness import objections, replay


def migrate(name):
    config = run_named(name)
    path = records.record_path(config, book=True)
    old = json.loads(path.read_text())
    if old.get("format") == 2:
        print(f"{name}: done before", flush=True)
        return True
    assert records.RunConfig(**old["configuration"]) == config, name
    origin = old["provenance"]
    current = records.current_inputs(config).model_copy(update={"code": CODE_SHA256})
    initial = records.initial_record(config)
    if initial is not None:
        assert origin["initial_weights_sha256"] == initial.provenance.weights, name
    assert origin["data_sha256"] == current.data, name

    def inputs_of(what, code):
        versions = {"TensorFlow": what["tensorflow"], "Keras": what["keras"], "NumPy": what["numpy"]}
        return Inputs(code=code, versions=versions, data=current.data, weights=current.weights)

    def machine_of(what):
        return Machine(python=what["python"], processor=what["processor"], threads=what["threads"])

    data = splits(config)
    witness = replay(config, data)
    means = np.cumsum(witness.losses) / np.arange(1, len(witness.losses) + 1)
    met = float(np.max(np.abs(means / np.asarray(old["witness"]) - 1)))
    record = Record(
        name=name,
        configuration=old["configuration"],
        history=[Epoch(**epoch) for epoch in old["history"]],
        evaluations={kind: Evaluation(**each) for kind, each in old["evaluations"].items()},
        witness=witness,
        provenance=Provenance(
            inputs=inputs_of(origin, origin["code_sha256"]),
            earlier=[inputs_of(origin, code) for code in origin.get("earlier_code_sha256", [])],
            machine=machine_of(origin),
            started=origin["started"],
            finished=origin["finished"],
            seconds=origin["seconds"],
            weights=origin["weights_sha256"],
        ),
        confirmations=[
            Confirmation(
                inputs=inputs_of(each, each["code_sha256"]),
                machine=machine_of(each),
                date=each["date"],
                differences={"losses": each["largest_witness_difference"]},
            )
            for each in old.get("confirmations", [])
        ],
        path=path,
    )
    found = compare_evaluations(record, data)
    objected = objections(found) + ([] if met <= 1e-3 else [f"old witness differs by {met:.1e}"])
    print(f"{name}: {objected or 'met'}; old witness {met:.1e}, {found}", flush=True)
    if objected:
        return False
    confirmation = {"inputs": current, "machine": machine(), "date": now()}
    record.confirmations.append(Confirmation(**confirmation, differences={"losses": met, **found}))
    records.write(record)
    return True


parser = argparse.ArgumentParser()
parser.add_argument("name", nargs="*")
sys.exit(0 if all([migrate(name) for name in parser.parse_args().name]) else 1)
