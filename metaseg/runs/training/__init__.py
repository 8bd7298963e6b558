"""Training as a function; see `run.train`."""
