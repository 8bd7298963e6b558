"""One label map -> what it holds: pixels of each value, and whether ids are objects."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Real

from metaseg.data.file_options import DEFAULT, FileOptions
from metaseg.data.label_encoding import options as options_lib
from metaseg.data.label_encoding.options import VOID

__all__ = ["KEPT", "Survey", "color_codes", "lookup", "survey", "whole_numbers"]

KEPT = 512  # values of a map whose pixels are told; more than any class ids have
_CHUNK = 1 << 20  # values counted at once, which bounds memory
_TABLE = 1 << 22  # longest table of values
_SAMPLED = 48  # ids of a map whose pieces are counted
_BOX = 256  # longest side of a box in which pieces are counted
_FIRST = 8  # ids after which the count stops if most are in pieces


class Survey(NamedTuple):
    """What a label map holds.

    Values that the options give a class id are in `listed` and nowhere else.

    Attributes:
      kind: "integers", also for whole floats; "fractions"; "colours", whose values are
        red * 65536 + green * 256 + blue; or "deep": colours of more than 8 bit.
      dtype: Name of the stored dtype.
      pixels: Number of pixels.
      counts: Pixels of each value, of the 512 values with most pixels.
      distinct: Number of different values; of fractions, at least that many.
      lowest: Lowest value; 0 if there is none.
      highest: Highest value; 0 if there is none.
      listed: Pixels of each class id that the options give.
      looked: Ids whose pieces were counted.
      single: Those of them that are in one piece.
      nonfinite: Pixels that are NaN or infinite.
    """

    kind: str
    dtype: str
    pixels: int
    counts: Mapping[float, int]
    distinct: int
    lowest: float
    highest: float
    listed: Mapping[int, int]
    looked: int = 0
    single: int = 0
    nonfinite: int = 0


def survey(
    values: Real[np.ndarray, "..."] | np.ndarray, *, options: FileOptions = DEFAULT
) -> Survey:
    """Counts the values of one label map.

    Args:
      values: As stored: integers, floats or bool `[H, W]`, or colours `[H, W, 3]`.
      options: How label files are read.

    Returns:
      What the map holds.
    """
    values = np.asarray(values)
    name = values.dtype.name
    if options.label_colors is not None or values.ndim == 3:
        return _survey_colors(values, options)
    integers, nonfinite = whole_numbers(values)
    if integers is None:
        return _survey_fractions(values, nonfinite)
    table = options_lib.parse_values(options.label_values)
    found, counts = _count(integers)
    class_ids = table.find(found)
    own, pixels = found[class_ids < 0], counts[class_ids < 0]
    looked = single = 0
    if not options.instances and options.label_threshold is None:
        ids = own[(own > 0) & (own != VOID)]
        wide = values.dtype.kind in "iu" and values.dtype.itemsize in (2, 4)
        if ids.size >= (2 if wide else 3):
            looked, single = _pieces(integers, ids)
    return Survey(
        kind="integers",
        dtype=name,
        pixels=values.size,
        counts=_most(own, pixels),
        distinct=own.size,
        lowest=int(own[0]) if own.size else 0,
        highest=int(own[-1]) if own.size else 0,
        listed=_sums(class_ids, counts),
        looked=looked,
        single=single,
    )


def _survey_colors(values: np.ndarray, options: FileOptions) -> Survey:
    codes = color_codes(values)
    if codes is None:
        size = int(np.prod(values.shape[:2]))
        return Survey("deep", values.dtype.name, size, {}, 0, 0, 0, {})
    table = color_table(options_lib.parse_colors(options.label_colors))
    found, counts = _count(codes)
    class_ids = table.find(found)
    own, pixels = found[class_ids < 0], counts[class_ids < 0]
    return Survey(
        kind="colours",
        dtype=values.dtype.name,
        pixels=codes.size,
        counts=_most(own, pixels),
        distinct=own.size,
        lowest=0,
        highest=0,
        listed=_sums(class_ids, counts),
    )


def _survey_fractions(values: np.ndarray, nonfinite: int) -> Survey:
    """Counts floats; stops where there are so many that they tell nothing."""
    found: np.ndarray = np.zeros(0, values.dtype)
    counts: np.ndarray = np.zeros(0, np.int64)
    finite = values[np.isfinite(values)]
    for part in _chunks(finite):
        more = np.unique(part, return_counts=True)
        found, counts = _merged(
            np.concatenate([found, more[0]]), np.concatenate([counts, more[1]])
        )
        if found.size > KEPT:
            break
    return Survey(
        kind="fractions",
        dtype=values.dtype.name,
        pixels=values.size,
        counts=_most(found, counts) if found.size <= KEPT else {},
        distinct=found.size,
        lowest=float(finite.min(initial=np.inf)) if finite.size else 0,
        highest=float(finite.max(initial=-np.inf)) if finite.size else 0,
        listed={},
        nonfinite=nonfinite,
    )


def whole_numbers(values: np.ndarray) -> tuple[np.ndarray | None, int]:
    """Returns numbers as integers.

    Args:
      values: Numbers or bool of any shape.

    Returns:
      Integers of the same shape, or None if there are fractions, NaN or infinite
      values; and the number of pixels that are NaN or infinite.
    """
    if values.dtype.kind == "b":
        return values.view(np.uint8), 0
    if values.dtype.kind != "f":
        if values.dtype == np.uint64:
            values = np.minimum(values, np.uint64(2**63 - 1)).astype(np.int64)
        return values, 0
    nonfinite = values.size - int(np.count_nonzero(np.isfinite(values)))
    if nonfinite or (np.abs(values) >= 2.0**62).any():
        return None, nonfinite
    integers = values.astype(np.int64)
    return (integers if (integers == values).all() else None), 0


def color_codes(values: np.ndarray) -> np.ndarray | None:
    """Returns colours as numbers red * 65536 + green * 256 + blue.

    Args:
      values: Colours `[H, W, 3]`, or grey values `[H, W]`, of 8 bit; or of 16 bit with
        the same shades.

    Returns:
      int32 `[H, W]`; None if they are not colours of 8 bit.
    """
    if values.dtype.kind not in "biu" or values.ndim not in (2, 3):
        return None
    if values.dtype != np.uint8 and values.size:
        if values.dtype == np.uint16 and values.max() > 255:
            if (values % 257).any():
                return None
            values = values // 257
        if values.min() < 0 or values.max() > 255:
            return None
    if values.ndim == 2:
        return values.astype(np.int32) * 0x010101
    red, green, blue = (values[..., i].astype(np.int32) for i in range(3))
    return red << 16 | green << 8 | blue


def color_table(colors: Mapping[tuple[int, int, int], int]) -> options_lib.ValueTable:
    """Returns the class ids of colours as a table of their codes."""
    codes = sorted((r << 16 | g << 8 | b, i) for (r, g, b), i in colors.items())
    return options_lib.ValueTable(tuple((code, code, i) for code, i in codes))


def lookup(values: np.ndarray, find: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Applies a function to each value, once per possible value where that is faster.

    Args:
      values: Integers of any shape.
      find: Maps integers `[N]` to results `[N]`.

    Returns:
      The results, in the shape of `values`.
    """
    if values.size == 0:
        return find(values)
    low, high = int(values.min()), int(values.max())
    if high - low >= min(_TABLE, 4 * values.size):
        flat = values.reshape(-1)
        starts, lengths = _runs(flat)
        return np.repeat(find(flat[starts]), lengths).reshape(values.shape)
    table = find(np.arange(high - low + 1) + low)
    if 0 <= low < _TABLE:
        return np.concatenate([np.zeros(low, table.dtype), table])[values]
    return table[values.astype(np.int64) - low]


