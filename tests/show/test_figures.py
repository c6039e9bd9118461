import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import evaluations, history, make

from dcn_study import names
from dcn_study.runs import published
from dcn_study.runs.catalogue import find_run
from dcn_study.show import diagrams, figures, tables
from dcn_study.show.figures.ends import label_ends, space_ends


@pytest.fixture(autouse=True)
def without_windows():
    plt.switch_backend("agg")


@pytest.fixture
def record():
    record = make(find_run("cnn"))
    record.history = history(accuracy=[0.1, 0.2, 0.3], validation_accuracy=[0.05, 0.1, 0.15])
    return record


def test_a_table_shows_readable_numbers_and_holds_all_digits():
    values = {"images": 10000, "accuracy": 94.3, "small": 0.0024, "exactly": 0.0, "nearly": 1.23e-5, "none": np.nan}
    frame = pd.DataFrame([values | {"ms": 1983.82, "hundred": 100.0, "below": 99.94}])
    html = figures.as_table(tables.captioned(frame, "Times < 2 s."))
    shown = ["10,000", "94.30", "0.002", "0", "1.2e-05", "–", "1,984", "100", "99.94"]
    assert re.findall("<td>(.*?)</td>", html) == shown
    assert "<caption>Times &lt; 2 s.</caption>" in html
    content = re.search('data-csv="([^"]*)"', html)[1].splitlines()
    assert content == [f",{','.join(frame)}", "0,10000,94.3,0.0024,0,1.23e-05,,1983.82,100,99.94"]
    assert "<caption>" not in figures.as_table(frame)


def test_training_curve_shows_both_runs(record):
    ax = figures.training_curve([record])
    lines = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_allclose(lines["training, here"].get_ydata(), [10, 20, 30])
    np.testing.assert_allclose(lines["validation, here"].get_ydata(), [5, 10, 15])
    assert lines["validation, published"].get_ydata()[-1] == pytest.approx(99.01)
    assert len(lines["training, published"].get_xdata()) == 10
    assert ax.get_xlabel() == "epoch"


def test_what_is_published_of_mnist_is_not_shown_beside_other_data():
    record = make(find_run("cnn", data="fashion_mnist"))
    labels = {line.get_label() for line in figures.training_curve([record]).get_lines()}
    assert labels == {"training, here", "validation, here"}
    assert tables.accuracy(record)["published"].isna().all()


def test_training_curve_shows_mean_and_range_of_seeds(record):
    other = make(find_run("cnn", seed=1))
    other.history = history(accuracy=[0.3, 0.4], validation_accuracy=[0.25, 0.3])
    ax = figures.training_curve([record, other])
    lines = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_allclose(lines["training, here"].get_ydata(), [20, 30])  # of the epochs that both have
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((10, 40))
    training, validation = ax.texts
    assert (training.get_text(), validation.get_text()) == ("training", "validation")
    assert training.get_position()[1] > validation.get_position()[1]  # where the lines end


def test_accuracies_show_published_and_ours(record):
    record.evaluations = evaluations(0.98)
    agreement = tables.agreement({"cnn": [record]})
    ax = figures.accuracies(agreement)
    points = [line.get_xdata()[0] for line in ax.get_lines()]
    assert points == pytest.approx([98.0, 99.01, 98.0, 60.67])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["CNN, plain", "CNN, scaled"]


def test_receptive_fields_show_every_model_and_layer(random):
    points = {
        model: {layer: (random.uniform(size=(5, 2)), np.arange(1, 6)) for layer in ("a", "b", "c")}
        for model in ("cnn", "deform_conv_cnn")
    }
    axes = figures.receptive_fields(random.uniform(size=(28, 28)), points)
    assert axes.shape == (2, 3)
    np.testing.assert_array_equal(axes[1, 2].collections[0].get_offsets()[:, ::-1], points["deform_conv_cnn"]["c"][0])


def test_diagrams():
    titles = [ax.get_title() for ax in diagrams.sampling_grids()]
    assert titles == ["regular grid", "free offsets", "special case: anisotropic scaling", "special case: rotation"]
    _, ax = plt.subplots()
    assert diagrams.deformable_convolution(ax) is ax
    words = {text.get_text() for text in ax.texts}
    assert words >= {"input feature map", "output feature map"}
    words = [text.get_text() for text in diagrams.residual_blocks().texts]
    assert words.count("3x3 conv 1") == words.count("3x3 conv 2") == 2  # as drawn, and as coded


def test_figures_draw_into_given_axes(record):
    _, ax = plt.subplots()
    assert figures.training_curve([record], ax) is ax


def test_digits_shows_every_image_twice(random):
    plain, moved = random.uniform(size=(2, 3, 5, 4))
    axes = figures.digits(plain, moved, [7, 2, 1])
    assert axes.shape == (2, 3)
    np.testing.assert_array_equal(axes[1, 2].get_images()[0].get_array(), moved[2])
    assert [ax.get_title() for ax in axes[0]] == ["7", "2", "1"]


def test_every_network_has_one_colour():
    assert set(figures.COLOURS) >= set(names.MODELS) >= set(published.ACCURACY)
    assert len(set(figures.COLOURS.values())) == len(figures.COLOURS)
    for model, runs in {
        "cnn": ("scale_cnn", "rescaled_cnn", "unseen_cnn", "cnn_batch_norm"),
        "deform_conv_cnn": ("scale_deform_conv_cnn", "decayed_deform_conv_cnn"),
        "deformable_cnn": ("repaired_cnn", "conv_offset_cnn", "random_start_cnn"),  # the paper's layer
    }.items():
        assert {figures.colour_of(name) for name in (model, *runs)} == {figures.COLOURS[model]}
    for arm in names.ARMS:
        assert figures.colour_of(arm) in figures.COLOURS.values()


