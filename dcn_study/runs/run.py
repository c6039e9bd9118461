"""A training run: its configuration, the name by which it is kept, and where."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dcn_study.runs.configuration import RunConfig
from dcn_study.runs.files import project_root

__all__ = ["ANY_SEED", "CHECKPOINT", "Run"]

ANY_SEED = range(2**32)
CHECKPOINT = "state.json"  # the file of a checkpoint that is written last


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        config: what is trained, and how.
        entry: its name in the catalogue; empty for a configuration that the catalogue does not have.
        first: the seed whose record has this name. That of another one has `-seed<n>` appended.
        seeds: those that the book shows, those of the stand-in included.
        kept: those whose weights must be there. A run without its weights can be replayed, but not evaluated again.
        stand_in: name of a cheaper run with the same results, and the seed from which on it replaces this one. A test
            compares both bit by bit.
    """

    config: RunConfig
    entry: str = ""
    first: int = 0
    seeds: Sequence[int] = ()
    kept: Sequence[int] = ANY_SEED
    stand_in: tuple[str, int] | None = None

    @property
    def seed(self) -> int:
        return self.config.seed

    @cached_property
    def name(self) -> str:
        """The name of its record, one for each configuration.

        Without an entry in the catalogue this is the model's name and eight digits of a hash of the fields that are not
        at their default, so that a new field with a default does not rename earlier runs.
        """
        if self.entry:
            return self.entry if self.seed == self.first else f"{self.entry}-seed{self.seed}"
        defaults = {field.name: field.default for field in dataclasses.fields(self.config)}
        changed = {name: value for name, value in self.config.to_dict().items() if value != defaults[name]}
        text = json.dumps(changed, sort_keys=True)
        return f"{self.config.model}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def in_book(self) -> bool:
        """Whether the book shows it, with this seed."""
        return self.seed in self.seeds and (self.stand_in is None or self.seed < self.stand_in[1])

    @property
    def keeps_weights(self) -> bool:
        """Whether its weights must be there."""
        return self.seed in self.kept

    @property
    def folder(self) -> str:
        """Where its record is, in the project: in `book/records` if the book shows it, otherwise in `runs`."""
        return "book/records" if self.in_book else "runs"

    @property
    def path(self) -> Path:
        """The file of its record."""
        return project_root() / self.folder / f"{self.name}.json"

    @property
    def checkpoint(self) -> Path:
        """The folder of its checkpoint, until it is finished."""
        return project_root() / "checkpoints" / self.name

    @property
    def lock(self) -> Path:
        """The file that is locked while it is trained."""
        return self.checkpoint.with_name(f"{self.name}.lock")

    @property
    def interrupted(self) -> bool:
        """Whether a checkpoint waits to be resumed."""
        return (self.checkpoint / CHECKPOINT).is_file()

    @property
    def how_to_train(self) -> str:
        """The command that trains it, as advice."""
        return f"Train it with: dcn train {self.name}" if self.entry else "Run its page by itself first"

    @property
    def how_to_restart(self) -> str:
        """The command that trains it from nothing, as advice."""
        return f"Train from nothing with: {f'dcn train --force {self.name}' if self.entry else 'dcn run, with --force'}"

    def seeded(self, seed: int) -> Run:
        """Returns the same run with another seed."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, seed=seed))

    def changed(self, **changes: Any) -> Run:
        """Returns the run with some fields of its configuration changed.

        It is in the catalogue as long as at most its seed differs.

        Raises:
            ConfigurationError: if a value breaks its rule.
        """
        config = dataclasses.replace(self.config, **changes)
        if dataclasses.replace(config, seed=self.seed) != self.config:
            return Run(config)
        return dataclasses.replace(self, config=config)
