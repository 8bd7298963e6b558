"""A user's own images: `<dir>/{train,val,test}/{images,labels}/NAME.(png|tif|tiff)`.

Host-side NumPy; imports no jax. A file is decoded to its stored samples, an image to
numbers, a label to class ids, a folder to pairs, and three folders to a `Dataset`.
"""

import contextlib
import itertools
import logging
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image
from tqdm import tqdm

from metaseg.data.dataset import Dataset, Split, example_ids
from metaseg.errors import InputError

__all__ = [
    "Pair",
    "load",
    "match_pairs",
    "read_image",
    "read_label",
    "read_label_values",
]

Example = tuple[np.ndarray, np.ndarray]  # image, label
SPLITS = ("train", "val", "test")
SUFFIXES = (".png", ".tif", ".tiff")
VOID = 255
PROGRESS_FROM = 200  # pairs; fewer are read before a bar has been understood


class Pair(NamedTuple):
    """Files of one example and the name they share."""

    name: str
    image: Path
    label: Path


def load(config: Any) -> Dataset:
    """Reads a folder of images and labels.

    Grey and colour files may be mixed: then grey is repeated into three channels in
    all splits. Images of different sizes are padded at the bottom and right to the
    largest height and width of the data set (image 0 after normalisation, label 255).

    Args:
      config: has the attributes `dir`, `num_classes` (2 unless given) and `normalize`,
        how each image is brought to one scale, over all its pixels and channels:
        `zscore` (unless given), to mean 0 and variance 1; `percentile`, so that its
        percentiles 1 and 99.8 are 0 and 1, unclipped; `none`, stored values. A
        constant image becomes zeros, save with `none`.

    Returns:
      The data set, named like its folder, each split sorted by name. With two classes
      the foreground is 255 or 1, the same in all files; with more, 255 is void.

    Raises:
      InputError: for a wrong field, layout or file, before anything is returned.
    """
    root, num_classes, normalize = _settings(config)
    pairs = {split: match_pairs(root / split) for split in SPLITS}
    every_pair = list(itertools.chain(*pairs.values()))
    examples = _read_all(every_pair, num_classes)
    if num_classes == 2:
        _check_one_foreground(every_pair, [label for _, label in examples])
        examples = [(image, (label > 0).astype(np.uint8)) for image, label in examples]
    size = np.max([image.shape for image, _ in examples], axis=0)
    example_of = dict(zip(every_pair, examples, strict=True))

    def stack(split: str) -> Split:
        own = [example_of[pair] for pair in pairs[split]]
        names = [pair.name for pair in pairs[split]]
        return _stack(split, names, own, size, normalize)

    return Dataset(
        name=root.name,
        train=stack("train"),
        val=stack("val"),
        test=stack("test"),
        num_classes=num_classes,
    )


def match_pairs(folder: Path) -> list[Pair]:
    """Pairs the files of `folder/images` and `folder/labels` by name without ending.

    Hidden files, sub-folders and files with other endings are ignored.

    Args:
      folder: one split.

    Returns:
      Pairs sorted by name, at least one.

    Raises:
      InputError: if a folder is missing or empty, two files of one folder share a
        name, or a file has no partner.
    """
    images = _files_by_name(folder / "images")
    labels = _files_by_name(folder / "labels")
    unpaired = [
        f"{len(alone)} without a {other} of the same name ({_some(alone)})"
        for alone, other in (
            ([images[name].name for name in sorted(images.keys() - labels)], "label"),
            ([labels[name].name for name in sorted(labels.keys() - images)], "image"),
        )
        if alone
    ]
    if unpaired:
        raise InputError(
            f"{folder}: {' and '.join(unpaired)}; expected labels/NAME"
            " (.png, .tif, .tiff) for each images/NAME and the reverse"
        )
    return [Pair(name, images[name], labels[name]) for name in sorted(images)]


