"""Training of many runs: their plan, and workers on this machine or on a Dask cluster."""
