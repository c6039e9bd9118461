"""Wrong parameters of a measurement, or a missing record, are an error before any work."""

import pytest

from dcn_study.errors import ConfigurationError
from dcn_study.runs.measurements import MEASUREMENTS

# So small that without its check a measurement would soon end.
SMALL = {
    "arms": {"arms": "cnn", "batch": 2, "repeats": 2, "memory": False},
    "mechanism": {"digits": 2},
    "offsets": {"steps": 2},
    "regions": {"realisations": 1, "canvases": 2, "test_canvases": 2, "epochs": 1},
    "runtime": {"batches": "2", "sizes": "8", "batch": 2, "repeats": 2, "memory": False},
}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("arms", {"arms": "cnn,cmm"}, "arms must be 'all' or some of cnn,.*Received: arms='cnn,cmm'"),
        ("arms", {"batch": 0}, "batch must be at least 1"),
        ("arms", {"repeats": 0}, "repeats must be at least 1"),
        ("arms", {"threads": -1}, "threads must be at least 0"),
        ("mechanism", {"realisations": 7}, "realisations must be from 1 to 6"),
        ("mechanism", {"images": 0}, "images must be from 1 to 50000"),
        ("mechanism", {"occluded": 3}, "occluded must be from 0 to 2"),
        ("mechanism", {"occluded": 0}, "scale_cnn.json is missing. Train it with: dcn train scale_cnn"),
        ("multiverse", {"fewest": 1}, "fewest must be from 2 to 6. Received: fewest=1"),
        ("multiverse", {"levels": "90,99"}, "levels must be increasing .* below 100, .* 95 among them. Received"),
        ("multiverse", {"levels": "95,100"}, "levels must be .* Received"),
        ("multiverse", {"levels": "95,x"}, "levels must be"),
        ("multiverse", {"effects": "0.5,0.25"}, "effects must be increasing numbers above 0, .* 0.25 among them"),
        ("multiverse", {}, "cnn.json is missing. Train it with: dcn train cnn"),
        ("offsets", {"steps": 0}, "steps must be from 1 to 1875. Received: steps=0"),
        ("offsets", {"steps": 1876}, "steps must be from 1 to 1875"),
        ("offsets", {"run": "cnn"}, "offset_stddev must be 0.0 for model cnn, which has no ConvOffset2D"),
        ("offsets", {"run": "dnn"}, "run must be one of"),
        *(
            ("regions", {name: 0}, f"{name} must be from 1 to 100000. Received: {name}=0")
            for name in ("realisations", "canvases", "test_canvases", "epochs")
        ),
        ("robustness", {"zooms": 0}, "zooms must be from 1 to 100. Received: zooms=0"),
        ("robustness", {"shifts": 101}, "shifts must be from 1 to 100"),
        ("robustness", {"images": 10_001}, "images must be from 1 to 10000"),
        ("robustness", {}, "cnn.json is missing"),
        ("runtime", {"batches": "1,none"}, "batches must be positive integers .* commas. Received: batches='1,none'"),
        ("runtime", {"sizes": "0"}, "sizes must be positive integers"),
        ("runtime", {"batch": 0}, "batch must be at least 1. Received: batch=0"),
        ("runtime", {"repeats": 0}, "repeats must be at least 1"),
        ("runtime", {"threads": -1}, "threads must be at least 0"),
        ("runtime", {"device": "/TPU:7"}, "device must be one of CPU:0.*Received: device='/TPU:7'"),
        ("sensitivity", {"draws": 0}, "draws must be at least 1. Received: draws=0"),
        ("sensitivity", {"images": 10_001}, "images must be from 1 to 10000. Received: images=10001"),
        ("sensitivity", {}, "cnn.json is missing. Train it with: dcn train cnn"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(project, name, changes, message):
    declared = MEASUREMENTS[name]
    with pytest.raises(ConfigurationError, match=message):
        declared.measure({**declared.parameters, **SMALL.get(name, {}), **changes})