def read_image(path: Path) -> np.ndarray:
    """Reads an image as stored: alpha dropped, palette expanded, not normalised.

    Args:
      path: a PNG or single-page TIFF, grey or colour, 8 to 32 bit, integer or float.

    Returns:
      `[H, W, 1]`, also where the three channels are equal, or `[H, W, 3]`; floats as
      float32, integers in the file's dtype.

    Raises:
      InputError: if the file cannot be decoded or holds NaN or infinity.
    """
    pixels, palette = _decode(path)
    if palette is not None:
        pixels = palette[pixels]
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 is as bad as infinite
            pixels = pixels.astype(np.float32)
        bad = np.count_nonzero(~np.isfinite(pixels))
        if bad:
            raise InputError(
                f"{path}: {bad} values are NaN or infinite; expected finite float32"
            )
    if pixels.ndim == 2 or _is_grey(pixels):
        pixels = pixels.reshape(*pixels.shape[:2], -1)[..., :1]
    return pixels


def read_label(path: Path, num_classes: int) -> np.ndarray:
    """Reads a label map as stored: grey values, or the indices of a palette.

    Args:
      path: a PNG or single-page TIFF; colour only with three equal channels.
      num_classes: K. With K = 2 the values may be 0 and 1, or 0 and 255.

    Returns:
      uint8 `[H, W]`: ids below K, and 255, which is foreground with K = 2 and void
      with more.

    Raises:
      InputError: if the file cannot be decoded or holds anything else.
    """
    pixels = read_label_values(path)
    expected = (
        "0 and 1, or 0 and 255"
        if num_classes == 2
        else f"0 to {num_classes - 1}, or 255 for void"
    )
    unknown = (pixels < 0) | ((pixels >= num_classes) & (pixels != VOID))
    if unknown.any():
        ids = [str(int(value)) for value in np.unique(pixels[unknown])]
        raise InputError(
            f"{path}: class id {_some(ids)} in {np.count_nonzero(unknown)} pixels;"
            f" expected {expected} (config.data.num_classes={num_classes})"
        )
    if num_classes == 2 and (pixels == 1).any() and (pixels == VOID).any():
        raise InputError(f"{path}: both 1 and 255 in a label; expected {expected}")
    return pixels.astype(np.uint8)


def read_label_values(path: Path) -> np.ndarray:
    """Reads a label map as stored, whatever its values.

    Args:
      path: a PNG or single-page TIFF; colour only with three equal channels.

    Returns:
      Integers `[H, W]` in the file's dtype; whole floats as int64.

    Raises:
      InputError: if the file cannot be decoded, or holds colours or fractions.
    """
    pixels, _ = _decode(path)
    if pixels.ndim == 3:
        if not _is_grey(pixels):
            raise InputError(
                f"{path}: a label image with colours; expected class ids as grey"
                " values or palette indices"
            )
        pixels = pixels[..., 0]
    if pixels.dtype.kind != "f":
        return pixels
    if not (np.isfinite(pixels) & (pixels == np.rint(pixels))).all():
        raise InputError(f"{path}: fractions or NaN in a label; expected class ids")
    return pixels.astype(np.int64)


def _settings(config: Any) -> tuple[Path, int, Callable[[np.ndarray], np.ndarray]]:
    folder = getattr(config, "dir", None)
    if not folder:
        raise InputError(
            "config.data.dir: not given; expected a folder with train, val and test,"
            " each with images and labels"
        )
    root = Path(os.path.abspath(Path(folder).expanduser()))
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"config.data.dir: {root} {found}; expected a folder")
    num_classes = getattr(config, "num_classes", 2)
    whole = isinstance(num_classes, int | np.integer)
    if not whole or not 2 <= num_classes <= VOID:
        raise InputError(
            f"config.data.num_classes: {num_classes!r}; expected an integer from 2 to"
            f" {VOID}"
        )
    normalize = getattr(config, "normalize", "zscore")
    if normalize not in _NORMALIZE:
        raise InputError(
            f"config.data.normalize: {normalize!r}; expected one of"
            f" {', '.join(_NORMALIZE)}"
        )
    return root, int(num_classes), _NORMALIZE[normalize]


def _files_by_name(folder: Path) -> dict[str, Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}; expected a folder of .png, .tif or .tiff"
        ) from error
    files: dict[str, Path] = {}
    for path in entries:
        hidden = path.name.startswith(".")
        if hidden or path.suffix.lower() not in SUFFIXES or path.is_dir():
            continue
        # macOS stores decomposed letters: one name, one id, on every system.
        name = unicodedata.normalize("NFC", path.stem)
        if name in files:
            raise InputError(
                f"{folder}: {files[name].name} and {path.name} have the same name;"
                " expected one file per name"
            )
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise InputError(
                f"{folder}: file name {path.name!a}; expected printable letters"
            )
        files[name] = path
    if not files:
        others = f" among {_some([p.name for p in entries])}" if entries else ""
        raise InputError(f"{folder}: no .png, .tif or .tiff file{others}")
    return files


