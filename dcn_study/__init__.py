"""The reproducibility report: its runs, measurements, figures and book. The library is `dcn`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is loaded: it then keeps most messages to itself
