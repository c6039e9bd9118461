"""Training runs: configuration, data, networks, training, records and their validity."""
