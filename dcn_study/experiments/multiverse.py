"""Outcomes under choices other than those stated: all combinations, and the single choices that change an outcome."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dcn_study.errors import ConfigurationError
from dcn_study.experiments import study
from dcn_study.experiments.agreement import Choices, agreements, published_and_ours
from dcn_study.experiments.statistics import CONFIDENCE, contrasts
from dcn_study.names import MODELS
from dcn_study.runs import published, reading, records
from dcn_study.runs.catalogue import REALISATIONS, RETUNED, STUDY, seeds_of
from dcn_study.runs.records import Record
from dcn_study.runs.run import Run

__all__ = ["GROUPS", "LETTERS", "Multiverse", "altered_by", "multiverse", "multiverses", "option", "told"]

GROUPS = {"accuracies": "published accuracies", "contrasts": "contrasts of the first study"}
LETTERS = {
    "a": "agrees",
    "d": "differs",
    "u": "undecided",
    "b": "better",
    "w": "worse",
    "e": "equivalent",
}
_SHORT = {outcome: letter for letter, outcome in LETTERS.items()}
_AMENDED, _LOGIT, _ONE_MORE, _HOLM = "amended", "logit", "prediction", "Holm"
_CHOSEN, _BEST = "as chosen", "best"


@dataclasses.dataclass(frozen=True)
class Multiverse:
    """Outcomes of a group of claims in all universes, that is, with all combinations of choices.

    Attributes:
        choices: what is chosen → its options.
        stated: what is chosen → the option of the rule as stated.
        outcomes: claim → one of the keys of `LETTERS` per universe, in the order of `itertools.product` of the options.
    """

    choices: Mapping[str, Sequence[Any]]
    stated: Mapping[str, Any]
    outcomes: Mapping[str, str]

    @property
    def universes(self) -> int:
        """How many combinations there are."""
        return math.prod(map(len, self.choices.values()))

    def place(self, **changes: Any) -> int:
        """Returns the place of a universe among the outcomes: the stated one, with changes by the choice's name."""
        found = 0
        for name, options in self.choices.items():
            found = found * len(options) + list(options).index({**self.stated, **changes}[name])
        return found

    def outcome(self, claim: str, **changes: Any) -> str:
        """Returns the outcome of a claim in the stated universe, with changes by the choice's name."""
        return LETTERS[self.outcomes[claim][self.place(**changes)]]

    def share(self, claim: str) -> float:
        """Returns the share of universes in which a claim has the outcome that it has in the stated one."""
        found = self.outcomes[claim]
        return found.count(found[self.place()]) / len(found)

    def flips(self, claim: str) -> dict[str, dict[Any, str]]:
        """Returns the single changes of the stated universe that change an outcome: choice → option → outcome."""
        found: dict[str, dict[Any, str]] = {}
        for name, options in self.choices.items():
            for option in options:
                outcome = self.outcome(claim, **{name: option})
                if outcome != self.outcome(claim):
                    found.setdefault(name, {})[option] = outcome
        return found


def multiverse(*, fewest: int, levels: str, effects: str) -> dict[str, Any]:
    """Computes the outcome of each published accuracy and of each registered contrast with all combinations of choices.

    Runs are the first ones in the order of their seeds. At the learning rates that are best over all runs, some
    contrasts have fewer pairs than realisations are asked for: they are judged by those that they have.

    Args:
        fewest: the smallest number of seeds or realisations.
        levels: confidence levels in percent, separated by commas; that of the rules among them.
        effects: smallest effects of interest in percentage points, separated by commas; that of the study among them.

    Returns:
        For each of `GROUPS` "choices", "stated" and "outcomes" as in `Multiverse`. For "contrasts" also "pairs": the
        learning rates → contrast → how many pairs there are.

    Raises:
        ConfigurationError: if a parameter breaks its rule, or a run of the paper's models has no record.
        RecordError: if a record is damaged.
    """
    if not 2 <= fewest <= REALISATIONS:
        raise ConfigurationError(f"fewest must be from 2 to {REALISATIONS}. Received: fewest={fewest}")
    percent = _numbers("levels", levels, 100 * CONFIDENCE, below=100)
    smallest = _numbers("effects", effects, study.SMALLEST)
    return {"accuracies": _accuracies(fewest, percent), "contrasts": _contrasts(fewest, percent, smallest)}


def multiverses(results: Mapping[str, Any]) -> dict[str, Multiverse]:
    """Returns the outcomes of each of `GROUPS`.

    Args:
        results: as `multiverse` returns them.
    """
    return {
        group: Multiverse(found["choices"], found["stated"], found["outcomes"])
        for group in GROUPS
        for found in (results[group],)
    }


def told(found: Multiverse) -> str:
    """Returns in words which outcomes no single change of a choice alters, and which choices alter the others."""
    flips = {claim: list(found.flips(claim)) for claim in found.outcomes}
    robust = [f"{claim} ({found.outcome(claim)})" for claim, choices in flips.items() if not choices]
    sentences = [
        f"Whatever single choice is changed, {len(robust)} of {len(flips)} outcomes stay: {'; '.join(robust)}."
        if robust
        else f"A single change of a choice can alter each of {len(flips)} outcomes."
    ]
    for by, several in (("One choice alone", False), ("Each of several choices", True)):
        altered = {claim: choices for claim, choices in flips.items() if choices and (len(choices) > 1) is several}
        if altered:
            claims = "; ".join(f"{claim} ({', '.join(choices)})" for claim, choices in altered.items())
            sentences.append(f"{by} can alter {len(altered)}: {claims}.")
    return " ".join(sentences)


