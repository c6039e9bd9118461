"""Tables from models and records, as data frames. Nothing here trains, reads or saves."""

# ruff: noqa: F403
from dcn_study.show.tables.accuracies import *
from dcn_study.show.tables.claims import *
from dcn_study.show.tables.layout import *
from dcn_study.show.tables.lineage import *
from dcn_study.show.tables.multiverse import *
from dcn_study.show.tables.networks import *
from dcn_study.show.tables.origin import *
from dcn_study.show.tables.registered import *
from dcn_study.show.tables.study import *
from dcn_study.show.tables.times import *
from dcn_study.show.tables.unseen import *
