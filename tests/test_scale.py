import pytest

from dcn_study.errors import ConfigurationError
from dcn_study.experiments import scale
from dcn_study.show import tables

SMALL = {"workers": 2, "empty_jobs": 6, "sleeping_jobs": 4, "sleep": 0.05}


@pytest.mark.parametrize("name", SMALL)
def test_parameters_are_checked_first(project, name):
    with pytest.raises(ConfigurationError, match=f"{name} must be .* Received: {name}=0"):
        scale.scale(**{**SMALL, name: 0})


def test_clusters_grow_to_the_largest_and_sleep_most_of_the_time(project):
    measured = scale.scale(**SMALL)
    rows = measured.results["rows"]
    assert [row["workers"] for row in rows] == [1, 2]
    for row in rows:
        assert 0 < row["utilisation"] < 1
        assert row["milliseconds"] == pytest.approx(1000 * row["empty_seconds"] / 6)
        assert row["scheduler_bytes"] > 10_000_000
    assert list(tables.scale(measured).index) == [1, 2]
    assert scale.scale(**SMALL) == measured
