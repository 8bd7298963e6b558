"""Label maps of a folder and their references: surveyed, then read by processes.

Imports no jax, which every worker process would have to start.
"""

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int32, Real, UInt8
from tqdm import tqdm

from metaseg import host
from metaseg.data import collect, image_files, label_encoding
from metaseg.data.collect import Item, Loaded
from metaseg.data.file_options import DEFAULT, FileOptions
from metaseg.data.label_encoding import Encoding, Survey
from metaseg.errors import InputError

__all__ = [
    "LabelPair",
    "StoredLabels",
    "load",
    "read",
    "read_values",
    "recognise",
    "settle",
    "stream",
]

T = TypeVar("T")
_PROGRESS_FROM = 200  # maps; fewer take no time
_MANY_BYTES = 1 << 26  # of files; fewer are read before processes would have started
_FEW = 1  # maps that may be wrong however few there are


class LabelPair(NamedTuple):
    """A label map and its reference.

    Attributes:
      labels: Class ids uint8 `[H, W]`; 255 is void.
      reference: The same of the reference, or None.
    """

    labels: np.ndarray
    reference: np.ndarray | None = None


class StoredLabels(NamedTuple):
    """How the label maps of a folder are stored.

    Attributes:
      encoding: What the stored values mean.
      options: How the files are read.
      wrong: What is wrong with maps that do not fit to the others, by `Item.where`.
    """

    encoding: Encoding
    options: FileOptions = DEFAULT
    wrong: Mapping[str, str] = {}


def read_values(
    item: Item, *, options: FileOptions = DEFAULT
) -> Real[np.ndarray, "H W ..."]:
    """Reads a label map as stored.

    Args:
      item: The label map.
      options: How files are read.

    Returns:
      Numbers `[H, W]`, or colours `[H, W, 3]`.

    Raises:
      InputError: If the map cannot be read.
    """
    if item.error:
        raise InputError(item.error)
    if item.path is not None:
        options = options._replace(page=None)  # the item says which page
        return image_files.read_label_values(item.path, page=item.page, options=options)
    values = item.pixels
    assert values is not None
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[-1] == 3):
        raise InputError(
            f"{item.where}: {values.dtype} of shape {values.shape}, expected class ids"
            " [H, W]"
        )
    return values


def recognise(
    items: Sequence[Item],
    *,
    options: FileOptions = DEFAULT,
    num_classes: int = 0,
    fixed_classes: bool = False,
    workers: int = 0,
) -> StoredLabels:
    """Looks at all label maps, and finds how class ids are stored in them.

    Maps that cannot be read are skipped: reading them later says what is wrong.

    Args:
      items: The label maps.
      options: How files are read.
      num_classes: Number of classes K if it is known; 0: to be found.
      fixed_classes: Whether K cannot be changed, as `label_encoding.recognise` has it.
      workers: Number of processes for many files; 0 reads in this one.

    Returns:
      How the maps are stored.

    Raises:
      InputError: If it is not clear what values mean, or no map can be read.
    """
    label_encoding.check(options)
    if options.label_colors is not None:  # a file of colours is read once
        colors = label_encoding.parse_colors(options.label_colors)
        options = options._replace(label_colors=colors)
    look = functools.partial(_survey, options=options)
    found = list(
        tqdm(
            _looked(look, items, workers),
            desc="looking at labels",
            total=len(items),
            unit="map",
            leave=False,
            disable=None if len(items) > _PROGRESS_FROM else True,
        )
    )
    surveys = [
        (item.where, one.content)
        for item, one in zip(items, found, strict=True)
        if one.content is not None
    ]
    if not surveys:
        raise InputError(found[0].error)
    encoding, wrong = settle(
        surveys,
        options=options,
        num_classes=num_classes,
        fixed_classes=fixed_classes,
    )
    return StoredLabels(encoding, options, wrong)


def _looked(
    look: Callable[[Item], Loaded[Survey]], items: Sequence[Item], workers: int
) -> Iterator[Loaded[Survey]]:
    """Yields what was found of each item, in order."""
    if workers > 1 and _are_many(items):
        yield from _each(look, ((item,) for item in items), workers)
        return
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(look, items)


