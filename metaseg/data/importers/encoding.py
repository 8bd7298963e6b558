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

from metaseg.data import label_encoding, label_files
from metaseg.data.file_options import FileOptions
from metaseg.data.folder import common_channels
from metaseg.data.importers.pairs import VOID, Found, ImportExample
from metaseg.data.label_encoding import Encoding, Survey
from metaseg.errors import InputError, escaped

__all__ = [
    "ExampleRecord",
    "StoragePlan",
    "check",
    "decode_image",
    "decode_label",
    "encode_image",
    "encode_label",
    "guess_plan",
    "make_plan",
]

# Chunks of a PNG that change no pixel; a file with others is encoded again.
_HARMLESS = (b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME")
_GREY, _RGB = 0, 2  # colour types of a PNG


class StoragePlan(NamedTuple):
    """How the examples of a data set are stored.

    Attributes:
      channels: of the images.
      dtype: "uint8", "uint16" or "float32".
      encoding: how class ids are stored in the labels; None while it is not known.
    """

    channels: int
    dtype: str
    encoding: Encoding | None

    @property
    def is_png(self) -> bool:
        """Whether images are stored as PNG; otherwise as zlib of their samples."""
        return self.dtype == "uint8" and self.channels in (1, 3)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return 2 if self.encoding is None else self.encoding.num_classes

    def key(self) -> str:
        """Returns text that is equal for plans that store an example alike."""
        encoding = self.encoding
        if encoding is not None and encoding.kind == "ids":  # whatever their number
            encoding = Encoding("ids", 0)
        elif encoding is not None:
            encoding = encoding._replace(text="")
        return repr((self.channels, self.dtype, encoding))


class ExampleRecord(NamedTuple):
    """What reading an example found, and where its bytes are.

    Attributes:
      name: as the item's.
      split: as the item's.
      group: what is drawn into one split together: the image file.
      error: one line that says why it cannot be used, or "".
      size: height and width.
      channels: of the image.
      dtype: of the file, widened to one that is stored.
      kind: as the example's.
      overlap: as the example's.
      where: the label map, for messages.
      survey: what the label map holds; None without one, or if that is not asked for.
      pixels: pixels of each class id, void too.
      problem: why the label was not encoded, or "".
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
    where: str = ""
    survey: Survey | None = None
    pixels: Mapping[int, int] = {}
    problem: str = ""
    offset: int = 0
    image: int = 0
    label: int = 0


def check(
    blank: ExampleRecord,
    example: ImportExample,
    files: Sequence[Path],
    options: FileOptions | None,
) -> ExampleRecord:
    """Checks an example and records what it is.

    Args:
      blank: Record of the example, to be completed.
      example: Image and label map.
      files: Their files, the label last.
      options: How the label map is read; None: its encoding is known.

    Returns:
      The completed record.

    Raises:
      InputError: if image and label do not fit together.
    """
    image, label = example.image, example.label
    if label is not None and image.shape[:2] != label.shape[:2]:
        got, expected = (f"{a.shape[0]} x {a.shape[1]}" for a in (label, image))
        raise InputError(
            f"{files[-1]}: {got} (height x width); expected {expected}, the size of its"
            f" image {files[0].name}"
        )
    survey = None
    if label is not None and options is not None:
        survey = label_encoding.survey(label, options=options)
    return blank._replace(
        size=image.shape[:2],
        channels=image.shape[-1],
        dtype=_stored_dtype([image.dtype.name]),
        kind=example.kind,
        overlap=example.overlap,
        where=escaped(str(files[-1])),
        survey=survey,
    )


def _stored_dtype(names: Iterable[str]) -> str:
    """The one dtype that holds all of these, as a data set can have it."""
    kinds = set(names)
    if kinds <= {"uint8"}:
        return "uint8"
    return "uint16" if kinds <= {"uint8", "uint16"} else "float32"


def make_plan(
    records: Collection[ExampleRecord], found: Found
) -> tuple[StoragePlan, dict[str, str]]:
    """Finds the form that all examples of a data set share.

    Args:
      records: Records of the examples; those with an error do not count.
      found: What the source says of its classes.

    Returns:
      The form in which the examples are stored; and what is wrong with the few label
      maps that do not fit, by `ExampleRecord.where`.

    Raises:
      InputError: If it is not clear how class ids are stored, or images have different
        numbers of channels.
    """
    good = [r for r in records if not r.error]
    encoding = found.encoding
    wrong: dict[str, str] = {}
    surveys = [(r.where, r.survey) for r in good if r.survey is not None]
    if encoding is None and surveys:
        encoding, wrong = label_files.settle(
            surveys, options=found.options, num_classes=found.num_classes
        )
    good = [r for r in good if r.where not in wrong]
    plan = StoragePlan(
        channels=common_channels((r.group, r.channels) for r in good) if good else 1,
        dtype=_stored_dtype(r.dtype for r in good),
        encoding=encoding,
    )
    return plan, wrong


def guess_plan(records: Collection[ExampleRecord], found: Found) -> StoragePlan:
    """Returns the plan of some of the examples, or any if they do not make one clear.

    Args:
      records: As for `make_plan`.
      found: As for `make_plan`.
    """
    try:
        return make_plan(records, found)[0]
    except InputError:  # with all examples it may be clear, or else is raised
        return StoragePlan(1, "uint8", None)


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
    few = image.shape[-1] not in (1, plan.channels)
    if few or _stored_dtype([image.dtype.name, plan.dtype]) != plan.dtype:
        return b""
    if example.image_file and image.shape[-1] == plan.channels and plan.is_png:
        stored = plain_png(example.image_file, _GREY if plan.channels == 1 else _RGB)
        if stored:
            return stored
    image = np.broadcast_to(image, (*image.shape[:2], plan.channels))
    image = image.astype(plan.dtype)
    if not plan.is_png:
        return zlib.compress(image.tobytes(), 1)
    return _png(image[..., 0] if plan.channels == 1 else image)


def encode_label(
    example: ImportExample, record: ExampleRecord, plan: StoragePlan
) -> tuple[bytes, ExampleRecord]:
    """Encodes a label map as PNG of its class ids.

    Args:
      example: The example.
      record: Its record.
      plan: Form of the data set.

    Returns:
      Bytes; none if a value means no class. And the record with the pixels of each
      class, or with the problem.
    """
    if example.label is None:
        ids = np.full(example.image.shape[:2], VOID, np.uint8)
    elif plan.encoding is None:
        return b"", record
    else:
        try:
            ids = label_encoding.decode(
                example.label, plan.encoding, where=record.where
            )
        except InputError as error:
            return b"", record._replace(problem=str(error))
    counts = np.bincount(ids.ravel(), minlength=256)
    pixels = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    record = record._replace(pixels=pixels)
    if example.label_file and example.label is not None:
        same = example.label.dtype == np.uint8 and np.array_equal(ids, example.label)
        stored = plain_png(example.label_file, _GREY) if same else b""
        if stored:
            return stored, record
    return _png(ids), record


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
    if plan.is_png:
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
