"""The reproducibility report: its runs, measurements, figures and book. The library is `dcn`."""
