"""Loads TensorFlow without its messages."""

from __future__ import annotations

import os
import sys

__all__ = ["load_tensorflow"]


def load_tensorflow() -> None:
    """Imports TensorFlow without the lines that its library writes to the standard error while it is loaded."""
    sys.stderr.flush()
    own = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(own, 2)
        os.close(own)
