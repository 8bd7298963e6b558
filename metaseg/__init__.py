"""Segmentation from absurdly noisy labels, in JAX and Flax."""
