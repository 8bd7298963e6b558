"""The choices of the user: class ids of stored values and of colours."""

import csv
import io
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg.data.file_options import INSTANCES, FileOptions
from metaseg.errors import InputError
from metaseg.text import count_of

__all__ = ["VOID", "ValueTable", "check", "parse_colors", "parse_values"]

VOID = 255  # that of `labels`, which imports jax
Colour = tuple[int, int, int]

_VALUE = re.compile(r"(-?\d+)(?:\s*-\s*(-?\d+))?")
_VALUES = (
    "expected STORED=ID,..., where STORED is a value, a range such as 1-65535, or * for"
    f" all others, and ID a class id in 0..{VOID - 1} or {VOID} (void)"
)
_COLOUR = "a colour as #rrggbb or R:G:B"
_LINES = "'R G B ID', '#rrggbb ID', CSV with a header, or JSON {\"#rrggbb\": ID}"
_COLUMNS = {
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
    "colour": ("color", "colour", "hex", "rgb"),
    "id": ("id", "class_id", "class", "index", "label", "value"),
}


class ValueTable(NamedTuple):
    """Class ids of stored values.

    Attributes:
      ranges: (lowest value, highest value, class id) in rising order, not overlapping.
      rest: Class id of all other values; None: they are not listed.
    """

    ranges: tuple[tuple[int, int, int], ...] = ()
    rest: int | None = None

    def __str__(self) -> str:
        listed = [
            f"{low}={class_id}" if low == high else f"{low}-{high}={class_id}"
            for low, high, class_id in self.ranges
        ]
        return ",".join(listed + ([] if self.rest is None else [f"*={self.rest}"]))

    def targets(self) -> set[int]:
        """Returns the class ids that the table gives."""
        given = {class_id for _, _, class_id in self.ranges}
        return given if self.rest is None else given | {self.rest}

    def find(self, values: np.ndarray) -> np.ndarray:
        """Returns the class id of each value, int16; -1 where there is none.

        Args:
          values: Integers of any shape.
        """
        rest = np.int16(-1 if self.rest is None else self.rest)
        if not self.ranges:
            return np.full(values.shape, rest)
        lows, highs, class_ids = np.array(self.ranges, np.int64).T
        index = np.searchsorted(lows, values, side="right") - 1
        inside = (index >= 0) & (values <= highs[index])
        return np.where(inside, class_ids[index].astype(np.int16), rest)


def check(options: FileOptions) -> None:
    """Checks the choices that concern label maps, before a file is read.

    Args:
      options: How image and label files are read.

    Raises:
      InputError: If a choice is not one, or two choices contradict each other.
    """
    if options.instances not in INSTANCES:
        raise InputError(
            f"instances: got {options.instances!r}, expected one of "
            f"{', '.join(map(repr, INSTANCES))}"
        )
    threshold: Any = options.label_threshold
    number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if threshold is not None and not (number and math.isfinite(threshold)):
        raise InputError(
            f"label_threshold: got {threshold!r}, expected a number, such as 128"
        )
    table = parse_values(options.label_values)
    parse_colors(options.label_colors)
    given = [
        name
        for name in ("label_threshold", "label_colors", "label_values", "instances")
        if getattr(options, name) not in (None, "")
    ]
    if len(given) > 1 and given != ["label_values", "instances"]:
        raise InputError(
            f"{given[0]}: got `{given[1]}` too, expected one way to read label maps"
        )
    if options.label_colors is not None and options.from_alpha:
        raise InputError(
            "from_alpha: got `label_colors` too, expected one way to read label maps"
        )
    if len(given) > 1 and (
        table.rest is not None or not table.targets() <= {0, 1, VOID}
    ):
        raise InputError(
            f"label_values: got '{table}', expected with `instances` only values that"
            f" are background (0), an object (1) or void ({VOID})"
        )


