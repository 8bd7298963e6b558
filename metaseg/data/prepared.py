"""Prepared data sets: ArrayRecord files of `runs.prepare`, read through TFDS.

Host-side NumPy; imports no jax and no TensorFlow. A data set that fits into memory is
read at once; a larger one is read while training.
"""

import dataclasses
import functools
import io
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from metaseg.data import file_options, normalize
from metaseg.data.dataset import SPLITS, VOID, Dataset, Shape, Split, example_ids
from metaseg.errors import DamagedError, InputError, decoder_errors

__all__ = ["StoredSplit", "check", "find", "load"]

_THREADS = 4  # decoding releases the interpreter most of the time
_AT_ONCE = 64  # examples between two updates of the progress bar


@dataclasses.dataclass(frozen=True)
class StoredSplit:
    """Examples on disk, padded to one size as they are read.

    It holds no open file, so that it can be sent to worker processes.

    Attributes:
      path: Folder of the data set.
      split: "train", "val" or "test".
      ids: As in `Split`.
      names: As in `Split`.
      valid_size: As in `Split`.
      shape: Height, width and channels of every example, padding included.
      normalizer: Normalisation of the images.
      stamp: Time of change in ns of the data set, which may be prepared again.
    """

    path: Path
    split: str
    ids: np.ndarray
    names: tuple[str, ...]
    valid_size: np.ndarray
    shape: Shape
    normalizer: normalize.Normalizer
    stamp: int

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | np.ndarray) -> Split:
        """Reads some rows into memory, in the order of `rows`.

        Raises:
          InputError: if a record is damaged.
        """
        rows = [int(row) for row in rows]
        images = np.zeros((len(rows), *self.shape), np.float32)
        labels = np.full((len(rows), *self.shape[:2]), VOID, np.uint8)
        for i, row in enumerate(rows):
            image, label = self._read(row)
            height, width = label.shape
            images[i, :height, :width] = self.normalizer(image)(image)
            labels[i, :height, :width] = label
        names = tuple(self.names[row] for row in rows)
        return Split(images, labels, self.ids[rows], names, self.valid_size[rows])

    def _read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            source = _source(self.path, self.split, self.stamp)
            with decoder_errors():  # TFDS raises many types
                record = source[row]
                name = record["name"].decode()
            image, label = _pixels(record["image"]), _pixels(record["label"])[..., 0]
        except (DamagedError, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self.path}: example {row} of {self.split} ('{self.names[row]}') is "
                f"unreadable; prepare the data set again ({reason})"
            ) from error
        size = tuple(int(x) for x in self.valid_size[row])
        if name != self.names[row] or image.shape[:2] != size or label.shape != size:
            raise InputError(
                f"{self.path}: example {row} of {self.split} is '{name}' of "
                f"{image.shape[0]} x {image.shape[1]}; its metadata.json says "
                f"'{self.names[row]}' of {size[0]} x {size[1]}; prepare it again"
            )
        return image, label


def find(root: Path, name: str) -> Path | None:
    """Finds the folder of a prepared data set, in its newest version.

    Args:
      root: Folder of prepared data sets (`data_dir` of prepare), or a data set.
      name: `source/config`, with or without version; "" if `root` is the data set.

    Returns:
      The folder, or None.
    """
    folder = root / name
    if _is_data_set(folder):
        return folder
    versions = [path for path in folder.glob("*") if _is_data_set(path)]
    return max(versions, key=_version, default=None)


def _is_data_set(folder: Path) -> bool:
    return (folder / "metadata.json").is_file() and (folder / "features.json").is_file()


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(x) if x.isdigit() else -1 for x in folder.name.split("."))


