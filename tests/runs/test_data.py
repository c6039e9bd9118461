import gzip
import hashlib

import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from dcn_study.errors import ConfigurationError, DataError
from dcn_study.runs import data
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.data import data_sha256, load_digits
from dcn_study.runs.splits import splits
from dcn_study.runs.transforms import Transforms, about_former_centre, apply_transforms, draw_transforms, fingerprint

# Of the canonical IDX files.
CANONICAL_MD5 = {
    "x_train": "6bbc9ace898e44ae57da46a324031adb",
    "y_train": "a25bea736e30d166cdddb491f175f624",
    "x_test": "2646ac647ad5339dbf082846283269ea",
    "y_test": "27ae3e4e09519cfbb04c329615203637",
}
# A data set of two images each.
TWO = {f"x_{part}": np.zeros((2, 6, 5), np.uint8) for part in ("train", "test")}
TWO |= {f"y_{part}": np.arange(2) for part in ("train", "test")}


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.mark.parametrize("name", CANONICAL_MD5)
def test_the_embedded_arrays_are_the_canonical_files(digits, name):
    array = getattr(digits, name)
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    assert hashlib.md5(header + array.tobytes()).hexdigest() == CANONICAL_MD5[name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_test": None}, "be a readable .npz with the keys"),
        ({"x_test": np.zeros((2, 6, 5))}, "uint8"),
        ({"y_test": np.zeros(3, int)}, "y_test"),
        ({"y_test": np.array([1, 10])}, "integers from 0 to 9"),
        ({"y_test": np.array([0.5, 1])}, "integers from 0 to 9"),
        ({"x_test": np.zeros((2, 6, 6), np.uint8)}, "one size"),
        ({"x_test": np.zeros((0, 6, 5), np.uint8), "y_test": np.zeros(0, int)}, "no size 0"),
    ],
)
def test_other_data_of_a_wrong_form(tmp_path, change, words):
    arrays = {key: array for key, array in (TWO | change).items() if array is not None}
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(DataError, match=f"other.npz must.*{words}"):
        load_digits(tmp_path / "other.npz")


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """Six pictures in the place of Fashion-MNIST, in a folder of their own."""
    arrays = {"x_train": np.arange(80, dtype=np.uint8).reshape(4, 5, 4), "y_train": np.arange(4, dtype=np.uint8)}
    arrays |= {"x_test": np.full((2, 5, 4), 7, np.uint8), "y_test": np.array([9, 0], np.uint8)}
    for key, array in arrays.items():
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (tmp_path / data.FASHION_MNIST_FILES[key]).write_bytes(gzip.compress(header + array.tobytes()))
    monkeypatch.setattr(data, "FASHION_MNIST_FOLDERS", (tmp_path / "not here", tmp_path))
    monkeypatch.setattr(data, "FASHION_MNIST_SHA256", data.digest(arrays))
    yield tmp_path, arrays
    data._load_fashion_mnist.cache_clear()  # noqa: SLF001


def test_fashion_mnist_is_asked_for_by_name(fashion):
    loaded = load_digits("fashion_mnist")
    for key, array in fashion[1].items():
        np.testing.assert_array_equal(getattr(loaded, key), array)
    assert loaded.sha256 == data_sha256("fashion_mnist") == data.FASHION_MNIST_SHA256


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"\0\0"), gzip.compress(bytes(30))[:-9]],
    ids=["empty", "no gzip", "no header", "cut short"],
)
def test_files_of_fashion_mnist_that_cannot_be_read(fashion, content):
    folder, _ = fashion
    (folder / data.FASHION_MNIST_FILES["y_test"]).write_bytes(content)
    with pytest.raises(DataError, match=f"{folder} must hold the four files of Fashion-MNIST"):
        load_digits("fashion_mnist")


def test_other_pictures_are_not_fashion_mnist(fashion, monkeypatch):
    monkeypatch.setattr(data, "FASHION_MNIST_SHA256", "0" * 64)
    with pytest.raises(DataError, match=f"{fashion[0]} is damaged: expected SHA-256 0000"):
        load_digits("fashion_mnist")


