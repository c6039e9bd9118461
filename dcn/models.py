"""The paper's models. Layer names are the published ones: weights carry over between models by name."""

from __future__ import annotations

import keras
from keras import layers

from dcn.layers import ConvOffset2D

__all__ = ["cnn", "copy_weights_by_name", "deformable_cnn"]

# name, filters, strides; all 3x3, padding "same"
_CONVOLUTIONS = (("conv11", 32, 1), ("conv12", 64, 2), ("conv21", 128, 1), ("conv22", 128, 2))


def cnn(input_shape: tuple[int, int, int] = (28, 28, 1), *, classes: int = 10) -> keras.Model:
    """The 4-layer convolutional network of the paper, its baseline.

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of classes.

    Returns:
        A model from (B, height, width, channels) to class probabilities (B, classes).
    """
    return _four_layer_network("cnn", input_shape, classes, deformable=False, trainable=True)


def deformable_cnn(
    input_shape: tuple[int, int, int] = (28, 28, 1), *, classes: int = 10, trainable: bool = True
) -> keras.Model:
    """The same network with a `ConvOffset2D` before every convolution but the first.

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of classes.
        trainable: whether convolutions and the dense layer train. As published, it does not reach the batch
            normalisation and the offset layers: those train in either case.

    Returns:
        A model from (B, height, width, channels) to class probabilities (B, classes).
    """
    return _four_layer_network("deformable_cnn", input_shape, classes, deformable=True, trainable=trainable)


def _four_layer_network(
    name: str, input_shape: tuple[int, int, int], classes: int, *, deformable: bool, trainable: bool
) -> keras.Model:
    inputs = x = keras.Input(input_shape, name="input")
    for index, (convolution, filters, strides) in enumerate(_CONVOLUTIONS):
        if deformable and index > 0:
            x = ConvOffset2D(x.shape[-1], name=f"{convolution}_offset")(x)
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", trainable=trainable, name=convolution)(x)
        x = layers.Activation("relu", name=f"{convolution}_relu")(x)
        x = layers.BatchNormalization(name=f"{convolution}_bn")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dense(classes, trainable=trainable, name="fc1")(x)
    return keras.Model(inputs, layers.Activation("softmax", name="out")(x), name=name)


def copy_weights_by_name(source: keras.Model, target: keras.Model) -> list[str]:
    """Copies the weights of every layer of `target` whose name `source` has too.

    Args:
        source: the trained model.
        target: the model to fill; layers without a counterpart keep their weights.

    Returns:
        The names of the layers that were filled, in the order of `target`.

    Raises:
        ValueError: if no name matches, or the shapes of a layer differ; then `target` is unchanged.
    """
    given = {layer.name: layer.get_weights() for layer in source.layers if layer.weights}
    matched = [layer for layer in target.layers if layer.weights and layer.name in given]
    if not matched:
        raise ValueError(f"source and target must share layer names. Received: source layers {tuple(given)}")
    for layer in matched:
        wanted = [tuple(weight.shape) for weight in layer.weights]
        found = [weight.shape for weight in given[layer.name]]
        if wanted != found:
            raise ValueError(
                f"layers of one name must have weights of one shape. Received: {layer.name} with {found} in "
                f"source and {wanted} in target"
            )
    for layer in matched:
        layer.set_weights(given[layer.name])
    return [layer.name for layer in matched]
