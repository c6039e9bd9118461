"""The paper's models, with the published layer names, by which weights are copied between models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import layers

from dcn.layers import ConvOffset2D, DeformableConv2D

__all__ = ["cnn", "copy_weights_by_name", "deform_conv_cnn", "deformable_cnn", "deformable_mini_resnet", "mini_resnet"]

# name, filters, strides; all 3x3, padding "same"
_CONVOLUTIONS = (("conv11", 32, 1), ("conv12", 64, 2), ("conv21", 128, 1), ("conv22", 128, 2))


def cnn(input_shape: tuple[int, int, int] = (28, 28, 1), *, classes: int = 10, trainable: bool = True) -> keras.Model:
    """The 4-layer convolutional network of the paper, its baseline.

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of classes.
        trainable: whether convolutions and the dense layer train. Batch normalisation does in either case.

    Returns:
        A model from (B, height, width, channels) to class probabilities (B, classes).
    """
    return _four_layer_network("cnn", input_shape, classes, trainable)


def deformable_cnn(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    *,
    classes: int = 10,
    trainable: bool = True,
    corners: str = "published",
    pairing: str = "published",
    offset_initializer: Any = "zeros",
) -> keras.Model:
    """The paper's 4-layer network with a `ConvOffset2D` before every convolution except the first.

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of classes.
        trainable: whether convolutions and the dense layer train. As published, batch normalisation
            and offset layers do in either case.
        corners: as for `ConvOffset2D`.
        pairing: as for `ConvOffset2D`.
        offset_initializer: initial value of the offset kernels, an argument of `keras.initializers.get` for each layer.

    Returns:
        A model from (B, height, width, channels) to class probabilities (B, classes).
    """
    offset = partial(ConvOffset2D, corners=corners, pairing=pairing, kernel_initializer=offset_initializer)
    return _four_layer_network("deformable_cnn", input_shape, classes, trainable, offset=offset)


def deform_conv_cnn(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    *,
    classes: int = 10,
    trainable: bool = True,
    modulated: bool = False,
) -> keras.Model:
    """The paper's 4-layer network with deformable convolutions in place of all convolutions except the first.

    The paper has no such model. Layer names and kernel shapes are those of `cnn`, so that its weights can be copied.

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of classes.
        trainable: whether kernels, biases and the dense layer train. Batch normalisation and offsets do in either case.
        modulated: as for `DeformableConv2D`.

    Returns:
        A model from (B, height, width, channels) to class probabilities (B, classes).
    """
    convolution = partial(DeformableConv2D, freeze_kernel=not trainable, modulated=modulated)
    return _four_layer_network("deform_conv_cnn", input_shape, classes, trainable, convolution=convolution)


def mini_resnet(
    input_shape: tuple[int, int, int] = (28, 28, 1), *, classes: int = 10, trainable: bool = True, chained: bool = False
) -> keras.Model:
    """The small residual network of the paper: a convolution, two residual blocks of 16 filters, a dense layer.

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of classes.
        trainable: whether the convolutions of the blocks train; all other layers do in either case.
        chained: whether the second half of a block continues the first, as the paper draws it. As published it starts
            from the block's input again: nothing uses the output of the first half, and Keras, which
            follows a model backwards from its output, omits that half.

    Returns:
        A model from (B, height, width, channels) to class probabilities (B, classes).
    """
    return _residual_network("mini_resnet", input_shape, classes, trainable, chained)


def deformable_mini_resnet(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    *,
    classes: int = 10,
    trainable: bool = True,
    chained: bool = False,
    corners: str = "published",
    pairing: str = "published",
    offset_initializer: Any = "zeros",
) -> keras.Model:
    """The paper's small residual network with a `ConvOffset2D` before every convolution of the blocks.

    Args:
        input_shape: (height, width, channels) of one image.
        classes: number of classes.
        trainable: whether the convolutions of the blocks train; all other layers do in either case.
        chained: as for `mini_resnet`.
        corners: as for `ConvOffset2D`.
        pairing: as for `ConvOffset2D`.
        offset_initializer: initial value of the offset kernels, an argument of `keras.initializers.get` for each layer.

    Returns:
        A model from (B, height, width, channels) to class probabilities (B, classes).
    """
    offset = partial(ConvOffset2D, corners=corners, pairing=pairing, kernel_initializer=offset_initializer)
    return _residual_network("deformable_mini_resnet", input_shape, classes, trainable, chained, offset=offset)


def _four_layer_network(
    name: str,
    input_shape: tuple[int, int, int],
    classes: int,
    trainable: bool,
    *,
    offset: Callable[..., keras.layers.Layer] | None = None,
    convolution: Callable[..., keras.layers.Layer] | None = None,
) -> keras.Model:
    """Builds the 4-layer network, with an `offset` before or a `convolution` for all convolutions except the first."""
    regular = partial(layers.Conv2D, trainable=trainable)
    inputs = x = keras.Input(input_shape, name="input")
    for index, (stage, filters, strides) in enumerate(_CONVOLUTIONS):
        if offset and index > 0:
            x = offset(x.shape[-1], name=f"{stage}_offset")(x)
        convolve = convolution if convolution and index > 0 else regular
        x = convolve(filters, 3, strides=strides, padding="same", name=stage)(x)
        x = layers.Activation("relu", name=f"{stage}_relu")(x)
        x = layers.BatchNormalization(name=f"{stage}_bn")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dense(classes, trainable=trainable, name="fc1")(x)
    return keras.Model(inputs, layers.Activation("softmax", name="out")(x), name=name)


def _residual_network(
    name: str,
    input_shape: tuple[int, int, int],
    classes: int,
    trainable: bool,
    chained: bool,
    *,
    offset: Callable[..., keras.layers.Layer] | None = None,
) -> keras.Model:
    inputs = keras.Input(input_shape, name="input")
    x = layers.Conv2D(16, 3, padding="same", name="c_in")(inputs)
    x = layers.BatchNormalization(name="bn_1")(x)
    x = layers.Activation("relu", name="relu_1")(x)
    for block in ("block1", "block2"):
        x = _residual_block(x, block, trainable, chained, offset)
    x = layers.BatchNormalization(name="bn_2")(x)
    x = layers.Activation("relu", name="relu_2")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dense(classes, name="fc1")(x)
    return keras.Model(inputs, layers.Activation("softmax", name="output_layer")(x), name=name)


def _residual_block(
    inputs: keras.KerasTensor,
    name: str,
    trainable: bool,
    chained: bool,
    offset: Callable[..., keras.layers.Layer] | None,
) -> keras.KerasTensor:
    x = inputs
    for half in ("1", "2"):
        x = layers.BatchNormalization(name=f"{name}_bn{half}")(x if chained else inputs)
        x = layers.Activation("relu", name=f"{name}_relu{half}")(x)
        if offset:
            x = offset(16, name=f"{name}_conv{half}_offset")(x)
        x = layers.Conv2D(16, 3, padding="same", trainable=trainable, name=f"{name}_conv{half}")(x)
    return layers.Add(name=f"{name}_add")([inputs, x])


def copy_weights_by_name(source: keras.Model, target: keras.Model) -> list[str]:
    """Copies weights from `source` to the layers of `target` that have the same name.

    Weights are told apart by their names within a layer, so that layers must not hold layers of their own.

    Args:
        source: the trained model.
        target: the model to fill. Layers without a counterpart keep their weights, and so do further weights of a
            layer, such as the offset kernel of a `DeformableConv2D` with a `Conv2D` as its counterpart.

    Returns:
        The names of the layers that were filled, in the order of `target`.

    Raises:
        ValueError: if no layer's name matches, or a layer's weights do not fit; then `target` is unchanged.
    """
    given = {layer.name: _weights_by_name(layer) for layer in source.layers if layer.weights}
    matched = [layer for layer in target.layers if layer.weights and layer.name in given]
    if not matched:
        raise ValueError(f"source and target must share layer names. Received: source layers {tuple(given)}")
    for layer in matched:
        wanted = {name: tuple(weight.shape) for name, weight in _weights_by_name(layer).items()}
        found = {name: tuple(weight.shape) for name, weight in given[layer.name].items()}
        if not found.items() <= wanted.items():
            raise ValueError(
                f"layers of one name must have weights of one shape. Received: {layer.name} with {found} in "
                f"source and {wanted} in target"
            )
    for layer in matched:
        filled = _weights_by_name(layer)
        for name, weight in given[layer.name].items():
            filled[name].assign(weight)
    return [layer.name for layer in matched]


def _weights_by_name(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    return {weight.name: weight for weight in layer.weights}