def parse_values(given: str | Mapping[int, int] | None) -> ValueTable:
    """Reads class ids of stored values.

    Args:
      given: Text such as "1-65535=1,*=255,0=0" or "-1=255", where `*` is every value
        that is not listed; or class ids by value; None: nothing is listed.

    Returns:
      The table.

    Raises:
      InputError: If it is something else, or lists a value twice.

    Example:
      >>> parse_values("3=1,-2--1=255")
      ValueTable(ranges=((-2, -1, 255), (3, 3, 1)), rest=None)
    """
    if given is None:
        return ValueTable()
    rest: list[int] = []
    ranges: list[tuple[int, int, int]] = []
    for part, class_id in _entries(given):
        found = _VALUE.fullmatch(part)
        if not 0 <= class_id <= VOID or not (found or part == "*"):
            raise InputError(f"label_values: got '{part}={class_id}', {_VALUES}")
        if found is None:
            rest.append(class_id)
            continue
        low = int(found[1])
        high = low if found[2] is None else int(found[2])
        if low > high or max(-low, high) >= 2**63:
            raise InputError(f"label_values: got '{part}={class_id}', {_VALUES}")
        ranges.append((low, high, class_id))
    ranges.sort()
    for (_, high, _), (low, _, _) in itertools.pairwise(ranges):
        if low <= high:
            raise InputError(f"label_values: got {low} twice, expected each value once")
    if len(rest) > 1:
        raise InputError("label_values: got * twice, expected each value once")
    return ValueTable(tuple(ranges), rest[0] if rest else None)


def _entries(given: str | Mapping[int, int]) -> list[tuple[str, int]]:
    """Splits what is given into texts of values, and class ids."""
    if isinstance(given, Mapping):
        pairs = list(given.items())
        if not pairs or not all(_is_integer(x) for pair in pairs for x in pair):
            raise InputError(f"label_values: got {_short(given)}, {_VALUES}")
        return [(str(value), int(class_id)) for value, class_id in pairs]
    if not isinstance(given, str):
        raise InputError(f"label_values: got {_short(given)}, {_VALUES}")
    entries = []
    for part in given.split(","):
        value, equals, class_id = (text.strip() for text in part.partition("="))
        if not equals or not re.fullmatch(r"\d{1,9}", class_id, re.ASCII):
            raise InputError(f"label_values: got '{part.strip()}', {_VALUES}")
        entries.append((value, int(class_id)))
    return entries


