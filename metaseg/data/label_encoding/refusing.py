"""Messages for label maps that hold no class ids, with the options that help."""

import math
from collections.abc import Callable
from typing import NoReturn

from metaseg.data.label_encoding.label_maps import WHITE, LabelMaps
from metaseg.data.label_encoding.options import VOID
from metaseg.errors import InputError

__all__ = [
    "MOST_FOUND",
    "colors",
    "fractions",
    "have_gaps",
    "mixed",
    "negative",
    "nonfinite",
    "not_from_zero",
    "trace",
    "two_classes",
    "unlisted",
    "unreached",
    "values",
]

MOST_FOUND = 64  # most classes that are believed without being told
_SOFT = 250  # masks of 8 bit that hold more are soft
_FEW = 6  # values or colours that are listed one by one


def have_gaps(ids: list[int]) -> bool:
    """Returns whether values are too far apart to be class ids.

    Args:
      ids: Values above 0, rising.

    Returns:
      True if fewer than half of the values up to the highest occur, or only one that is
      not 1.
    """
    return bool(ids) and (2 * len(ids) < ids[-1] or (len(ids) == 1 and ids[0] > 1))


def values(
    maps: LabelMaps, told: int, wrong: Callable[[float], bool] = lambda value: value > 0
) -> NoReturn:
    """Refuses values that are no class ids.

    Args:
      maps: All label maps.
      told: Number of classes that the user told, or 0.
      wrong: Which values are none.

    Raises:
      InputError: Always.
    """
    ids, every = maps.ids(), maps.having(lambda one: one.distinct > 0)
    holding = maps.having(lambda one: any(map(wrong, one.counts))) or every
    highest = int(maps.highest())
    small = bool(ids) and ids[-1] < VOID and not maps.are_many()
    enough = f"`num_classes={ids[-1] + 1}`" if small and not maps.fixed else ""
    if maps.are_objects():
        what = "ids of objects, not of classes"
        border = "`instances=border` (and class 2 where objects touch)"
        if told == 2:  # a third class has to be told, or is none of a trained network
            border = border.replace("` (", "` with `num_classes=3` (")
        if told == 2 and maps.fixed:
            border = "`instances=void` (and void where objects touch)"
        cures = ["`instances=union` (each object is class 1)", border]
    elif ids[-1:] == [WHITE[1]] and not have_gaps(ids[:-1]):
        what = f"{WHITE[1]} is a usual mark of void"
        cures = [maps.listing(f"{WHITE[1]}={VOID}")]
    elif small and len(ids) <= MOST_FOUND and not have_gaps(ids):
        what = f"class ids up to {ids[-1]}"
        union = maps.listing(f"1-{ids[-1]}=1")
        void = maps.listing(f"{max(told, 1)}-{ids[-1]}={VOID}")
        cures = [] if 0 in maps.counts() else [f"{_from_one(maps)} (they count from 1)"]
        cures += [*([enough] if enough else []), f"{union} (all are class 1)"]
        cures += [f"{void} (those are void)"] if told > 2 else []
        enough = ""
    elif maps.distinct() <= 2 * _FEW:
        what, cures = "grey levels", _levels(maps, told)
        enough = enough if ids[-1] < MOST_FOUND else ""
    else:
        what = "a soft or resized mask, or an image"
        cures = [f"`label_threshold={_middle(highest)}`"]
        enough = enough if ids[-1] < _SOFT else ""
    if enough:
        cures.append(f"{enough} (they are class ids)")
    if told:
        what += f" (num_classes={told})"
    raise InputError(
        f"{holding.first}: {maps.values()} {holding.where(maps)}: {what}; expected"
        f" class ids, or {', or '.join(cures)}"
    )


def _levels(maps: LabelMaps, told: int) -> list[str]:
    """The options for a few grey levels."""
    levels = [int(value) for value in maps.counts() if value > 0]
    threshold = f"`label_threshold={_middle(levels[-1])}`"
    if len(levels) > _FEW:
        return [threshold]
    if maps.fixed and len(levels) >= told:
        listed = ",".join(f"{value}=1" for value in levels)
        return [f"{maps.listing(listed)} (all are class 1)", threshold]
    listed = ",".join(f"{value}={i}" for i, value in enumerate(levels, 1))
    more = f" with `num_classes={len(levels) + 1}`" if 0 < told <= len(levels) else ""
    return [f"{maps.listing(listed)}{more}", *([threshold] if len(levels) > 1 else [])]


