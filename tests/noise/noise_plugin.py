"""Noises of another package, as `noise.build` imports them by name."""

import jax
import jax.numpy as jnp

from metaseg import noise, ntm


def rotate(key, labels, *, strength, radius=0.5, num_classes=2):
    """Adds `strength` to every class id, modulo K."""
    del key, radius
    return jnp.where(labels == 255, labels, (labels + strength) % num_classes)


def swap(key, labels, *, rate=0.5):
    return noise.flip(key, labels, rate=rate)


swap.matrix = lambda num_classes, *, rate=0.5: ntm.symmetric(num_classes, rate)

bundled = noise.Noise(swap, swap.matrix)
wrong_matrix = noise.Noise(swap, lambda num_classes, *, rate=0.5: jnp.eye(5))
number = 3


def no_labels(key, *, rate):
    return jax.random.key_data(key) * rate


def positional(key, labels, rate):
    return labels * rate


def floats(key, labels, *, rate=0.5):
    del key
    return labels * rate


def cropped(key, labels, *, rate=0.5):
    del key, rate
    return labels[..., 1:]
