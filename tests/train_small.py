"""Trains small runs in this folder, one thread each: `python train_small.py ADDRESS`.

The address is that of a Dask scheduler; or "local", for two new workers; or "here", for this process.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from dcn_study.cluster.plan import plan, schedule
from dcn_study.cluster.train import connect, local, train_all
from dcn_study.errors import StudyError
from dcn_study.runs.catalogue import run_config

SMALL = [run_config("mini_resnet", epochs=10, train_size=160, test_size=40, seed=seed) for seed in range(2)]


def main(address):
    tasks = plan(SMALL)
    if address == "here":
        from dcn_study.runs import training

        training.use_threads(1)
        for slot in schedule(tasks, 1):
            training.train(slot.task.config, progress=False)
        return 0
    try:
        with local(2, 1) if address == "local" else connect(address) as client:
            return 1 if train_all(client, tasks, threads=1) else 0
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
