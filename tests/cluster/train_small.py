"""Trains small runs in this folder, one thread each: `python train_small.py ADDRESS`.

The address is that of a Dask scheduler; or "here", for this process; or "command", for the command `dcn train` with two
new workers, which a run's name would not give small runs.
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
    if address == "command":
        cli._chosen = lambda *_: SMALL  # noqa: SLF001
        code = cli.main(["train", "--workers", "2", "--threads", "1"])
        assert not set(SET_BY_NANNY) & set(os.environ)  # Dask's nannies would set them for this process too
        return code
    tasks = plan(SMALL)
    if address == "here":
        from dcn_study.runs import training

        training.use_threads(1)
        for task in tasks:
            training.train(task.run)
        return 0
    try:
        with connect(address) as client:
            return 1 if train_all(client, tasks) else 0
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
