"""Loads TensorFlow without its messages, and asks it for a device."""

from __future__ import annotations

import os
import sys

from dcn_study.errors import ConfigurationError

__all__ = ["check_device", "load_tensorflow"]


def load_tensorflow() -> None:
    """Imports TensorFlow without the lines that its library writes to the standard error while it is loaded.

    Afterwards its Python code logs errors alone. It would warn of functions that are traced again, which is what must
    happen in a process that trains several networks: each has functions of its own.
    """
    sys.stderr.flush()
    own = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow
    finally:
        os.dup2(own, 2)
        os.close(own)
    tensorflow.get_logger().setLevel("ERROR")


def check_device(name: str) -> None:
    """Checks that this machine has a device; it takes no memory of it.

    Args:
        name: as TensorFlow names it, such as "/CPU:0" or "/device:GPU:0".

    Raises:
        ConfigurationError: if there is none of this name.
    """
    load_tensorflow()
    import tensorflow as tf

    present = [each.name.replace("physical_device:", "") for each in tf.config.list_physical_devices()]
    if "/" + name.removeprefix("/").removeprefix("device:") not in present:
        raise ConfigurationError(f"device must be one of {', '.join(present)}. Received: device={name!r}")
