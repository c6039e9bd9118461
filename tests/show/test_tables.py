import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import evaluations, history, keep, make

from dcn import DeformableConv2D, models
from dcn_study import names
from dcn_study.book.parameters import notebook_parameters
from dcn_study.experiments import layers
from dcn_study.runs.catalogue import find_run
from dcn_study.runs.inputs import Inputs, Machine
from dcn_study.runs.records import Confirmation, Measurement, Status
from dcn_study.show import figures, tables


def multiply_adds_by_tensorflow(model):
    """TensorFlow's own count of the floating-point operations of convolutions and matrix products, halved."""
    function = tf.function(model, autograph=False).get_concrete_function(tf.TensorSpec((1, *model.input.shape[1:])))
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options = {**options, "output": "none", "start_name_regexes": [".*"], "account_type_regexes": ["Conv2D", "MatMul"]}
    graph = tf.graph_util.import_graph_def
    with tf.Graph().as_default() as imported:
        graph(function.graph.as_graph_def(add_shapes=True), name="")
        return tf.compat.v1.profiler.profile(imported, options=options).total_float_ops // 2


@pytest.mark.parametrize("build", [models.cnn, models.mini_resnet])
def test_multiply_adds_are_those_that_tensorflow_counts(build):
    model = build()
    ours = sum(map(layers.multiply_adds, model.layers))
    assert ours == pytest.approx(multiply_adds_by_tensorflow(model), rel=1e-6)


def test_multiply_adds_of_deformable_layers():
    inputs = keras.Input((6, 5, 4))
    model = keras.Model(inputs, DeformableConv2D(8, 3, strides=2, padding="same", modulated=True)(inputs))
    outputs, reads = 3 * 3, 9 * 4
    # For each output: the convolution, 27 predicted numbers, four multiply-adds for each value read.
    assert layers.multiply_adds(model.layers[1]) == outputs * (reads * 8 + reads * 27 + reads * 4)
    table = tables.layers(layers.layers_of(models.deformable_cnn()))
    # At 14 x 14 the third convolution reads 64 channels; its offsets are twice as many numbers.
    assert table.loc["conv21_offset", "multiply-adds"] == 14 * 14 * (9 * 64 * 128 + 4 * 64)
    assert table.loc["conv12_bn", "multiply-adds"] == 0


def test_model_table():
    built = {"cnn": models.cnn(), "deformable_cnn": models.deformable_cnn(trainable=False)}
    table = tables.models({name: layers.layers_of(model) for name, model in built.items()})
    assert table.loc["CNN", "ratio"] == 1
    assert 4 < table.loc["deformable CNN", "ratio"] < 5
    assert table.loc["deformable CNN", "trainable"] < table.loc["deformable CNN", "parameters"]


def runs(accuracies, model="cnn"):
    found = []
    for seed, accuracy in enumerate(accuracies):
        record = make(find_run(model, seed=seed))
        record.evaluations = evaluations(accuracy)
        record.history = record.history[:1]
        found.append(record)
    return {model: found}


def test_agreement_shows_all_rules_side_by_side():
    # Published: 99.01 and 60.67.
    table = tables.agreement(runs([0.7, 0.8, 0.9]))
    plain, scaled = table.to_dict("records")
    assert plain["seed 1"] == 80
    assert plain["seeds"] == 3
    assert plain["first rule"] == "agrees"
    assert plain["tolerance"] == pytest.approx(4.3027 * 10 * math.sqrt(4 / 3), abs=0.01)
    assert (plain["outcome"], scaled["outcome"]) == ("undecided", "undecided")
    assert (plain["second rule"], scaled["second rule"]) == ("differs", "undecided")
    assert 0.05 < plain["p (Holm)"] < 0.1 < scaled["p (Holm)"]  # twice a p-value below 0.05
    assert plain["limit"] < max(plain["mean"] - plain["low"], plain["high"] - plain["mean"])
    assert 0 < plain["low"] < plain["mean"] < plain["high"] < 99.01


INPUTS = Inputs(code="c", versions={"TensorFlow": "2", "Keras": "3"})
MACHINE = Machine(python="3", processor="one", threads=2)


def measurement(parameters, results):
    return Measurement(
        name="some", parameters=parameters, results=results, inputs=INPUTS, machine=MACHINE, started="2026-01-02T03:04"
    )


PUBLISHED_CODE = ("deformable CNN, published code", "deformable mini-ResNet, published code")