def load(config: Any) -> Dataset:
    """Opens a prepared data set.

    Args:
      config: Has the attributes `dir` (`data_dir` of prepare), `dataset`
        (`source/config`), `num_classes`, `memory_gb` (a data set that needs no more is
        read into memory, 10^9 bytes) and those of `normalize.of_config`.

    Returns:
      The data set; its splits are of `Split` or of `StoredSplit`.

    Raises:
      InputError: for a wrong field, or a folder that holds no finished data set.
    """
    path, normalizer = check(config)
    facts = _metadata(path)
    if config.num_classes != facts["num_classes"]:
        raise InputError(
            f"data.num_classes: got {config.num_classes}, but {path} has "
            f"{facts['num_classes']} classes"
        )
    sizes = [size for split in SPLITS for size in facts["splits"][split]["sizes"]]
    height, width = (int(x) for x in np.max(sizes, axis=0))
    shape = (height, width, int(facts["channels"]))
    splits = {s: _split(path, s, facts["splits"][s], shape, normalizer) for s in SPLITS}
    per_example = height * width * (4 * shape[2] + 1)
    fits = per_example * len(sizes) <= 1e9 * config.memory_gb
    names, channels = facts["class_names"], facts.get("channel_names")
    return Dataset(
        name="/".join(path.parts[-3:-1]),
        **({s: _in_memory(x) for s, x in splits.items()} if fits else splits),
        num_classes=facts["num_classes"],
        class_names=tuple(names) if names else None,
        channel_names=tuple(channels) if channels else None,
        files=file_options.recorded(facts.get("files", {})),
    )


def check(config: Any) -> tuple[Path, normalize.Normalizer]:
    """Checks the fields of a config before anything is read.

    Args:
      config: As for `load`.

    Returns:
      The folder of the data set, and how images are normalised.

    Raises:
      InputError: If a field is wrong, or there is no such data set.
    """
    normalizer = normalize.of_config(config)
    if not config.dir:
        raise InputError(
            "data.dir: not given, expected the folder in which `metaseg prepare` "
            "wrote the data set"
        )
    root = Path(config.dir).expanduser().absolute()
    path = find(root, config.dataset)
    if path is None:
        there = sorted(
            "/".join(p.parent.relative_to(root).parts[:-1])
            for p in root.glob("*/*/*/metadata.json")
        )
        raise InputError(
            f"data.dataset: no data set '{config.dataset}' in {root}; "
            + (f"there are {', '.join(there)}" if there else "expected one that")
            + ("" if there else " prepare wrote")
        )
    return path, normalizer


def _metadata(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
        if not all(
            facts["splits"][split].keys() >= {"names", "sizes"} for split in SPLITS
        ):
            raise KeyError("splits")
        if not facts["splits"]["train"]["names"]:
            raise InputError(f"{path}: split train has no example")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected a data set that prepare wrote "
            f"({type(error).__name__}: {error})"
        ) from error
    return facts


def _split(
    path: Path, split: str, facts: Any, shape: Shape, normalizer: normalize.Normalizer
) -> StoredSplit:
    names = tuple(facts["names"])
    valid_size = np.array(facts["sizes"], np.int32).reshape(-1, 2)
    ids = example_ids(split, names)
    stamp = (path / "metadata.json").stat().st_mtime_ns
    return StoredSplit(path, split, ids, names, valid_size, shape, normalizer, stamp)


def _in_memory(split: StoredSplit) -> Split:
    """Reads the whole split with a few threads."""
    images = np.zeros((len(split), *split.shape), np.float32)
    labels = np.full((len(split), *split.shape[:2]), VOID, np.uint8)
    parts = [
        range(i, min(i + _AT_ONCE, len(split))) for i in range(0, len(split), _AT_ONCE)
    ]

    def read(rows: range) -> int:
        taken = split.take(rows)
        images[rows.start : rows.stop] = taken.images
        labels[rows.start : rows.stop] = taken.labels
        return len(rows)

    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(
            total=len(split),
            desc=f"reading {split.split}",
            unit="img",
            leave=False,
            disable=len(parts) < 4 or not sys.stderr.isatty(),
        ) as bar,
    ):
        for count in pool.map(read, parts):
            bar.update(count)
    return Split(images, labels, split.ids, split.names, split.valid_size)


@functools.lru_cache
def _source(path: Path, split: str, stamp: int) -> Any:
    """Opens the files of a split, once per process and stamp of the data set."""
    del stamp  # other files since it changed
    import tensorflow_datasets as tfds  # imported late: it takes half a second

    with decoder_errors():
        builder = tfds.builder_from_directory(path)
    skip = {
        name: tfds.decode.SkipDecoding()
        for name, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    }
    with decoder_errors():
        return builder.as_data_source(split, decoders=skip)


def _pixels(stored: bytes | np.ndarray) -> np.ndarray:
    """Decodes the bytes of a PNG file to `[H, W, C]`; returns arrays as they are."""
    if not isinstance(stored, bytes):
        return stored
    with decoder_errors(), Image.open(io.BytesIO(stored)) as file:
        pixels = np.asarray(file)
    return pixels.reshape(*pixels.shape[:2], -1)
