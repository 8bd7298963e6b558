"""NumPy's own files: .npy, and .npz with a page for each array. Nothing is unpickled.

Host-side NumPy; imports no jax.
"""

import zipfile
from typing import IO, BinaryIO

import numpy as np

from metaseg.data.image_files import samples, unsupported
from metaseg.data.image_files.samples import StoredPage, Want
from metaseg.errors import InputError

__all__ = [
    "count_npy",
    "count_npz",
    "decode_npy",
    "decode_npz",
    "is_stack",
    "names_of_npz",
]

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def decode_npy(stream: BinaryIO, want: Want) -> np.ndarray:
    """Reads one page of a .npy file; the other pages are not read.

    Args:
      stream: Open file.
      want: What is to be read.

    Returns:
      Pixels `[H, W, C]`.
    """
    shape, dtype = _header(stream)
    _check_dtype(want, dtype)
    index = samples.page_index(want, _pages(shape))
    stacked = is_stack(shape)
    _check_shape(want, shape[1:] if stacked else shape)
    with samples.decoder_errors():
        mapped = np.load(stream.name, mmap_mode="r", allow_pickle=False)
    return _finish(want, np.array(mapped[index] if stacked else mapped))


def decode_npz(stream: BinaryIO, want: Want) -> np.ndarray:
    """Reads one array of a .npz file.

    Args:
      stream: Open file.
      want: What is to be read.

    Returns:
      Pixels `[H, W, C]`.
    """
    with _archive(stream) as archive:
        names = _names(archive)
        name = names[samples.page_index(want, len(names))]
        want = want._replace(name=f"{want.name}: array {name!r}")
        with _member(archive, name) as member:
            shape, dtype = _header(member)
        _check_dtype(want, dtype)
        _check_shape(want, shape)
        with _member(archive, name) as member, samples.decoder_errors():
            pixels = np.lib.format.read_array(member, allow_pickle=False)
    return _finish(want, pixels)


def count_npy(stream: BinaryIO) -> int:
    """Counts the pages of a .npy file: the planes of a stack.

    Args:
      stream: Open file.

    Returns:
      Number of pages; 1 for an array `[H, W]` or `[H, W, C]`.
    """
    return _pages(_header(stream)[0])


def count_npz(stream: BinaryIO) -> int:
    """Counts the arrays of a .npz file.

    Args:
      stream: Open file.

    Returns:
      Number of arrays.
    """
    return len(names_of_npz(stream))


def names_of_npz(stream: BinaryIO) -> list[str]:
    """Lists the arrays of a .npz file in their order.

    Args:
      stream: Open file.

    Returns:
      Names as they are stored.
    """
    with _archive(stream) as archive:
        return _names(archive)


def _archive(stream: BinaryIO) -> zipfile.ZipFile:
    with samples.decoder_errors():
        return zipfile.ZipFile(stream)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    with samples.decoder_errors():
        return archive.open(name)


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.endswith(".npy")]


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    with samples.decoder_errors():
        version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise samples.DamagedError(f"version {version}, which is for named fields")
    read_header = _HEADERS[version]
    with samples.decoder_errors():
        shape, _, dtype = read_header(stream)
    return shape, dtype


def is_stack(shape: tuple[int, ...]) -> bool:
    """Returns whether the first axis of an array counts pages.

    The last of three axes counts channels if there are at most four of them, or less
    than a quarter of the length of both others: `[512, 512, 31]` is one image,
    `[31, 512, 512]` a stack of 31.

    Args:
      shape: Shape of two to four axes.
    """
    if len(shape) == 3:
        return shape[2] > 4 and 4 * shape[2] > min(shape[:2])
    return len(shape) == 4


def _pages(shape: tuple[int, ...]) -> int:
    return shape[0] if is_stack(shape) else 1


def _check_dtype(want: Want, dtype: np.dtype) -> None:
    if dtype.kind == "O":
        raise InputError(f"{want.name}: {unsupported.PICKLE}")
    if dtype.kind not in "buif":
        raise InputError(
            f"{want.name}: an array of {dtype}; expected bool, integers or floats"
        )


def _check_shape(want: Want, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise InputError(
            f"{want.name}: an array of shape {list(shape)}; expected [H, W] or"
            " [H, W, C]"
        )
    samples.check_size(want, *shape)


def _finish(want: Want, pixels: np.ndarray) -> np.ndarray:
    return samples.finish(want, StoredPage(pixels.reshape(*pixels.shape[:2], -1)))
