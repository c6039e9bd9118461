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


def test_layer_table():
    table = tables.layers(layers.layers_of(models.deformable_cnn(trainable=False)))
    assert table.loc["all", "parameters"] == models.deformable_cnn().count_params()
    kernel = 9 * 32 * 64
    assert table.loc["conv12"].tolist() == ["14 x 14 x 64", kernel + 64, 0, 14 * 14 * kernel]
    # Two offsets for each of 32 channels.
    assert table.loc["conv12_offset"].tolist() == ["28 x 28 x 32", kernel, kernel, 28 * 28 * (kernel + 4 * 32)]
    assert table.loc["conv12_bn"].tolist() == ["14 x 14 x 64", 4 * 64, 2 * 64, 0]


def test_model_table():
    built = {"cnn": models.cnn(), "deformable_cnn": models.deformable_cnn(trainable=False)}
    table = tables.models({name: layers.layers_of(model) for name, model in built.items()})
    assert table.loc["CNN", "ratio"] == 1
    assert 4 < table.loc["deformable CNN", "ratio"] < 5
    assert table.loc["deformable CNN", "trainable"] < table.loc["deformable CNN", "parameters"]


def trained(accuracy, run="cnn", seed=0, **curves):
    """A record with this accuracy, after one epoch or with these curves."""
    record = make(find_run(run, seed=seed))
    record.evaluations = evaluations(accuracy)
    record.history = history(**curves) if curves else record.history[:1]
    return record


def test_accuracy_table():
    record = trained(0.0)
    record.evaluations = evaluations(0.98, 0.6, images=10_000)
    table = tables.accuracy(record)
    assert table.loc["plain"].tolist() == pytest.approx([99.01, 98.0, -1.01, 10_000])
    assert table.loc["scaled and translated", "difference"] == pytest.approx(-0.67)


def test_agreement_shows_all_rules_side_by_side():
    # Published: 99.01 and 60.67.
    table = tables.agreement({"cnn": [trained(accuracy, seed=seed) for seed, accuracy in enumerate((0.7, 0.8, 0.9))]})
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
    published = [trained(0.9, "cnn_batch_norm", seed, validation_accuracy=[(0.4, 0.6)[seed], 0.9]) for seed in (0, 1)]
    scaled = [trained(0.7, "cnn_scaled"), trained(0.8, "cnn_scaled", 1)]
    table = tables.controls({"cnn": [trained(0.5)], "cnn_batch_norm": published, "cnn_scaled": scaled})
    assert table.loc["CNN", "epochs on scaled digits"] == 0
    assert math.isnan(table.loc["CNN", "scaled, published protocol"])
    columns = ["seeds", "epochs on scaled digits", "scaled", "scaled, published protocol", "scaled, difference"]
    assert table.loc["CNN, all weights", columns].tolist() == [2, 1, 75, 50, 25]
    assert table.loc["CNN, batch normalisation only", "scaled, difference"] == 0
    assert figures.controls(table).get_xlim()[0] == 48


def test_side_by_side_compares_after_the_epochs_that_all_have():
    first = trained(0.5, validation_accuracy=[0.1, 0.2, 0.3])
    second = trained(0.6, validation_accuracy=[0.05, 0.1])
    table = tables.side_by_side({"one": first, "other": second})
    assert table.loc["one"].tolist() == [3, 20, 50, 50]
    assert table.loc["other", "after 2"] == 10
    third = trained(0.7, validation_accuracy=[0.3, 0.4])
    drawn = figures.validation_curves({"one": first, "other": second}, {"other": [third]}, longest=2)
    one, other = drawn.get_lines()
    assert one.get_linestyle() != other.get_linestyle()
    assert one.get_ydata().tolist() == pytest.approx([10, 20])
    assert other.get_ydata().tolist() == pytest.approx([17.5, 25])  # the mean of two seeds
    band = drawn.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((5, 40))
    assert sorted(text.get_text() for text in drawn.texts) == ["one", "other"]


def test_split_chooses_by_the_images_held_out():
    record = trained(0.5, validation_accuracy=[0.7, 0.9, 0.8, 0.8], test_accuracy=[0.6, 0.7, 0.75, 0.65])
    assert tables.split({"one": record}).loc["one"].tolist() == [65, 70, 75, 5, 90, "2 of 4"]


def test_the_finding_shows_the_table_and_the_published_accuracies():
    accuracies = {"cnn": 0.5, "deformable_cnn": 0.9, "cnn_batch_norm": 0.8, "cnn_scaled": 0.7}
    found = {run: [trained(accuracy, run)] for run, accuracy in accuracies.items()}
    shown = (tables.controls(found), np.zeros((2, 5, 4)), np.ones((2, 5, 4)))
    figure, narrow = figures.finding(*shown), figures.finding(*shown, narrow=True)
    lines = figure.axes[-1].get_lines()
    dots = [line.get_xdata()[0] for line in lines if line.get_markersize() == 4 and len(line.get_xdata())]
    assert dots == pytest.approx([50, 90, 80, 70])
    diamonds = [line.get_xydata()[0].tolist() for line in lines if line.get_marker() == "D"]
    assert diamonds == [pytest.approx([60.67, -0.13]), pytest.approx([94.1, 0.87])]
    assert [text.get_text() for text in figure.axes[-1].texts] == ["50.0", "90.0", "80.0", "70.0"]
    assert 'alt="a &lt; b"' in figures.as_image(figure, "a < b", narrow)


def test_provenance_table():
    inputs = INPUTS.model_copy(update={"code": "c" * 64, "weights": {"other": "o" * 64}})
    record = make(find_run("cnn"), inputs=inputs, earlier=[inputs], machine=MACHINE, seconds=120.0)
    table = tables.provenance(record, Status("fresh"))["value"]
    assert table["record"] == "cnn (fresh)"
    assert table["environment"] == "TensorFlow 2, Keras 3, Python 3"
    assert "2.0 minutes" in table["trained"]
    assert table["initial weights: other"] == "o" * 16
    assert table["first epochs by code"] == "c" * 16
    differences = {"losses": 1e-6, "norms": 0.0}
    record.confirmations = [
        Confirmation(inputs=inputs, machine=MACHINE, date="2026-11-22T10:00", differences=differences)
    ]
    stale = tables.provenance(record, Status("stale", ("Keras 1, now 2", "data")))["value"]
    assert stale["record"] == "cnn (stale: Keras 1, now 2; data)"
    assert "losses 1.0e-06, norms 0.0e+00" in stale["confirmed 2026-11-22"]


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
    seed = ["0", "int 0 to 4294967295", "of weights, order and transformations"]
    assert table.loc[("training", "seed")].tolist() == seed
    assert table.loc[("training", "epochs"), "default"] == "None"
    assert table.loc["again"].index.tolist() == ["template"]
    assert table.loc[("runtime", "sizes"), "values"] == "int 1 to 256; several separated by commas"


def test_selection_shows_last_and_best_epoch():
    found = [trained(0.5), trained(0.6, seed=1, validation_accuracy=[0.2, 0.9, 0.6])]
    table = tables.selection({"cnn": found})
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