def altered_by(found: Multiverse) -> dict[str, int]:
    """Returns how many outcomes a change of each choice alone can alter, the highest number first."""
    counts = {name: sum(name in found.flips(claim) for claim in found.outcomes) for name in found.choices}
    return dict(sorted(counts.items(), key=lambda each: -each[1]))


def option(choice: str, value: Any) -> str:
    """Returns what an option of a choice is called, with its unit."""
    text = value if isinstance(value, str) else f"{value:g}"
    return text + {"level": "%", "smallest effect": " points"}.get(choice, "")


def _numbers(name: str, text: str, stated: float, below: float = math.inf) -> list[float]:
    rule = f"{name} must be increasing numbers above 0{f' and below {below:g}' if below < math.inf else ''}, "
    rule += f"separated by commas, {stated:g} among them. Received: {name}={text!r}"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(rule) from None
    if not (stated in numbers and numbers == sorted(set(numbers)) and numbers[0] > 0 and numbers[-1] < below):
        raise ConfigurationError(rule)
    return numbers


def _accuracies(fewest: int, levels: Sequence[float]) -> dict[str, Any]:
    runs = {model: [_seed(run) for run in seeds_of(model)] for model in published.ACCURACY}
    compared = published_and_ours(runs)
    most = min(map(len, runs.values()))

    def judge(rule: str, scale: str, interval: str, level: float, seeds: int, correction: str) -> list[str]:
        choices = Choices(rule == _AMENDED, scale == _LOGIT, interval == _ONE_MORE, level / 100, correction == _HOLM)
        several = [(ours[:seeds], images, theirs) for ours, images, theirs in compared.values()]
        return [each.outcome for each in agreements(several, choices)]

    choices = {
        "rule": (_AMENDED, "first"),
        "scale": (_LOGIT, "linear"),
        "interval": (_ONE_MORE, "confidence"),
        "level": levels,
        "number of seeds": range(fewest, most + 1),
        "correction": (_HOLM, "none"),
    }
    stated = (_AMENDED, _LOGIT, _ONE_MORE, 100 * CONFIDENCE, most, _HOLM)
    claims = [f"{MODELS[model]}, {kind} digits" for model, kind in compared]
    return _all(claims, choices, stated, judge)


def _contrasts(fewest: int, levels: Sequence[float], effects: Sequence[float]) -> dict[str, Any]:
    compared_runs = [STUDY[name] for pair in study.PRIMARY.values() for name in pair]
    for run in dict.fromkeys([*compared_runs, *(run for rates in RETUNED.values() for run in rates.values())]):
        for seed in run.seeds:
            _noted(run.seeded(seed))
    by_rates = {_CHOSEN: study.compared(study.recorded_runs()), _BEST: study.at_best_rates()[1]}
    pairs = {
        rates: {name: len(each.numbers) for name, each in compared.items()} for rates, compared in by_rates.items()
    }
    if min(min(each.values()) for each in pairs.values()) < 2:
        raise ConfigurationError(
            f"every contrast must have at least two pairs at all learning rates. Received: {pairs}"
        )

    def judge(rates: str, level: float, realisations: int, correction: str, smallest: float) -> list[str]:
        differences = [each.differences[:realisations] for each in by_rates[rates].values()]
        several = [(each, [0.0] * len(each)) for each in differences]
        judged = contrasts(several, smallest, confidence=level / 100, corrected=correction == _HOLM)
        return [each.verdict for each in judged]

    choices = {
        "learning rates": tuple(by_rates),
        "level": levels,
        "number of realisations": range(fewest, REALISATIONS + 1),
        "correction": (_HOLM, "none"),
        "smallest effect": effects,
    }
    stated = (_CHOSEN, 100 * CONFIDENCE, REALISATIONS, _HOLM, study.SMALLEST)
    return {**_all(list(study.PRIMARY), choices, stated, judge), "pairs": pairs}


def _seed(run: Run) -> Record:
    record = _noted(run)
    if record is None:
        raise ConfigurationError(records.missing(run))
    return record


def _noted(run: Run) -> Record | None:
    """Returns the record of a run, and notes the digest of its weights, or that there is none."""
    record = records.read(run)
    reading.note_weights(run.name, record.provenance.weights if record else "")
    return record


def _all(
    claims: Sequence[str],
    choices: Mapping[str, Sequence[Any]],
    stated: Sequence[Any],
    judge: Callable[..., list[str]],
) -> dict[str, Any]:
    judged = [judge(*universe) for universe in itertools.product(*choices.values())]
    by_claim = zip(*judged, strict=True)
    return {
        "choices": {name: list(options) for name, options in choices.items()},
        "stated": dict(zip(choices, stated, strict=True)),
        "outcomes": {
            claim: "".join(_SHORT[outcome] for outcome in outcomes)
            for claim, outcomes in zip(claims, by_claim, strict=True)
        },
    }
