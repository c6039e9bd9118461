import base64
import json
import re

import numpy as np
import pytest
from helpers import keep

from dcn import models
from dcn_study.experiments import robustness
from dcn_study.runs import weights
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.data import load_digits
from dcn_study.runs.published import ACCURACY
from dcn_study.show import figures, robustness_map


@pytest.fixture
def measured(project, monkeypatch):
    for model in ACCURACY:
        keep(find_run(model))
    monkeypatch.setattr(weights, "load_model", lambda record: models.mini_resnet())
    return robustness.robustness(zooms=2, shifts=3, images=10)


def test_the_grid_covers_the_zooms_of_training_and_more_than_its_shifts(measured):
    assert measured["zooms"] == [1.0, 2.5]
    assert measured["shifts"] == [-8.0, 0.0, 8.0]
    for rows in measured["accuracies"].values():
        assert np.shape(rows) == (2, 3)
        assert 0 <= np.min(rows) <= np.max(rows) <= 1
    assert len(figures.robustness(measured)) == len(ACCURACY)


def test_the_map_holds_all_that_it_shows(measured):
    html = robustness_map.interactive_map(measured, digit=3)
    assert not re.search(r"https?://|src=", html)
    data = json.loads(re.search(r"const data = (.*);", html)[1])
    assert data["accuracies"] == measured["accuracies"]
    assert set(data["names"]) == set(ACCURACY)
    plain = load_digits().x_test[3]
    assert base64.b64decode(data["digits"][0][1]) == plain.tobytes()
    assert len({digit for row in data["digits"] for digit in row}) == 6
    # A positive shift moves the digit to the right, a zoom shrinks it.
    digits = [
        [np.frombuffer(base64.b64decode(digit), np.uint8).reshape(28, 28) for digit in row] for row in data["digits"]
    ]
    left, middle, right = ((digit.sum(axis=0) @ np.arange(28)) / digit.sum() for digit in digits[0])
    assert left < middle < right
    assert digits[1][1].sum() < 0.5 * digits[0][1].sum()
