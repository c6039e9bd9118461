"""Trains small runs in this folder, one thread each: `python train_small.py ADDRESS`.

The address is that of a Dask scheduler. Or it is "here", for the command `dcn train` in this process, or "command", for
the same with two new workers; a run's name would not give small runs.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from dcn_study import cli
from dcn_study.cluster.connection import connect
from dcn_study.cluster.plan import plan
from dcn_study.cluster.train import train_all
from dcn_study.cluster.worker import SET_BY_NANNY
from dcn_study.errors import StudyError
from dcn_study.runs.catalogue import find_run

SMALL = [find_run("mini_resnet", epochs=6, train_size=160, test_size=40, seed=seed) for seed in range(2)]


def main(address):
    if address in ("here", "command"):
        cli._chosen = lambda *_: SMALL  # noqa: SLF001
        workers = ["--workers", "2"] if address == "command" else []
        code = cli.main(["train", "--threads", "1", *workers])
        assert not set(SET_BY_NANNY) & set(os.environ)  # Dask's nannies would set them for this process too
        return code
    try:
        with connect(address) as client:
            return 1 if train_all(client, plan(SMALL)) else 0
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
