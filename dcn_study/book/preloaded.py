"""Loads what most pages use, in the process that kernels are forked from."""

import ipykernel.kernelapp  # noqa: F401
import matplotlib_inline.backend_inline  # noqa: F401
import myst_nb  # noqa: F401

import dcn  # noqa: F401
import dcn_study.experiments.study
import dcn_study.runs.training
import dcn_study.show.figures
import dcn_study.show.tables  # noqa: F401