def measured():
    results = [
        {"model": name, "batch": batch, "size": 28, "what": what, "low": 1.0, "milliseconds": 2.0, "high": 3.0}
        for name in (*names.TIMED.values(), *PUBLISHED_CODE)
        for batch in (1, 4)
        for what in ("forward", "training step")
    ]
    memory = dict.fromkeys(names.TIMED.values(), 5_000_000)
    return measurement({"sizes": "28", "batch": 4}, {"rows": results, "memory": memory})


def test_training_cost():
    found = measured()
    for row in found.results["rows"]:
        if row["model"] in PUBLISHED_CODE:
            row["milliseconds"] = 20.0
    table = tables.training_cost(found)
    assert table.loc["CNN"].tolist() == pytest.approx([5.2, 1, 2, 1, 2, 1])
    assert table.loc["deformable CNN"].tolist()[2:] == [20, 10, 2, 1]
    assert 11 < table.loc["deformable CNN", "ratio in the log"] < 12


def test_memory():
    comparison = measured()
    comparison.results["memory"]["CNN"] = None
    sizes = tables.memory(comparison)["peak memory (MB)"].tolist()
    assert math.isnan(sizes[0])
    assert sizes[1:] == pytest.approx([5, 5, 5], abs=0.5)


def test_controls_are_compared_after_as_many_epochs():
    found = {name: runs([accuracy], name)[name] for name, accuracy in {"cnn": 0.5, "cnn_batch_norm": 0.9}.items()}
    found |= runs([0.7, 0.8], "cnn_scaled")
    found["cnn_batch_norm"] += runs([0.0, 0.9], "cnn_batch_norm")["cnn_batch_norm"][1:]
    for record, validation in zip(found["cnn_batch_norm"], (0.4, 0.6), strict=True):
        record.history = history(validation_accuracy=[validation, 0.9])
    table = tables.controls(found)
    assert table.loc["CNN", "epochs"] == 0
    assert math.isnan(table.loc["CNN", "as published"])
    columns = ["seeds", "epochs", "scaled", "as published", "difference"]
    assert table.loc["CNN, all weights", columns].tolist() == [2, 1, 75, 50, 25]
    assert table.loc["CNN, batch normalisation only", "difference"] == 0
    assert figures.controls(table).get_xlim()[0] == 48


def test_side_by_side_compares_after_the_epochs_that_all_have():
    first, second = (runs([accuracy])["cnn"][0] for accuracy in (0.5, 0.6))
    first.history = history(validation_accuracy=[0.1, 0.2, 0.3])
    second.history = history(validation_accuracy=[0.05, 0.1])
    table = tables.side_by_side({"one": first, "other": second})
    assert table.loc["one"].tolist() == [3, 20, 50, 50]
    assert table.loc["other", "after 2"] == 10
    third = runs([0.7])["cnn"][0]
    third.history = history(validation_accuracy=[0.3, 0.4])
    drawn = figures.validation_curves({"one": first, "other": second}, {"other": [third]}, longest=2)
    one, other = drawn.get_lines()
    assert one.get_linestyle() != other.get_linestyle()
    assert one.get_ydata().tolist() == pytest.approx([10, 20])
    assert other.get_ydata().tolist() == pytest.approx([17.5, 25])  # the mean of two seeds
    band = drawn.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((5, 40))
    assert sorted(text.get_text() for text in drawn.texts) == ["one", "other"]


def test_split_chooses_by_the_images_held_out():
    record = runs([0.5])["cnn"][0]
    record.history = history(validation_accuracy=[0.7, 0.9, 0.8, 0.8], test_accuracy=[0.6, 0.7, 0.75, 0.65])
    assert tables.split({"one": record}).loc["one"].tolist() == [65, 70, 75, 5, 90, "2 of 4"]


def test_the_finding_shows_the_table_and_the_published_accuracies():
    found = {run: runs([value], run)[run] for run, value in (("cnn", 0.5), ("deformable_cnn", 0.9))}
    found |= {run: runs([value], run)[run] for run, value in (("cnn_batch_norm", 0.8), ("cnn_scaled", 0.7))}
    shown = (tables.controls(found), np.zeros((2, 5, 4)), np.ones((2, 5, 4)))
    figure, narrow = figures.finding(*shown), figures.finding(*shown, narrow=True)
    lines = figure.axes[-1].get_lines()
    dots = [line.get_xdata()[0] for line in lines if line.get_markersize() == 4 and len(line.get_xdata())]
    assert dots == pytest.approx([50, 90, 80, 70])
    diamonds = [line.get_xydata()[0].tolist() for line in lines if line.get_marker() == "D"]
    assert diamonds == [pytest.approx([60.67, -0.13]), pytest.approx([94.1, 0.87])]
    assert [text.get_text() for text in figure.axes[-1].texts] == ["50.0", "90.0", "80.0", "70.0"]
    assert 'alt="a &lt; b"' in figures.as_image(figure, "a < b", narrow)