def test_its_digest_is_known_where_fashion_mnist_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "FASHION_MNIST_FOLDERS", (tmp_path / "not here",))
    with pytest.raises(DataError, match="install Debian's package dataset-fashion-mnist, or call keras"):
        load_digits("fashion_mnist")
    assert data_sha256("fashion_mnist") == data.FASHION_MNIST_SHA256


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
def test_transforms_equal_those_of_keras(digits):
    images = digits.x_test[:200].astype("float32") / 255
    transforms = draw_transforms(200, 1)
    moved = apply_transforms(images, transforms)
    keras_generator = ImageDataGenerator(fill_mode="nearest", interpolation_order=1)
    for image, ours, zoom, shift in zip(images, moved, transforms.zoom, transforms.shift, strict=True):
        # Keras names the column axis x.
        parameters = {"zy": zoom[0], "zx": zoom[1], "ty": shift[0], "tx": shift[1]}
        theirs = keras_generator.apply_transform(image[..., None], parameters)
        np.testing.assert_allclose(ours, theirs[..., 0], atol=1e-5)


def test_transforms_worked_out_by_hand():
    image = np.arange(12.0).reshape(1, 3, 4)
    same = Transforms(np.ones((1, 2)), np.zeros((1, 2)))
    np.testing.assert_array_equal(apply_transforms(image, same), image)
    # A shift reads one row further down, and again the last row below the border.
    moved = apply_transforms(image, Transforms(np.ones((1, 2)), np.array([[1.0, 0.0]])))
    np.testing.assert_array_equal(moved, image[:, [1, 2, 2]])
    # A zoom of 2 about the centre column 1.5 reads columns -1.5, 0.5, 2.5 and 4.5.
    moved = apply_transforms(image, Transforms(np.array([[1.0, 2.0]]), np.zeros((1, 2))))
    np.testing.assert_allclose(moved[0, 0], [0, 0.5, 2.5, 3])


def test_draws_have_the_stated_distribution():
    transforms = draw_transforms(20_000, 5, (28, 14))
    for values, low, high in (
        (transforms.zoom[:, 0], 1, 2.5),
        (transforms.zoom[:, 1], 1, 2.5),
        (transforms.shift[:, 0], -5.6, 5.6),
        (transforms.shift[:, 1], -2.8, 2.8),
    ):
        assert low <= values.min() < values.max() <= high
        np.testing.assert_allclose(np.quantile(values, [0.25, 0.5, 0.75]), np.linspace(low, high, 5)[1:4], atol=0.15)
    together = np.corrcoef(np.concatenate([transforms.zoom, transforms.shift], axis=1).T)
    assert np.abs(together - np.eye(4)).max() < 0.03


def test_training_images_depend_on_seed_and_epoch_alone():
    def images(**changes):
        return splits(find_run("deformable_cnn", train_size=50, **changes).config)

    first, labels = images().train(0)
    again, labels_again = images().train(0)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert first.shape == (50, 28, 28, 1)
    assert first.dtype == np.float32
    assert labels.dtype == np.int32
    assert not np.array_equal(first, images().train(1)[0])
    assert not np.array_equal(first, images(seed=1).train(0)[0])


def test_an_epoch_holds_every_image_once(digits):
    run = find_run("cnn", train_size=500)
    images, labels = splits(run.config).train(3)
    order = np.lexsort(images.reshape(500, -1).T)
    expected = digits.x_train[:500].astype("float32") / 255
    expected_order = np.lexsort(expected.reshape(500, -1).T)
    np.testing.assert_array_equal(images[order][..., 0], expected[expected_order])
    np.testing.assert_array_equal(labels[order], digits.y_train[:500][expected_order])
    assert not np.array_equal(labels, digits.y_train[:500])
    assert not np.array_equal(labels, splits(run.config).train(4)[1])


def test_the_scaled_test_images_are_the_same_for_all_runs():
    few = splits(find_run("cnn", test_size=20).config).test("scaled")[0]
    more = splits(find_run("deformable_cnn", test_size=30, seed=5).config).test("scaled")[0]
    np.testing.assert_array_equal(few, more[:20])
    assert not np.array_equal(few, splits(find_run("cnn", test_size=20).config).test("plain")[0])


