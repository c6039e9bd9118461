"""Whether a run and its stand-in have the same numbers in every epoch that both have."""

from __future__ import annotations

from dcn_study.runs.records import Record

__all__ = ["same_epochs"]

NUMBERS = ("loss", "accuracy", "validation_loss", "validation_accuracy")


def same_epochs(run: Record, stand_in: Record) -> tuple[int, int]:
    """Returns how many epochs have the same losses and accuracies to full precision, and how many both runs have."""
    both = list(zip(run.history, stand_in.history, strict=False))
    return sum(all(getattr(one, name) == getattr(other, name) for name in NUMBERS) for one, other in both), len(both)
