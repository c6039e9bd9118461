"""What the paper's claims are judged by: records, read when a claim first asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import h5py
import numpy as np

from dcn_study.errors import RecordError
from dcn_study.experiments import study, unseen
from dcn_study.experiments.agreement import Agreement, of_runs
from dcn_study.experiments.first_epoch import LEARNING
from dcn_study.experiments.statistics import Interval, interval, prediction
from dcn_study.experiments.study import Comparison
from dcn_study.names import TEST_IMAGES
from dcn_study.runs import measurements, published
from dcn_study.runs.catalogue import seeds_of
from dcn_study.runs.records import Record
from dcn_study.runs.results import result

__all__ = ["Evidence"]


class Evidence:
    """Records, and what several claims compute from them. Runs that are missing are trained.

    Args:
        seeds: of each model; by default as in the book.
        **changes: as for `find_run`.
    """

    def __init__(self, seeds: int | None = None, **changes: Any) -> None:
        self._seeds, self._changes = seeds, changes

    def _results(self, run: str, seeds: int | None) -> list[Record]:
        return [result(each) for each in seeds_of(run, seeds, **self._changes)]

    @cached_property
    def runs(self) -> Mapping[str, Sequence[Record]]:
        """The runs of the paper's models, in the order of their seeds."""
        return {model: self._results(model, self._seeds) for model in published.ACCURACY}

    @cached_property
    def controls(self) -> Mapping[str, Sequence[Record]]:
        """The runs that the paper's models are compared with."""
        found = {run: self._results(run, self._seeds) for run in ("cnn_scaled", *LEARNING)}
        return found | {run: self._results(run, 1) for run in ("cnn_batch_norm", "long_frozen_mini_resnet")}

    @cached_property
    def studied(self) -> Mapping[str, Mapping[int, Record]]:
        """The existing runs of the first registered study, by number of the realisation."""
        return study.recorded_runs()

    @cached_property
    def on_unseen_digits(self) -> Mapping[str, Comparison]:
        """The contrasts of the second registered study, whose networks trained on plain digits."""
        return unseen.compared(unseen.recorded_runs())

    @cached_property
    def accuracies(self) -> Mapping[str, Mapping[str, Agreement]]:
        """The published accuracies next to ours, judged together: model → kind of test images."""
        return of_runs(self.runs)

    @cached_property
    def gains(self) -> Mapping[tuple[str, str], Interval]:
        """Deformable minus regular network, in points and paired by seed, by deformable model and test images."""
        deformable = ("deformable_cnn", "deformable_mini_resnet")
        return {(model, kind): interval(self._pairs(model, kind)) for model in deformable for kind in TEST_IMAGES}

    def one_more_pair(self, model: str, kind: str) -> Interval:
        """Returns the difference of `gains` with the interval in which that of one more pair is expected, in points."""
        return prediction(self._pairs(model, kind))

    def _pairs(self, model: str, kind: str) -> np.ndarray:
        """Returns a deformable network's accuracies minus the regular one's, in points, by seed."""
        deformable, regular = (
            np.array([record.evaluations[kind].accuracy for record in self.runs[name]])
            for name in (model, model.removeprefix("deformable_"))
        )
        return 100 * (deformable - regular)

    @cached_property
    def offset_kernels(self) -> Sequence[np.ndarray]:
        """The offset kernels of all trained networks with the published layer."""
        found = (record for records in self.runs.values() for record in records)
        deformable = (record for record in found if record.config.model.startswith("deformable"))
        return [kernel for record in deformable for kernel in _offset_kernels(record)]

    @property
    def largest_kernel(self) -> float:
        """The largest absolute value in any of them."""
        return max(float(np.abs(kernel).max()) for kernel in self.offset_kernels)

    @cached_property
    def largest_gradient(self) -> float:
        """The same of their gradients in the first steps as published."""
        layers = measurements.result("offsets").results["traces"]["as published"]["layers"]
        return max(max(layer["gradient"]) for layer in layers.values())

    @property
    def nothing_deforms(self) -> bool:
        """Whether all offsets are zero and nothing would change that."""
        return self.largest_kernel == 0 and self.largest_gradient == 0


def _offset_kernels(record: Record) -> list[np.ndarray]:
    try:
        with h5py.File(record.weights_path) as file:
            layers = file["layers"].items()
            return [np.asarray(layer["vars"]["0"]) for name, layer in layers if name.startswith("conv_offset2d")]
    except OSError as error:
        raise RecordError(f"{record.weights_path} cannot be read: {error}") from error
