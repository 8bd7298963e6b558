"""The choices that say how image and label files are read: one meaning everywhere.

The fields are the flags of every command that reads files (`--label_values`), the
section `config.files` of a run, and the keyword arguments of the Python functions.
Imports neither jax nor NumPy.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from metaseg.errors import InputError

__all__ = [
    "DEFAULT",
    "INSTANCES",
    "LABEL_FIELDS",
    "Channels",
    "FileKeywords",
    "FileOptions",
    "build",
    "changed",
    "of_config",
    "recorded",
]

INSTANCES = ("", "union", "border", "void")
LABEL_FIELDS = (  # what stored values of label maps mean
    "label_values",
    "label_colors",
    "label_threshold",
    "from_alpha",
    "instances",
)
Channels = int | str | Sequence[int | str] | None


class FileOptions(NamedTuple):
    """How image and label files are read.

    Attributes:
      channels: Channels of images to take, by index from 0 or by name; None: all.
      page: Page of files with several, from 0; None: each page is an image.
      apply_orientation: Whether pixels are turned upright as the orientation tag says;
        otherwise a file that is not stored upright is refused.
      image_suffix: What names of images end with before the ending of the file; None:
        nothing.
      label_suffix: The same for label maps; None: nothing or one of the known suffixes,
        such as "_mask".
      label_values: Class ids of stored values, such as "1-65535=1,*=255", or a mapping;
        None: the encoding is recognised.
      label_colors: Class ids of colours: path of a file, or "#dc143c=1,0:0:0=0", or a
        mapping; None: colours are refused.
      label_threshold: Values of at least this are class 1, smaller ones class 0; None:
        soft masks are refused.
      from_alpha: Whether label maps are in the alpha channel.
      instances: What becomes of instance ids: "union": every id is class 1; "border":
        the same, and pixels where objects touch are class 2; "void": those are void.
        "": instance ids are refused.
    """

    channels: tuple[int | str, ...] | None = None
    page: int | None = None
    apply_orientation: bool = False
    image_suffix: str | None = None
    label_suffix: str | None = None
    label_values: str | Mapping[int, int] | None = None
    label_colors: str | Mapping[tuple[int, int, int], int] | None = None
    label_threshold: float | None = None
    from_alpha: bool = False
    instances: str = ""


DEFAULT = FileOptions()


class FileKeywords(TypedDict, total=False):
    """Fields of `FileOptions` as keyword arguments; `channels` may be one of them."""

    channels: Channels
    page: int | None
    apply_orientation: bool
    image_suffix: str | None
    label_suffix: str | None
    label_values: str | Mapping[int, int] | None
    label_colors: str | Mapping[tuple[int, int, int], int] | None
    label_threshold: float | None
    from_alpha: bool
    instances: str


def build(**fields: Any) -> FileOptions:
    """Returns the options of keyword arguments, as `FileKeywords` has them.

    Args:
      **fields: Fields of `FileOptions`. `channels` may also be one index or name, or
        text such as "0,2" or "DAPI,actin".

    Returns:
      The options.

    Raises:
      InputError: If a channel or page is wrong.

    Example:
      >>> build(channels="0,DAPI").channels
      (0, 'DAPI')
    """
    options = FileOptions(**fields)
    page = options.page
    if page is not None and (not _is_index(page) or page < 0):
        raise InputError(f"page: got {page!r}, expected a number from 0")
    return options._replace(channels=_channels(options.channels))


def of_config(section: Any) -> FileOptions:
    """Returns the options of a section `files` of a config.

    Args:
      section: Mapping or config with fields of `FileOptions`; fields that it lacks have
        their defaults.

    Raises:
      InputError: If a channel or page is wrong.
    """
    known = {name: section[name] for name in FileOptions._fields if name in section}
    return build(**known)


def changed(options: FileOptions) -> dict[str, Any]:
    """Returns the fields that differ from their defaults.

    Args:
      options: The options.
    """
    return {
        name: value
        for name, value in options._asdict().items()
        if value != getattr(DEFAULT, name)
    }


def recorded(fields: Mapping[str, Any]) -> FileOptions:
    """Returns the channels and what label values mean, of a record in JSON.

    Args:
      fields: What `changed` has returned, as JSON stores it: keys are texts.

    Raises:
      InputError: If a channel is wrong.

    Example:
      >>> recorded({"label_values": {"3": 1}}).label_values
      '3=1'
    """
    known = {name: fields[name] for name in LABEL_FIELDS if name in fields}
    for name in ("label_values", "label_colors"):
        if isinstance(known.get(name), Mapping):
            pairs = known[name].items()
            keys = [(":".join(re.findall(r"-?\d+", str(k))), i) for k, i in pairs]
            known[name] = ",".join(f"{key}={i}" for key, i in keys)
    return build(channels=fields.get("channels"), **known)


def _channels(given: Channels) -> tuple[int | str, ...] | None:
    if given is None:
        return None
    parts = given.split(",") if isinstance(given, str) else given
    each = [parts] if isinstance(parts, int) else list(parts)
    chosen = tuple(_channel(part) for part in each)
    if not chosen or any(part is None for part in chosen):
        raise InputError(
            f"channels: got {given!r}, expected indices from 0 or names, such as"
            " `channels=0,2`"
        )
    return tuple(part for part in chosen if part is not None)


def _channel(part: Any) -> int | str | None:
    """Returns an index or a name; None if it is neither."""
    if isinstance(part, str):
        part = part.strip()
        return int(part) if part.isdecimal() else part or None
    return part if _is_index(part) and part >= 0 else None


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