def test_status_has_a_row_for_every_run():
    record = make(find_run("cnn"), inputs=INPUTS, machine=MACHINE, finished="2026-01-02T03:04:05")
    record.confirmations = [
        Confirmation(inputs=INPUTS, machine=MACHINE, date=date, differences={})
        for date in ("2026-02-03T00:00:00", "2026-01-09T00:00:00")
    ]
    stale = Status("stale", ("Keras 1, now 2", "data"))
    table = tables.status({"cnn": (record, stale), "mini_resnet": (None, Status("missing"))})
    shown = ["stale: Keras 1, now 2; data", "10", "2", "2026-01-02", "2026-02-03", "one (2)"]
    assert table.loc["cnn"].tolist() == shown
    assert table.loc["mini_resnet"].tolist() == ["missing", "", "", "", "", ""]


def test_measurements_have_a_row_each():
    found = {"offsets": (measurement({}, {}), Status("fresh")), "bench": (None, Status("missing"))}
    table = tables.measurements(found)
    assert table.loc["offsets"].tolist() == ["fresh", "2026-01-02", "", "one (2)", "TensorFlow 2, Keras 3"]
    assert table.loc["bench"].tolist() == ["missing", "", "", "", ""]


def test_bench_shows_ratios_of_what_was_measured():
    times = {"deform_conv2d": [1.0, 2.0, 3.0], "conv2d": [0.5, 1.0, 2.0]}
    faster = {"deform_conv2d": [1.0, 1.0, 3.0], "conv2d": [0.5, 2.0, 2.0]}
    shapes = [{"shape": [1, 2, 3, 4], "milliseconds": each} for each in (times, faster)]
    table = tables.bench(measurement({}, {"shapes": shapes}))
    assert table.index.tolist() == ["deform_conv2d forward / conv2d"]
    assert table.iloc[0].tolist() == [2, 0.5, 1]


def test_parameters_are_those_of_the_notebook():
    table = tables.parameters({name: notebook_parameters(name) for name in ("training", "again", "runtime")})
    assert table.loc[("training", "seed")].tolist() == [
        "0",
        "int 0 to 4294967295",
        "of weights, order and transformations",
    ]
    assert table.loc[("training", "epochs"), "default"] == "None"
    assert table.loc["again"].index.tolist() == ["template"]
    assert table.loc[("runtime", "sizes"), "values"] == "int 1 to 256; several separated by commas"


def test_selection_shows_last_and_best_epoch():
    found = runs([0.5, 0.6])
    found["cnn"][1].history = history(validation_accuracy=[0.2, 0.9, 0.6])
    table = tables.selection(found)
    *accuracies, epoch = table.loc[("CNN", "published")]
    assert accuracies == pytest.approx([99.01, 99.36, 0.35])
    assert epoch == "7 of 10"
    *accuracies, epoch = table.loc[("CNN", "seed 1")]
    assert accuracies == pytest.approx([60, 90, 30])
    assert epoch == "2 of 3"
    ours, theirs = figures.selection(table).get_lines()
    assert ours.get_xdata() == pytest.approx([0, 30])
    assert theirs.get_xdata() == pytest.approx(0.35)


def test_seen_counts_the_run_that_another_starts_from():
    found = {"cnn": [make(find_run("cnn"))], "deformable_cnn": [make(find_run("deformable_cnn", train_size=50))]}
    table = tables.seen(found)
    assert table.loc["CNN"].tolist() == ["600,000", "0", "plain test images"]
    assert table.loc["deformable CNN"].tolist() == ["600,000", "1,000", "scaled and translated test images"]


def test_every_stored_network_has_a_card(project):
    records = [keep(find_run("cnn")), keep(find_run("scale_deform_conv_cnn", seed=2))]
    table = tables.cards(records)
    accuracy = 100 * records[0].evaluations["plain"].accuracy
    digest = records[0].provenance.weights[:8]
    assert table.loc["cnn"].tolist() == ["cnn", "plain", 10, accuracy, accuracy, digest]
    assert table.loc["scale_deform_conv_cnn-seed2"].tolist()[:3] == ["deform_conv_cnn", "MNIST-Scale", 30]
