"""RoI pooling at work: the images, the boxes, and the two networks that are compared."""

import keras
import numpy as np
import pytest

from dcn.ops import deform_roi_pool
from dcn_study.experiments import regions
from dcn_study.show import figures, tables

SIZES = {"realisations": 2, "canvases": 3, "test_canvases": 2, "epochs": 1}


@pytest.fixture(scope="module")
def canvases():
    return regions.draw_canvases(0, 12, "train")


def test_canvases_hold_separate_digits_in_tight_boxes(canvases):
    assert canvases.images.shape == (12, 60, 60, 1)
    assert 0 <= canvases.images.min() < canvases.images.max() == 1
    for number in range(12):
        boxes = canvases.boxes[canvases.indices == number]
        assert 2 <= len(boxes) <= 4
        covered = np.zeros((60, 60), int)
        for y1, x1, y2, x2 in boxes.astype(int):
            covered[y1:y2, x1:x2] += 1
            for edge in (np.s_[y1, x1:x2], np.s_[y2 - 1, x1:x2], np.s_[y1:y2, x1], np.s_[y1:y2, x2 - 1]):
                assert canvases.images[number, ..., 0][edge].max() > 0.25
        assert covered.max() == 1


def test_canvases_depend_on_number_and_part_alone(canvases):
    again = regions.draw_canvases(0, 12, "train")
    np.testing.assert_array_equal(again.images, canvases.images)
    np.testing.assert_array_equal(again.labels, canvases.labels)
    for other in (regions.draw_canvases(1, 12, "train"), regions.draw_canvases(0, 12, "test")):
        assert not np.array_equal(other.images, canvases.images)


def test_a_part_keeps_boxes_with_their_images(canvases):
    part = canvases.part(np.array([7, 2]))
    np.testing.assert_array_equal(part.images, canvases.images[[7, 2]])
    for new, old in ((0, 7), (1, 2)):
        np.testing.assert_array_equal(part.boxes[part.indices == new], canvases.boxes[canvases.indices == old])
        np.testing.assert_array_equal(part.labels[part.indices == new], canvases.labels[canvases.indices == old])


def test_edges_move_by_their_share_of_the_side_at_most(canvases):
    np.testing.assert_array_equal(regions.jittered(canvases, 0.0, (1,)), canvases.boxes)
    sides = np.tile(canvases.boxes[:, 2:] - canvases.boxes[:, :2], 2)
    moves = np.abs(regions.jittered(canvases, 0.3, (1,)) - canvases.boxes) / sides
    assert 0.25 < moves.max() <= 0.3 + 1e-6


def test_both_poolings_start_as_average_pooling(canvases):
    def built(deformable):
        keras.utils.set_random_seed(5)
        model = regions.RegionClassifier(deformable=deformable)
        return model, np.asarray(model(canvases.images, canvases.boxes, canvases.indices))

    (average, first), (_, second) = built(False), built(True)
    np.testing.assert_array_equal(first, second)
    pooled = deform_roi_pool(
        average.features(canvases.images),
        canvases.boxes,
        canvases.indices,
        output_size=regions.BINS,
        spatial_scale=0.5,
        sampling_ratio=2,
    )
    np.testing.assert_allclose(average.classifier(pooled), first, atol=1e-6)


def test_the_measurement(project):
    found = regions.regions(**SIZES)
    assert set(found["accuracies"]) == {"average", "deformable"}
    for by_jitter in found["accuracies"].values():
        assert list(by_jitter) == ["0.0", "0.1", "0.2", "0.3"]
        assert all(len(values) == 2 and 0 <= min(values) <= max(values) <= 1 for values in by_jitter.values())
    assert all(value > 0 for values in found["displacements"].values() for value in values)  # one step has moved them
    test = regions.draw_canvases(0, 2, "test")
    np.testing.assert_allclose(found["boxes"], regions.jittered(test, 0.3, (0, 2)))
    assert np.shape(found["bins"]) == (len(test.boxes), regions.BINS, regions.BINS, 2)
    drawn = figures.moved_bins(test.images[..., 0], np.array(found["boxes"]), test.indices, np.array(found["bins"]))
    assert sum(len(ax.patches) for ax in drawn) == len(test.boxes)
    table = tables.regions(found["accuracies"], 0.5)
    assert list(table.index) == ["0%", "10%", "20%", "30%"]
    difference = np.subtract(found["accuracies"]["deformable"]["0.1"], found["accuracies"]["average"]["0.1"])
    assert table.loc["10%", "difference"] == pytest.approx(100 * difference.mean())


def test_a_network_learns(project):
    training = regions.draw_canvases(3, 64, "train")
    found = regions.regions(realisations=1, canvases=64, test_canvases=30, epochs=12)
    assert len(training.labels) > 128
    assert found["accuracies"]["deformable"]["0.0"][0] > 0.2
