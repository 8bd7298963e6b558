"""How examples are stored: one number of channels, one dtype, class ids, PNG bytes.

Each file has channels, a dtype and stored values; the form of the data set follows from
all files together. So reading an example gives an `ExampleRecord`, and all records
together give a `StoragePlan`.
"""

import io
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from metaseg.data.importers.pairs import VOID, Found, ImportExample
from metaseg.errors import InputError

__all__ = [
    "ExampleRecord",
    "StoragePlan",
    "check",
    "decode_image",
    "decode_label",
    "encode_image",
    "encode_label",
    "make_plan",
    "same_bytes",
    "unmapped",
]

_MOST_VALUES = 300  # of one label file; a file with more holds no class ids
# Chunks of a PNG that change no pixel; a file with others is encoded again.
_HARMLESS = (b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME")
_GREY, _RGB = 0, 2  # colour types of a PNG


class StoragePlan(NamedTuple):
    """How the examples of a data set are stored.

    Attributes:
      channels: 1 or 3.
      dtype: "uint8", "uint16" or "float32".
      table: class id of each stored value.
      num_classes: K.
    """

    channels: int
    dtype: str
    table: Mapping[int, int]
    num_classes: int


class ExampleRecord(NamedTuple):
    """What reading an example found, and where its bytes are.

    Attributes:
      name: as the item's.
      split: as the item's.
      group: what is drawn into one split together: the image file.
      error: one line that says why it cannot be used, or "".
      size: height and width.
      channels: 1 or 3.
      dtype: of the file, widened to one that is stored.
      kind: as the example's.
      overlap: as the example's.
      values: pixels of each stored value of the label.
      offset: where its bytes start in the file of its chunk.
      image: bytes of the image, 0 if the plan had no way to store it.
      label: bytes of the label, which follow; 0 likewise.
    """

    name: str
    split: str
    group: str
    error: str = ""
    size: tuple[int, int] = (0, 0)
    channels: int = 0
    dtype: str = ""
    kind: str = ""
    overlap: int = 0
    values: Mapping[int, int] = {}
    offset: int = 0
    image: int = 0
    label: int = 0


def check(
    blank: ExampleRecord, example: ImportExample, files: Sequence[Path]
) -> ExampleRecord:
    """Checks an example and records what it is.

    Args:
      blank: Record of the example, to be completed.
      example: Image and label map.
      files: Their files, the label last.

    Returns:
      The completed record.

    Raises:
      InputError: if image and label do not fit together, or the label has so many
        values that it is none.
    """
    image, label = example.image, example.label
    where = files[-1]
    if image.shape[:2] != label.shape:
        got, expected = (f"{a.shape[0]} x {a.shape[1]}" for a in (label, image))
        raise InputError(
            f"{where}: {got} (height x width); expected {expected}, the size of its"
            f" image {files[0].name}"
        )
    values = _value_counts(label)
    if len(values) > _MOST_VALUES:
        raise InputError(
            f"{where}: {len(values)} different values; expected at most 255 class ids"
        )
    height, width = label.shape
    return blank._replace(
        size=(height, width),
        channels=image.shape[-1],
        dtype=_stored_dtype([image.dtype.name]),
        kind=example.kind,
        overlap=example.overlap,
        values=values,
    )


def _value_counts(label: np.ndarray) -> dict[int, int]:
    if label.dtype == np.uint8:
        counts = np.bincount(label.ravel(), minlength=256)
        return {int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    values, counts = np.unique(label, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _stored_dtype(names: Iterable[str]) -> str:
    """The one dtype that holds all of these, as a data set can have it."""
    kinds = set(names)
    if kinds <= {"uint8"}:
        return "uint8"
    return "uint16" if kinds <= {"uint8", "uint16"} else "float32"


def make_plan(records: Collection[ExampleRecord], found: Found) -> StoragePlan:
    """Finds the form that all examples of a data set share.

    Args:
      records: Records of the examples; those with an error do not count.
      found: What the source says of its classes.

    Returns:
      The form in which the examples are stored.
    """
    good = [r for r in records if not r.error]
    table, num_classes = found.table, found.num_classes
    if table is None:
        values = set().union(*(r.values for r in good))
        table, num_classes = _ids(values, num_classes)
    return StoragePlan(
        channels=max((r.channels for r in good), default=1),
        dtype=_stored_dtype(r.dtype for r in good),
        table=table,
        num_classes=num_classes,
    )


def _ids(values: set[int], num_classes: int) -> tuple[dict[int, int], int]:
    """What stored values mean where nobody said: ids, or masks of 0 and 255."""
    if not num_classes:
        highest = max((v for v in values if 0 <= v < VOID), default=0)
        num_classes = max(2, highest + 1)
    table = {v: v for v in range(num_classes)}
    if num_classes > 2:
        table[VOID] = VOID
    elif 1 not in values:
        table[VOID] = (
            1  # beside 1 it could be foreground or void, so it remains unknown
        )
    return table, num_classes


def unmapped(record: ExampleRecord, plan: StoragePlan) -> dict[int, int]:
    """Counts the pixels of an example whose value means no class.

    Args:
      record: Record of the example.
      plan: Form of the data set.

    Returns:
      Number of pixels by value.
    """
    return {v: count for v, count in record.values.items() if v not in plan.table}


def same_bytes(record: ExampleRecord, first: StoragePlan, second: StoragePlan) -> bool:
    """Returns whether two plans store an example in the same way.

    Args:
      record: Record of the example.
      first: One form of the data set.
      second: The other form.

    Returns:
      True if the stored bytes are equal.
    """
    return (first.channels, first.dtype) == (second.channels, second.dtype) and all(
        first.table.get(v) == second.table.get(v) for v in record.values
    )


def encode_image(example: ImportExample, plan: StoragePlan) -> bytes:
    """Encodes an image: as PNG, or as zlib of its samples.

    A PNG file that is stored as it would be here gives its own bytes: decoding is
    needed to check it, encoding it anew would take thrice as long.

    Args:
      example: The example.
      plan: Form of the data set.

    Returns:
      Bytes; none if the image does not fit the form.
    """
    image = example.image
    narrow = image.shape[-1] > plan.channels
    if narrow or _stored_dtype([image.dtype.name, plan.dtype]) != plan.dtype:
        return b""
    if example.image_file and image.shape[-1] == plan.channels:
        colour = _GREY if plan.channels == 1 else _RGB
        stored = plain_png(example.image_file, colour) if plan.dtype == "uint8" else b""
        if stored:
            return stored
    image = np.broadcast_to(image, (*image.shape[:2], plan.channels))
    image = image.astype(plan.dtype)
    if plan.dtype != "uint8":
        return zlib.compress(image.tobytes(), 1)
    return _png(image[..., 0] if plan.channels == 1 else image)


def encode_label(
    example: ImportExample, values: Mapping[int, int], table: Mapping[int, int]
) -> bytes:
    """Encodes a label map as PNG of its class ids.

    Args:
      example: The example.
      values: Number of pixels of each stored value.
      table: Class id of each stored value.

    Returns:
      Bytes; none if a value means no class.
    """
    if any(value not in table for value in values):
        return b""
    if example.label_file and all(table[value] == value for value in values):
        stored = plain_png(example.label_file, _GREY)
        if stored:
            return stored
    stored_values = sorted(values)
    ids = np.array([table[value] for value in stored_values], np.uint8)
    if example.label.dtype == np.uint8:
        of_value = np.zeros(256, np.uint8)
        of_value[stored_values] = ids
        return _png(of_value[example.label])
    return _png(ids[np.searchsorted(stored_values, example.label)])


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # Run lengths only (3): faster than level 1 and, after PNG's filters, as small.
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1, compress_type=3)
    return buffer.getvalue()


def plain_png(path: Path, colour: int) -> bytes:
    """The bytes of a PNG that is 8-bit grey or RGB and nothing more, else none."""
    data = path.read_bytes() if path.suffix.lower() == ".png" else b""
    # Signature, IHDR's length and name, width and height come before these.
    depth_colour_rest = (8, colour, 0, 0, 0)  # not interlaced
    if tuple(data[24:29]) != depth_colour_rest:
        return b""
    at = 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if kind not in _HARMLESS:
            return b""
        at += length + 12
        if kind == b"IEND":
            return data[:at]
    return b""


def decode_image(stored: bytes, size: tuple[int, int], plan: StoragePlan) -> np.ndarray:
    """Decodes an image that `encode_image` encoded.

    Args:
      stored: Bytes.
      size: Height and width in pixels.
      plan: Form of the data set.

    Returns:
      The image `[H, W, C]`.
    """
    if plan.dtype == "uint8":
        pixels = np.asarray(Image.open(io.BytesIO(stored)))
    else:
        pixels = np.frombuffer(zlib.decompress(stored), plan.dtype)
    return pixels.reshape(*size, plan.channels)


def decode_label(stored: bytes) -> np.ndarray:
    """Decodes a label map that `encode_label` encoded.

    Args:
      stored: Bytes.

    Returns:
      Class ids, uint8 `[H, W]`.
    """
    return np.asarray(Image.open(io.BytesIO(stored)))
