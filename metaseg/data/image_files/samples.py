"""What decoders share: the request, checks of a page, and the choice of channels.

Host-side NumPy; imports no jax.
"""

import contextlib
import contextvars
import logging
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg.data.file_options import FileOptions
from metaseg.errors import DamagedError, InputError, decoder_errors, escaped
from metaseg.text import count_of

__all__ = [
    "MAX_PIXELS",
    "DamagedError",
    "StoredPage",
    "Want",
    "check_size",
    "check_upright",
    "chosen_channels",
    "decoder_errors",
    "finish",
    "page_index",
    "quiet_decoders",
    "shown",
    "some",
    "unpack",
    "upright",
]

MAX_PIXELS = 500_000_000


class Want(NamedTuple):
    """What is to be read of a file.

    Attributes:
      name: Name of the file, for messages.
      page: Page to read, or None for the only one.
      options: How files are read; `page` above is used, not `options.page`.
      max_pixels: Most pixels of the page.
      label: Whether it is a label map, whose palette indices are kept.
    """

    name: str
    page: int | None
    options: FileOptions
    max_pixels: int
    label: bool


class StoredPage(NamedTuple):
    """What a decoder found on a page.

    Attributes:
      pixels: Samples `[H, W, C]` as stored, without alpha.
      palette: Colours uint8 `[entries, 3]` of the samples, or None.
      alpha: Alpha channel `[H, W]`, or None.
      orientation: Orientation tag; numbers outside 2..8 mean upright.
      names: Names of the channels, or empty.
      guessed_alpha: Whether the writer may have called another channel alpha.
    """

    pixels: np.ndarray
    palette: np.ndarray | None = None
    alpha: np.ndarray | None = None
    orientation: int = 1
    names: tuple[str, ...] = ()
    guessed_alpha: bool = False


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
        raise DamagedError(f"{count_of(missing, 'byte')} missing")
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
            f" by `page=0` to `page={count - 1}`"
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
            f"{want.name}: {height} x {width} pixels of "
            f"{count_of(channels, 'channel')};"
            f" expected at most {want.max_pixels:,} pixels (max_pixels)"
        )


def check_upright(want: Want, orientation: int) -> None:
    """Refuses images that viewers rotate or mirror, unless that is asked for.

    Args:
      want: What is to be read.
      orientation: Orientation tag; numbers outside 2..8 mean upright.

    Raises:
      InputError: If the pixels are not stored upright and are not to be turned.
    """
    if 2 <= orientation <= 8 and not want.options.apply_orientation:
        raise InputError(
            f"{want.name}: orientation tag {orientation}; expected pixels stored"
            " upright (1), or `apply_orientation=True`, which turns them"
        )


def chosen_channels(
    want: Want, count: int, names: Sequence[str] = ()
) -> Sequence[int] | None:
    """Returns the channels to take of a page.

    Args:
      want: What is to be read.
      count: Number of channels of the page.
      names: Their names, or empty.

    Returns:
      Indices from 0; None for all channels of an image, and for a label map.

    Raises:
      InputError: If a channel does not exist, or its name is not unique.
    """
    if want.options.channels is None or want.label:
        return None
    known = f"; the channels are {some(names, 9)}" if names else ""
    picked = []
    for channel in want.options.channels:
        if isinstance(channel, str):
            found = [i for i, name in enumerate(names) if name == channel]
            if len(found) != 1:
                said = "is not unique" if found else "does not exist"
                raise InputError(
                    f"{want.name}: channel {channel!r} {said}; expected 0 to"
                    f" {count - 1}{known or ', because the file names none'}"
                )
            picked += found
        elif 0 <= channel < count:
            picked.append(channel)
        else:
            raise InputError(
                f"{want.name}: channel {channel} of {count}; expected 0 to"
                f" {count - 1}{known}"
            )
    return picked