def _count(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the different integers, rising, and the pixels of each."""
    if values.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    low, high = int(values.min()), int(values.max())
    if high - low < min(_TABLE, max(256, 4 * values.size)):
        total = np.zeros(high - low + 1, np.int64)
        for part in _chunks(values):
            shifted = part if low == 0 else part.astype(np.int64) - low
            sums = np.bincount(shifted)
            total[: sums.size] += sums
        found = np.flatnonzero(total)
        return found + low, total[found]
    found, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for part in _chunks(values):
        starts, lengths = _runs(part)
        found, counts = _merged(
            np.append(found, part[starts].astype(np.int64)), np.append(counts, lengths)
        )
    return found, counts


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns starts and lengths of runs of equal values; neighbours mostly are."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    return starts, np.diff(np.append(starts, values.size))


def _merged(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adds up the counts of equal values."""
    found, inverse = np.unique(values, return_inverse=True)
    sums = np.zeros(found.size, np.int64)
    np.add.at(sums, inverse.ravel(), counts)
    return found, sums


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    flat = values.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]


def _most(values: np.ndarray, counts: np.ndarray) -> dict[float, int]:
    """Returns the pixels of the values that have most, by rising value."""
    if values.size > KEPT:
        kept = np.sort(np.argsort(-counts, kind="stable")[:KEPT])
        values, counts = values[kept], counts[kept]
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _sums(class_ids: np.ndarray, counts: np.ndarray) -> dict[int, int]:
    listed = np.unique(class_ids[class_ids >= 0])
    return {int(i): int(counts[class_ids == i].sum()) for i in listed}


def _pieces(values: np.ndarray, ids: np.ndarray) -> tuple[int, int]:
    """Counts how many ids were looked at, and how many of those are in one piece.

    Time is bounded: some ids stand for all, and large ones are looked at coarsely.
    """
    from scipy import ndimage  # late: it takes as long as reading a hundred files

    if ids.size > _SAMPLED:
        ids = ids[np.linspace(0, ids.size - 1, _SAMPLED).astype(int)]

    def order(found: np.ndarray) -> np.ndarray:
        index = np.minimum(np.searchsorted(ids, found), ids.size - 1)
        return np.where(ids[index] == found, index + 1, 0).astype(np.uint8)

    numbered = lookup(values, order)
    boxes = ndimage.find_objects(numbered, max_label=ids.size)
    looked = single = 0
    for number, box in enumerate(boxes, 1):
        if box is None:
            continue
        if looked >= _FIRST and 2 * single < looked:
            break
        step = max(1, -(-max(side.stop - side.start for side in box) // _BOX))
        inside = numbered[box][::step, ::step] == number
        looked += 1
        single += ndimage.label(inside, np.ones((3, 3)))[1] <= 1
    return looked, single
