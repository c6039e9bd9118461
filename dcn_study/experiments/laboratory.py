"""What the networks of the laboratory answer, before their weights are made small for the browser."""

from __future__ import annotations

from typing import Any

import numpy as np

from dcn_study.experiments.mechanism import with_offsets
from dcn_study.experiments.presets import presets
from dcn_study.names import SHOWN
from dcn_study.runs import mnist_scale, networks, weights
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.data import load_digits
from dcn_study.runs.results import result
from dcn_study.runs.splits import splits

__all__ = ["answers"]

IMAGES = 1000  # that are classified, at most


def answers(
    *, scale: float, seed: int, epochs: int | None, train_size: int | None, test_size: int | None, data: str
) -> dict[str, Any]:
    """Classifies digits with the networks of `names.SHOWN`.

    Args:
        scale: of the digits of which a telling one is looked for: the first test image of each class.
        seed: of the runs, which are trained if they have no record.
        epochs: of the runs; None: their own.
        train_size: the same.
        test_size: the same.
        data: of the runs, see `data.load_digits`.

    Returns:
        "digit": the first class that both deformable networks recognise at this scale, and the CNN does not; 0 if there
        is none. "accuracies": by network, and "without" for that with true deformable convolutions whose offsets are
        zero, on the first "images" scaled and translated test images. "presets": see
        `presets.presets`.

    Raises:
        ConfigurationError: if a parameter breaks its rule.
        RecordError: if the weights of a run are missing or damaged.
    """
    changes = {"seed": seed, "epochs": epochs, "train_size": train_size, "test_size": test_size, "data": data}
    trained = {model: weights.load_model(result(find_run(run, **changes))) for model, run in SHOWN.items()}
    digits = load_digits(data)
    first = [int(np.flatnonzero(digits.y_test == label)[0]) for label in range(10)]
    small = mnist_scale.resample(digits.x_test[first], scale)[..., None].astype(np.float32) / 255
    right = {model: networks.classes(network, small) == digits.y_test[first] for model, network in trained.items()}
    telling = np.flatnonzero(~right["cnn"] & right["deformable_cnn"] & right["deform_conv_cnn"])
    without = with_offsets(trained["deform_conv_cnn"], lambda _, offsets: 0 * offsets)
    moved, labels = splits(find_run("cnn", **changes).config).test("scaled")
    return {
        "digit": int(telling[0]) if len(telling) else 0,
        "accuracies": {
            name: networks.score(network, moved[:IMAGES], labels[:IMAGES]).accuracy
            for name, network in {**trained, "without": without}.items()
        },
        "images": len(moved[:IMAGES]),
        "presets": presets(trained, digits.x_test[first], [int(label) for label in digits.y_test[first]]),
    }
