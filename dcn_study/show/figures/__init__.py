"""Figures from arrays and records. Nothing here trains, reads or saves."""

# ruff: noqa: F403
from dcn_study.show.figures.experiments import *
from dcn_study.show.figures.multiverse import *
from dcn_study.show.figures.narrow import *
from dcn_study.show.figures.runs import *
from dcn_study.show.figures.study import *
from dcn_study.show.figures.style import *
from dcn_study.show.figures.times import *
