"""TIFF: which of its planes are pages, and which are channels.

tifffile reads the structure. Host-side NumPy; imports no jax.
"""

import math
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile

from metaseg.data.image_files import samples, tiff_chain, tiff_plain, tiff_planes
from metaseg.data.image_files.samples import DamagedError, StoredPage, Want
from metaseg.errors import InputError

__all__ = ["channel_names", "count", "decode"]

_DESCRIBED = ("shaped", "imagej", "ome")  # by metadata that name each axis
_NO_IMAGE = 0b101  # bits of NewSubfileType: reduced resolution, transparency mask


class _Stack(NamedTuple):
    """Some of a file's planes, all of one kind.

    Attributes:
      planes: pages of the file.
      numbers: `[pages, channels]` of our pages, each the place of a plane.
      whole: tifffile's series where `planes` holds but the first, else None.
    """

    planes: Sequence[Any]
    numbers: np.ndarray
    whole: Any = None


def decode(stream: BinaryIO, want: Want) -> np.ndarray:
    """Reads one page of a TIFF file, or some channels of a page.

    Args:
      stream: Open file.
      want: What is to be read.

    Returns:
      Pixels `[H, W, C]`.
    """
    if not _asks_for_names(want):
        plain = tiff_plain.decode(stream, want)
        if plain is not None:
            samples.page_index(want, 1)
            return samples.finish(want, plain)
        stream.seek(0)
    with _opened(stream) as file:
        stack, numbers = _page(_stacks(stream, file), want)
        names = _names(file) if _asks_for_names(want) else ()
        if len(numbers) == 1:
            found = _plane(stack, numbers[0], want)
            return samples.finish(want, found._replace(names=names))
        picked = samples.chosen_channels(want, len(numbers), names)
        if picked is not None:
            numbers = numbers[list(picked)]
            want = want._replace(options=want.options._replace(channels=None))
        planes = [_plane(stack, number, want) for number in numbers]
        if len({found.pixels.shape for found in planes}) > 1:
            raise DamagedError("the channels of a page differ in shape")
        pixels = np.concatenate([found.pixels for found in planes], axis=-1)
        return samples.finish(
            want, StoredPage(pixels, orientation=planes[0].orientation)
        )


def channel_names(stream: BinaryIO, want: Want) -> tuple[str, ...]:
    """Reads the names of channels that OME or ImageJ has stored.

    Args:
      stream: Open file.
      want: Page whose channels are named.

    Returns:
      Names, one for each channel; empty if the file names none.
    """
    with _opened(stream) as file:
        stack, numbers = _page(_stacks(stream, file), want)
        plane = stack.planes[0 if stack.whole else int(numbers[0])]
        count = len(numbers) if len(numbers) > 1 else plane.keyframe.samplesperpixel
        names = _names(file)
    return names if len(names) == count else ()


def _page(stacks: list["_Stack"], want: Want) -> tuple["_Stack", np.ndarray]:
    """The stack of the page that is wanted, and its numbers `[channels]`."""
    index = samples.page_index(want, sum(len(one.numbers) for one in stacks))
    while index >= len(stacks[0].numbers):
        index -= len(stacks.pop(0).numbers)
    return stacks[0], stacks[0].numbers[index]


def _asks_for_names(want: Want) -> bool:
    return any(isinstance(one, str) for one in want.options.channels or ())


def _names(file: tifffile.TiffFile) -> tuple[str, ...]:
    """Names of the channels of the first image."""
    with samples.decoder_errors():
        xml, found = file.ome_metadata, file.imagej_metadata or {}
    if xml:
        return _ome_names(xml)
    labels, count = found.get("Labels") or [], found.get("channels", 1)
    # Labels are one for each plane, of which the channels come first.
    names = [str(label).strip() for label in labels[:count]]
    return tuple(names) if len(set(names)) == len(names) == count > 1 else ()


