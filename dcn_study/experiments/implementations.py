"""Public implementations of deformable convolution: where each was read, what it says, by when it existed.

Repositories, commits and lines are those of the stored copies that were read. A date is the earliest on which a source
that names it shows the implementation; it may be older. Where no source gave a date, there is none.
"""

from __future__ import annotations

import dataclasses

from dcn_study.experiments.choices import Choices

__all__ = ["FIELDS", "FOUND", "ROOTS", "Field", "Implementation"]


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One public implementation.

    Attributes:
        choices: what was read from the lines, as a composition.
        repository: owner and name on GitHub.
        commit: of the copy that was read; empty where it is not known.
        lines: which choice → file, and line or function.
        by: the date by which it existed, or empty.
        dated: what gives the date.
        after: the implementation that it names as its origin, a key of `FOUND` or `ROOTS`; empty if it names none here.
        says: what it says of itself.
        right: what it gets right.
        asked: issues in which users ask about these lines: number → what is asked.
    """

    choices: Choices
    repository: str
    commit: str
    lines: dict[str, str]
    by: str = ""
    dated: str = ""
    after: str = ""
    says: str = ""
    right: str = ""
    asked: dict[int, str] = dataclasses.field(default_factory=dict)


ROOTS = {"the authors' operator": "2017-05-19"}  # issue 23 of msracver/Deformable-ConvNets asks about it

_LAU = Choices(points=1, pairing="neighbours", second="ceil", border="clip_by_height")
_JIAOYANG = Choices(border="clip_corners", padding="valid")

FOUND: dict[str, Implementation] = {
    "kastnerkyle": Implementation(
        _LAU,
        "kastnerkyle/deform-conv",
        "abe6cd6e457c46179a3bf350927b91939d48466f",
        {
            "second pixel": "deform_conv/deform_conv.py:92",
            "border": "deform_conv/deform_conv.py:90",
            "pairing": "deform_conv/layers.py:43",
            "start": "deform_conv/layers.py:20",
        },
        by="2017-04-03",
        dated="issue 68 of number9473/nn-algorithm links the original, felixlaumon/deform-conv",
        says="A Keras and TensorFlow implementation, not efficient, for square maps. A comment in the code notes "
        "gradients near zero if the start is zeros.",
        right="It has a reference in SciPy to test against, and its author noted the symptom in the code.",
    ),
    "Oza": Implementation(
        _LAU,
        "mythrandire/deform-conv-mnist",
        "e0b3b3c0da94cf24eab08564f540b0443b3dbf44",
        {
            "second pixel": "the helper that layers_temp.py imports",
            "border": "the helper that layers_temp.py imports",
            "pairing": "layers_temp.py:43",
            "start": "layers_temp.py:20",
        },
        by="2019-12-31",
        dated="the report of a course of fall 2019",
        after="kastnerkyle",
        says="The code of the course report that this book reproduces.",
        right="Code, training log and report are public, without which nothing here could have been checked.",
    ),
    "oeway": Implementation(
        dataclasses.replace(_LAU, border="clip", start="normal"),
        "oeway/pytorch-deform-conv",
        "e7a664f1e868f254d758e1cde11d82ea66972aa4",
        {
            "second pixel": "torch_deform_conv/deform_conv.py:108",
            "border": "torch_deform_conv/deform_conv.py:103",
            "pairing": "torch_deform_conv/layers.py:75",
            "start": "torch_deform_conv/layers.py:34",
        },
        by="2018-03-31",
        dated="issue 13 cites this commit",
        after="kastnerkyle",
        says="A PyTorch port. Its README warns that it has issues and is not maintained, and recommends torchvision.",
        right="It starts from random offsets, clips each axis by its own size, and warns its users.",
        asked={
            14: "the number of offsets",
            16: "whether reshaping without transposing is right",
            17: "the shape of the offsets",
            23: "the shape of the offsets",
        },
    ),
    "TensorLayer": Implementation(
        Choices(second="ceil", border="clip", images="cycled", grid="unstacked", start="truncated_normal"),
        "tensorlayer/TensorLayer",
        "02615219d3937f603c9653484a1d2173e8b233e0",
        {
            "second pixel": "tensorlayer/layers/convolution/deformable_conv.py:303",
            "border": "tensorlayer/layers/convolution/deformable_conv.py:361",
            "images": "tensorlayer/layers/convolution/deformable_conv.py:365",
            "grid": "tensorlayer/layers/convolution/deformable_conv.py:193",
            "start": "tensorlayer/layers/convolution/simplified_conv.py:198",
        },
        by="2017-11-27",
        dated="the file in release 1.7.0; lines are those of release 2.2.3",
        after="kastnerkyle",
        says="A layer of a library, adapted from the example; the convolution that predicts the offsets is the user's.",
        right="It has one offset per kernel point, two numbers of one pixel for a pair, and a start that is not zero.",
        asked={
            572: "an error in the documented example",
            934: "whether the grid lacks an axis in its stack",
            1076: "whether the input's size must be fixed",
        },
    ),
    "ChunhuanLin (early)": Implementation(
        Choices(pairing="halves", second="ceil_shared", border="clip", start="uniform"),
        "ChunhuanLin/deform_conv_pytorch",
        "6e59f8d42685b081fc5f31ae7416cad3dcb637bf",
        {
            "second pixel": "deform_conv.py:30",
            "weights": "deform_conv.py:35",
            "border": "deform_conv.py, _get_p",
            "pairing": "deform_conv.py:31",
            "start": "deform_conv.py:13",
        },
        by="2018-03-31",
        dated="issue 1 of AlexHex7/DeformConv_pytorch links the repository; the commit may be older or younger",
        says="A new implementation, because earlier ones differ from the paper. A comment asks for weights of zero.",
        right="It has one offset per kernel point, as the paper has.",
    ),
    "ChunhuanLin (later)": Implementation(
        Choices(border="pad_and_round"),
        "ChunhuanLin/deform_conv_pytorch",
        "a9e5fedf8f878077941a56fb12e988cc6ade33e7",
        {
            "second pixel": "deform_conv.py:37",
            "border": "deform_conv.py:49",
            "pairing": "deform_conv.py:23",
            "start": "demo.py, init_conv_offset (commit 5545b18)",
        },
        by="2019-02-05",
        dated="4uiiurz1, which names it as its origin, existed",
        after="ChunhuanLin (early)",
        says="Tested against the authors' operator in MXNet.",
        right="It replaced the rule for the second pixel, and was compared with the authors' operator.",
    ),
    "4uiiurz1": Implementation(
        Choices(pairing="halves", border="pad", start="uniform_bias", mask="sum"),
        "4uiiurz1/pytorch-deform-conv-v2",
        "5b86db304e96dcbafa7e57b9c76f44b8ae86abb0",
        {
            "second pixel": "deform_conv_v2.py:51",
            "border": "deform_conv_v2.py:59",
            "pairing": "deform_conv_v2.py:53",
            "start": "deform_conv_v2.py:19",
            "mask": "deform_conv_v2.py:25",
        },
        by="2019-02-05",
        dated="the date of issue 6",
        after="ChunhuanLin (later)",
        says="Version 2 in PyTorch, based on ChunhuanLin's, with results on scaled MNIST.",
        right="Offsets learn, and derivatives no longer stop where a point enters the padding.",
        asked={6: "whether it is the paper's", 10: "the start of the mask", 21: "the weights", 28: "larger kernels"},
    ),
    "DHZS": Implementation(
        _JIAOYANG,
        "DHZS/tf-deformable-conv-layer",
        "adf3b64e343e43da1c32d88a1d0cc05763b7d41a",
        {
            "second pixel": "nets/deformable_conv_layer.py:142",
            "border": "nets/deformable_conv_layer.py:144",
            "weights": "nets/deformable_conv_layer.py:154",
            "pairing": "nets/deformable_conv_layer.py:125",
            "start": "nets/deformable_conv_layer.py:91",
        },
        by="2018-10-11",
        dated="the header of the file",
        says="A Keras layer of its own, for eager execution only.",
        right="A true deformable convolution in Keras whose offsets learn from zero.",
    ),
    "vashineyu": Implementation(
        _JIAOYANG,
        "vashineyu/DeformableConv_TF",
        "0e6f8dc7c4558f3d2d6eeaf78db3e3dacf93a943",
        {
            "second pixel": "DeformableConv_TF/layers/deformable_layers.py:138",
            "border": "DeformableConv_TF/layers/deformable_layers.py:140",
            "weights": "DeformableConv_TF/layers/deformable_layers.py:149",
            "start": "DeformableConv_TF/layers/deformable_layers.py:85",
        },
        after="DHZS",
        says="Modified from DHZS, for TensorFlow 1.13.",
        right="As DHZS.",
    ),
    "mvoelk": Implementation(
        _JIAOYANG,
        "mvoelk/keras_layers",
        "",
        {
            "second pixel": "layers.py, DeformableConv2D.call",
            "border": "layers.py, DeformableConv2D.call",
            "weights": "layers.py, DeformableConv2D.call",
            "start": "layers.py, DeformableConv2D.build",
        },
        after="DHZS",
        says="An updated version of DHZS's layer, without a native kernel.",
        right="As DHZS, for TensorFlow 2 and any size of batch.",
    ),
    "torchvision": Implementation(
        Choices(),
        "pytorch/vision",
        "2855e9193e46447d6c5858901a950299933ccf34",
        {
            "second pixel": "torchvision/csrc/cpu/deform_conv2d_kernel.cpp, get_coordinate_weight",
            "border": "torchvision/csrc/cpu/deform_conv2d_kernel.cpp, bilinear_interpolate",
            "start": "given by the user; zeros here",
        },
        by="2020-01-14",
        dated="the file in release 0.5.0",
        after="the authors' operator",
        says="An operator, derived from the authors' kernel; offsets are an argument.",
        right="All five probes.",
        asked={3673: "the meaning of the offsets", 5989: "whether offsets learn"},
    ),
    "MMCV (version 1)": Implementation(
        Choices(),
        "open-mmlab/mmcv",
        "0093647e69f471277054484102c46cce6d1de29b",
        {
            "second pixel": "mmcv/ops/csrc/deform_conv_cuda_kernel.cuh:85 (release 1.0.0)",
            "start": "mmcv/ops/deform_conv.py, init_offset",
        },
        by="2020-07-08",
        dated="the file in release 1.0.0 of mmcv-full",
        after="the authors' operator",
        says="A module that predicts its offsets and replaces a convolution.",
        right="All five probes, and a new layer is the convolution that it replaces.",
    ),
    "MMCV (version 2)": Implementation(
        Choices(mask="half"),
        "open-mmlab/mmcv",
        "0093647e69f471277054484102c46cce6d1de29b",
        {
            "second pixel": "mmcv/ops/csrc/modulated_deform_conv_cuda_kernel.cuh:80 (release 1.0.0)",
            "start": "mmcv/ops/modulated_deform_conv.py, init_weights",
            "mask": "mmcv/ops/modulated_deform_conv.py, forward",
        },
        by="2020-07-08",
        dated="the file in release 1.0.0 of mmcv-full",
        after="the authors' operator",
        says="The same with a mask.",
        right="All five probes, and the mask's start that the paper states.",
    ),
    "developer0hye": Implementation(
        Choices(mask="one"),
        "developer0hye/PyTorch-Deformable-Convolution-v2",
        "4d958ebbaa6fc7aab3a6d06396181d929e1db7fa",
        {"second pixel": "torchvision's operator", "start": "dcn.py:29", "mask": "dcn.py:54"},
        by="2022-09-15",
        dated="the date of issue 21",
        after="torchvision",
        says="A simple module around torchvision's operator.",
        right="All five probes; twice the sigmoid makes a new layer the convolution that it replaces.",
        asked={21: "why the start is zero"},
    ),
    "tfmiss": Implementation(
        Choices(second="both", mask="one"),
        "shkarupa-alex/tfmiss",
        "164f1f8acee7cfdbe922c97cdcfd9bd162ffe66d",
        {
            "second pixel": "tfmiss/ops/cc/kernels/dcnv2/dcn_v2.h, coordinate_weight",
            "start": "tfmiss/keras/layers/dcnv2.py:76 (commit 082e7b9)",
            "mask": "tfmiss/keras/layers/dcnv2.py:90 (commit 082e7b9)",
        },
        says="A native operator and a Keras layer, with a mask whose mean is one.",
        right="All five probes; it alone averages the slopes to both sides at whole numbers.",
    ),
    "KerasHub": Implementation(
        Choices(pairing="swapped", start="directions"),
        "keras-team/keras-hub",
        "96197035b5a6e2f380d2d3aa432f9751928fae03",
        {
            "second pixel": "keras_hub/src/models/d_fine/d_fine_utils.py:78",
            "border": "keras_hub/src/models/d_fine/d_fine_utils.py:104",
            "start": "keras_hub/src/models/d_fine/d_fine_attention.py:109",
        },
        by="2025-10-21",
        dated="the file in release 0.23.0; release 0.22.1 has none",
        says="The sampler of one model's deformable attention, after PyTorch's grid_sample; documented as (x, y).",
        right="All five probes; its offsets start as directions, not from zero.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Field:
    """A file of another field that samples images at learned or given places.

    Attributes:
        field: what it does.
        source: repository, file and commit.
        second: the pixel after floor(p).
        starts: where its displacements start.
        zero: whether they start from zero, or from whole pixels, and are learned.
    """

    field: str
    source: str
    second: str
    starts: str
    zero: bool


FIELDS = (
    Field(
        "registration and fusion of images",
        "hanna-xu/MURF, RGB-IR/fine_registration_and_fusion/f2m_model.py, 837b3ca",
        "ceil, in a helper of the example that convoffset2D does not call",
        "0.2 tanh of a convolution with small random weights",
        zero=False,
    ),
    Field(
        "alignment of faces by landmarks",
        "CHELSEA234/Multi-domain-learning-FAS, source_SiW_Mv2/warp.py, df7058f",
        "ceil, tf_batch_map_coordinates",
        "given by landmarks, not learned",
        zero=False,
    ),
    Field(
        "features at points, for biometrics",
        "RenMin1991/Dyamic-Graph-Representation, model/graph_function.py, 553f092",
        "ceil, th_batch_map_coordinates",
        "the sigmoid of a layer with random weights, times the size",
        zero=False,
    ),
    Field(
        "registration of images and volumes",
        "stergioc/smooth-transformer, smoothTransformer.py, 6cff67c",
        "floor + 1, of its own",
        "sums of steps that are one where the network's output is zero: whole pixels",
        zero=True,
    ),
)
