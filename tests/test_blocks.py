import numpy as np

from dcn_study.experiments import blocks
from dcn_study.show import figures


def test_as_coded_the_first_convolution_is_dead():
    found = blocks.disturb(0.1, seed=3)
    assert list(found) == [(form, name) for form in ("as coded", "as drawn") for name in ("first", "second")]
    dead = found.pop(("as coded", "first"))
    assert (dead["changed"], dead["gradient"]) == (0, None)
    assert not dead["change"].any()
    for alive in found.values():
        assert alive["changed"] > 0.99
        assert alive["gradient"] > 0
    assert len(figures.block_changes({**found, ("as coded", "first"): dead})) == 4


def test_a_disturbance_of_zero_changes_nothing():
    for effect in blocks.disturb(0.0, seed=0).values():
        np.testing.assert_array_equal(effect["change"], 0)
