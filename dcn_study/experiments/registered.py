"""The state of every registered run of both studies: done, to be run, or dropped by an amendment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from dcn_study.experiments import study, unseen
from dcn_study.runs import catalogue, records
from dcn_study.runs.catalogue import REALISATIONS, SOURCES, STUDY, realisations_of, record_name
from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.unseen import FRESH, FRESH_REALISATIONS, PILOT_REALISATIONS, UNSEEN
from dcn_study.runs.unseen import PILOTS as UNSEEN_PILOTS
from dcn_study.runs.unseen import REALISATIONS as UNSEEN_REALISATIONS

__all__ = ["FIRST", "SECOND", "State", "registered"]

FIRST, SECOND = "first study", "second study"


@dataclasses.dataclass(frozen=True)
class State:
    """The registered runs of an arm, by the names of their records.

    Attributes:
        done: those with a record.
        waiting: those to be run. Of pilots, these are the rates that their rule asks for so far.
        dropped: those without a record that an amendment dropped.
    """

    done: tuple[str, ...]
    waiting: tuple[str, ...]
    dropped: tuple[str, ...]


def registered() -> dict[tuple[str, str, str], State]:
    """Returns the state of all registered runs, those that amendments added among them.

    Returns:
        (`FIRST` or `SECOND`, what the runs are, name of the arm) → its runs.
    """
    found: dict[tuple[str, str, str], State] = {}
    for arm, tried in study.pilots().items():
        asked = study.asked_rates(tried)
        runs = [run for rate, run in catalogue.PILOTS[arm].items() if rate in asked or tried[rate]]
        found[FIRST, "pilots", arm] = _state(runs, f"scale_{arm}" in catalogue.DROPPED)
    for run, config in STUDY.items():
        kind, _, arm = run.partition("_")
        what = {"scale": "runs", "rescaled": "with augmentation"}[kind]
        runs = _seeds(config, range(realisations_of(run)))
        found[FIRST, what, arm] = _state(runs, run in catalogue.DROPPED)
    for arm, rates in catalogue.RETUNED.items():
        counts = catalogue.RETUNED_REALISATIONS[arm]
        runs = [each for rate, config in rates.items() for each in _seeds(config, range(counts[rate]))]
        found[FIRST, "other rates", arm] = _state(runs)
    spread = [catalogue.spread_run(source, number) for source in SOURCES for number in range(REALISATIONS)]
    found[FIRST, "spread", "small_cnn"] = _state(dict.fromkeys(spread))
    for arm, piloted in unseen.pilot_runs().items():
        wanted = sorted({*unseen.asked_rates(arm, unseen.validated(piloted)), *piloted})
        runs = [each for rate in wanted for each in _seeds(UNSEEN_PILOTS[arm][rate], PILOT_REALISATIONS)]
        found[SECOND, "pilots", arm] = _state(runs)
    for what, arms, numbers in (("runs", UNSEEN, UNSEEN_REALISATIONS), ("on MNIST-Scale", FRESH, FRESH_REALISATIONS)):
        for arm, config in arms.items():
            found[SECOND, what, arm] = _state(_seeds(config, numbers))
    return found


def _seeds(run: RunConfig, numbers: Iterable[int]) -> list[RunConfig]:
    return [dataclasses.replace(run, seed=number) for number in numbers]


def _state(runs: Iterable[RunConfig], dropped: bool = False) -> State:
    done: list[str] = []
    missing: list[str] = []
    for run in runs:
        (done if records.read(run) else missing).append(record_name(run))
    return State(tuple(done), () if dropped else tuple(missing), tuple(missing) if dropped else ())
