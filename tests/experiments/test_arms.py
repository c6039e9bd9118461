"""The arms of the study: each differs from the paper's network in one thing."""

import keras
import numpy as np
import pytest

from dcn.layers import DeformableConv2D
from dcn_study.experiments import arms as experiment
from dcn_study.experiments.arms import arms_named, step_memory_here
from dcn_study.names import ARMS
from dcn_study.runs import arms, catalogue, measurements, networks
from dcn_study.runs.splits import splits
from dcn_study.show import tables

SIZE = (12, 10)


def built(arm, seed=3):
    keras.utils.set_random_seed(seed)
    return networks.build_model(catalogue.STUDY[f"scale_{arm}"].config, SIZE)


def weights(model):
    return {weight.path.removeprefix(f"{model.name}/"): np.asarray(weight) for weight in model.weights}


@pytest.fixture(scope="module")
def regular():
    return weights(built("cnn"))


MOVING = ("deform_conv_cnn", "modulated_cnn", "shared_offsets_cnn", "transformer_cnn")


@pytest.mark.parametrize("arm", ["dilated_cnn", "conv_offset_cnn", *MOVING])
def test_an_arm_starts_from_the_weights_of_the_cnn(regular, arm):
    found = weights(built(arm))
    for name, value in regular.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("arm", [*MOVING, "deform_conv_mini_resnet"])
def test_an_arm_that_moves_its_samples_starts_as_its_regular_network(random, arm):
    images = random.uniform(size=(3, *SIZE, 1)).astype("float32")
    model, regular = built(arm), built("mini_resnet" if "resnet" in arm else "cnn")
    np.testing.assert_allclose(model(images), regular(images), atol=1e-6)
    deformable = [layer for layer in model.layers if isinstance(layer, DeformableConv2D)]
    assert len(deformable) == {"transformer_cnn": 0, "deform_conv_mini_resnet": 4}.get(arm, 3)


def test_only_the_convolution_without_stride_is_dilated():
    rates = [layer.dilation_rate for layer in built("dilated_cnn").layers if isinstance(layer, keras.layers.Conv2D)]
    assert rates == [(1, 1), (1, 1), (2, 2), (1, 1)]


def test_the_wide_network_has_as_many_multiply_adds_and_no_arm_too_many_parameters():
    costs = {}
    for arm in ARMS:
        model = networks.build_model(catalogue.arm_config(arm))
        assert model.count_params() <= 500_000 or arm == "conv_offset_cnn", arm  # the paper's own layer takes more
        kernels = [
            (layer, getattr(layer, name))
            for layer in model.layers
            for name in ("kernel", "offset_kernel")
            if isinstance(layer, keras.layers.Conv2D) and hasattr(layer, name)
        ]
        costs[arm] = sum(np.prod(layer.output.shape[1:3]) * np.prod(kernel.shape) for layer, kernel in kernels)
    assert costs["wide_cnn"] == pytest.approx(costs["deform_conv_cnn"], rel=0.01)
    assert costs["wider_cnn"] > 2 * costs["deform_conv_cnn"]


def test_the_antialiased_network_has_the_weights_of_the_cnn_and_filters_before_each_stride(regular):
    keras.utils.set_random_seed(3)
    model = arms.antialiased_cnn((*SIZE, 1))
    found = weights(model)
    assert set(found) == set(regular)
    for name, value in regular.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    strides = [layer.strides for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert strides == [(1, 1)] * 4
    assert model.get_layer("conv22_bn").output.shape == built("cnn").get_layer("conv22_bn").output.shape


def test_a_low_pass_filter_halves_the_sides(random, tmp_path):
    layer = arms.BlurPooling2D()
    images = random.uniform(size=(2, 5, 6, 3)).astype("float32")
    found = np.asarray(layer(images))
    assert found.shape == (2, 3, 3, 3) == layer.compute_output_shape(images.shape)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    taps = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = (padded[:, 2:5, 4:7] * taps[..., None]).sum(axis=(1, 2))
    np.testing.assert_allclose(found[:, 1, 2], expected, atol=1e-6)
    np.testing.assert_allclose(layer(np.ones((1, 4, 4, 1), "float32")), np.ones((1, 2, 2, 1)), atol=1e-6)
    model = keras.Sequential([keras.Input((5, 6, 3)), layer])
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(images), found)


def test_shared_offsets_learn_and_stay_shared(random, tmp_path):
    model = built("shared_offsets_cnn")
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    images = random.uniform(size=(8, *SIZE, 1)).astype("float32")
    model.fit(images, random.integers(10, size=8), epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        layer = each.get_layer("conv21")
        assert not layer.offset_kernel.trainable
        assert not np.any(layer.offset_kernel)
        assert np.any(layer.offset_bias)


def test_an_affine_map_moves_the_samples(random):
    images = random.uniform(size=(1, 5, 5, 2)).astype("float32")
    change = np.zeros((1, 6), "float32")
    np.testing.assert_allclose(arms.AffineSampling()([images, change]), images, atol=1e-6)
    change[0, 2] = 0.5  # of half a side, down: one pixel
    np.testing.assert_allclose(arms.AffineSampling()([images, change])[0, :4], images[0, 1:], atol=1e-6)
    change[0] = (-1, 1, 0, 1, -1, 0)  # y and x change places
    np.testing.assert_allclose(arms.AffineSampling()([images, change])[0], images[0].swapaxes(0, 1), atol=1e-6)


def test_the_learning_rate_falls_to_zero():
    run = catalogue.find_run("scale_cnn", epochs=2, train_size=300, validation_size=10, test_size=10)
    rate = networks.initial_model(splits(run.config), None).optimizer._learning_rate  # noqa: SLF001
    steps = 2 * 3  # of 128 images, the last one smaller
    assert [float(rate(step)) for step in (0, steps // 2, steps)] == pytest.approx(
        [run.config.learning_rate, run.config.learning_rate / 2, 0.0], abs=1e-9
    )


def test_costs_are_measured_once_and_kept(project, monkeypatch):
    parameters = {"arms": "cnn,dilated_cnn", "batch": 2, "repeats": 2, "threads": 0, "memory": True}
    monkeypatch.setattr(experiment, "peak_memory", lambda measure, arm, batch, threads: {"cnn": 7_000_000}.get(arm))
    measured = measurements.result("arms", parameters)
    assert measured.results["parameters"]["cnn"] == measured.results["parameters"]["dilated_cnn"]
    assert arms_named("all") == tuple(ARMS)
    table = tables.arms(measured)
    assert list(table.index) == [ARMS["cnn"], ARMS["dilated_cnn"]]
    assert table["ratio to the CNN"].iloc[0] == 1.0
    assert table["MB"].iloc[0] == 7.0
    assert np.isnan(table["MB"].iloc[1])


def test_the_memory_of_a_step_is_that_of_one_call(monkeypatch):
    calls = []
    monkeypatch.setattr(experiment, "peak_memory_here", lambda make: calls.append(make()()) or 7)
    assert step_memory_here("mini_resnet", 2, 0) == 7
    assert np.isfinite(calls).all()