def _middle(highest: float) -> int:
    """Threshold of a soft mask."""
    return 128 if 128 <= highest <= 255 else math.ceil(highest / 2)


def colors(maps: LabelMaps, *, listed: bool) -> None:
    """Refuses colours that have no class id.

    Args:
      maps: All label maps.
      listed: Whether the user gave class ids of colours.

    Raises:
      InputError: If there are such colours.
    """
    colored = maps.having(lambda one: one.kind == "colours" and one.distinct > 0)
    if not colored:
        return
    shown = f"{colored.values(colors=True)} {colored.where(maps)}"
    if listed:
        raise InputError(
            f"{colored.first}: colours without a class id: {shown}; expected those of"
            " `label_colors`"
        )
    codes = sorted(map(int, colored.counts()))
    option = "`label_colors=FILE`, a file of lines 'R G B ID'"
    if len(codes) <= _FEW and not colored.are_many():
        inline = ",".join(f"#{code:06x}={i}" for i, code in enumerate(codes))
        option = f"`label_colors='{inline}'`, or a file of lines 'R G B ID'"
    raise InputError(
        f"{colored.first}: colours: {shown}; expected class ids, or {option}"
    )


def nonfinite(maps: LabelMaps) -> None:
    """Refuses NaN and infinite values.

    Args:
      maps: All label maps.

    Raises:
      InputError: If there are some.
    """
    found = maps.having(lambda one: one.nonfinite > 0)
    if found:
        pixels = sum(one.nonfinite for _, one in found.surveys)
        raise InputError(
            f"{found.first}: NaN or infinite values ({pixels} pixels)"
            f" {found.where(maps)}; expected class ids"
        )


def unreached(maps: LabelMaps, threshold: float) -> None:
    """Refuses a threshold that no value of maps with several values reaches.

    Maps of 0 and 1 beside maps that reach it would become background without a word.

    Args:
      maps: All label maps.
      threshold: Values of at least this are class 1.

    Raises:
      InputError: If it is too high for all maps, or for those of 0 and 1.
    """
    varied, high = maps.having(lambda one: one.distinct > 1), float(maps.highest())
    if varied and high < threshold:
        raise InputError(
            f"label_threshold: got {threshold:g}, but no value {varied.where(maps)} is"
            f" above {high:g}; expected at most that"
            + f", such as `label_threshold={high / 2:g}`"
            * (high > 0)
        )
    ids = maps.having(lambda one: one.distinct == 2 and one.counts.keys() == {0, 1})
    if ids and threshold > 1:
        raise InputError(
            f"{ids.first}: 0 and 1 {ids.where(maps)}, where `label_threshold="
            f"{threshold:g}` leaves no foreground; expected maps of one encoding"
        )


def fractions(maps: LabelMaps) -> None:
    """Refuses fractions.

    Args:
      maps: All label maps.

    Raises:
      InputError: If there are some.
    """
    found = maps.having(lambda one: one.kind == "fractions")
    if found:
        low = min(one.lowest for _, one in found.surveys)
        high = max(one.highest for _, one in found.surveys)
        middle = f"{high / 2:g}" if high <= 1 else str(_middle(high))
        if 0.5 < high <= 1:
            middle = "0.5"
        raise InputError(
            f"{found.first}: fractions from {low:g} to {high:g} {found.where(maps)};"
            f" expected class ids, or `label_threshold={middle}`"
        )


def negative(maps: LabelMaps) -> None:
    """Refuses negative values.

    Args:
      maps: All label maps.

    Raises:
      InputError: If there are some.
    """
    found = maps.having(lambda one: one.lowest < 0)
    if not found:
        return
    values = sorted(int(value) for value in found.counts() if value < 0)
    low = int(min(one.lowest for _, one in found.surveys))
    what, marks = "", f"{low}--1"
    if low == -1:
        what, marks = ", the usual mark of pixels to ignore", "-1"
    option = f"{maps.listing(f'{marks}={VOID}')} if they are void"
    if not maps.ids() and VOID not in maps.counts():  # signed masks of 8 bit
        option += f", or {maps.listing(f'{marks}=1')} if they are class 1"
    shown = found.values(values) or f"from {low}"
    raise InputError(
        f"{found.first}: negative values {shown} {found.where(maps)}{what};"
        f" expected {option}"
    )


