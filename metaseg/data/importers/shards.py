"""Writes shards of staged examples as TFDS would, in any process.

A record is a `tf.train.Example` in the wire format of protocol buffers, its features
sorted by name. TFDS would build each record anew from Python objects, and each worker
process would have to start TFDS, so neither is used here.
"""

from collections.abc import Sequence

from array_record.python import array_record_module  # type: ignore[import-untyped]

from metaseg.data.importers.encoding import StoragePlan
from metaseg.data.importers.staging import Stored
from metaseg.errors import InputError

__all__ = ["record", "write"]

_BYTES_LIST, _INT64_LIST = 1, 3  # fields of a feature
_BUFFERS = 2  # the type of a field that has a length


def write(path: str, stored: Sequence[Stored], plan: StoragePlan) -> int:
    """Writes one shard.

    The shard has the same bytes in every run. It is not compressed, because PNG and
    zlib have done that.

    Args:
      path: File to write.
      stored: Examples of the shard.
      plan: Form of the data set.

    Returns:
      The number of examples.

    Raises:
      InputError: If a file was changed after it was staged.
      RuntimeError: If the shard cannot be written.
    """
    shard = array_record_module.ArrayRecordWriter(path, "group_size:1,uncompressed")
    for one in stored:
        shard.write(record(one, plan))
    shard.close()
    return len(stored)


def record(one: Stored, plan: StoragePlan) -> bytes:
    """Makes the record of an example.

    Args:
      one: The example.
      plan: Form of the data set.

    Returns:
      Bytes of a `tf.train.Example`.

    Raises:
      InputError: If a file was changed after it was staged.
    """
    image, label = one.read()
    if not (image and label):
        raise InputError(
            f"{one.record.group}: changed while it was imported; expected files"
            " that stay as they are"
        )
    features = [("label", _BYTES_LIST, label), ("name", _BYTES_LIST, _name(one))]
    if plan.is_png:
        features = [("image", _BYTES_LIST, image), *features]
    else:
        shape = b"".join(map(_varint, (*one.record.size, plan.channels)))
        features = [
            ("image/shape", _INT64_LIST, shape),
            ("image/value", _BYTES_LIST, image),
            *features,
        ]
    return b"".join(_field(1, [part for one in features for part in _feature(*one)]))


def _name(one: Stored) -> bytes:
    return one.record.name.encode()


def _feature(name: str, kind: int, value: bytes) -> list[bytes]:
    """An entry of the map from names to features, in parts that follow each other."""
    feature = _field(kind, _field(1, [value]))
    return _field(1, [*_field(1, [name.encode()]), *_field(2, feature)])


def _field(number: int, parts: Sequence[bytes]) -> list[bytes]:
    length = _varint(sum(map(len, parts)))
    return [_varint(number << 3 | _BUFFERS), length, *parts]


def _varint(number: int) -> bytes:
    """Seven bits in each byte, the lowest first; all bytes but the last add 128."""
    low = bytearray()
    while number > 127:
        low.append(number & 127 | 128)
        number >>= 7
    return bytes([*low, number])
