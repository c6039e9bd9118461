"""One check for every layer, after Keras' `run_layer_test`."""

import keras
import numpy as np
import tensorflow as tf


def check_layer(cls, arguments, inputs, folder, *, tolerance=1e-5):
    """Builds a layer, runs it eagerly, symbolically and in half precision, saves, reloads, clones and compares it.

    Args:
        cls: class of the layer.
        arguments: of the class.
        inputs: call argument → array.
        folder: for files.
        tolerance: largest absolute difference of two outputs in single precision.

    Returns:
        The layer, whose weights are random.
    """
    layer = cls(**arguments, name="layer")
    config = layer.get_config()
    assert set(arguments) <= set(config)
    assert cls.from_config(config).get_config() == config
    layer(**inputs)
    random = np.random.default_rng(1)
    layer.set_weights([random.normal(size=weight.shape) / 3 for weight in layer.weights])
    expected = layer(**inputs)
    given = _one_or_list(tf.constant(array) for array in inputs.values())
    assert expected.dtype == "float32"

    def check(model, weights=None):
        if weights is not None:
            model.load_weights(weights)
        np.testing.assert_allclose(model(given), expected, atol=tolerance)
        assert [weight.name for weight in model.trainable_weights] == [w.name for w in layer.trainable_weights]

    assert layer.compute_output_shape(*(array.shape for array in inputs.values())) == expected.shape
    for sizes in ("known", "unknown"):
        symbols = {
            name: keras.Input(
                [
                    *(None if sizes == "unknown" and array.ndim > 2 else size for size in array.shape[1:-1]),
                    *array.shape[1:][-1:],
                ],
                dtype=str(array.dtype),
                name=name,
            )
            for name, array in inputs.items()
        }
        model = keras.Model(_one_or_list(symbols.values()), layer(**symbols))
        check(model)
    assert model.output_shape[-1] == expected.shape[-1]
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    again = keras.models.load_model(folder / "model.keras")
    check(again)
    assert again.get_layer("layer").get_config() == layer.get_config()
    check(keras.models.clone_model(model), folder / "model.weights.h5")
    model.export(folder / "exported", verbose=False)
    served = tf.saved_model.load(folder / "exported")
    np.testing.assert_allclose(served.serve(given), expected, atol=tolerance)

    half = cls(**arguments, dtype="mixed_float16")
    half(**inputs)
    half.set_weights(layer.get_weights())
    outputs = half(**inputs)
    assert outputs.dtype == "float16"
    assert {weight.dtype for weight in half.weights} == {"float32"}
    assert np.mean(np.abs(tf.cast(outputs, "float32") - expected)) < 0.02 * np.mean(np.abs(expected))

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(**inputs) ** 2)
    gradients = tape.gradient(loss, [weight.value for weight in layer.trainable_weights])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    return layer


def _one_or_list(tensors):
    tensors = list(tensors)
    return tensors if len(tensors) > 1 else tensors[0]
