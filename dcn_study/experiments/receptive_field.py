"""Which pixels of an image one output of a layer of a trained network depends on.

Three answers: the points that the layers' offsets place, followed back to the image; the gradient of the output with
respect to the image; and how much the output changes where the image is occluded. Sampling points alone mislead: a
point may be reached on paths that carry next to nothing.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from dcn import diagnostics
from dcn.layers import ConvOffset2D, DeformableConv2D
from dcn_study.errors import ConfigurationError
from dcn_study.names import SHOWN, SHOWN_LAYERS
from dcn_study.runs import weights
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.effective_field import gradient_field, middle_of
from dcn_study.runs.results import result
from dcn_study.runs.splits import splits

__all__ = ["centre_of", "fields", "largest_offset", "occlusion_field", "points_at", "sampling_points"]

IMAGES = 50  # over which a field by gradients is taken
OFFSET_IMAGES = 500  # for which the largest offset is looked for


def fields(
    *,
    digit: int,
    occluded: int,
    seed: int,
    epochs: int | None,
    train_size: int | None,
    test_size: int | None,
    data: str,
) -> dict[str, Any]:
    """Returns where the networks of `names.SHOWN` read, on scaled and translated test images.

    Args:
        digit: index of the test image whose points are followed.
        occluded: how many images are occluded, from the first.
        seed: of the runs, which are trained if they have no record.
        epochs: of the runs; None: their own.
        train_size: the same.
        test_size: the same.
        data: of the runs, see `data.load_digits`.

    Returns:
        "points": by network and layer of `names.SHOWN_LAYERS`, the points of the image that the output in the middle of
        the digit depends on, and their paths, see `sampling_points`. "largest": by deformable network the largest
        absolute offset in pixels. "fields": of the last layer, by network and way ("gradient", "occlusion"), see
        `effective_field.gradient_field` and `occlusion_field`, rounded to seven digits. "images": how many the former
        is taken over.

    Raises:
        ConfigurationError: if a parameter breaks its rule.
        RecordError: if the weights of a run are missing or damaged.
    """
    changes = {"seed": seed, "epochs": epochs, "train_size": train_size, "test_size": test_size, "data": data}
    recorded = {model: result(find_run(run, **changes)) for model, run in SHOWN.items()}
    images, _ = splits(recorded["cnn"].config).test("scaled")
    for name, value in (("digit", digit), ("occluded", occluded - 1)):
        if not value < len(images):
            raise ConfigurationError(f"{name} must be within the {len(images)} test images. Received: {name}={value}")
    trained = {model: weights.load_model(record) for model, record in recorded.items()}
    centre, last = centre_of(images[digit, ..., 0]), SHOWN_LAYERS[-1]
    found = {
        model: {
            "gradient": gradient_field(trained[model], images[:IMAGES], last),
            "occlusion": occlusion_field(trained[model], images[:occluded], last),
        }
        for model in ("cnn", "deform_conv_cnn")
    }
    return {
        "points": {
            model: {
                layer: [each.tolist() for each in points_at(network, images[digit], layer, centre)]
                for layer in SHOWN_LAYERS
            }
            for model, network in trained.items()
        },
        "largest": {
            model: largest_offset(trained[model], images[:OFFSET_IMAGES])
            for model in ("deformable_cnn", "deform_conv_cnn")
        },
        "fields": {
            model: {way: np.round(field, 7).tolist() for way, field in by_way.items()}
            for model, by_way in found.items()
        },
        "images": len(images[:IMAGES]),
    }


def sampling_points(
    model: keras.Model, image: np.ndarray, layer: str, position: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the points of the image that one output of a layer depends on, as the layers' offsets place them.

    Goes back from the layer to the image: a kernel reads 3x3 points of its input, each moved by the offset that the
    layer predicts for this image. A point between pixels of a feature map is followed from the nearest pixel on.

    Args:
        model: a chain of layers, as `dcn.cnn`, `dcn.deformable_cnn` and `dcn.deform_conv_cnn` are.
        image: (H, W, C), as the model takes it.
        layer: name of a convolution.
        position: (y, x) of the output in the layer's feature map.

    Returns:
        The points (N, 2) as (y, x) in pixels, which may lie outside the image; and on how many paths through the
        layers each is reached, (N,).

    Raises:
        ValueError: if the model has no convolution of this name, or the position is outside its output.
    """
    names = [each.name for each in model.layers]
    if layer not in names or not isinstance(model.get_layer(layer), keras.layers.Conv2D):
        raise ValueError(f"layer must be the name of a convolution of the model. Received: layer={layer!r}")
    height, width = model.get_layer(layer).output.shape[1:3]
    if not (0 <= position[0] < height and 0 <= position[1] < width):
        raise ValueError(f"position must lie within {height} x {width}. Received: position={tuple(position)}")
    points, paths = np.array([position], float), np.ones(1, int)
    chain = [each for each in model.layers[1 : names.index(layer) + 1] if isinstance(each, _READING)]
    maps = keras.Model(model.input, [each.input for each in chain])(image[None])
    for each, features in zip(reversed(chain), reversed(maps), strict=True):
        points, paths = _merge(points, paths, each.output.shape[1:3])
        points = _read_points(each, features, points.astype(int))
        paths = np.repeat(paths, points.shape[1])
        points = points.reshape(-1, 2)
    unique, inverse = np.unique(points.round(3), axis=0, return_inverse=True)
    return unique, np.bincount(inverse.ravel(), weights=paths).astype(int)