def finish(want: Want, found: StoredPage) -> np.ndarray:
    """Selects what is wanted of a page, and turns it upright if asked to.

    Args:
      want: What is to be read.
      found: The page.

    Returns:
      `[H, W, C]`. For a label map C is 1, or 3 if it is coloured.

    Raises:
      InputError: If a channel does not exist, or a label map has other channels than
        one or three colours, or alpha that is not constant.
    """
    select = _label_samples if want.label else _image_samples
    return upright(want, select(want, found), found.orientation)


def _image_samples(want: Want, found: StoredPage) -> np.ndarray:
    pixels = found.pixels
    if found.palette is not None:
        pixels = found.palette[_indices(found)]
    if found.alpha is not None and want.options.channels is not None:
        pixels = np.concatenate([pixels, found.alpha[..., None]], axis=-1)
    elif found.guessed_alpha and _varies(found.alpha):
        own = pixels.shape[-1]
        colours = ",".join(map(str, range(own)))
        raise InputError(
            f"{want.name}: channel {own} is called alpha, as tifffile calls the last of"
            f" four unless it is told; expected `channels={colours},{own}` if it is a"
            f" channel like the others, or `channels={colours}` if it is alpha"
        )
    picked = chosen_channels(want, pixels.shape[-1], found.names)
    return pixels if picked is None else pixels[..., list(picked)]


def _varies(alpha: np.ndarray | None) -> bool:
    return alpha is not None and alpha.size > 0 and bool((alpha != alpha.flat[0]).any())


def _label_samples(want: Want, found: StoredPage) -> np.ndarray:
    alpha = found.alpha
    if want.options.from_alpha:
        if alpha is None:
            raise InputError(
                f"{want.name}: no alpha channel; expected one, or `from_alpha=False`"
            )
        return alpha[..., None]
    if alpha is not None and _varies(alpha):
        raise InputError(
            f"{want.name}: alpha of {alpha.min()} to {alpha.max()} in a label map;"
            " expected constant alpha, or `from_alpha=True`, which reads the class ids"
            " from it"
        )
    channels = found.pixels.shape[-1]
    if channels not in (1, 3):
        raise InputError(
            f"{want.name}: {channels} channels in a label map; expected one channel of"
            " class ids, or three of colours"
        )
    if found.palette is None:
        return found.pixels
    if want.options.label_colors is not None:
        return found.palette[_indices(found)]
    return _by_palette(found, found.palette)


def _by_palette(found: StoredPage, palette: np.ndarray) -> np.ndarray:
    """Grey values where a palette holds just greys, else its indices."""
    grey = palette[:, 0]
    if not (palette == grey[:, None]).all():
        return found.pixels
    indices = _indices(found)
    used = np.unique(indices)
    if len(np.unique(grey[used])) < len(used):  # two ids would become one
        return found.pixels
    return grey[indices][..., None]


def _indices(found: StoredPage) -> np.ndarray:
    """Indices `[H, W]` that the palette has."""
    assert found.palette is not None
    indices = found.pixels[..., 0]
    if indices.dtype.kind not in "bu" or indices.max(initial=0) >= len(found.palette):
        raise DamagedError("it holds indices that its palette lacks")
    return indices.astype(np.intp)


def upright(want: Want, pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns pixels as the orientation tag of a file says.

    Args:
      want: What is to be read.
      pixels: Pixels `[H, W, C]` as stored.
      orientation: Orientation tag; numbers outside 2..8 mean upright.

    Returns:
      Pixels `[H, W, C]`, or `[W, H, C]` for tags 5 to 8.

    Raises:
      InputError: If the pixels are not stored upright and are not to be turned.
    """
    check_upright(want, orientation)
    if not 2 <= orientation <= 8:
        return pixels
    if orientation >= 5:  # the first row of the file is the left or right column
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def shown(path: Path) -> str:
    r"""Returns a path on one line, with escapes for unprintable characters.

    Args:
      path: A path.

    Returns:
      The path as text.
    """
    return escaped(str(path))


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
