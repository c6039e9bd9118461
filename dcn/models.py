"""The paper's models. Layer names are the published ones: weights carry over between models by name."""

from __future__ import annotations

import keras
from keras import layers

from dcn.layers import ConvOffset2D

__all__ = ["cnn", "copy_weights_by_name", "deformable_cnn", "deformable_mini_resnet", "mini_resnet"]

# name, filters, strides; all 3x3, padding "same"
_CONVOLUTIONS = (("conv11", 32, 1), ("conv12", 64, 2), ("conv21", 128, 1), ("conv22", 128, 2))


def cnn(input_shape: tuple[int, int, int] = (28, 28, 1), *, classes: int = 10, trainable: bool = True) -> keras.Model:
    """The 4-layer convolutional network of the paper, its baseline.

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of classes.
        trainable: whether convolutions and the dense layer train. It does not reach the batch normalisation.

    Returns:
        A model from (B, height, width, channels) to class probabilities (B, classes).
    """
    return _four_layer_network("cnn", input_shape, classes, deformable=False, trainable=trainable)


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


def mini_resnet(
    input_shape: tuple[int, int, int] = (28, 28, 1), *, classes: int = 10, trainable: bool = True, chained: bool = False
) -> keras.Model:
    """The small residual network of the paper: a convolution, two residual blocks of 16 filters, a dense layer.

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of classes.
        trainable: whether the convolutions of the blocks train; all other layers do in either case.
        chained: whether the second half of a block continues the first, as the paper draws it. As published it starts
            from the block's input again: nothing reads what the first half computes, and Keras, which follows a model
            from its output backwards, leaves that half out.

    Returns:
        A model from (B, height, width, channels) to class probabilities (B, classes).
    """
    return _residual_network("mini_resnet", input_shape, classes, False, trainable, chained)


def deformable_mini_resnet(
    input_shape: tuple[int, int, int] = (28, 28, 1), *, classes: int = 10, trainable: bool = True, chained: bool = False
) -> keras.Model:
    """The same network with a `ConvOffset2D` before every convolution of the blocks; arguments as for `mini_resnet`."""
    return _residual_network("deformable_mini_resnet", input_shape, classes, True, trainable, chained)


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


def _residual_network(
    name: str, input_shape: tuple[int, int, int], classes: int, deformable: bool, trainable: bool, chained: bool
) -> keras.Model:
    inputs = keras.Input(input_shape, name="input")
    x = layers.Conv2D(16, 3, padding="same", name="c_in")(inputs)
    x = layers.BatchNormalization(name="bn_1")(x)
    x = layers.Activation("relu", name="relu_1")(x)
    for block in ("block1", "block2"):
        x = _residual_block(x, block, deformable, trainable, chained)
    x = layers.BatchNormalization(name="bn_2")(x)
    x = layers.Activation("relu", name="relu_2")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dense(classes, name="fc1")(x)
    return keras.Model(inputs, layers.Activation("softmax", name="output_layer")(x), name=name)


def _residual_block(
    inputs: keras.KerasTensor, name: str, deformable: bool, trainable: bool, chained: bool
) -> keras.KerasTensor:
    x = inputs
    for half in ("1", "2"):
        x = layers.BatchNormalization(name=f"{name}_bn{half}")(x if chained else inputs)
        x = layers.Activation("relu", name=f"{name}_relu{half}")(x)
        if deformable:
            x = ConvOffset2D(16, name=f"{name}_conv{half}_offset")(x)
        x = layers.Conv2D(16, 3, padding="same", trainable=trainable, name=f"{name}_conv{half}")(x)
    return layers.Add(name=f"{name}_add")([inputs, x])


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
