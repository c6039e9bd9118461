"""Tables of records and parameters: what a run was made of."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from dcn.study.pages import Parameter
from dcn.study.records import Record
from dcn.study.tables.layout import with_corner

__all__ = ["parameters", "provenance", "status"]


def parameters(declared: Mapping[str, Mapping[str, Parameter]]) -> pd.DataFrame:
    """Returns one row a parameter: type, default and meaning.

    Args:
        declared: by what each notebook is called, its parameters, as `pages.notebook_parameters` returns them.
    """
    rows = {
        (notebook, name): {
            "type": f"{parameter.type} or None" if parameter.optional else parameter.type,
            "default": parameter.default,
            "meaning": parameter.meaning,
        }
        for notebook, of_notebook in declared.items()
        for name, parameter in of_notebook.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index=["notebook", "parameter"])


def provenance(record: Record, standing: str) -> pd.DataFrame:
    """Returns where a record came from: configuration, environment, duration and digests, one row each."""
    origin = record.provenance
    rows = {
        "record": f"{record.name} ({standing})",
        "configuration": ", ".join(f"{name}={value!r}" for name, value in record.configuration.items()),
        "environment": f"TensorFlow {origin['tensorflow']}, Keras {origin['keras']}, NumPy {origin['numpy']}, "
        f"Python {origin['python']}",
        "machine": f"{origin['processor']}, {origin['threads']} threads",
        "trained": f"{origin['started']} to {origin['finished']}, {origin['seconds'] / 60:.1f} minutes in all epochs",
        "code (SHA-256)": origin["code_sha256"][:16],
        "data (SHA-256)": origin["data_sha256"][:16],
        "weights (SHA-256)": origin["weights_sha256"][:16],
    }
    if origin.get("earlier_code_sha256"):
        rows["first epochs by code"] = ", ".join(digest[:16] for digest in origin["earlier_code_sha256"])
    for confirmation in record.confirmations:
        rows[f"confirmed {confirmation['date'][:10]}"] = (
            f"code {confirmation['code_sha256'][:16]}, {confirmation['processor']}, largest difference of the first "
            f"losses {confirmation['largest_witness_difference']:.1e}"
        )
    return with_corner(pd.DataFrame({"value": rows}), "what")


def status(found: Mapping[str, tuple[str, Record | None]]) -> pd.DataFrame:
    """Returns one row a run: its standing, its epochs, how long they took, and when, where and with what it was made.

    Args:
        found: by the record's name, its standing and the record, `None` if it is missing.
    """
    rows = {}
    for name, (standing, record) in found.items():
        rows[name] = {"standing": standing}
        if record is None:
            continue
        origin = record.provenance
        rows[name] |= {
            "epochs": f"{len(record.history)}",
            "minutes": f"{origin['seconds'] / 60:.0f}",
            "finished": origin["finished"][:10],
            "confirmed": max((confirmation["date"][:10] for confirmation in record.confirmations), default=""),
            "processor": f"{origin['processor']}, threads: {origin['threads']}",
            "TensorFlow": origin["tensorflow"],
        }
    return with_corner(pd.DataFrame.from_dict(rows, orient="index").fillna(""), "run")