def _read_all(pairs: Sequence[Pair], num_classes: int) -> list[Example]:
    """Images and labels of all pairs; the first error also counts the others."""

    def read(pair: Pair) -> Example | InputError:
        try:
            image, label = read_image(pair.image), read_label(pair.label, num_classes)
            if image.shape[:2] != label.shape:
                raise InputError(
                    f"{pair.label}: {_size(label)} (height x width); expected"
                    f" {_size(image)}, the size of its image {pair.image.name}"
                )
        except InputError as error:
            return error
        return image, label

    examples, errors = [], []
    quiet = len(pairs) <= PROGRESS_FROM or not sys.stderr.isatty()
    workers = min(8, os.cpu_count() or 1)
    with _no_tifffile_log(), ThreadPoolExecutor(workers) as pool:
        for result in tqdm(
            pool.map(read, pairs),
            desc="reading images",
            total=len(pairs),
            unit="pair",
            leave=False,
            disable=quiet,
        ):
            if isinstance(result, InputError):
                errors.append(result)
            else:
                examples.append(result)
    if errors:
        more = len(errors) - 1
        files = "file" if more == 1 else "files"
        raise InputError(f"{errors[0]}" + (f" (and {more} more {files})" * bool(more)))
    return examples


def _check_one_foreground(pairs: Sequence[Pair], labels: Sequence[np.ndarray]) -> None:
    """Two classes: 255 beside files with 1 could be foreground or void, so refuse."""
    with_one = [p.label for p, label in zip(pairs, labels, strict=True) if 1 in label]
    with_255 = [p.label for p, label in zip(pairs, labels, strict=True) if 255 in label]
    if with_one and with_255:
        raise InputError(
            f"{with_255[0]}: foreground 255, but 1 in {with_one[0]}; expected the same"
            f" in all labels ({len(with_255)} have 255, {len(with_one)} have 1)"
        )


def _stack(
    split: str,
    names: Sequence[str],
    examples: Sequence[Example],
    size: Sequence[int],
    normalize: Callable[[np.ndarray], np.ndarray],
) -> Split:
    height, width, _ = size
    images = np.zeros((len(names), *size), np.float32)
    labels = np.full((len(names), height, width), VOID, np.uint8)
    sizes = np.array([label.shape for _, label in examples], np.int32)
    for i, (image, label) in enumerate(examples):
        h, w = label.shape
        images[i, :h, :w] = normalize(image)
        labels[i, :h, :w] = label
    return Split(images, labels, example_ids(split, names), tuple(names), sizes)


def _zscore(image: np.ndarray) -> np.ndarray:
    if image.min() == image.max():  # the computed deviation need not be exactly 0
        return np.zeros(image.shape, np.float32)
    values = _floats(image)
    values -= values.mean(dtype=np.float64)
    values /= values.std(dtype=np.float64)
    return values.astype(np.float32, copy=False)


def _percentile(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (1, 99.8))
    if low == high:  # all but a few pixels are equal: the few set the scale
        low, high = float(image.min()), float(image.max())
    if low == high:
        return np.zeros(image.shape, np.float32)
    values = _floats(image)
    values -= low
    values /= high - low
    return values.astype(np.float32, copy=False)


def _floats(image: np.ndarray) -> np.ndarray:
    """A copy precise enough to subtract in: 8 and 16 bit are exact in float32."""
    return image.astype(np.float32 if image.itemsize < 4 else np.float64)


def _stored(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32)


_NORMALIZE = {"zscore": _zscore, "percentile": _percentile, "none": _stored}


