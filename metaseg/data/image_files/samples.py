"""What decoders share: the request, checks of a page, and the choice of channels.

Host-side NumPy; imports no jax.
"""

import contextlib
import contextvars
import logging
import struct
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg.errors import InputError

__all__ = [
    "MAX_PIXELS",
    "DamagedError",
    "Want",
    "check_channel",
    "check_size",
    "check_upright",
    "decoder_errors",
    "finish",
    "page_index",
    "quiet_decoders",
    "shown",
    "some",
    "unpack",
]

MAX_PIXELS = 500_000_000


class Want(NamedTuple):
    """What is to be read of a file.

    Attributes:
      name: Name of the file, for messages.
      page: Page to read, or None for the only one.
      channel: Channel to read, or None for grey or colour.
      max_pixels: Most pixels of the page.
      label: Whether it is a label map, whose palette indices are kept.
    """

    name: str
    page: int | None
    channel: int | None
    max_pixels: int
    label: bool


class DamagedError(Exception):
    """The bytes of a file violate its format."""


@contextlib.contextmanager
def decoder_errors() -> Iterator[None]:
    """Turns whatever a library raises for damaged bytes into a `DamagedError`.

    Libraries raise errors of any class for damaged bytes, TypeError and AssertionError
    included. The block should hold calls of a library only: an error of our own code
    that is raised inside a call would be taken for one of the library. An attribute,
    name or argument that is wrong in the block itself is raised as it is.

    Raises:
      DamagedError: With the class and the text of the library's error.
      OSError: If the operating system cannot read the file.
    """
    try:
        yield
    except DamagedError:
        raise
    except Exception as error:
        # This generator and the block are two frames; a call of a library adds its own.
        own = len(list(traceback.walk_tb(error.__traceback__))) == 2
        if own and isinstance(error, (AttributeError, NameError, TypeError)):
            raise
        if isinstance(error, OSError) and error.strerror:
            raise
        raise DamagedError(f"{type(error).__name__}: {error}") from error


def unpack(form: str, data: bytes | memoryview, offset: int = 0) -> tuple[Any, ...]:
    """Unpacks data as `struct.unpack_from` does; the data may be cut short.

    Args:
      form: Format as in `struct`.
      data: Bytes of a file.
      offset: Where to begin.

    Returns:
      The unpacked values.

    Raises:
      DamagedError: If the data end too early.
    """
    missing = offset + struct.calcsize(form) - len(data)
    if missing > 0:
        raise DamagedError(f"{missing} bytes are missing")
    return struct.unpack_from(form, data, offset)


def page_index(want: Want, count: int) -> int:
    """Returns the page to read of a file.

    Args:
      want: What is to be read.
      count: Number of pages of the file.

    Returns:
      Index of the page.

    Raises:
      InputError: If there is no such page, or several and none is chosen.
    """
    if want.page is None and count > 1:
        raise InputError(
            f"{want.name}: {count} pages; expected a single-page file, or a page chosen"
            f" (page=0 to {count - 1})"
        )
    page = want.page or 0
    if not 0 <= page < count:
        raise InputError(
            f"{want.name}: page {page} of {count}; expected 0 to {count - 1}"
        )
    return page


def check_size(want: Want, height: int, width: int, channels: int = 1) -> None:
    """Refuses images that are too large, before their memory is allocated.

    Args:
      want: What is to be read.
      height: Rows that the header states.
      width: Columns.
      channels: Channels.

    Raises:
      InputError: If the image has more than `want.max_pixels` pixels.
    """
    if height * width * max(1, channels / 4) > want.max_pixels:  # RGBA is still one
        raise InputError(
            f"{want.name}: {height} x {width} pixels of {channels} channels; expected"
            f" at most {want.max_pixels:,} pixels (max_pixels)"
        )


def check_upright(want: Want, orientation: int) -> None:
    """Refuses images that viewers rotate or mirror.

    Args:
      want: What is to be read.
      orientation: Orientation tag; numbers outside 2..8 mean upright.

    Raises:
      InputError: If the pixels are not stored upright.
    """
    if 2 <= orientation <= 8:
        raise InputError(
            f"{want.name}: orientation tag {orientation}; expected pixels stored"
            " upright (1)"
        )


def check_channel(want: Want, channels: int, colours: int) -> None:
    """Refuses a channel that does not exist, and many channels without a choice.

    Args:
      want: What is to be read.
      channels: Channels of the page.
      colours: How many of them are an image without a choice: 1, 3, or 0 for none.

    Raises:
      InputError: If the channel does not exist or has to be chosen.
    """
    if want.channel is None and not colours:
        raise InputError(
            f"{want.name}: {channels} channels; expected grey or RGB(A), or a channel"
            f" chosen (channel=0 to {channels - 1})"
        )
    if want.channel is not None and not 0 <= want.channel < channels:
        raise InputError(
            f"{want.name}: channel {want.channel} of {channels}; expected 0 to"
            f" {channels - 1}"
        )


def finish(
    want: Want, pixels: np.ndarray, colours: int, palette: np.ndarray | None = None
) -> np.ndarray:
    """Selects channels, and expands the palette of an image.

    Args:
      want: What is to be read.
      pixels: `[H, W, C]` without alpha.
      colours: As for `check_channel`.
      palette: uint8 `[entries, 3]`, or None.

    Returns:
      `[H, W, 1]` or `[H, W, 3]`.
    """
    if palette is not None and not want.label:
        indices = pixels[..., 0]
        if indices.dtype.kind not in "bu" or indices.max(initial=0) >= len(palette):
            raise DamagedError("it holds indices that its palette lacks")
        pixels, colours = palette[indices.astype(np.intp)], 3
    check_channel(want, pixels.shape[-1], colours)
    if want.channel is None:
        return pixels[..., :colours]
    return pixels[..., want.channel : want.channel + 1]


def shown(path: Path) -> str:
    r"""Returns a path on one line, with escapes for unprintable characters.

    Args:
      path: A path.

    Returns:
      The path as text.
    """
    text = str(path)
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in text
    )


def some(names: Sequence[str], count: int = 3) -> str:
    """Returns the first names of a list, for a message.

    Args:
      names: Names.
      count: How many are shown.

    Returns:
      Names with commas; "..." stands for the others.
    """
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


_QUIET = contextvars.ContextVar("quiet", default=False)  # of this thread, not of all
logging.getLogger("tifffile").addFilter(lambda record: not _QUIET.get())


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """A damaged file gets one line, ours."""
    before = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(before)