def not_from_zero(maps: LabelMaps) -> None:
    """Refuses class ids of which 0 is never used: they may count from 1.

    Args:
      maps: All label maps.

    Raises:
      InputError: If 0 does not occur.
    """
    ids, counts = maps.ids(), maps.counts()
    if not ids or ids[-1] == 1 or 0 in counts or 0 in maps.table.targets():
        return
    raise InputError(
        f"{maps.first}: {maps.values()} {maps.where()}, and no 0; expected"
        f" {_from_one(maps)} if class ids count from 1, or"
        f" `num_classes={ids[-1] + 1}` if class 0 does not occur"
    )


def _from_one(maps: LabelMaps) -> str:
    """The option for class ids that count from 1."""
    ids = range(1, maps.ids()[-1] + 1)
    return maps.listing(",".join(f"{value}={value - 1}" for value in ids))


def two_classes(maps: LabelMaps, told: int) -> NoReturn:
    """Refuses masks where more than two classes are expected.

    Args:
      maps: All label maps.
      told: Number of classes that the user told.

    Raises:
      InputError: Always.
    """
    found = maps.holding(lambda value: value > 0)
    white = [value for value in WHITE if value in maps.counts()]
    ones, voids = (",".join(f"{value}={i}" for value in white) for i in (1, VOID))
    cure = maps.listing(ones) if maps.fixed else "`num_classes=2`"
    raise InputError(
        f"{found.first}: {maps.values()} {found.where(maps)} and no other value:"
        f" masks of two classes (num_classes={told}); expected {cure}, or"
        f" {maps.listing(voids)} if they are void"
    )


def mixed(maps: LabelMaps, masks: LabelMaps, classed: LabelMaps) -> NoReturn:
    """Refuses masks of 0 and 255 beside maps of class ids.

    Args:
      maps: All label maps.
      masks: Those that hold 255.
      classed: Those that hold class ids above 0.

    Raises:
      InputError: Always.
    """
    raise InputError(
        f"{masks.first}: mixed encodings: {masks.values([VOID])} {masks.where(maps)},"
        f" but {classed.values(classed.ids())} {classed.where(maps)}, and no label map"
        f" holds both; {_settled(maps)}"
    )


def trace(maps: LabelMaps, both: LabelMaps, marked: LabelMaps) -> NoReturn:
    """Refuses 255 beside so few pixels of classes that it may be one itself.

    Args:
      maps: All label maps.
      both: Those that hold 255 and class ids above 0.
      marked: Those that hold 255.

    Raises:
      InputError: Always.
    """
    raise InputError(
        f"{both.first}: only a trace of {both.values(both.ids())} {both.where(maps)}"
        f" beside {marked.values([VOID])} {marked.where(maps)}: {VOID} may be class 1"
        f" or void; {_settled(maps)}"
    )


def _settled(maps: LabelMaps) -> str:
    return (
        f"expected {maps.listing(f'{VOID}=1')} if {VOID} is class 1, or"
        f" {maps.listing(f'{VOID}={VOID}')} if it is void"
    )


def unlisted(maps: LabelMaps, num_classes: int) -> None:
    """Refuses values that are neither listed nor class ids.

    Args:
      maps: All label maps.
      num_classes: Number of classes K.

    Raises:
      InputError: If there are some.
    """

    def wrong(value: float) -> bool:
        return not 0 <= value < num_classes and value != VOID

    found = maps.holding(wrong)
    if found:
        named = [value for value in found.counts() if wrong(value)]
        example = f"{int(named[0])}={VOID}"
        raise InputError(
            f"{found.first}: {found.values(named)} {found.where(maps)}: no class id is"
            f" given (num_classes={num_classes}); expected {maps.listing(example)} and"
            f" so on, or {maps.listing(f'*={VOID}')}"
        )
