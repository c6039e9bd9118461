"""Display names of models, runs, test images and measurements."""

from __future__ import annotations

__all__ = [
    "ARMS",
    "CONTROLS",
    "GENERATORS",
    "HELD_OUT",
    "LONGER",
    "MODELS",
    "RANDOM_START",
    "RESIDUAL",
    "SHOWN",
    "SHOWN_LAYERS",
    "TEST_IMAGES",
    "TIMED",
    "regular",
]

RANDOM_START = 0.01  # standard deviation of the offset kernels: a default of the paper's listing, which it does not use

MODELS = {
    "cnn": "CNN",
    "deformable_cnn": "deformable CNN",
    "deform_conv_cnn": "CNN with true deformable convolutions",
    "mini_resnet": "mini-ResNet",
    "deformable_mini_resnet": "deformable mini-ResNet",
}

TEST_IMAGES = {"plain": "plain", "scaled": "scaled and translated"}

# Controls that explain the gain on scaled digits, by run.
CONTROLS = {
    "cnn": "CNN",
    "cnn_statistics": "CNN, statistics only",
    "cnn_batch_norm": "CNN, batch normalisation only",
    "deformable_cnn": "deformable CNN, as published",
    "random_start_cnn": "deformable CNN, random start",
    "scrambled_cnn": "deformable CNN, corners repaired",
    "repaired_cnn": "deformable CNN, corners and pairing repaired",
    "deform_conv_cnn": "CNN with true deformable convolutions",
    "decayed_cnn_batch_norm": "CNN, batch normalisation only, falling rate",
    "decayed_scrambled_cnn": "deformable CNN, corners repaired, falling rate",
    "decayed_repaired_cnn": "deformable CNN, repaired, falling rate",
    "decayed_deform_conv_cnn": "CNN with true deformable convolutions, falling rate",
    "cnn_scaled": "CNN, all weights",
}

# The residual networks, one change after the other, by run.
RESIDUAL = {
    "mini_resnet": "mini-ResNet, as coded",
    "chained_mini_resnet": "mini-ResNet, as drawn",
    "deformable_mini_resnet": "deformable, as published",
    "unfrozen_deformable_mini_resnet": "and its blocks train",
    "repaired_deformable_mini_resnet": "and its offsets learn",
    "chained_deformable_mini_resnet": "and its blocks are as drawn",
}

# The residual networks as published for four times as many epochs, by run.
LONGER = {"long_mini_resnet": "mini-ResNet", "long_frozen_mini_resnet": "deformable mini-ResNet, offsets at zero"}

# Validated on images that are neither trained nor tested on, by run.
HELD_OUT = {"cnn_validation": "CNN", "cnn_batch_norm_validation": "batch normalisation, on scaled digits"}

# The scaled and translated test sets of the sensitivity measurement.
GENERATORS = {"ours": "our samples", "keras": "Keras' generator", "former_centre": "our samples, former centre"}

# The paper's models, computed by this package, as the runtime measurement lists them.
TIMED = {
    "cnn": "CNN",
    "deformable_cnn": "deformable CNN, ours",
    "mini_resnet": "mini-ResNet",
    "deformable_mini_resnet": "deformable mini-ResNet, ours",
}

# The arms of both registered studies, by the second part of their runs' names.
ARMS = {
    "cnn": "CNN",
    "wide_cnn": "CNN, wider: equal multiply-adds",
    "wider_cnn": "CNN, wider yet",
    "dilated_cnn": "CNN, dilated",
    "deform_conv_cnn": "deformable convolutions",
    "modulated_cnn": "deformable convolutions, modulated",
    "shared_offsets_cnn": "deformable, same offsets for all images",
    "transformer_cnn": "CNN behind a spatial transformer",
    "conv_offset_cnn": "repaired ConvOffset2D",
    "mini_resnet": "mini-ResNet",
    "deform_conv_mini_resnet": "mini-ResNet with deformable convolutions",
    "antialiased_cnn": "CNN, anti-aliased",
}

# The networks whose sampling points and answers are shown, model → run: deformable convolutions at the rate at which
# they settle. And the layers in which points and fields are looked at.
SHOWN = {"cnn": "cnn", "deformable_cnn": "deformable_cnn", "deform_conv_cnn": "decayed_deform_conv_cnn"}
SHOWN_LAYERS = ("conv12", "conv21", "conv22")


def regular(timed: str) -> str:
    """Returns the regular network with which the runtime measurement compares a network."""
    return "mini-ResNet" if "mini-ResNet" in timed else "CNN"