def test_published_curves():
    assert published.curve("deformable_cnn")["validation_accuracy"][-1] == 0.9402
    assert len(published.curve("deformable_cnn")["epoch"]) == 20
    with pytest.raises(KeyError, match="model must be one of"):
        published.curve("vgg")


def size_of(picture):
    """The width and the height of an SVG, in points."""
    return tuple(map(float, re.search(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', picture).groups()))


def panels_of(rows, columns, **options):
    figure, axes = plt.subplots(rows, columns, figsize=(9, 3 * rows), squeeze=False, layout="constrained", **options)
    for ax in axes.ravel():
        ax.plot([0, 1], label="a line")
    figure.legend(loc="outside lower center", ncols=4)
    return figure, axes


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (2, 2)])
def test_on_a_narrow_screen_panels_are_one_below_the_other(rows, columns):
    figure, axes = panels_of(rows, columns, sharey=True)
    for row in axes:
        row[0].set_ylabel("accuracy")
    axes[0, 0].set_title("a title of more words than fit into a line of a phone's screen")
    width, height = size_of(figures.narrow(figure))
    assert width < 340
    assert height > 150 * rows * columns
    boxes = [ax.get_position() for ax in axes.ravel()]
    assert all(upper.y0 > lower.y1 for upper, lower in itertools.pairwise(boxes))
    assert {ax.get_ylabel() for ax in axes.ravel()} == {"accuracy"}
    assert "\n" in axes[0, 0].get_title()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a line"]


def test_long_names_get_several_lines_on_a_narrow_screen():
    figure, axes = panels_of(1, 1)
    axes[0, 0].set_yticks([0, 1], ["CNN", "deformable CNN, corners and pairing repaired"])
    figures.narrow(figure)
    assert [label.get_text().count("\n") for label in axes[0, 0].get_yticklabels()] == [0, 2]


def test_names_of_lines_get_several_lines_apart_from_each_other_on_a_narrow_screen():
    figure, axes = panels_of(1, 1)
    labels = [("a network with a name that is long", 0.5, "0"), ("another one, as long as that", 0.51, "0")]
    label_ends(axes[0, 0], labels)
    figures.narrow(figure)
    figure.draw_without_rendering()
    first, second = (text.get_window_extent() for text in axes[0, 0].texts)
    assert all("\n" in text.get_text() for text in axes[0, 0].texts)
    assert first.y1 < second.y0
    assert axes[0, 0].get_position().width > 0.4


def test_a_name_is_moved_only_where_it_would_cover_another():
    _, ax = plt.subplots()
    ax.set_ylim(0, 1)
    label_ends(ax, [(name, height, "0") for name, height in zip("abcd", (0.1, 0.96, 0.97, 0.99), strict=True)], 0.1)
    np.testing.assert_allclose([text.get_position()[1] for text in ax.texts], [0.1, 0.8, 0.9, 1])
    space_ends(ax, 100)  # of axes so high that each name has its place
    np.testing.assert_allclose([text.get_position()[1] for text in ax.texts], [0.1, 0.96, 0.97, 0.99])


def test_a_narrow_figure_is_as_high_as_its_names_need():
    figure, axes = panels_of(1, 1)
    label_ends(axes[0, 0], [("a network with a name that is long", height, "0") for height in np.linspace(0.9, 1, 12)])
    figures.narrow(figure)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes[0, 0].texts]
    assert all(lower.y1 < upper.y0 for lower, upper in itertools.pairwise(boxes))


def test_a_grid_of_pictures_is_as_wide_as_a_narrow_screen():
    figure, axes = panels_of(2, 3, subplot_kw={"xticks": [], "yticks": []})
    axes[1, 2].scatter([0], [0], s=36)
    width, _ = size_of(figures.narrow(figure))
    assert width < 340
    assert axes[1, 2].collections[0].get_sizes()[0] < 36


def test_each_panel_of_a_grid_names_its_column_on_a_narrow_screen():
    figure, axes = panels_of(2, 3)
    for ax, name in zip(axes[0], "abc", strict=True):
        ax.set_title(name)
    width, height = size_of(figures.narrow(figure))
    assert height > 3 * width
    assert [ax.get_title() for ax in axes[1]] == ["a", "b", "c"]


def test_drawings_fit_a_phone_as_they_are_or_scroll():
    assert size_of(figures.narrow(diagrams.residual_blocks().figure))[0] < 400
    wide, ax = plt.subplots(figsize=(9, 3))
    ax.axis("off")
    assert figures.narrow(wide) is None
    assert figures.narrow(plt.figure()) is None


def test_only_runs_at_the_papers_protocol_are_shown_with_its_accuracies():
    small = {"epochs": 1, "train_size": 100, "test_size": 50}
    for run in ("cnn", "deformable_cnn-seed2", "mini_resnet"):
        assert published.accuracies(find_run(run, **small).config) == published.ACCURACY[run.partition("-")[0]]
    for run in ("cnn_scaled", "cnn_batch_norm", "repaired_cnn", "chained_mini_resnet", "long_mini_resnet", "scale_cnn"):
        assert published.accuracies(find_run(run).config) == {}, run
