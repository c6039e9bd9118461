"""All runs by name: of the paper, of both registered studies, and with any seed."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable
from typing import Any

from dcn_study.errors import ConfigurationError, did_you_mean
from dcn_study.runs.catalogue import unseen
from dcn_study.runs.catalogue.paper import CONTROL_SEEDS, OTHERS, PAPER, RATES, RUNS, SMOKE
from dcn_study.runs.catalogue.study import (
    DEFORMABLE_ARM,
    DROPPED,
    EVALUATED_ARMS,
    LADDER,
    PILOT_RATES,
    PILOTS,
    REALISATIONS,
    RETUNED,
    SPREAD,
    STUDY,
    TRIED,
    TWO_BY_TWO,
)
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.run import Run

__all__ = [
    "CONTROL_SEEDS",
    "DEFORMABLE_ARM",
    "DROPPED",
    "EVALUATED_ARMS",
    "LADDER",
    "NAMED",
    "NOT_RUN",
    "PAPER",
    "PILOTS",
    "PILOT_RATES",
    "RATES",
    "REALISATIONS",
    "RETUNED",
    "RUNS",
    "SMOKE",
    "SPREAD",
    "STUDY",
    "TWO_BY_TWO",
    "all_seeds",
    "arm_config",
    "book_runs",
    "find_run",
    "run_of",
    "seeds_of",
    "study_runs",
]

_PILOTS = [run for rates in PILOTS.values() for run in rates.values()]
_RETUNED = [run for rates in RETUNED.values() for run in rates.values()]
_SPREAD = {run.entry: run.seeded(run.first) for runs in SPREAD.values() for run in runs}
_UNSEEN_PILOTS = [run for rates in unseen.PILOTS.values() for run in rates.values()]
_SECOND = [run for arms in (unseen.UNSEEN, unseen.RETUNED, unseen.FRESH, unseen.FASHION) for run in arms.values()]
_STUDIES = [*_PILOTS, *_SPREAD.values(), *STUDY.values(), *_RETUNED, *_UNSEEN_PILOTS, *_SECOND]
NAMED: dict[str, Run] = RUNS | {run.entry: run for run in _STUDIES} | OTHERS
# Runs of the studies that lack records: those dropped, and pilots at rates for which their rule does not ask.
NOT_RUN = {
    *DROPPED,
    *(
        run.entry
        for pilots, tried in ((PILOTS, TRIED), (unseen.PILOTS, unseen.TRIED))
        for arm, rates in pilots.items()
        for rate, run in rates.items()
        if rate not in tried.get(arm, ())
    ),
}


def find_run(name: str, **changes: Any) -> Run:
    """Returns a run by its name in the catalogue, or by the name of its record, which may end in `-seed<n>`.

    With other data than MNIST the sizes that are not given are those of the data file, for task "mnist".

    Args:
        name: a key of `NAMED`, also with a seed, such as cnn-seed1.
        **changes: fields of `RunConfig` with their new values; `None` keeps a field as it is.

    Raises:
        ConfigurationError: if the run or a field is unknown, or a value breaks its rule.
    """
    entry, _, seed = name.partition("-seed")
    if entry not in NAMED:
        raise ConfigurationError(
            f"run must be one of {', '.join(RUNS)}, or a run of the studies, see: dcn check -v; also with a seed "
            f"appended, such as cnn-seed1. Received: run={name!r}{did_you_mean(entry, NAMED)}"
        )
    if name != entry and not re.fullmatch("0|[1-9][0-9]{0,9}", seed):
        raise ConfigurationError(f"a seed must be a whole number as in {entry}-seed1. Received: {name}")
    fields = [field.name for field in dataclasses.fields(RunConfig)]
    for field in changes:
        if field not in fields:
            raise ConfigurationError(f"parameters of a run are {', '.join(fields)}. Received: {field}")
    given = {field: value for field, value in changes.items() if value is not None}
    if given.get("data") and NAMED[entry].config.task == "mnist":
        given = {"train_size": 0, "test_size": 0} | given
    if seed:
        given = {"seed": int(seed)} | given
    return NAMED[entry].changed(**given)


def run_of(name: str, config: RunConfig) -> Run:
    """Returns the run of a record, from its name and its configuration."""
    entry = NAMED.get(name.partition("-seed")[0])
    return dataclasses.replace(entry, config=config) if entry else Run(config)


def seeds_of(name: str, seeds: int | None = None, **changes: Any) -> list[Run]:
    """Returns a run of the catalogue with the seeds from 0; with higher ones its stand-in, if it has one.

    Args:
        name: a key of `NAMED`.
        seeds: how many; by default as many as the book shows.
        **changes: as for `find_run`.

    Raises:
        ConfigurationError: as `find_run`, and if `seeds` is not positive.
    """
    run = find_run(name)
    if seeds is not None and seeds < 1:
        raise ConfigurationError(f"seeds must be at least 1. Received: seeds={seeds!r}")
    numbers = run.seeds if seeds is None else range(seeds)
    stand_in, first = run.stand_in or ("", 0)
    return [find_run(stand_in if stand_in and seed >= first else run.entry, **changes).seeded(seed) for seed in numbers]


def all_seeds(runs: Iterable[Run]) -> list[Run]:
    """Returns runs with all the seeds that the book shows, those of one seed after the other."""
    runs = list(runs)
    seeds = sorted(set(itertools.chain.from_iterable(run.seeds for run in runs)))
    return [run.seeded(seed) for seed in seeds for run in runs if run.seeded(seed).in_book]


def book_runs() -> list[Run]:
    """Returns all runs of the paper and its controls that the book shows, each after the run that it starts from."""
    return list(dict.fromkeys(run for name in RUNS for run in seeds_of(name)))


def study_runs() -> list[Run]:
    """Returns all runs of both studies, those of `NOT_RUN` among them."""
    return all_seeds(_STUDIES)


def arm_config(arm: str) -> RunConfig:
    """Returns the configuration of an arm of either study, a key of `names.ARMS`."""
    return (STUDY.get(f"scale_{arm}") or unseen.UNSEEN[arm]).config