def occlusion_field(model: keras.Model, images: np.ndarray, layer: str, patch: int = 3) -> np.ndarray:
    """Returns the receptive field of the output in the middle of a layer, by occlusion.

    Args:
        model: any model.
        images: (B, H, W, C).
        layer: name of a layer with an output (B, H', W', C').
        patch: side of the square that is inverted, an odd number of pixels. Zeros would not show on empty pixels.

    Returns:
        (H, W): by how much the output changes if the square around a pixel is inverted, as a norm over channels and a
        mean over the images; its sum is 1.
    """
    inner, (y, x) = middle_of(model, layer)
    height, width = images.shape[1:3]
    changes, reach = np.zeros((height, width)), patch // 2
    for image in images:
        occluded = np.repeat(image[None], height * width, axis=0)
        for number, (row, column) in enumerate(np.ndindex(height, width)):
            part = np.s_[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
            occluded[number][part] = 1 - occluded[number][part]
        before = np.asarray(inner(image[None]))[0, y, x]
        after = np.concatenate([np.asarray(inner(some))[:, y, x] for some in np.array_split(occluded, 4)])
        changes += np.linalg.norm(after - before, axis=1).reshape(height, width)
    return changes / changes.sum()


def centre_of(image: np.ndarray) -> tuple[float, float]:
    """Returns the middle of the ink of an image (H, W), values from 0 to 1, in shares of its height and width."""
    rows, columns = np.nonzero(image > 0.5)
    if not len(rows):
        return 0.5, 0.5
    return float(rows.mean() / image.shape[0]), float(columns.mean() / image.shape[1])


def points_at(
    model: keras.Model, image: np.ndarray, layer: str, centre: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `sampling_points` returns for the output at a place given in shares of height and width."""
    height, width = model.get_layer(layer).output.shape[1:3]
    return sampling_points(model, image, layer, (int(centre[0] * height), int(centre[1] * width)))


def largest_offset(model: keras.Model, images: np.ndarray) -> float:
    """Returns the largest absolute offset, in pixels, that any layer of a model predicts for images (B, H, W, C)."""
    largest = 0.0
    for layer in model.layers:
        if isinstance(layer, ConvOffset2D | DeformableConv2D):
            features = keras.Model(model.input, layer.input)(images)
            offsets = _offsets(layer, features)
            largest = max(largest, float(np.abs(offsets).max()))
    return largest


_READING = (keras.layers.Conv2D, ConvOffset2D)


def _offsets(layer: keras.layers.Layer, features: np.ndarray) -> np.ndarray:
    if isinstance(layer, ConvOffset2D):
        return np.asarray(layer.offsets(features))
    return np.asarray(layer.offsets_and_mask(features)[0])


def _merge(points: np.ndarray, paths: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Moves points to the nearest pixel, drops those outside the map (they read zeros), and counts equal ones once."""
    nearest = np.rint(points)
    inside = ((nearest >= 0) & (nearest < size)).all(axis=1)
    unique, inverse = np.unique(nearest[inside], axis=0, return_inverse=True)
    return unique, np.bincount(inverse.ravel(), weights=paths[inside], minlength=len(unique)).astype(int)


def _read_points(layer: keras.layers.Layer, features: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Returns where a layer reads its input (1, H, W, C) for each output position (N, 2): (N, K, 2)."""
    y, x = positions.T
    if isinstance(layer, ConvOffset2D):
        return diagnostics.sampling_points(layer, features)[0, y, x]
    if isinstance(layer, DeformableConv2D):
        return diagnostics.sampling_points(layer, features)[0, y, x].reshape(len(positions), -1, 2)
    taps = np.indices(layer.kernel_size).reshape(2, -1).T
    first = [
        stride * positions[:, axis] - _padding_before(features.shape[1 + axis], size, stride)
        for axis, (size, stride) in enumerate(zip(layer.kernel_size, layer.strides, strict=True))
    ]
    return np.stack(first, axis=1)[:, None] + taps


def _padding_before(size: int, kernel_size: int, stride: int) -> int:
    """Returns how many zeros TensorFlow's padding "same" puts before the first pixel."""
    return max((-(-size // stride) - 1) * stride + kernel_size - size, 0) // 2
