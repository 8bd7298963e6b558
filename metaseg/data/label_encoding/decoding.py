"""Stored values of a label map -> class ids, and instance ids."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Real, UInt8

from metaseg import instances
from metaseg.data.label_encoding import surveying
from metaseg.data.label_encoding.options import VOID, ValueTable
from metaseg.data.label_encoding.surveying import Survey
from metaseg.errors import InputError
from metaseg.text import count_of

__all__ = ["Encoding", "decode", "fits", "instance_ids"]

BORDER_CLASSES = ("background", "inside", "border")
_SHOWN = 5  # values that a message names


class Encoding(NamedTuple):
    """How class ids are stored.

    Attributes:
      kind: "ids", "masks", "values", "colours", "threshold" or "instances".
      num_classes: Number of classes K.
      table: Class ids of stored values; of colours by their codes. With "instances",
        those that are not plain ids.
      threshold: With "threshold": values of at least this are class 1.
      instances: With "instances": "union", "border" or "void".
      text: A sentence for the user; says more than the other fields.
    """

    kind: str
    num_classes: int
    table: ValueTable = ValueTable()
    threshold: float | None = None
    instances: str = ""
    text: str = ""

    def describe(self) -> str:
        """Returns one sentence that says how label maps are read."""
        return self.text

    def class_names(self) -> tuple[str, ...] | None:
        """Returns names of the K classes where the encoding gives them, else None."""
        own = self.instances == "border" and self.num_classes == len(BORDER_CLASSES)
        return BORDER_CLASSES if own else None


def decode(
    values: Real[np.ndarray, "..."] | np.ndarray, encoding: Encoding, *, where: str
) -> UInt8[np.ndarray, "H W"]:
    """Turns the stored values of a label map into class ids.

    Args:
      values: As stored: integers, floats or bool `[H, W]`, or colours `[H, W, 3]`.
      encoding: Result of `recognise`.
      where: Name of the map, for messages.

    Returns:
      Class ids uint8 `[H, W]`; 255 is void.

    Raises:
      InputError: If the map holds a value that has no class id.
    """
    values = np.asarray(values)
    if encoding.kind == "colours":
        codes = surveying.color_codes(values)
        if codes is None:
            raise InputError(
                f"{where}: {values.dtype} {list(values.shape)}, expected colours of"
                " 8 bit"
            )
        return _by_table(codes, encoding, where)
    if values.ndim != 2:
        raise InputError(f"{where}: colours, expected class ids; see `label_colors`")
    if encoding.threshold is not None:
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise InputError(f"{where}: NaN in a label map, expected numbers")
        return (values >= encoding.threshold).astype(np.uint8)
    integers, _ = surveying.whole_numbers(values)
    if integers is None:
        raise InputError(f"{where}: fractions or NaN, expected class ids")
    if encoding.kind != "instances":
        return _by_table(integers, encoding, where)
    ids = _object_ids(integers, encoding, where)
    found = (ids > 0).astype(np.uint8)
    found[ids == instances.VOID] = VOID
    if encoding.instances != "union":
        border = instances.borders(ids) & (found == 1)
        found[border] = 2 if encoding.instances == "border" else VOID
    return found


def fits(found: Survey, encoding: Encoding) -> bool:
    """Returns whether an encoding has a class id for every value of a label map.

    Args:
      found: Survey of the map, by the options of the encoding.
      encoding: Result of `recognise`.

    Returns:
      False if `decode` would refuse the map.
    """
    if encoding.kind == "colours":
        return found.kind == "colours" and found.distinct == 0
    if encoding.kind == "threshold":
        return found.kind in ("integers", "fractions") and found.nonfinite == 0
    if found.kind != "integers":
        return False
    if encoding.kind == "instances":
        return found.lowest >= 0
    values = np.array(list(found.counts), np.int64)
    known = bool((encoding.table.find(values) >= 0).all())
    return known and found.distinct == values.size


def instance_ids(
    values: Real[np.ndarray, "H W"], encoding: Encoding
) -> Int32[np.ndarray, "H W"] | None:
    """Returns the objects of a label map that stores instance ids.

    Args:
      values: As stored, `[H, W]`.
      encoding: Result of `recognise`.

    Returns:
      Ids int32 `[H, W]`, above 0 in objects; 0 is background, -1 void, as in
      `metaseg.instances`. None if the maps do not store instance ids.

    Raises:
      InputError: If the map holds fractions, NaN or negative values.
    """
    if encoding.kind != "instances":
        return None
    integers, _ = surveying.whole_numbers(np.asarray(values))
    if integers is None:
        raise InputError("values: fractions or NaN, expected instance ids")
    return _object_ids(integers, encoding, "values")


def _object_ids(integers: np.ndarray, encoding: Encoding, where: str) -> np.ndarray:
    """Ids of objects int32 `[H, W]`; 0 is background, -1 void."""
    marks = surveying.lookup(integers, encoding.table.find)
    negative = (integers < 0) & (marks < 0)
    if negative.any():
        raise InputError(_unknown(where, integers, negative))
    background = (integers == 0) & (marks < 0) | (marks == 0) | (marks == VOID)
    ids = np.where(background, 0, integers)
    if ids.size and (ids.max() > np.iinfo(np.int32).max or ids.min() < 0):
        # Ids that int32 does not hold are replaced by their order.
        ids = np.unique(ids, return_inverse=True)[1].reshape(ids.shape) + 1
        ids[background] = 0
    ids = ids.astype(np.int32)
    ids[marks == VOID] = instances.VOID
    return ids


def _by_table(values: np.ndarray, encoding: Encoding, where: str) -> np.ndarray:
    found = surveying.lookup(values, encoding.table.find)
    unknown = found < 0
    if unknown.any():
        raise InputError(_unknown(where, values, unknown, encoding.kind == "colours"))
    return found.astype(np.uint8)


def _unknown(
    where: str, values: np.ndarray, unknown: np.ndarray, colors: bool = False
) -> str:
    """Says which values have no class id."""
    own, counts = np.unique(values[unknown], return_counts=True)
    most = sorted(np.argsort(-counts, kind="stable")[:_SHOWN])
    shown = ", ".join(
        f"#{own[i]:06x} ({count_of(counts[i], 'pixel')})"
        if colors
        else f"{own[i]} ({count_of(counts[i], 'pixel')})"
        for i in most
    )
    more = f" and {own.size - _SHOWN} more" if own.size > _SHOWN else ""
    noun = "colour" if colors else "value"
    return f"{where}: got {noun} {shown}{more}, expected values that have a class id"