def _ome_names(xml: str) -> tuple[str, ...]:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return ()
    pixels = next((one for one in root.iter() if one.tag.endswith("}Pixels")), None)
    if pixels is None:
        return ()
    names = [one.get("Name") for one in pixels if one.tag.endswith("}Channel")]
    return tuple(str(name) for name in names) if all(names) else ()


def count(stream: BinaryIO) -> int:
    """Counts the pages of a TIFF file: planes that are not channels of one image.

    Args:
      stream: Open file.

    Returns:
      Number of pages.
    """
    with _opened(stream) as file:
        return sum(len(one.numbers) for one in _stacks(stream, file))


def _opened(stream: BinaryIO) -> tifffile.TiffFile:
    with samples.decoder_errors():
        return tifffile.TiffFile(stream)


def _stacks(stream: BinaryIO, file: tifffile.TiffFile) -> list[_Stack]:
    """By the axes that metadata name, else a page for each plane that is an image."""
    found = tiff_chain.chain(stream, file)
    with samples.decoder_errors():
        first = file.pages.first
        named = bool(first.description) and (
            first.is_shaped or first.is_imagej or first.is_ome
        )
    if len(found.images) == 1:
        more = any(word in first.description for word in tiff_plain.MORE_PLANES)
        named = named and more
    with samples.decoder_errors():
        every = list(file.series) if named else []
    usable = [
        one.kind in _DESCRIBED
        and not one.is_multifile
        and _squeezed(one)[1][-len(one.keyframe.shape) :] == one.keyframe.shape
        for one in every
    ]
    if usable and all(usable):
        full = [one for one in every if not one.keyframe.subfiletype & _NO_IMAGE]
        stacks = [_described(series) for series in full or every]
        planes = tiff_chain.Planes(file, found.offsets)
        if len(every) == 1 and _is_whole_chain(every[0], len(planes)):
            stacks = [stack._replace(planes=planes) for stack in stacks]
        return stacks
    images = np.flatnonzero(found.images)
    images = images if len(images) else np.arange(len(found.images))
    return [_Stack(tiff_chain.Planes(file, found.offsets), images[:, None])]


def _is_whole_chain(series: Any, count: int) -> bool:
    """Whether a series has all planes of a file, in their order."""
    in_order = series.kind in ("shaped", "imagej")  # OME names a plane for each place
    return in_order and len(series) == count and not series.is_truncated


def _described(series: Any) -> _Stack:
    """A stack whose axes before height and width are named: C counts channels."""
    axes, shape = _squeezed(series)
    outer = len(shape) - len(series.keyframe.shape)
    axes, shape = axes[:outer], shape[:outer]
    numbers = np.arange(math.prod(shape)).reshape(*shape, 1)
    if "C" in axes and series.keyframe.samplesperpixel == 1:
        numbers = np.moveaxis(numbers[..., 0], axes.index("C"), -1)
    numbers = numbers.reshape(-1, numbers.shape[-1])
    return _Stack(series, numbers, series if series.is_truncated else None)


def _squeezed(series: Any) -> tuple[str, tuple[int, ...]]:
    """Axes of a series and their lengths; of length 1 only height and width are kept.

    Releases of tifffile differ in which axes of length 1 `series.shape` has.
    """
    if len(series.axes) != len(series.shape):
        raise DamagedError(f"axes {series.axes} of an array {list(series.shape)}")
    sizes = zip(series.axes, series.shape, strict=True)
    kept = [(axis, size) for axis, size in sizes if size > 1 or axis in "YX"]
    return "".join(axis for axis, _ in kept), tuple(size for _, size in kept)


def _plane(stack: _Stack, number: int, want: Want) -> StoredPage:
    with samples.decoder_errors():
        plane = stack.planes[0 if stack.whole else int(number)]
    if plane is None:
        raise InputError(f"{want.name}: plane {number} is missing; expected all planes")
    return tiff_planes.decode(plane, want, whole=stack.whole, number=int(number))
