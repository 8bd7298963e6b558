"""The bits of every noise, which never change.

Fixed noise is not stored. It is drawn again from its seed whenever it is needed. So a
noise that draws other bits than before would change published results. A digest may
change only together with a note in CHANGELOG.md.
"""

import hashlib

import jax
import numpy as np
import pytest

from metaseg import noise

K = 3
_HALF = ({"name": "flip", "rate": 0.3}, {"name": "sample", "fraction": 0.5})
# Parameters of every noise, and the digests of the noisy labels.
GOLDEN = {
    "none": [({}, "e575b67a2d773387")],
    "flip": [
        ({"rate": 0.4}, "7a9ac3bfc7a45c62"),
        ({"rate": (0.1, 0.2, 0.7), "exact": True}, "389400453eb0e902"),
    ],
    "sample": [
        ({"fraction": 0.3}, "33bc9883a9f760e0"),
        (
            {"fraction": (0.6, 0.1), "classes": (2, 1), "fill": 255, "exact": True},
            "b68cc36f685ce083",
        ),
    ],
    "transition": [
        (
            {"matrix": ((0.8, 0.1, 0.1), (0.3, 0.7, 0.0), (0.0, 0.5, 0.5))},
            "2933f746a2dd6078",
        ),
    ],
    "dilate": [
        ({"radius": 3}, "b9d53e0a96c185f8"),
        ({"radius": 2, "shape": "cross"}, "3272b8b46138cd85"),
    ],
    "erode": [
        ({"radius": 3}, "802505a12e46b683"),
        ({"radius": 2, "shape": "square"}, "9f1c98b64dafb895"),
    ],
    "random_boundary": [
        ({"radius": 4}, "94af8764f1a4cc0c"),
        ({"radius": 4, "per": "object"}, "bb1fa7cff70f3efb"),
    ],
    "skeletonize": [({}, "1a97b0140da1d1c9")],
    "shift_pixels": [({"radius": 3}, "f7e91ffba4bb41c6")],
    "markov": [
        ({"steps": 30}, "6a3d2b345d981bbc"),
        ({"steps": 5, "theta1": 0.2, "blur": 0.0}, "58a3f6bfb216b4c8"),
    ],
    "coarsen": [({"factor": 5}, "aad1e42a3f0f6dec")],
    "translate": [({"shift": 6}, "cf938566e0dffd4c")],
    "affine": [
        (
            {"angle": 30.0, "scale": 0.2, "shear": 10.0, "shift": 4, "fill": 255},
            "f60ef5b341ae29b0",
        ),
    ],
    "elastic": [({"amplitude": 3.0}, "50870f03136eb724")],
    "jitter_vertices": [({"sigma": 1.0}, "741b763e7abe8276")],
    "simplify": [({"tolerance": 2.0}, "fb3c15249dfb772e")],
    "omit": [({"rate": 0.5}, "5ce4dd35d7554537")],
    "add": [({"rate": 0.7}, "b0baaa7c2be03dea")],
    "merge": [({"radius": 4, "rate": 0.8}, "3fe03358901b73c3")],
    "boxes": [({}, "6144ea20c469d0f2")],
    "points": [({"count": 3, "radius": 1}, "c1dd92aa2fc78167")],
    "scribbles": [({"length": 20.0}, "75335bbfe7f67e73")],
    "random": [({"prior": (0.5, 0.2, 0.3)}, "34edae52f9da66aa")],
    "shuffle": [({}, "9570c7501c301971")],
    "constant": [({"fill": 2}, "09e27f73d7c428b2")],
    "chain": [({"noises": _HALF}, "049a91bf6563a8de")],
    "choose": [({"noises": _HALF, "weights": (1, 2)}, "40b66ed64fc2213c")],
    "only": [({"classes": (0, 2), "noises": _HALF}, "eaab700d46235664")],
}
IDS = np.array([3, 1, 1000003])


def label_maps():
    """Returns disks, dots, a line, void and background, uint8 `[3, 44, 60]`."""
    row, column = np.indices((44, 60))
    maps = []
    for index in range(3):
        labels = np.zeros((44, 60), np.uint8)
        for number in range(9):
            y = (17 * number + 11 * index) % 44
            x = (23 * number + 5 * index * number) % 60
            inside = (row - y) ** 2 + (column - x) ** 2 <= (number % 4 + 3) ** 2
            labels[inside] = 1 + number % 2
        labels[(7 * row + 5 * column + index) % 97 == 0] = 2
        labels[abs(row - column - 4) < 2] = 1
        labels[30:36, 8:15] = 255
        maps.append(labels)
    return np.stack(maps)


def digest_of(name, parameters):
    noise_fn = noise.per_example(noise.build({"name": name} | parameters, K))
    noisy = jax.jit(noise_fn)(jax.random.key(20), label_maps(), IDS)
    return hashlib.sha256(np.asarray(noisy, np.uint8).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("name", noise.NOISES)
def test_a_noise_draws_the_bits_that_it_always_drew(name):
    assert GOLDEN[name]
    for parameters, digest in GOLDEN[name]:
        assert digest_of(name, parameters) == digest, parameters


def test_the_clean_maps_are_the_same_and_every_digest_differs():
    maps = label_maps()
    assert set(np.unique(maps)) == {0, 1, 2, 255}
    clean = hashlib.sha256(maps.tobytes()).hexdigest()[:16]
    assert clean == GOLDEN["none"][0][1]
    digests = [digest for golden in GOLDEN.values() for _, digest in golden]
    assert len(set(digests)) == len(digests)
