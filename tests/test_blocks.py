import numpy as np

from dcn_study.experiments import blocks


def test_as_coded_the_first_convolution_is_dead():
    found = blocks.disturb(0.1, seed=3)
    assert [(form, list(by_name)) for form, by_name in found.items()] == [
        (form, ["first", "second"]) for form in ("as coded", "as drawn")
    ]
    dead = found["as coded"].pop("first")
    assert (dead["changed"], dead["gradient"]) == (0, None)
    assert not np.any(dead["change"])
    for by_name in found.values():
        for alive in by_name.values():
            assert alive["changed"] > 0.99
            assert alive["gradient"] > 0


def test_a_disturbance_of_zero_changes_nothing():
    for by_name in blocks.disturb(0.0, seed=0).values():
        for effect in by_name.values():
            np.testing.assert_array_equal(effect["change"], 0)