def test_as_published_the_test_images_validate():
    data = splits(find_run("deformable_cnn", train_size=50, test_size=20).config)
    for ours, theirs in zip(data.validation("scaled"), data.test("scaled"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_validation_images_follow_the_training_images(digits):
    data = splits(find_run("cnn", train_size=50, validation_size=30).config)
    images, labels = data.validation("plain")
    np.testing.assert_array_equal(images[..., 0], digits.x_train[50:80].astype("float32") / 255)
    np.testing.assert_array_equal(labels, digits.y_train[50:80])
    scaled, _ = data.validation("scaled")
    assert scaled.shape == images.shape
    assert not np.array_equal(scaled, images)
    message = "train_size \\+ validation_size must be at most .* 60000. Received: train_size=60000, validation_size=1"
    with pytest.raises(ConfigurationError, match=message):
        splits(find_run("cnn", validation_size=1).config)


@pytest.mark.parametrize(("name", "there_are"), [("train_size", 60_000), ("test_size", 10_000)])
def test_more_images_than_there_are(name, there_are):
    message = f"{name} must be at most the number of images, {there_are}. Received: {name}={there_are + 1}"
    with pytest.raises(ConfigurationError, match=message):
        splits(find_run("cnn", **{name: there_are + 1}).config)


def test_a_file_is_loaded_once_and_again_when_it_changes(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **TWO)
    first = load_digits(path)
    assert load_digits(path) is first
    with pytest.raises(ValueError, match="read-only"):  # all that load it share it
        first.x_test[0] = 1
    np.savez(path, **{**TWO, "y_test": np.array([5, 5])})
    assert data_sha256(path) != first.sha256


@pytest.mark.parametrize("train_on", ["plain", "scaled"])
def test_the_first_images_of_an_epoch_are_those_of_the_whole_epoch(train_on):
    data = splits(find_run("cnn", train_on=train_on, train_size=70).config)
    images, labels = data.train(2)
    first, first_labels = data.train(2, first=32)
    np.testing.assert_array_equal(first, images[:32])
    np.testing.assert_array_equal(first_labels, labels[:32])
    np.testing.assert_array_equal(data.labels(2), labels)


def test_a_fingerprint_sees_order_and_pixels(random):
    images, labels = random.random((4, 5, 4, 1), np.float32), np.array([3, 1, 2, 0], np.int32)
    digest, pixels = fingerprint(images, labels)
    assert fingerprint(images, labels[::-1].copy())[0] != digest
    assert abs(fingerprint(images[::-1], labels)[1] - pixels) > 0.01
    assert fingerprint(images + np.float32(1e-7), labels)[1] == pytest.approx(pixels, abs=1e-5)


def test_training_images_can_be_scaled_about_the_former_centre():
    at_centre = splits(find_run("cnn", train_on="scaled", train_size=30).config)
    former = splits(find_run("cnn", train_on="scaled", train_size=30, zoom_centre="former").config)
    plain = splits(find_run("cnn", train_size=30).config).train(1)[0][..., 0]
    transforms = draw_transforms(30, (0, 1, 1))
    for found, moved in ((at_centre, transforms), (former, about_former_centre(transforms))):
        np.testing.assert_allclose(found.train(1)[0][..., 0], apply_transforms(plain, moved), atol=1e-6)
    np.testing.assert_array_equal(at_centre.test("scaled")[0], former.test("scaled")[0])  # tests stay as they are


def test_all_images_of_a_file_are_used_if_no_number_is_given(tmp_path):
    path = tmp_path / "own.npz"
    sizes = zip(data.KEYS, (50, 50, 20, 20), strict=True)
    np.savez(path, **{key: getattr(load_digits(), key)[:size] for key, size in sizes})
    whole = splits(find_run("cnn", data=str(path)).config)
    assert (len(whole.train(0)[0]), len(whole.test("plain")[0])) == (50, 20)
    apart = splits(find_run("cnn", data=str(path), validation_size=10).config)
    assert (apart.run.train_size, len(apart.validation("plain")[0])) == (40, 10)
    with pytest.raises(ConfigurationError, match=r"train_size \+ validation_size must be at most the number of .*, 50"):
        splits(find_run("cnn", data=str(path), validation_size=50).config)
