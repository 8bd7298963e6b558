"""Runs of iGTT: segmentation without labels."""
