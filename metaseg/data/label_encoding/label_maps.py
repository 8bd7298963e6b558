"""The surveys of all label maps of a folder, taken together and put into words."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple

from metaseg.data.file_options import FileOptions
from metaseg.data.label_encoding import options as options_lib
from metaseg.data.label_encoding.options import VOID, ValueTable
from metaseg.data.label_encoding.surveying import KEPT, Survey

__all__ = ["WHITE", "LabelMaps", "some"]

WHITE = (VOID, 65535)  # foreground of masks of 8 and 16 bit
_SINGLE = 0.9  # share of ids in one piece from which they are objects
_SOME_SINGLE = 0.5  # the same, of objects that overlap
_DENSE = 0.8  # least share of the ids up to the highest that occur
_MOST_PARTS = 20  # most classes whose ids may each be in one piece in every map
_LEAST_IDS = 3  # ids whose pieces tell something
_WIDE = ("uint16", "int16", "uint32", "int32")  # what programs store objects in
_NAMED = 3  # files that a message names
_SHOWN = 6  # values that a message names


class LabelMaps(NamedTuple):
    """Label maps with their surveys.

    Attributes:
      surveys: Name and survey of each map, sorted by name.
      options: How they are read.
      fixed: Whether the number of classes cannot be changed.
    """

    surveys: Sequence[tuple[str, Survey]]
    options: FileOptions
    fixed: bool = False

    def having(self, test: Callable[[Survey], bool]) -> "LabelMaps":
        """Returns the maps whose survey passes a test."""
        return self._replace(surveys=[one for one in self.surveys if test(one[1])])

    def holding(self, test: Callable[[float], bool]) -> "LabelMaps":
        """Returns the maps that hold a value that passes a test."""
        return self.having(lambda one: any(map(test, one.counts)))

    def __bool__(self) -> bool:
        return bool(self.surveys)

    @property
    def first(self) -> str:
        """Name of the first map."""
        return self.surveys[0][0]

    @property
    def table(self) -> ValueTable:
        """Class ids of values that the options list."""
        return options_lib.parse_values(self.options.label_values)

    def counts(self) -> dict[float, int]:
        """Returns the pixels of each value that the options do not list."""
        total: dict[float, int] = {}
        for _, one in self.surveys:
            for value, pixels in one.counts.items():
                total[value] = total.get(value, 0) + pixels
        return dict(sorted(total.items()))

    def ids(self) -> list[int]:
        """Returns the values above 0 but 255 that the options do not list."""
        return [int(value) for value in self.counts() if value > 0 and value != VOID]

    def distinct(self) -> int:
        """Returns how many different values there are, or more than 512."""
        return max([len(self.counts()), *(one.distinct for _, one in self.surveys)])

    def are_many(self) -> bool:
        """Returns whether there are more values than the surveys tell."""
        return any(one.distinct > KEPT for _, one in self.surveys)

    def highest(self) -> float:
        """Returns the highest value that the options do not list."""
        return max((one.highest for _, one in self.surveys), default=0)

    def are_objects(self) -> bool:
        """Returns whether values look like ids of objects, not of classes.

        Each id is in one piece, and they are not the same in all maps, or many, or
        stored in a type that class ids do not need. Objects that overlap are in pieces;
        then their ids are many, and stored in such a type, or differ with few gaps.
        """
        surveys = [one for _, one in self.holding(lambda v: v not in (0, VOID)).surveys]
        if not surveys:
            return False
        numbers = [one.distinct - len(one.counts.keys() & {0, VOID}) for one in surveys]
        tops = [
            max(value for value in one.counts if value != VOID)
            if one.distinct <= KEPT
            else one.highest
            for one in surveys
        ]
        differ = len(set(numbers)) > 1 or len(set(tops)) > 1
        many = max(numbers) > _MOST_PARTS
        wide = any(one.dtype in _WIDE for one in surveys)
        if self.are_single(_SINGLE):
            return differ or many or wide
        whole = zip(numbers, tops, strict=True)
        dense = all(number >= _DENSE * top for number, top in whole)
        return many and self.are_single(_SOME_SINGLE) and (wide or (differ and dense))

    def are_single(self, share: float = _SINGLE) -> bool:
        """Returns whether at least a share of the ids are in one piece."""
        looked = sum(one.looked for _, one in self.surveys)
        single = sum(one.single for _, one in self.surveys)
        return looked >= _LEAST_IDS and single >= share * looked

    def where(self, every: "LabelMaps | None" = None) -> str:
        """Says which maps these are, of how many."""
        names = [PurePath(name).name or name for name, _ in self.surveys]
        among = len((every or self).surveys)
        noun = "label map" if among == 1 else "label maps"
        return f"in {len(names)} of {among} {noun} ({some(names, _NAMED)})"

    def values(self, only: Iterable[float] | None = None, colors: bool = False) -> str:
        """Names values with their pixels, the six that have most."""
        counts = self.counts()
        if only is not None:
            counts = {value: counts[value] for value in only}
        most = sorted(sorted(counts, key=lambda v: -counts[v])[:_SHOWN])
        shown = [
            f"{f'#{int(value):06x}' if colors else f'{value:g}'} ({counts[value]}"
            f" {'pixel' if counts[value] == 1 else 'pixels'})"
            for value in most
        ]
        more = (len(counts) if only is not None else self.distinct()) - len(most)
        at_least = "at least " if only is None and self.are_many() else ""
        noun = "colour" if colors else "value"
        if more > 0:
            shown.append(f"{at_least}{more} more {noun}{'' if more == 1 else 's'}")
        return ", ".join(shown)

    def listing(self, added: str) -> str:
        """Returns an option that lists values, those that are listed by now too."""
        listed = str(self.table)
        return f"`label_values='{f'{listed},' if listed else ''}{added}'`"


def some(names: Iterable[object], count: int = _SHOWN) -> str:
    """Returns the first names of a list, for a message.

    Args:
      names: Names or values.
      count: How many are shown.

    Returns:
      Names with commas; "..." stands for the others.
    """
    known = [str(name) for name in names]
    return ", ".join(known[:count]) + (", ..." if len(known) > count else "")
