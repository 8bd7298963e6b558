"""Objects of label maps: counted strip by strip, or numbered. Host side."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Integer
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from metaseg import instances
from metaseg.errors import InputError
from metaseg.prediction.predictor import Predictor

__all__ = ["Objects", "add_strip", "has_instances", "instance_ids", "no_objects"]

_TOUCHING = np.ones((3, 3), bool)  # corners connect


class Objects(NamedTuple):
    """Components of the rows so far.

    Attributes:
      counts: int64 `[K - 1]`, number of components of each class but 0.
      edges: For each class the component of each pixel of the last row, int `[W]`, 0
        outside the class; empty before the first strip.
    """

    counts: np.ndarray
    edges: tuple[np.ndarray, ...]


def no_objects(num_classes: int) -> Objects:
    """Returns the count before the first strip.

    Args:
      num_classes: Number of classes K.
    """
    nothing = (np.zeros(0, np.int64),) * (num_classes - 1)
    return Objects(np.zeros(num_classes - 1, np.int64), nothing)


def add_strip(objects: Objects, labels: Integer[np.ndarray, "h W"]) -> Objects:
    """Adds rows to the count.

    After the last strip `counts` equals that of `scipy.ndimage.label` of the whole
    label map with 8 neighbours, in the memory of a strip.

    Args:
      objects: Components of the rows above.
      labels: Class ids of the rows that follow, integer `[h, W]`.

    Returns:
      The components of all rows so far.
    """
    counts, edges = objects.counts.copy(), []
    for index, above in enumerate(objects.edges):
        own, number = ndimage.label(labels == index + 1, _TOUCHING, output=np.int32)
        joined, edge = _join(above, own[0], own[-1], number)
        counts[index] += number - joined
        edges.append(edge)
    return Objects(counts, tuple(edges))


def _join(
    above: np.ndarray, first: np.ndarray, last: np.ndarray, number: int
) -> tuple[int, np.ndarray]:
    """Returns how many components the border joins, and those of the last row."""
    before = int(above.max(initial=0))
    if before == 0:
        return 0, _compact(last.astype(np.int64))
    pairs = [
        np.stack([above[a], first[b]])
        for a, b in (
            (slice(None), slice(None)),
            (slice(1, None), slice(None, -1)),
            (slice(None, -1), slice(1, None)),
        )
    ]
    upper, lower = np.concatenate(pairs, axis=1)
    touching = (upper > 0) & (lower > 0)
    nodes = before + number
    row, column = upper[touching] - 1, before + lower[touching] - 1
    graph = sparse.coo_matrix(
        (np.ones(len(row), np.int8), (row, column)), shape=(nodes, nodes)
    )
    found, component = csgraph.connected_components(graph, directed=False)
    numbers = np.concatenate([[0], component[before:] + 1])
    return nodes - found, _compact(numbers[last])


def _compact(row: np.ndarray) -> np.ndarray:
    """Numbers components from 1 without gaps; 0 remains 0."""
    inside = row > 0
    numbers = np.zeros(len(row), np.int64)
    numbers[inside] = np.unique(row[inside], return_inverse=True)[1] + 1
    return numbers


def has_instances(predictor: Predictor) -> bool:
    """Returns whether class 1 of a network stands for objects, see `instance_ids`.

    Args:
      predictor: The predictor.
    """
    return predictor.num_classes == 2 or predictor.border is not None


def instance_ids(
    predictor: Predictor, labels: Integer[np.ndarray, "H W"]
) -> Int32[np.ndarray, "H W"]:
    """Numbers the objects of a predicted label map.

    Args:
      predictor: The predictor, of two classes or with a class for borders.
      labels: Its label map.

    Returns:
      Ids 1, 2, ... in raster order, 0 for background: `instances.label_objects`, or
      `instances.join_borders` if the predictor has a class for borders.

    Raises:
      InputError: If the predictor has more than two classes and none for borders.
    """
    if not has_instances(predictor):
        raise InputError(
            f"predictor: got {predictor.num_classes} classes, expected two, or three of"
            " which the last is the border between objects"
        )
    if predictor.border is None:
        return instances.label_objects(labels)
    return instances.join_borders(labels, border=predictor.border)
