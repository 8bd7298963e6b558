"""Label maps and their references: class ids of stored values, read by processes.

Imports no jax, which every worker process would have to start.
"""

import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from metaseg.data import collect, image_files
from metaseg.data.collect import Item, Loaded
from metaseg.errors import InputError

__all__ = ["Encoding", "LabelPair", "encoding", "load", "read_values", "stream"]

_ANY = 255  # classes that a file may hold before their number is known
_LOOKED_AT = 200  # files that tell how many classes there are


class Encoding(NamedTuple):
    """How class ids are stored.

    Attributes:
      num_classes: Number of classes K.
      foreground: Stored value of class 1: 255 in masks of 0 and 255, else 1.
    """

    num_classes: int
    foreground: int = 1


class LabelPair(NamedTuple):
    """A label map and its reference.

    Attributes:
      labels: Integer `[H, W]`.
      reference: Integer `[H, W]`, or None.
    """

    labels: np.ndarray
    reference: np.ndarray | None = None


def read_values(item: Item) -> Integer[np.ndarray, "H W"]:
    """Reads a label map as stored.

    Args:
      item: The label map.

    Returns:
      Integers `[H, W]`.

    Raises:
      InputError: If the map cannot be read, or does not hold integers in one plane.
    """
    if item.error:
        raise InputError(item.error)
    if item.path is not None:
        stored = image_files.read_label_values(item.path, page=item.page)
        return image_files.integers(stored, where=item.where)
    values = item.pixels
    assert values is not None
    if values.dtype.kind not in "ui" or values.ndim != 2:
        raise InputError(
            f"{item.where}: {values.dtype} of shape {values.shape}, expected integer"
            " class ids [H, W]"
        )
    return values


def encoding(items: Sequence[Item], num_classes: int) -> Encoding:
    """Finds how many classes there are, and whether masks hold 0 and 255.

    Looks at up to 200 maps spread over the list, and skips those that cannot be read.

    Args:
      items: The label maps.
      num_classes: K if it is known. Otherwise 0: then K is one more than the highest
        id but 255.

    Returns:
      Number of classes, and the value that marks class 1.
    """
    step = max(1, len(items) // _LOOKED_AT)
    seen: set[int] = set()
    for item in items[::step]:
        try:
            seen.update(np.unique(read_values(item)).tolist())
        except InputError:
            continue
    masks = 255 in seen and not seen & {1} and max(seen - {255}, default=0) == 0
    known = max((i for i in seen - {255} if 0 <= i < _ANY), default=1) + 1
    if num_classes == 0:
        num_classes = max(2, known)
    return Encoding(num_classes, 255 if masks and num_classes == 2 else 1)


def load(
    item: Item,
    reference: Item | None,
    stored: Encoding,
    reference_stored: Encoding | None,
) -> Loaded[LabelPair]:
    """Reads one map and its reference; does not raise `InputError`.

    Args:
      item: The label map.
      reference: Its reference, or None.
      stored: How the label map is stored.
      reference_stored: How the reference is stored, or None.

    Returns:
      Both maps, or the message of the error.
    """
    try:
        labels = _decoded(read_values(item), stored)
        if reference is None or reference_stored is None:
            return Loaded(LabelPair(labels))
        clean = _decoded(read_values(reference), reference_stored)
        if clean.shape != labels.shape:
            raise InputError(
                f"{item.where}: {labels.shape[0]} x {labels.shape[1]}, expected "
                f"{clean.shape[0]} x {clean.shape[1]} as its reference"
            )
        return Loaded(LabelPair(labels, clean))
    except InputError as error:
        return Loaded(None, str(error))


def _decoded(values: np.ndarray, stored: Encoding) -> np.ndarray:
    if stored.foreground == 1:
        return values
    return np.where(values == stored.foreground, 1, values)


def stream(
    items: Sequence[Item],
    references: Sequence[Item | None],
    stored: Encoding,
    reference_stored: Encoding | None,
    *,
    workers: int,
) -> Iterator[Loaded[LabelPair]]:
    """Reads label maps in order, in worker processes that run ahead of the caller.

    Args:
      items: The label maps.
      references: The reference of each map, or None.
      stored: How class ids of the maps are stored.
      reference_stored: How class ids of the references are stored.
      workers: Number of processes; 0 reads in this one.

    Yields:
      For each map, in order, the map with its reference, or what is wrong.
    """
    read = functools.partial(load, stored=stored, reference_stored=reference_stored)
    tasks = zip(items, references, strict=True)
    if workers == 0:
        for task in tasks:
            yield read(*task)
        return
    # Forking a process that runs jax can hang it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from collect.read_ahead(pool, read, tasks, lambda _: 4 * workers + 1)
