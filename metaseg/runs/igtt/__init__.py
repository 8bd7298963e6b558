"""iGTT, segmentation without labels, as a function; see `run.segment`."""
