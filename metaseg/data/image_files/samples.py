"""What every decoder is asked, what it checks and what it gives.

Host-side NumPy; imports no jax.
"""

import contextlib
import contextvars
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metaseg.errors import InputError

__all__ = [
    "MAX_PIXELS",
    "Want",
    "check_channel",
    "check_size",
    "check_upright",
    "finish",
    "page_index",
    "quiet_decoders",
    "shown",
    "some",
]

MAX_PIXELS = 500_000_000


class Want(NamedTuple):
    """What is to be read of a file.

    Attributes:
      name: of the file, for messages.
      page: which of several pages, or None for the only one.
      channel: which of several channels, or None for grey or colour.
      max_pixels: of the page.
      label: whether it is a label map: palette indices as they are, nothing lossy.
    """

    name: str
    page: int | None
    channel: int | None
    max_pixels: int
    label: bool


def page_index(want: Want, count: int) -> int:
    """The page to read of a file that has `count`."""
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
    """Refuses, before memory is asked for, what a header promises beyond reason."""
    if height * width * max(1, channels / 4) > want.max_pixels:  # RGBA is still one
        raise InputError(
            f"{want.name}: {height} x {width} pixels of {channels} channels; expected"
            f" at most {want.max_pixels:,} pixels (max_pixels)"
        )


def check_upright(want: Want, orientation: int) -> None:
    """Refuses pixels that a viewer would turn; other numbers than 2 to 8 say naught."""
    if 2 <= orientation <= 8:
        raise InputError(
            f"{want.name}: orientation tag {orientation}; expected pixels stored"
            " upright (1)"
        )


def check_channel(want: Want, channels: int, colours: int) -> None:
    """Refuses a channel that is not there, and many without one chosen.

    Args:
      want: what is to be read.
      channels: of the page.
      colours: how many of them are an image without a choice: 1, 3, or 0 for none.
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
    """The channels that are wanted, palette expanded unless for a label.

    Args:
      want: what is to be read.
      pixels: `[H, W, C]` without alpha.
      colours: as for `check_channel`.
      palette: uint8 `[entries, 3]`, or None.

    Returns:
      `[H, W, 1]` or `[H, W, 3]`.
    """
    if palette is not None and not want.label:
        pixels, colours = palette[pixels[..., 0]], 3
    check_channel(want, pixels.shape[-1], colours)
    if want.channel is None:
        return pixels[..., :colours]
    return pixels[..., want.channel : want.channel + 1]


def shown(path: Path) -> str:
    r"""A path on one line: what cannot be printed becomes `\n` and the like."""
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
    """The first few of a list, for a message."""
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