def settle(
    surveys: Sequence[tuple[str, Survey]],
    *,
    options: FileOptions,
    num_classes: int,
    fixed_classes: bool = False,
) -> tuple[Encoding, dict[str, str]]:
    """Finds how the label maps are stored, and the few that do not fit the others.

    Args:
      surveys: Name and survey of each label map.
      options: How files are read.
      num_classes: Number of classes K if it is known; 0: to be found.
      fixed_classes: Whether K cannot be changed, as `label_encoding.recognise` has it.

    Returns:
      The encoding, and what is wrong with other maps by their names: one map, or up to
      a tenth of them, that are refused by themselves too.

    Raises:
      InputError: If it is not clear what values mean.
    """
    known: dict[str, Any] = {
        "options": options,
        "num_classes": num_classes,
        "fixed_classes": fixed_classes,
    }
    try:
        return label_encoding.recognise(surveys, **known), {}
    except InputError:
        alone: dict[str, str] = {}
        for name, one in surveys:
            try:
                label_encoding.recognise([(name, one)], **known)
            except InputError as error:
                alone[name] = str(error)
        rest = [(name, one) for name, one in surveys if name not in alone]
        if not alone or not rest:
            raise
        encoding = label_encoding.recognise(rest, **known)
        wrong = {
            name: alone[name]
            for name, one in surveys
            if name in alone and not label_encoding.fits(one, encoding)
        }
        if not 0 < len(wrong) <= max(_FEW, len(surveys) // 10) < len(surveys) - 1:
            raise
    rest = [(name, one) for name, one in surveys if name not in wrong]
    return label_encoding.recognise(rest, **known), wrong


def _survey(item: Item, options: FileOptions) -> Loaded[Survey]:
    try:
        values = read_values(item, options=options)
        return Loaded(label_encoding.survey(values, options=options))
    except InputError as error:
        return Loaded(None, str(error))


def read(
    item: Item, stored: StoredLabels
) -> tuple[UInt8[np.ndarray, "H W"], Int32[np.ndarray, "H W"] | None]:
    """Reads the class ids of a label map, and the ids of its objects.

    Args:
      item: The label map.
      stored: How it is stored.

    Returns:
      Class ids uint8 `[H, W]`, 255 is void; and ids of objects int32 `[H, W]`, or None
      if the map does not store them.

    Raises:
      InputError: If the map cannot be read, or holds a value that has no class id.
    """
    if item.where in stored.wrong:
        raise InputError(stored.wrong[item.where])
    values = read_values(item, options=stored.options)
    labels = label_encoding.decode(values, stored.encoding, where=item.where)
    if stored.encoding.kind != "instances":
        return labels, None
    return labels, label_encoding.instance_ids(values, stored.encoding)


def load(
    item: Item,
    reference: Item | None,
    stored: StoredLabels,
    reference_stored: StoredLabels | None,
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
        labels, _ = read(item, stored)
        if reference is None or reference_stored is None:
            return Loaded(LabelPair(labels))
        clean, _ = read(reference, reference_stored)
        if clean.shape != labels.shape:
            raise InputError(
                f"{item.where}: {labels.shape[0]} x {labels.shape[1]}, expected "
                f"{clean.shape[0]} x {clean.shape[1]} as its reference"
            )
        return Loaded(LabelPair(labels, clean))
    except InputError as error:
        return Loaded(None, str(error))


def stream(
    items: Sequence[Item],
    references: Sequence[Item | None],
    stored: StoredLabels,
    reference_stored: StoredLabels | None,
    *,
    workers: int,
) -> Iterator[Loaded[LabelPair]]:
    """Reads label maps in order, in worker processes that run ahead of the caller.

    Args:
      items: The label maps.
      references: The reference of each map, or None.
      stored: How the maps are stored.
      reference_stored: How the references are stored, or None.
      workers: Number of processes for many files; 0 reads in this one.

    Yields:
      For each map, in order, the map with its reference, or what is wrong.

    Raises:
      InputError: If a process dies.
    """
    read = functools.partial(load, stored=stored, reference_stored=reference_stored)
    workers = workers if _are_many(items) else 0
    yield from _each(read, zip(items, references, strict=True), workers)


def _are_many(items: Sequence[Item]) -> bool:
    return sum(item.stamp[0] for item in items) > _MANY_BYTES


def _each(
    call: Callable[..., T], tasks: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[T]:
    """Yields `call(*task)` of each task in order, by processes if there are some."""
    if workers == 0:
        for task in tasks:
            yield call(*task)
        return
    # Forking a process that runs jax can hang it.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=host.start_worker
        ) as pool:
            yield from collect.read_ahead(pool, call, tasks, lambda _: 4 * workers + 1)
    except BrokenProcessPool:
        raise InputError(
            "workers: a process that reads files died; expected enough memory, and in a"
            ' script that the call is below `if __name__ == "__main__":`; `workers=0`'
            " reads in this process"
        ) from None