def _decode(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Stored samples `[H, W]` or `[H, W, 3]` without alpha, and the palette if any."""
    kind = "PNG" if path.suffix.lower() == ".png" else "TIFF"
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: zero bytes; expected a {kind} image")
        pixels, palette = _decode_png(path) if kind == "PNG" else _decode_tiff(path)
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever the damaged bytes lead to
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: unreadable, truncated or not a {kind}; expected an intact {kind}"
            f" image ({reason})"
        ) from error
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind not in "uif" or pixels.size == 0:
        raise InputError(
            f"{path}: {pixels.dtype} samples of shape {pixels.shape}; expected integers"
            " or floats"
        )
    return pixels, palette


def _decode_png(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with Image.open(path, formats=("PNG",)) as file:
        file.verify()  # checksums and end, which decoding does not look at
    with Image.open(path, formats=("PNG",)) as file:
        layout = file.tile[0][3]
        frames, mode = getattr(file, "n_frames", 1), file.mode
        pixels = np.array(file)
        _check_still_and_upright(path, frames, file.getexif().get(0x0112, 1))
        palette = _palette(file)
    if layout in ("L;2", "L;4"):  # pillow stretches these to 0..255; ids must not be
        pixels //= 85 if layout == "L;2" else 17
    if layout in _LOW_BYTES:  # 16-bit colour, of which pillow keeps the high bytes
        with Image.open(path, formats=("PNG",)) as file:
            tiles: list[Any] = [(*tile[:3], _LOW_BYTES[layout]) for tile in file.tile]
            file.tile = tiles
            low = np.array(file)
        if layout == "LA;16B":  # read as four bytes: grey high, low, alpha high, low
            pixels, low, mode = pixels[..., :1], low[..., 1:2], "L"
        pixels = pixels.astype(np.uint16) << 8 | low
    return _without_alpha(path, pixels, mode), palette


_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}


def _decode_tiff(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        orientation = page.tags.valueof("Orientation", default=1)
        _check_still_and_upright(path, len(file.pages), orientation)
        try:
            pixels = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _decode_tiff_by_pillow(path, page)
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise InputError(
                f"{path}: axes {page.axes}; expected one plane, grey or colour"
            )
        palette = page.colormap
        if palette is not None:
            palette = (palette.T >> 8).astype(np.uint8)
        channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
        is_rgb = page.photometric == tifffile.PHOTOMETRIC.RGB
        has_alpha = any(kind > 0 for kind in page.extrasamples)
    if not (
        channels in (1, 3)
        or (channels == 2 and has_alpha)
        or (channels == 4 and is_rgb)
    ):
        raise InputError(f"{path}: {channels} channels; expected grey or RGB(A)")
    return _without_alpha(path, pixels, "L" if channels < 3 else "RGB"), palette


def _decode_tiff_by_pillow(
    path: Path, page: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """For the compressions that tifffile leaves to a package we do without."""
    with Image.open(path, formats=("TIFF",)) as file:
        pixels, palette, mode = np.array(file), _palette(file), file.mode
    if page.bitspersample not in (1, 8 * pixels.dtype.itemsize):
        raise InputError(
            f"{path}: {page.compression.name} compression of {page.bitspersample}-bit"
            f" {mode}; expected deflate or none for such samples"
        )
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and mode in ("1", "L"):
        pixels = ~pixels  # pillow has inverted these, tifffile would not
    return _without_alpha(path, pixels, mode), palette


def _without_alpha(path: Path, pixels: np.ndarray, mode: str) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    if mode in ("L", "LA", "PA"):
        return pixels[..., 0]
    if mode in ("RGB", "RGBA"):
        return pixels[..., :3]
    raise InputError(f"{path}: colour mode {mode}; expected grey, palette or RGB(A)")


def _palette(file: Image.Image) -> np.ndarray | None:
    """uint8 `[256, 3]`; entries that the file leaves out are black."""
    colours = file.getpalette("RGB") if file.mode in ("P", "PA") else None
    if colours is None:
        return None
    return np.array(colours + [0] * (768 - len(colours)), np.uint8).reshape(256, 3)


def _check_still_and_upright(path: Path, pages: int, orientation: int) -> None:
    if pages != 1:
        raise InputError(f"{path}: {pages} pages; expected a single-page image")
    if orientation != 1:
        raise InputError(
            f"{path}: orientation tag {orientation}; expected pixels stored upright (1)"
        )


def _is_grey(pixels: np.ndarray) -> bool:
    red, green, blue = np.moveaxis(pixels, -1, 0)
    return np.array_equal(red, green) and np.array_equal(red, blue)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"


def _some(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


@contextlib.contextmanager
def _no_tifffile_log() -> Iterator[None]:
    """A damaged file gets one line, ours."""
    log = logging.getLogger("tifffile")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
