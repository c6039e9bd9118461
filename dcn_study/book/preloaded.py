"""Imports for the process from which kernels are forked: the libraries that most pages use."""

import importlib

from dcn_study.runs.libraries import load_tensorflow

load_tensorflow()
for name in (
    "dcn",
    "dcn_study.experiments.study",
    "dcn_study.runs.training",
    "dcn_study.show.figures",
    "dcn_study.show.tables",
    "ipykernel.kernelapp",
    "matplotlib_inline.backend_inline",
    "myst_nb.ext.glue",
):
    importlib.import_module(name)
