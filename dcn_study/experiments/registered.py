"""The state of every registered run of both studies: done, to be run, or dropped by an amendment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from dcn_study.experiments import study, unseen
from dcn_study.runs import catalogue, records
from dcn_study.runs.catalogue import STUDY, all_seeds
from dcn_study.runs.catalogue.unseen import FASHION, FRESH, UNSEEN
from dcn_study.runs.catalogue.unseen import PILOTS as UNSEEN_PILOTS
from dcn_study.runs.catalogue.unseen import RETUNED as UNSEEN_RETUNED
from dcn_study.runs.run import Run

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
    for name, run in STUDY.items():
        kind, _, arm = name.partition("_")
        what = {"scale": "runs", "rescaled": "with augmentation"}[kind]
        found[FIRST, what, arm] = _state(all_seeds([run]), name in catalogue.DROPPED)
    for arm, rates in catalogue.RETUNED.items():
        found[FIRST, "other rates", arm] = _state(all_seeds(rates.values()))
    spread = [run for runs in catalogue.SPREAD.values() for run in runs]
    found[FIRST, "spread", "small_cnn"] = _state(dict.fromkeys(spread))
    for arm, piloted in unseen.pilot_runs().items():
        wanted = sorted({*unseen.asked_rates(arm, unseen.validated(piloted)), *piloted})
        found[SECOND, "pilots", arm] = _state(all_seeds(UNSEEN_PILOTS[arm][rate] for rate in wanted))
    for what, arms in (
        ("runs", UNSEEN),
        ("other rates", UNSEEN_RETUNED),
        ("on MNIST-Scale", FRESH),
        ("on Fashion-MNIST", FASHION),
    ):
        for arm, run in arms.items():
            found[SECOND, what, arm] = _state(all_seeds([run]))
    return found


def _state(runs: Iterable[Run], dropped: bool = False) -> State:
    done: list[str] = []
    missing: list[str] = []
    for run in runs:
        (done if records.read(run) else missing).append(run.name)
    return State(tuple(done), () if dropped else tuple(missing), tuple(missing) if dropped else ())