def parse_colors(
    given: str | os.PathLike[str] | Mapping[Colour, int] | None,
) -> dict[Colour, int]:
    """Reads class ids of colours.

    A file has lines `R G B ID [NAME]` or `#rrggbb ID [NAME]`; or is CSV whose header
    names the columns (`r`, `g`, `b` or `color`, and `id`); or is JSON, an object of ids
    by colour; or is the labelmap.txt of CVAT. Where a CSV file or labelmap.txt has no
    ids, the lines count from 0.

    Args:
      given: Path of a file; or text such as "#dc143c=1,0:0:0=0"; or class ids by
        (red, green, blue); None: nothing is listed.

    Returns:
      Class ids by (red, green, blue); 255 is void.

    Raises:
      InputError: If it is something else, or lists a colour twice.

    Example:
      >>> parse_colors("#dc143c=1,0:0:0=0")
      {(220, 20, 60): 1, (0, 0, 0): 0}
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return _unique("label_colors", given.items())
    if not isinstance(given, str | os.PathLike):
        raise InputError(
            f"label_colors: got {_short(given)}, expected a file, or COLOUR=ID,..."
        )
    path = Path(given).expanduser()
    if isinstance(given, str) and "=" in given and not path.exists():
        parts = [part.rpartition("=") for part in given.split(",")]
        return _unique("label_colors", ((color, text) for color, _, text in parts))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(
            f"label_colors: '{given}': {reason}; expected a file of colours, or"
            " COLOUR=ID,... such as '#dc143c=1,#000000=0'"
        ) from error
    return _unique(f"label_colors: '{given}'", _lines(given, text))


def _lines(path: str | os.PathLike[str], text: str) -> Iterable[tuple[Any, Any]]:
    """Splits the text of a file into colours and class ids, not checked yet."""
    if text.lstrip().startswith("{"):
        try:
            return [*json.loads(text, object_pairs_hook=_Pairs)]
        except ValueError as error:
            raise InputError(
                f"label_colors: '{path}': not JSON ({error}); expected {_LINES}"
            ) from error
    lines = [
        line.strip()
        for line in text.splitlines()
        if line.strip() and not re.match(r"\s*#(?![0-9a-fA-F]{6}\b)", line)
    ]
    if not lines:
        raise InputError(f"label_colors: '{path}': no colour; expected {_LINES}")
    columns = _columns(lines[0])
    if columns is not None:
        separator = next(c for c in ",;\t" if c in lines[0])
        rows = list(csv.reader(io.StringIO("\n".join(lines[1:])), delimiter=separator))
        return [_of_row(path, i, row, columns) for i, row in enumerate(rows)]
    return [_of_line(path, index, line) for index, line in enumerate(lines)]


class _Pairs(list[tuple[Any, Any]]):
    """The items of a JSON object, repeated ones too."""


def _columns(header: str) -> dict[str, int] | None:
    """Finds the columns of a CSV file; None if the line is no header."""
    names = [name.strip(" \"'").lower() for name in re.split(r"[,;\t]", header)]
    found = {
        column: names.index(name)
        for column, known in _COLUMNS.items()
        for name in known
        if name in names
    }
    complete = "colour" in found or {"red", "green", "blue"} <= found.keys()
    return found if complete else None


def _of_row(
    path: str | os.PathLike[str], index: int, row: list[str], columns: dict[str, int]
) -> tuple[Any, Any]:
    if max(columns.values()) >= len(row):
        raise InputError(
            f"label_colors: '{path}': got '{','.join(row)}', expected"
            f" {count_of(max(columns.values()) + 1, 'column')}, as in the header"
        )
    names = ("colour",) if "colour" in columns else ("red", "green", "blue")
    color = ":".join(row[columns[name]] for name in names)
    return color, row[columns["id"]] if "id" in columns else index


def _of_line(path: str | os.PathLike[str], index: int, line: str) -> tuple[Any, Any]:
    cvat = re.fullmatch(r"[^:]+:(\d+,\d+,\d+):[^:]*:[^:]*", line)
    if cvat:
        return cvat[1], index
    words = re.split(r"[\s,;]+", line)
    if words[0].startswith("#") and len(words) > 1:
        return words[0], words[1]
    if len(words) < 4:
        raise InputError(f"label_colors: '{path}': got '{line}', expected {_LINES}")
    return ":".join(words[:3]), words[3]


def _unique(where: str, pairs: Iterable[tuple[Any, Any]]) -> dict[Colour, int]:
    found: dict[Colour, int] = {}
    for key, value in pairs:
        color, class_id = _color(key), _class_id(value)
        if color is None or class_id is None:
            raise InputError(
                f"{where}: got {_short(key)} with id {_short(value)}, expected"
                f" {_COLOUR}, with a class id in 0..{VOID - 1} or {VOID} (void)"
            )
        if color in found:
            raise InputError(f"{where}: got {_short(key)} twice, expected it once")
        found[color] = class_id
    if not found:
        raise InputError(f"{where}: no colour, expected {_COLOUR}, with a class id")
    return found


def _color(given: Any) -> Colour | None:
    """Returns (red, green, blue), or None if it is no colour of 8 bit."""
    if isinstance(given, str):
        text = given.strip()
        if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
            code = int(text[1:], 16)
            return code >> 16, code >> 8 & 255, code & 255
        if not re.fullmatch(r"\d{1,3}(\s*[:,\s]\s*\d{1,3}){2}", text, re.ASCII):
            return None
        given = [int(number) for number in re.findall(r"\d+", text)]
    if not isinstance(given, tuple | list) or len(given) != 3:
        return None
    if not all(_is_integer(x) and 0 <= x <= 255 for x in given):
        return None
    red, green, blue = given
    return int(red), int(green), int(blue)


def _class_id(given: Any) -> int | None:
    if isinstance(given, str) and re.fullmatch(r"\s*\d{1,3}\s*", given, re.ASCII):
        given = int(given)
    return int(given) if _is_integer(given) and 0 <= given <= VOID else None


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"'{text}'" if isinstance(value, str) else text
